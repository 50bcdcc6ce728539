"""Co-occurrence (Nataraj et al., Electronic Imaging 2019): how often each pair of values stands side by side, into a CNN.

Their network has six convolutions and two dense layers and saw 256 x 256 pictures by the ten thousand; here it is the small
ResNet, which pools early as theirs does. A crop of 112 px fills a fifth of a matrix's cells at most: counts enter by their
logarithm.
"""

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .base import Baseline, Output
from .resnet import SmallResNet

LEVELS = 256


def cooccurrence(pixels: np.ndarray) -> np.ndarray:
    """pixels: (H, W, C) of 0..255 -> (C, 256, 256) counts of horizontal neighbours: row the left one's value, column the right
    one's. Each matrix sums to H * (W - 1)."""
    pairs = pixels[:, :-1].astype(np.int64) * LEVELS + pixels[:, 1:]  # (H, W - 1, C)
    counts = [np.bincount(pairs[..., c].ravel(), minlength=LEVELS**2) for c in range(pixels.shape[2])]
    return np.stack(counts).reshape(-1, LEVELS, LEVELS)


class Cooccurrence(Baseline):
    """A CNN on the co-occurrence matrices of the three channels. width: channels of its first stage."""

    kind, title, paper = "cooccurrence", "Co-occurrence", "Co-occurrence"
    reference = "Nataraj et al., Electronic Imaging 2019"
    here = "log counts into a small ResNet for counts into their own CNN"
    settings = {"epochs": 16, "batch": 16, "lr": 2e-3, "patience": 16}

    def __init__(self, image_size: int = 112, width: int = 8):
        super().__init__(image_size, width=width)
        self.net = SmallResNet(3, width, centred=False, pool=True)

    def prepare(self, crop: Image.Image) -> Tensor:
        """(3, 256, 256): log(1 + count)."""
        return torch.from_numpy(np.log1p(cooccurrence(np.asarray(crop))).astype(np.float32))

    def forward(self, x: Tensor) -> Output:
        return self.net(x)
