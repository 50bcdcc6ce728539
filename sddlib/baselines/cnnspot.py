"""CNNSpot-style detector (Wang et al., CVPR 2020): a plain ResNet on pixels, trained with blur and JPEG on both classes.

Wang et al. start from a ResNet-50 trained on ImageNet and train it on 720,000 images; here it is torchvision's ResNet-18 from
random weights, as wide as time allows, on the same few crops as every other method. Its stem is another one: 3x3, stride 2, no
max-pooling (as Gragnaniello et al., ICME 2021, keep resolution for traces a few pixels wide), filters that start without
a mean. With torchvision's own stem it stayed worse on the mini benchmark's validation split (AUROC 0.73 against 0.79 or more).
"""

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock
from torchvision.transforms.functional import to_pil_image

from .. import SDDError
from ..data import MEAN, STD, to_input
from ..perturb import Augment


class CNNOutput(NamedTuple):
    """logit (B,), features (B, 8 * width): what the last linear layer reads."""

    logit: Tensor
    features: Tensor


def stage(inside: int, outside: int, stride: int) -> nn.Sequential:
    """Two residual blocks, (B, inside, H, W) -> (B, outside, H/stride, W/stride)."""
    shortcut = None
    if stride > 1 or inside != outside:
        shortcut = nn.Sequential(nn.Conv2d(inside, outside, 1, stride, bias=False), nn.BatchNorm2d(outside))
    return nn.Sequential(BasicBlock(inside, outside, stride, shortcut), BasicBlock(outside, outside))


class CNNSpot(nn.Module):
    """The stages of ResNet-18 with `width` channels in the first (64: torchvision's resnet18) and one logit, trained by BCE.

    augment: applied to training crops by `loss`, to each picture apart, whatever its class. Its draws come from `seed` in
    the order of the batches, so that they do not depend on a loader's workers.
    """

    def __init__(self, width: int = 64, augment: Augment | None = None, seed: int = 0):
        super().__init__()
        if width < 1:
            raise SDDError(f"a CNN of width {width} has no channels; use 1 or more")
        self.augment, self.rng = augment or Augment(), np.random.default_rng(seed)
        self.stem = nn.Sequential(nn.Conv2d(3, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(True))
        sizes = [width * 2**i for i in range(4)]
        self.stages = nn.Sequential(
            *(stage(a, b, 1 if a == b else 2) for a, b in zip([width, *sizes[:-1]], sizes, strict=True))
        )
        self.head = nn.Linear(sizes[-1], 1)
        for m in self.modules():
            if isinstance(m, nn.Conv2d):
                nn.init.kaiming_normal_(m.weight, mode="fan_out", nonlinearity="relu")  # as torchvision starts its ResNets
        with torch.no_grad():
            first = self.stem[0].weight  # (width, 3, 3, 3)
            first -= first.mean((2, 3), keepdim=True)

    def features(self, x: Tensor) -> Tensor:
        """x: (B, 3, H, W), CLIP-normalised -> means over positions of the last stage (B, 8 * width)."""
        return self.stages(self.stem(x)).mean((2, 3))

    def forward(self, x: Tensor) -> CNNOutput:
        f = self.features(x)
        return CNNOutput(self.head(f).squeeze(1), f)

    def augmented(self, x: Tensor) -> Tensor:
        """x: (B, 3, H, W) with some pictures blurred or compressed; the others bit for bit as they were."""
        out = x.clone()
        for i, image in enumerate(x.cpu()):
            picture = to_pil_image((image * STD + MEAN).clamp(0, 1).mul(255).round().byte())
            changed = self.augment(picture, self.rng)
            if changed is not picture:
                out[i] = to_input(changed, x.shape[-1]).to(x)
        return out

    def loss(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        """BCE of images x (B, 3, H, W) and labels y (B,); in training mode the images are augmented first."""
        x = self.augmented(x) if self.training else x
        return {"total": F.binary_cross_entropy_with_logits(self(x).logit, y.float())}
