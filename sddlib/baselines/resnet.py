"""A small residual network for what a few hundred images can train: the stages of ResNet-18, narrow, from random weights.

Its stem is 3x3 with stride 2 and no max-pooling (as Gragnaniello et al., ICME 2021, keep resolution for traces a few pixels
wide); its filters start without a mean. With torchvision's own stem CNNSpot stayed worse on the mini benchmark's validation
split (8 epochs: AUROC 0.73 against 0.79 or more).
"""

import torch
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock

from .. import SDDError
from .base import Output

STAGES = 8  # each doubles the channels


def stage(inside: int, outside: int, stride: int) -> nn.Sequential:
    """Two residual blocks, (B, inside, H, W) -> (B, outside, H/stride, W/stride)."""
    shortcut = None
    if stride > 1 or inside != outside:
        shortcut = nn.Sequential(nn.Conv2d(inside, outside, 1, stride, bias=False), nn.BatchNorm2d(outside))
    return nn.Sequential(BasicBlock(inside, outside, stride, shortcut), BasicBlock(outside, outside))


class SmallResNet(nn.Module):
    """`stages` of ResNet-18 with `width` channels in the first (64: torchvision's resnet18), and one logit.

    channels: of the input; centred: whether first filters start without a mean, so that they see no brightness; pool: a
    max-pooling after the stem, as torchvision has it, for inputs whose finest detail says little.
    """

    def __init__(self, channels: int = 3, width: int = 64, stages: int = 4, centred: bool = True, pool: bool = False):
        super().__init__()
        if type(stages) is not int or not 1 <= stages <= STAGES:
            raise SDDError(f"a CNN of {stages!r} stages is impossible; choose 1 to {STAGES}")
        if width < 1:
            raise SDDError(f"a CNN of width {width} has no channels; use 1 or more")
        self.stem = nn.Sequential(nn.Conv2d(channels, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(True))
        if pool:
            self.stem.append(nn.MaxPool2d(3, 2, 1))
        sizes = [width * 2**i for i in range(stages)]
        self.stages = nn.Sequential(
            *(stage(a, b, 1 if a == b else 2) for a, b in zip([width, *sizes[:-1]], sizes, strict=True))
        )
        self.head = nn.Linear(sizes[-1], 1)
        for m in self.modules():
            if isinstance(m, nn.Conv2d):
                nn.init.kaiming_normal_(m.weight, mode="fan_out", nonlinearity="relu")  # as torchvision starts its ResNets
        if centred:
            with torch.no_grad():
                first = self.stem[0].weight  # (width, channels, 3, 3)
                first -= first.mean((2, 3), keepdim=True)

    def maps(self, x: Tensor) -> Tensor:
        """x: (B, channels, H, W) -> the last stage (B, width * 2^(stages-1), H / 2^stages, W / 2^stages)."""
        return self.stages(self.stem(x))

    def forward(self, x: Tensor) -> Output:
        """x: (B, channels, H, W) -> logit (B,) and means over positions of the last stage."""
        f = self.maps(x).mean((2, 3))
        return Output(self.head(f).squeeze(1), f)
