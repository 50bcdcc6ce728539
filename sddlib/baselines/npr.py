"""NPR (Tan et al., CVPR 2024): what the pixels of each small block are beside its first one, into a small ResNet.

Upsampling layers tie neighbouring pixels together. Tan et al. feed these relations to a ResNet-50 cut off after its second
stage, from random weights; here the stages are those of ResNet-18 and narrower.
"""

import torch.nn.functional as F
from torch import Tensor

from .. import SDDError
from .base import Baseline, Output
from .resnet import SmallResNet


def relations(x: Tensor, block: int = 2) -> Tensor:
    """x: (B, C, H, W) -> the same shape: each pixel minus the first (top left) of its block * block pixels. Zero on constant
    pictures, and on those that were enlarged `block` times by repeating pixels."""
    H, W = x.shape[-2:]
    if H % block or W % block:
        raise SDDError(f"{H}x{W} px cannot be cut into blocks of {block} px; choose an image_size that is a multiple")
    return x - F.interpolate(x[..., ::block, ::block], scale_factor=block, mode="nearest")


class NPR(Baseline):
    """A small ResNet on neighbouring pixel relations. width: channels of its first stage; block: side of a block (paper: 2)."""

    kind, title, paper = "npr", "NPR", "NPR"
    reference = "Tan et al., CVPR 2024"
    here = "two narrow stages of ResNet-18 for two of ResNet-50"
    settings = {"epochs": 24, "batch": 16, "lr": 2e-3, "patience": 24}

    def __init__(self, image_size: int = 112, width: int = 16, stages: int = 2, block: int = 2):
        super().__init__(image_size, width=width, stages=stages, block=block)
        self.net = SmallResNet(3, width, stages)

    def forward(self, x: Tensor) -> Output:
        """x: (B, 3, H, W), CLIP-normalised."""
        return self.net(relations(x, self.options["block"]))
