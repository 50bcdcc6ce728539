"""A trained scorer on disk: safetensors for what training changed, JSON for what it is and what it was trained on."""

import json
from pathlib import Path

import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from . import SDDError, __version__
from .backbone import Backbone
from .data import decode, to_input, to_rgb
from .disk import replaced
from .embedded import sha256
from .presets import Preset
from .profiles import read_json
from .weights import load_backbone

ABOUT = {"kind", "preset", "backbone", "weights", "image_size", "fingerprint", "sha256"}  # what every JSON must say


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
        if not isinstance(image, (str, Path, Image.Image)):
            raise SDDError(f"an image is a path or a PIL picture, not a {type(image).__name__}; convert it first")
        picture = decode(image) if isinstance(image, (str, Path)) else to_rgb(image)
        device = next(self.parameters()).device
        x = to_input(picture, self.backbone.image_size)[None].to(device)
        return torch.sigmoid(self.eval()(x).logit.double()).item()

    def own_state(self) -> dict[str, Tensor]:
        """What training changed: adapters, modules with their BN statistics, bank. CLIP itself stays out."""
        own = self.own_names()
        return {k: v for k, v in self.state_dict().items() if k in own}

    def own_names(self) -> set[str]:
        """The state entries that belong to the detector rather than to the frozen CLIP under it."""
        learned = {n for n, p in self.named_parameters() if p.requires_grad}  # of CLIP: LoRA, and biases if the preset says so
        return {k for k in self.state_dict() if not k.startswith("backbone.") or "lora_" in k or k in learned}

    def save(self, path: str | Path, about: dict, half: bool = False) -> None:
        """Write PATH and PATH with suffix .json, each atomically.

        about: at least "backbone" and "weights", as for `load_backbone`; besides, what it was trained on, seed, threshold.
        half: store floats in half precision.
        """
        path = Path(path)
        state = {k: v.half() if half and v.is_floating_point() else v for k, v in self.own_state().items()}
        facts = {**about, "kind": self.kind, "preset": self.preset.as_dict(), "version": __version__}
        facts |= {"image_size": self.backbone.image_size, "fingerprint": self.backbone.fingerprint}
        try:
            with replaced(path) as part:
                save_file({k: v.detach().cpu().contiguous() for k, v in state.items()}, part, metadata={"kind": self.kind})
                part.chmod(0o644)  # the writer leaves 0600, which nobody else could load
                facts["sha256"] = sha256(part)
                path.with_suffix(".json").unlink(missing_ok=True)  # killed now, new weights must not meet old facts
            with replaced(path.with_suffix(".json")) as part:
                part.write_text(json.dumps(facts, indent=1, sort_keys=True) + "\n")
        except (OSError, SafetensorError) as e:
            raise SDDError(f"checkpoint {path} cannot be written ({e}); free space or choose another run folder") from None

    @classmethod
    def load(cls, path: str | Path, weights: str | None = None) -> "Scorer":
        """A scorer ready to use: eval mode, LoRA folded into the encoder, the JSON's facts in `about`.

        weights: where the backbone comes from, if not from where the JSON says. Errors: a missing, broken or foreign file,
        a backbone that does not fit.
        """
        path = Path(path)
        about = read_about(path)
        if about["kind"] != cls.kind:
            raise SDDError(f"{path} holds a {about['kind']!r} model, not a {cls.kind!r} one; name the right file")
        try:
            state = {k: v.float() if v.is_floating_point() else v for k, v in load_file(path).items()}
        except (SafetensorError, OSError) as e:
            raise SDDError(f"{path} is broken ({e}); copy or train it again") from None
        if sha256(path) != about["sha256"]:
            raise SDDError(f"{path} is not the file that {path.with_suffix('.json').name} describes; copy both again")
        tower = load_backbone(about["backbone"], weights or about["weights"])
        try:
            preset = Preset().with_fields(**about["preset"])
            backbone = Backbone(tower, about["image_size"], preset.norm)
            if backbone.fingerprint != about["fingerprint"]:
                raise SDDError(f"it was trained on other weights than {weights or about['weights']!r}, name those")
            model = cls.build(backbone, preset, state)
            missing, unexpected = model.load_state_dict(state, strict=False)
            own = model.own_names()
            wrong = [k for k in missing if k in own] + unexpected + [k for k in state if k not in own]
            if wrong:
                raise SDDError(f"{wrong[0]} is missing or unknown")
        except (SDDError, TypeError, LookupError, RuntimeError, ArithmeticError) as e:
            said = " ".join(str(e).split())[:300]
            raise SDDError(
                f"{path} does not fit its own description or this backbone ({said}); copy or train it again"
            ) from None
        model.about = about
        backbone.merge_lora()
        return model.eval()


def read_about(path: Path) -> dict:
    """The JSON beside a checkpoint; what is missing, broken or silent is one sentence that names it."""
    record = path.with_suffix(".json")
    if path == record:
        raise SDDError(f"{path} describes a checkpoint; name the .safetensors file beside it")
    for file in (path, record):
        if not file.is_file():
            raise SDDError(f"checkpoint file {file} is missing; train one with `python -m sddlib train` or name another")
    about = read_json(record)
    if absent := sorted(ABOUT - set(about)):
        raise SDDError(f"{record} does not say {absent[0]!r}; copy or train it again")
    return about
