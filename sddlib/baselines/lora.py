"""LoRA-CLIP with a linear head: the same LoRA as SDD and nothing else of it. What SDD's parts add is measured against it."""

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from ..backbone import Backbone
from ..presets import Preset
from ..scorer import Scorer


class LinearOutput(NamedTuple):
    """logit (B,), T_CLS (B, D)."""

    logit: Tensor
    T_CLS: Tensor


class LoraLinear(Scorer):
    """Eq. 3 followed by a linear classifier on T_CLS, trained with BCE alone. preset: only its LoRA fields are read."""

    kind = "lora"

    def __init__(self, backbone: Backbone, preset: Preset):
        super().__init__()
        self.backbone, self.preset = backbone, preset
        backbone.add_lora(**preset.lora)
        self.head = nn.Linear(backbone.D, 1)

    def forward(self, x: Tensor) -> LinearOutput:
        """x: (B, 3, H, W), CLIP-normalised -> logit (B,) and T_CLS (B, D)."""
        T_CLS = self.backbone(x)[:, 0]
        return LinearOutput(self.head(T_CLS).squeeze(1), T_CLS)

    def loss(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        """BCE of images x (B, 3, H, W) and labels y (B,)."""
        return {"total": F.binary_cross_entropy_with_logits(self(x).logit, y.float())}

    @classmethod
    def build(cls, backbone: Backbone, preset: Preset, state: dict[str, Tensor]) -> "LoraLinear":
        return cls(backbone, preset)
