"""FatFormer (Liu et al., CVPR 2024): CLIP with adapters that see local traces, in space and in wavelet bands, and classes in
words.

Forgery-aware adapters sit behind stages of the frozen image tower. On the grid of patch tokens each adds two things: an
image branch of two convolutions with a ReLU between, and, times a scale, a frequency branch: a discrete wavelet transform
into LL, LH, HL and HH, attention between the bands at each position, attention between the positions of each band, an MLP,
and the transform back. Language-guided alignment compares the image with two prompts, "real" and "fake", behind learned
context tokens: these are enriched by the patch tokens (`enhance`, the patch-based enhancer), and the patch tokens by the
prompts' embeddings (text-guided interactor); the score is a softmax over the sum of both cosine similarities, of CLS and of
the mean aligned patch token.

Left open by what we know of the paper, and decided here: the wavelet (Haar); a narrow width inside the adapters; one after
each of three equal stages; that every adapter starts as the identity, its last layers being zero, so that training starts
from CLIP. Without a text tower (the mini benchmark has none) it is the image side: two learned vectors stand where the
prompts' embeddings would.
"""

from functools import partial

import pywt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import SDDError
from ..backbone import Backbone
from ..weights import load_backbone
from .base import Baseline, Output
from .prompts import Prompts, load_text


def haar() -> Tensor:
    """The four orthonormal filters LL, LH, HL, HH (4, 1, 2, 2)."""
    low, high = (torch.tensor(f) for f in (pywt.Wavelet("haar").rec_lo, pywt.Wavelet("haar").rec_hi))
    return torch.stack([torch.outer(a, b) for a in (low, high) for b in (low, high)])[:, None].float()


def dwt(x: Tensor) -> Tensor:
    """(B, C, H, W), sides even -> bands (B, C, 4, H/2, W/2): LL, LH, HL, HH."""
    B, C, H, W = x.shape
    return F.conv2d(x.reshape(B * C, 1, H, W), haar().to(x), stride=2).view(B, C, 4, H // 2, W // 2)


def idwt(bands: Tensor) -> Tensor:
    """The inverse of `dwt`."""
    B, C, _, h, w = bands.shape
    return F.conv_transpose2d(bands.reshape(B * C, 4, h, w), haar().to(bands), stride=2).view(B, C, 2 * h, 2 * w)


class Residual(nn.Module):
    """x + attention of LayerNorm(x), among the tokens of (B, L, width)."""

    def __init__(self, width: int, heads: int = 4):
        super().__init__()
        self.norm, self.attention = nn.LayerNorm(width), nn.MultiheadAttention(width, heads, batch_first=True)

    def forward(self, x: Tensor, to: Tensor | None = None) -> Tensor:
        """to: (B, K, width), what is attended to in place of x itself."""
        q = self.norm(x)
        k = q if to is None else to
        return x + self.attention(q, k, k, need_weights=False)[0]


def mlp(width: int) -> nn.Sequential:
    """LayerNorm and two layers, for a residual step."""
    return nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))


class FrequencyBranch(nn.Module):
    """Attention within and between wavelet bands: (B, D, g, g) -> (B, D, g, g); zero at the start."""

    def __init__(self, D: int, width: int):
        super().__init__()
        self.enter, self.leave = nn.Conv2d(D, width, 1), nn.Conv2d(width, D, 1)
        self.between, self.within, self.mlp = Residual(width), Residual(width), mlp(width)
        for p in self.leave.parameters():
            nn.init.zeros_(p)

    def forward(self, x: Tensor) -> Tensor:
        g = x.shape[-1]
        bands = dwt(F.pad(self.enter(x), (0, g % 2, 0, g % 2), mode="replicate"))  # (B, w, 4, h, h)
        B, w, _, h, _ = bands.shape
        t = bands.permute(0, 3, 4, 2, 1).reshape(B * h * h, 4, w)
        t = self.between(t).view(B, h * h, 4, w).transpose(1, 2).reshape(B * 4, h * h, w)
        t = self.within(t)
        t = t + self.mlp(t)
        bands = t.view(B, 4, h, h, w).permute(0, 4, 1, 2, 3)  # (B, w, 4, h, h)
        return self.leave(idwt(bands)[..., :g, :g])


