"""Detectors on CLIP: a backbone, a preset, and what is built from them."""

from pathlib import Path

from torch import Tensor

from . import SDDError
from .backbone import Backbone
from .presets import Preset
from .stored import Stored
from .weights import load_backbone


class Scorer(Stored):
    """A detector on a `backbone` that a `preset` describes. In `build` subclasses say how both and a state make them."""

    needs = frozenset({"preset", "backbone", "weights", "fingerprint"})
    backbone: Backbone
    preset: Preset

    @property
    def image_size(self) -> int:
        return self.backbone.image_size

    @classmethod
    def build(cls, backbone: Backbone, preset: Preset, state: dict[str, Tensor]) -> "Scorer":
        raise NotImplementedError

    def facts(self) -> dict:
        return {"preset": self.preset.as_dict(), "fingerprint": self.backbone.fingerprint}

    def ready(self) -> None:
        """Fold LoRA into the encoder."""
        self.backbone.merge_lora()

    @classmethod
    def fetch(cls, about: dict, weights: str | None):
        """(CLIP's image tower, the name of where it comes from)."""
        source, name = weights or about["weights"], about["backbone"]
        if not isinstance(name, str) or not isinstance(source, (str, Path)):
            raise SDDError(f"the checkpoint names {name!r} as its backbone and {source!r} as its weights, which are no texts")
        return load_backbone(name, source), source

    @classmethod
    def restore(cls, about: dict, state: dict[str, Tensor], fetched) -> "Scorer":
        tower, source = fetched
        preset = Preset().with_fields(**about["preset"])
        backbone = Backbone(tower, about["image_size"], preset.norm)
        if backbone.fingerprint != about["fingerprint"]:
            raise SDDError(f"it was trained on other weights than {source!r}, name those")
        return cls.build(backbone, preset, state)
