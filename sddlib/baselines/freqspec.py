"""Freq-spec (Zhang et al., WIFS 2019, "AutoGAN"): the spectrum of a picture into a classifier.

Upsampling repeats a picture's spectrum at higher frequencies, and its filter rarely removes all of that. Zhang et al. give the
log magnitude of each channel's 2-D DFT, scaled to [-1, 1], to a ResNet-34 that starts from ImageNet weights; here it is the
small ResNet from random weights. Their simulator of GANs, which makes fakes out of photographs, is left out: there are fakes.
"""

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .base import Baseline, Output
from .resnet import SmallResNet

FLOOR = 1e-3  # of a magnitude over pixels of 0..1: far below what rounding to 8 bits leaves


def spectrum(pixels: np.ndarray) -> np.ndarray:
    """pixels: (H, W, C) in 0..1 -> (C, H, W) logarithm of |DFT|, frequency 0 in the middle; blind to circular shifts."""
    magnitude = np.abs(np.fft.fft2(pixels, axes=(0, 1)))
    return np.log(np.fft.fftshift(magnitude, axes=(0, 1)) + FLOOR).transpose(2, 0, 1)


class FreqSpec(Baseline):
    """A CNN on the log-magnitude spectrum. width: channels of its first stage."""

    kind, title, paper = "freqspec", "Freq-spec", "Freq-spec"
    reference = "Zhang et al., WIFS 2019"
    here = "a small ResNet from random weights for ResNet-34 from ImageNet's; their simulator of GANs is left out"
    settings = {"epochs": 24, "batch": 16, "lr": 2e-3, "patience": 24}

    def __init__(self, image_size: int = 112, width: int = 16):
        super().__init__(image_size, width=width)
        self.net = SmallResNet(3, width, centred=False)

    def prepare(self, crop: Image.Image) -> Tensor:
        """(3, H, W): the spectrum, each channel scaled to [-1, 1] by its own extremes."""
        s = torch.from_numpy(spectrum(np.asarray(crop) / 255).astype(np.float32))
        low, high = s.amin((1, 2), keepdim=True), s.amax((1, 2), keepdim=True)
        return 2 * (s - low) / (high - low).clamp_min(1e-6) - 1

    def forward(self, x: Tensor) -> Output:
        return self.net(x)