class Adapter(nn.Module):
    """Forgery-aware adapter on tokens (B, 1+N, D), N = g*g; CLS passes untouched. The identity at the start."""

    def __init__(self, D: int, width: int):
        super().__init__()
        self.image = nn.Sequential(nn.Conv2d(D, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, D, 3, padding=1))
        self.frequency, self.scale = FrequencyBranch(D, width), nn.Parameter(torch.ones(()))
        for p in self.image[-1].parameters():
            nn.init.zeros_(p)

    def forward(self, t: Tensor) -> Tensor:
        B, L, D = t.shape
        g = int((L - 1) ** 0.5)
        x = t[:, 1:].transpose(1, 2).reshape(B, D, g, g)
        x = self.image(x) + self.scale * self.frequency(x)
        return t + F.pad(x.flatten(2).transpose(1, 2), (0, 0, 1, 0))  # nothing is added to CLS


def adapted(adapter: Adapter, block: nn.Module, inputs: tuple, output: Tensor) -> Tensor:
    """What a block with an adapter behind it gives."""
    return adapter(output)


class FatFormer(Baseline):
    """backbone, weights: as of `load_backbone`. text: a file with the text tower of the same CLIP (a full CLIP's tensors
    under open_clip's names), "random", or "" for the image side alone. stages: of the image tower, an adapter after each;
    width: inside the adapters; contexts: learned tokens before a class's name."""

    kind, title, paper = "fatformer", "FatFormer", "FatFormer"
    reference = "Liu et al., CVPR 2024"
    here = "the image side alone: CLIP ViT-B/16 at 112 px, two learned vectors for the prompts' embeddings"
    settings = {"epochs": 3, "batch": 16, "lr": 4e-4}
    frozen = ("backbone.", "prompts.tower.")
    on_clip = True

    def __init__(
        self,
        image_size: int = 112,
        backbone: str = "ViT-B-16-quickgelu",
        weights: str = "embedded",
        text: str = "",
        stages: int = 3,
        width: int = 64,
        contexts: int = 8,
    ):
        options = {"backbone": backbone, "weights": weights, "text": text, "stages": stages, "width": width}
        super().__init__(image_size, **options, contexts=contexts)
        self.backbone = Backbone(load_backbone(backbone, weights), image_size)
        depth, D, E = len(self.backbone.blocks), self.backbone.D, self.backbone.visual.proj.shape[1]
        if not 1 <= stages <= depth or width < 4 or width % 4:
            raise SDDError(f"{stages} stages of {depth} blocks, or adapters of width {width}, are impossible; mend the options")
        self.adapters = nn.ModuleList(Adapter(D, width) for _ in range(stages))
        for k, adapter in enumerate(self.adapters, 1):
            self.backbone.blocks[depth * k // stages - 1].register_forward_hook(partial(adapted, adapter))
        self.prompts = Prompts(*load_text(backbone, text, E), contexts) if text else None
        self.classes = None if text else nn.Parameter(F.normalize(torch.randn(2, E), dim=-1))  # real, fake
        self.interactor, self.mlp = Residual(E), mlp(E)
        self.temperature = nn.Parameter(torch.tensor(0.07).log())  # as CLIP's own started; learned like it

    def facts(self) -> dict:
        """The fingerprint holds the text tower's, where there is one."""
        known = super().facts()
        return known | ({"fingerprint": known["fingerprint"] + self.prompts.fingerprint} if self.prompts else {})

    def forward(self, x: Tensor) -> Output:
        """x: (B, 3, H, W), CLIP-normalised -> logit (B,) and CLS beside the mean aligned patch token (B, 2E)."""
        f = self.backbone(x) @ self.backbone.visual.proj  # (B, 1+N, E)
        cls, patches = f[:, 0], f[:, 1:]
        words = self.prompts(patches) if self.prompts else self.classes.expand(len(x), -1, -1)  # (B, 2, E)
        aligned = self.interactor(patches, words)
        aligned = (aligned + self.mlp(aligned)).mean(1)
        s = sum(torch.cosine_similarity(v[:, None], words, dim=-1) for v in (cls, aligned)) / self.temperature.exp()  # (B, 2)
        return Output(s[:, 1] - s[:, 0], torch.cat([cls, aligned], 1))
