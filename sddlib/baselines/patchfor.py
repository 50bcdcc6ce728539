"""PatchFor (Chai et al., ECCV 2020): a network cut off early, so that each of its outputs sees a small patch and judges it.

Chai et al. truncate an Xception or a ResNet and train every patch with the label of its image. Here the network is the start of
a small ResNet from random weights; `stages` says where it is cut, and an image's logit is the mean of its patches'.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .base import Baseline
from .resnet import SmallResNet


class PatchOutput(NamedTuple):
    """logit (B,), patches (B, h, w): the logit of each patch, whose mean the former is."""

    logit: Tensor
    patches: Tensor


class PatchFor(Baseline):
    """A truncated ResNet with a logit a patch; the image's is their mean. width: channels of the first stage."""

    kind, title, paper = "patchfor", "PatchFor", "PatchFor"
    reference = "Chai et al., ECCV 2020"
    here = "the first stage of a small ResNet for a truncated Xception"
    settings = {"epochs": 24, "batch": 16, "lr": 2e-3, "patience": 24}

    def __init__(self, image_size: int = 112, width: int = 16, stages: int = 1):
        super().__init__(image_size, width=width, stages=stages)
        self.net = SmallResNet(3, width, stages)

    @property
    def receptive_field(self) -> int:
        """Side in pixels of what one patch logit depends on."""
        convolutions = [m for m in self.net.modules() if isinstance(m, torch.nn.Conv2d) and m.kernel_size[0] > 1]
        side, jump = 1, 1
        for m in convolutions:  # shortcuts are 1x1: they see less
            side, jump = side + (m.kernel_size[0] - 1) * jump, jump * m.stride[0]
        return side

    def forward(self, x: Tensor) -> PatchOutput:
        """x: (B, 3, H, W), CLIP-normalised."""
        patches = self.net.head(self.net.maps(x).movedim(1, -1)).squeeze(-1)  # (B, h, w)
        return PatchOutput(patches.mean((1, 2)), patches)

    def loss(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        """BCE of every patch with the label of its image."""
        patches = self(x).patches
        return {"total": F.binary_cross_entropy_with_logits(patches, y.float()[:, None, None].expand_as(patches))}

    @torch.inference_mode()
    def heat_map(self, x: Tensor) -> Tensor:
        """P(generated) of every patch, (B, h, w), in eval mode. x: (B, 3, H, W) as of `prepare`."""
        return torch.sigmoid(self.eval()(x).patches)
