"""A trained scorer on disk: safetensors for what training changed, JSON for what it is and what it was trained on."""

import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from . import SDDError, __version__
from .backbone import Backbone
from .data import decode, to_input, to_rgb
from .presets import Preset
from .weights import load_backbone


class Scorer(nn.Module):
    """What every detector here shares: `forward(x).logit`, a `backbone`, a `preset`, saving, loading, scoring one image.

    Subclasses name their `kind` and say in `build` how they are made from a backbone, a preset and a state.
    """

    kind = ""
    backbone: Backbone
    preset: Preset
    about: dict

    @classmethod
    def build(cls, backbone: Backbone, preset: Preset, state: dict[str, Tensor]) -> "Scorer":
        raise NotImplementedError

    @torch.inference_mode()
    def score(self, image) -> float:
        """P(generated) of one image, a path or a PIL picture, from its centre crop, as in evaluation."""
        picture = decode(image) if isinstance(image, (str, Path)) else to_rgb(image)
        device = next(self.parameters()).device
        x = to_input(picture, self.backbone.image_size)[None].to(device)
        return torch.sigmoid(self.eval()(x).logit.double()).item()

    def own_state(self) -> dict[str, Tensor]:
        """What training changed: adapters, modules with their BN statistics, bank. CLIP itself stays out."""
        return {k: v for k, v in self.state_dict().items() if is_own(k)}

    def save(self, path: str | Path, about: dict, half: bool = False) -> None:
        """Write PATH and PATH with suffix .json, each atomically.

        about: at least "backbone" and "weights", as for `load_backbone`; besides, what it was trained on, seed, threshold.
        half: store floats in half precision.
        """
        path = Path(path)
        state = {k: v.half() if half and v.is_floating_point() else v for k, v in self.own_state().items()}
        facts = {**about, "kind": self.kind, "preset": self.preset.as_dict(), "version": __version__}
        facts |= {"image_size": self.backbone.image_size, "fingerprint": self.backbone.fingerprint}
        part = path.with_name(path.name + ".part")
        path.with_suffix(".json").unlink(missing_ok=True)  # killed in between, new weights must not meet old facts
        save_file({k: v.detach().cpu().contiguous() for k, v in state.items()}, part, metadata={"kind": self.kind})
        part.replace(path)
        part.write_text(json.dumps(facts, indent=1, sort_keys=True) + "\n")
        part.replace(path.with_suffix(".json"))

    @classmethod
    def load(cls, path: str | Path, weights: str | None = None) -> "Scorer":
        """A scorer ready to use: eval mode, LoRA folded into the encoder, the JSON's facts in `about`.

        weights: where the backbone comes from, if not from where the JSON says. Errors: a missing, broken or foreign file,
        a backbone that does not fit.
        """
        path = Path(path)
        for file in (path, path.with_suffix(".json")):
            if not file.is_file():
                raise SDDError(f"checkpoint file {file} is missing; train one with `python -m sddlib train` or name another")
        try:
            about = json.loads(path.with_suffix(".json").read_text())
            absent = {"kind", "preset", "backbone", "weights", "image_size", "fingerprint"} - set(about)
        except (ValueError, TypeError) as e:
            raise SDDError(f"{path.with_suffix('.json')} is broken ({e}); copy or train it again") from None
        if absent:
            raise SDDError(f"{path.with_suffix('.json')} does not say {sorted(absent)[0]!r}; copy or train it again")
        try:
            with safe_open(path, "pt") as f:
                kind = (f.metadata() or {}).get("kind")
        except SafetensorError as e:
            raise SDDError(f"{path} is broken ({e}); copy or train it again") from None
        if kind != cls.kind or about.get("kind") != cls.kind:
            raise SDDError(f"{path} holds a {kind!r} model, not a {cls.kind!r} one; name the right file")
        state = {k: v.float() if v.is_floating_point() else v for k, v in load_file(path).items()}
        preset = Preset().with_fields(**about["preset"])
        backbone = Backbone(load_backbone(about["backbone"], weights or about["weights"]), about["image_size"], preset.norm)
        widths = {v.shape[1] for k, v in state.items() if k.endswith("q.lora_A.default.weight")}
        if widths - {backbone.D}:
            raise SDDError(f"{path} was trained on a backbone of width {widths.pop()}, this one has {backbone.D}")
        if backbone.fingerprint != about["fingerprint"]:
            raise SDDError(
                f"{path} was trained on other weights than {weights or about['weights']!r}; name those it was trained on"
            )
        try:
            model = cls.build(backbone, preset, state)
            missing, unexpected = model.load_state_dict(state, strict=False)
        except (KeyError, RuntimeError) as e:
            said = " ".join(str(e).split())
            raise SDDError(f"{path} does not fit its own description or this backbone ({said}); train it again") from None
        wrong = [k for k in missing if is_own(k)] + unexpected
        if wrong:
            raise SDDError(f"{path} does not fit its own description: {wrong[0]} is missing or unknown; train it again")
        model.about = about
        backbone.merge_lora()
        return model.eval()


def is_own(name: str) -> bool:
    """Whether a state entry belongs to the detector rather than to the frozen CLIP under it."""
    return not name.startswith("backbone.") or "lora_" in name
