"""SDD whole: LoRA-CLIP tokens, reconstruction from the bank, enhancement, linear head (Eq. 3, 15)."""

from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from . import SDDError
from .backbone import Backbone
from .crops import Crops
from .data import Sample
from .enhancement import Enhancement, MeanDifference
from .losses import sdd_loss, triplet_loss
from .presets import Preset
from .progress import progress
from .reconstruction import Reconstruction, difference_map
from .release import ReleaseEnhancement, SoftTriple, release_head
from .scorer import Scorer


class Output(NamedTuple):
    """logit (B,), T_CLS (B, D), V_H (B, N, D), Re (B, N, D), D_s (B, D, g, g), F_low (B, C). N counts the preset's tokens:
    patches, or all with CLS in front. Re and D_s are None without reconstruction."""

    logit: Tensor
    T_CLS: Tensor
    V_H: Tensor
    Re: Tensor | None
    D_s: Tensor | None
    F_low: Tensor


class Detector(Scorer):
    """The Semantic Discrepancy-aware Detector. One encoder pass an image; the bank is a buffer, read once.

    backbone: a plain `Backbone`; LoRA is added here. f_s: (M, D) bank. preset: every other choice.
    """

    kind = "sdd"

    def __init__(self, backbone: Backbone, f_s: Tensor, preset: Preset):
        super().__init__()
        asked = (0 if preset.bank == "none" else preset.M, backbone.D)
        if tuple(f_s.shape) != asked:
            raise SDDError(f"the bank is {tuple(f_s.shape)} but preset and backbone ask for {asked}")
        self.preset, self.backbone = preset, backbone
        backbone.add_lora(**preset.lora)
        self.register_buffer("f_s", f_s.clone())
        D, g, size, p = backbone.D, backbone.g, backbone.image_size, preset
        self.reconstruction = None
        if p.reconstruction != "none":
            forms = (p.residual, p.reconstruction, p.detach_attention)
            self.reconstruction = Reconstruction(D, p.width, p.heads, p.attention_dropout, *forms)
        if p.enhancement == "paper":
            guide = None if self.reconstruction is None else D
            self.enhancement = Enhancement(guide, g, size, p.channels, p.F_low, p.pool, p.highpass, p.weight)
        elif p.enhancement == "release":
            self.enhancement = ReleaseEnhancement(D, g, size, p.channels, p.F_low)
        else:
            self.enhancement = MeanDifference(D, p.F_low)
        self.head = release_head(p.F_low + D) if p.head == "mlp" else nn.Linear(p.F_low + D, 1)
        self.metric = SoftTriple(p.F_low) if p.metric == "softtriple" else partial(triplet_loss, margin=p.margin)

    def forward(self, x: Tensor) -> Output:
        """x: (B, 3, H, W), CLIP-normalised -> Output; sigmoid(logit) is the probability that the image is generated."""
        tokens = self.backbone(x)  # (B, 1+N, D)  Eq. 3
        T_CLS, V_H = tokens[:, 0], tokens if self.preset.tokens == "all" else tokens[:, 1:]
        Re = D_s = None
        if self.reconstruction is not None:
            Re = self.reconstruction(V_H, V_H if self.preset.bank == "none" else self.f_s)
            D_s = difference_map(Re, V_H)
        F_low = self.enhancement(x, D_s)
        F_out = torch.cat([F_low, T_CLS], 1)  # Eq. 15
        logit = self.head(F_out).squeeze(1)
        return Output(logit, T_CLS, V_H, Re, D_s, F_low)

    def loss(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        """Every term of Eq. 16 for images x (B, 3, H, W) and labels y (B,)."""
        return sdd_loss(self(x), y, self.preset, self.metric)

    @classmethod
    def build(cls, backbone: Backbone, preset: Preset, state: dict[str, Tensor]) -> "Detector":
        return cls(backbone, state["f_s"], preset)


@torch.inference_mode()
def real_tokens(backbone: Backbone, samples: list[Sample], batch: int = 32, workers: int = 0) -> Iterator[Tensor]:
    """f_r of Eq. 1: patch tokens (n * N, D) of the *training reals* among `samples`, in their order, a chunk a batch.

    The backbone must carry no LoRA yet: the bank is drawn from the frozen CLIP. Other samples are refused.
    """
    if backbone.lora_layers():
        raise SDDError("the token bank is sampled from the frozen CLIP (Eq. 1); build it before LoRA is added")
    foreign = [s for s in samples if s.label or s.split != "train"]
    if foreign:
        raise SDDError(f"{foreign[0].path.name} is not a training real; a bank is drawn from training reals only")
    device = next(backbone.parameters()).device
    loader = DataLoader(Crops(samples, backbone.image_size, train=False), batch, num_workers=workers)
    for x, _, _ in progress(loader, desc="tokens"):
        yield backbone(x.to(device))[:, 1:].flatten(0, 1).cpu()
