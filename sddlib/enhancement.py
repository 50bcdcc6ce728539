"""Low-level forgery feature enhancement: conv stages on the image, guided by the difference map (Eq. 11-13)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import SDDError
from .parallel import BatchNorm2d

# f of Eq. 12, of x = |F' - F|: the paper's 1/e^x, and the two forms that lose to it in Fig. 5
WEIGHTS = {"exp": lambda x: x.neg().exp(), "abs": lambda x: x, "square": torch.square}


class Stage(nn.Module):
    """One stage n: F(n) from the image side, F'(n) = deconv(D_s) * F(n), and F_low(n) = F' + F' * f(|F' - F|).

    Eq. 11 prints the deconvolution around F(n), whose side is another than that of D_s; here it is around D_s, as in the
    sentence before it and in the authors' release.

    D_s (B, D, g, g) is brought to the stage's side by a deconvolution whose stride is the rounded ratio, then fitted
    exactly by interpolation. Convolutions and deconvolutions are each followed by BN and ReLU (Sec. 3.3).
    weight: the function of |F' - F| in Eq. 12, a key of WEIGHTS. D None: nothing guides the stage, and it gives F(n).
    """

    def __init__(self, c_in: int, c_out: int, D: int | None, g: int, side: int, weight: str = "exp"):
        super().__init__()
        if weight not in WEIGHTS:
            raise SDDError(f"adaptive weight {weight!r} is unknown; use {' or '.join(map(repr, WEIGHTS))}")
        stride = max(1, round(side / g))
        self.side, self.weight = side, weight
        self.conv = nn.Sequential(nn.Conv2d(c_in, c_out, 3, 2, 1, bias=False), BatchNorm2d(c_out), nn.ReLU())
        if D is None:
            self.deconv = None
            return
        self.deconv = nn.Sequential(nn.ConvTranspose2d(D, c_out, stride, stride, bias=False), BatchNorm2d(c_out), nn.ReLU())

    def forward(self, x: Tensor, D_s: Tensor | None) -> Tensor:
        """x: (B, C_in, 2s, 2s) image or previous F_low, D_s: (B, D, g, g) -> F_low(n): (B, C_out, s, s)."""
        F_n = self.conv(x)
        if self.deconv is None:
            return F_n
        guide = self.deconv(D_s)
        if guide.shape[-1] != F_n.shape[-1]:
            guide = F.interpolate(guide, size=F_n.shape[-2:], mode="bilinear", align_corners=False)
        F_prime = guide * F_n  # Eq. 11
        return F_prime + F_prime * WEIGHTS[self.weight]((F_prime - F_n).abs())  # Eq. 12, 13


class Enhancement(nn.Module):
    """Fused stages, three in the paper, and a projection to the vector F_low that meets T_CLS in Eq. 15.

    channels: (C1, C2, C3), one a stage. pool: "mean" averages the last stage over positions, "flatten" keeps them.
    highpass: the filters that meet the pixels start without their mean, blind to flat colour, which otherwise drowns the
    traces for longer than a short training lasts.
    """

    def __init__(
        self,
        D: int | None,
        g: int,
        image_size: int,
        channels: tuple[int, ...],
        width: int,
        pool: str,
        highpass: bool,
        weight: str = "exp",
    ):
        super().__init__()
        if pool not in ("mean", "flatten"):
            raise SDDError(f"enhancer pooling {pool!r} is unknown; use 'mean' or 'flatten'")
        sides, side = [], image_size
        for _ in channels:
            side = (side + 1) // 2  # what a 3x3 stride-2 convolution with padding 1 leaves
            sides.append(side)
        inputs = (3, *channels[:-1])
        self.stages = nn.ModuleList(Stage(i, o, D, g, s, weight) for i, o, s in zip(inputs, channels, sides, strict=True))
        if highpass:
            filters = self.stages[0].conv[0].weight.data  # (C1, 3, 3, 3)
            filters -= filters.mean((2, 3), keepdim=True)
        self.pool = pool
        self.project = nn.Linear(channels[-1] * (1 if pool == "mean" else sides[-1] ** 2), width)

    def forward(self, image: Tensor, D_s: Tensor | None) -> Tensor:
        """image: (B, 3, H, W), D_s: (B, D, g, g), unread if D is None -> F_low: (B, width)."""
        x = image
        for stage in self.stages:
            x = stage(x, D_s)
        return self.project(x.mean((2, 3)) if self.pool == "mean" else x.flatten(1))


class MeanDifference(nn.Module):
    """In the enhancer's place for ablation: what is left of D_s without it, its mean over positions, projected."""

    def __init__(self, D: int, width: int):
        super().__init__()
        self.project = nn.Linear(D, width)

    def forward(self, image: Tensor, D_s: Tensor) -> Tensor:
        """image: not read; D_s: (B, D, g, g) -> (B, width)."""
        return self.project(D_s.mean((2, 3)))
