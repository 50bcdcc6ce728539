"""What DIRE and FakeInversion share: maps of a frozen diffusion model, made once a picture and kept, and a residual network
on them."""

import os
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.models import resnet50

from ..columns import printable
from ..data import cut
from ..disk import expanded
from ..profiles import ROOT
from .base import Baseline, Output
from .diffusion import MINI, Diffusion
from .resnet import SmallResNet


class ResNet50(nn.Module):
    """torchvision's ResNet-50 from random weights with one logit, for maps of any number of channels."""

    def __init__(self, channels: int):
        super().__init__()
        self.body = resnet50(weights=None)
        self.body.conv1 = nn.Conv2d(channels, 64, 7, 2, 3, bias=False)
        self.body.fc, self.head = nn.Identity(), nn.Linear(2048, 1)

    def forward(self, x: Tensor) -> Output:
        f = self.body(x)
        return Output(self.head(f).squeeze(1), f)


def varied(x: Tensor) -> Tensor:
    """Maps (B, C, H, H) as training sees them: one window of 7/8 of the side for all, so that twins keep showing the same, and
    each map mirrored or not."""
    side = x.shape[-1] * 7 // 8
    top, left = torch.randint(x.shape[-1] - side + 1, (2,)).tolist()
    x = x[..., top : top + side, left : left + side]
    return torch.where((torch.rand(len(x)) < 0.5).to(x.device)[:, None, None, None], x.flip(-1), x)


class MapReader(Baseline):
    """A residual network on what a diffusion model makes of a picture. Its training and its scores never move the latter.

    side: px of the crop's centre that is read, all of a smaller crop; 0: all. weights: the diffusion model, as in `Diffusion`;
    never the one that made a test set's fakes. steps: of DDIM, each way. width: channels of the small ResNet's first stage;
    0: the ResNet-50 of both papers, from random weights. cache: folder for the maps ("": none). `views` crops of every
    training picture are read, because each costs 2 * steps passes of the diffusion model; while training, its maps come
    mirrored or not and in windows of 7/8 of their side, without which the network learns a few hundred inputs by heart.
    """

    channels = 3
    centred = False  # whether the network's first filters see no brightness
    views = 1

    def __init__(
        self,
        image_size: int = 112,
        side: int = 64,
        weights: str = MINI,
        steps: int = 8,
        width: int = 16,
        cache: str = "runs",
        **options,
    ):
        known = {"side": side, "weights": weights, "steps": steps, "width": width, "cache": cache}
        super().__init__(image_size, **known, **options)
        self.side = min(side or image_size, image_size)
        self.diffusion = Diffusion(weights, steps, cache)
        self.net = SmallResNet(self.channels, width, centred=self.centred) if width else ResNet50(self.channels)

    @classmethod
    def restore(cls, about: dict, state: dict[str, Tensor], fetched: str | None) -> "MapReader":
        """Maps are kept below the repository or nowhere: a file that may come from anybody does not say where is written."""
        options = dict(about["options"])
        cache = os.path.normpath(ROOT / expanded(options.get("cache") or ""))
        if not Path(cache).is_relative_to(ROOT):
            print(f"maps are not kept: {printable(cache)}, which the checkpoint names for them, is outside the repository")
            options["cache"] = ""
        return super().restore(about | {"options": options}, state, fetched)

    def caption(self, crop: Image.Image) -> str:
        """What the diffusion model is told about a picture: nothing."""
        return ""

    def read(self, x: Tensor, noise: Tensor, again: Tensor) -> Tensor:
        """The network's input from a picture, its noise and its reconstruction, all (3, H, W)."""
        raise NotImplementedError

    @torch.no_grad()
    def prepare(self, crop: Image.Image) -> Tensor:
        seen = cut(crop, self.side)
        return self.read(*self.diffusion.maps_of(seen, self.device, self.caption(seen)))

    def forward(self, x: Tensor) -> Output:
        """x: (B, channels, H, W) -> logit and the features that the last linear layer reads."""
        return self.net(varied(x) if self.training else x)

    def fit(self, *args, **options) -> dict:
        """Also how many maps were made for it, the others having been kept: most of what it costs."""
        before = self.diffusion.made
        facts = super().fit(*args, **options)
        return facts | {"cost": {"maps_made": self.diffusion.made - before}}

    def facts(self) -> dict:
        """The fingerprint is the diffusion model's: maps of another one mean something else."""
        return super().facts() | {"fingerprint": self.diffusion.digest[:16]}
