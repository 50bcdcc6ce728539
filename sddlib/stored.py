"""A trained detector on disk: safetensors for what training changed, JSON for what it is and what it was trained on."""

import json
from collections.abc import Iterable
from pathlib import Path

import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from . import SDDError, __version__
from .data import cut, decode, normalised, to_rgb
from .disk import replaced_together
from .embedded import sha256
from .limits import TENSORS, check_size
from .profiles import read_json

ABOUT = {"kind", "image_size", "sha256"}  # what every JSON must say
# what a description leads to that does not fit: nothing in it is looked at for its type before it is used
MISFITS = (ValueError, TypeError, LookupError, RuntimeError, ArithmeticError, AttributeError, AssertionError, OSError)


class Stored(nn.Module):
    """What every detector here shares: an `image_size` (px), `prepare`, `forward(x).logit`, saving, loading, scoring one image.

    Subclasses name their `kind`, what their JSON must say besides ABOUT (`needs`), and how they come back from it (`restore`).
    Entries of their state under a prefix of `frozen` come from elsewhere and are not stored, unless training changed them.
    """

    kind = ""
    needs: frozenset[str] = frozenset()
    frozen: tuple[str, ...] = ("backbone.",)
    image_size: int
    about: dict

    def prepare(self, crop: Image.Image) -> Tensor:
        """What `forward` reads of one RGB picture of image_size * image_size pixels; the same for the same picture."""
        return normalised(crop)

    def facts(self) -> dict:
        """What the JSON says of the model itself, for `restore`."""
        raise NotImplementedError

    @classmethod
    def fetch(cls, about: dict, weights: str | None):
        """Frozen parts that `restore` builds on. weights: where they come from, if not from where the JSON says."""
        return weights

    @classmethod
    def restore(cls, about: dict, state: dict[str, Tensor], fetched) -> "Stored":
        """A model that has room for the state. fetched: of `fetch`."""
        raise NotImplementedError

    def ready(self) -> None:
        """What is done once before scoring."""

    @torch.inference_mode()
    def score(self, image) -> float:
        """P(generated) of one image, a path or a PIL picture, from its centre crop, as in evaluation."""
        if not isinstance(image, (str, Path, Image.Image)):
            raise SDDError(f"an image is a path or a PIL picture, not a {type(image).__name__}; convert it first")
        picture = decode(image) if isinstance(image, (str, Path)) else to_rgb(image)
        x = self.prepare(cut(picture, self.image_size))[None].to(next(self.parameters()).device)
        return torch.sigmoid(self.eval()(x).logit.double()).item()

    def own_state(self) -> dict[str, Tensor]:
        """What training changed: adapters, modules with their BN statistics, bank. What is frozen stays out."""
        own = self.own_names()
        return {k: v for k, v in self.state_dict().items() if k in own}

    def own_names(self) -> set[str]:
        """The state entries that belong to the detector rather than to a frozen network under it."""
        learned = {n for n, p in self.named_parameters() if p.requires_grad}  # of CLIP: LoRA, and biases if the preset says so
        return {k for k in self.state_dict() if not k.startswith(self.frozen) or "lora_" in k or k in learned}

    def save(self, path: str | Path, about: dict, half: bool = False) -> None:
        """Write PATH and PATH with suffix .json, both or none.

        about: what it was trained on, seed, threshold; for those on a CLIP at least "backbone" and "weights", as for
        `load_backbone`. half: store floats in half precision.
        """
        path = Path(path)
        state = {k: v.half() if half and v.is_floating_point() else v for k, v in self.own_state().items()}
        facts = {**about, "kind": self.kind, "image_size": self.image_size, "version": __version__, **self.facts()}
        try:
            with replaced_together(path, path.with_suffix(".json")) as (weights, record):
                save_file({k: v.detach().cpu().contiguous() for k, v in state.items()}, weights, metadata={"kind": self.kind})
                weights.chmod(0o644)  # the writer leaves 0600, which nobody else could load
                facts["sha256"] = sha256(weights)
                record.write_text(json.dumps(facts, indent=1, sort_keys=True) + "\n")
        except (OSError, SafetensorError) as e:
            raise SDDError(f"checkpoint {path} cannot be written ({e}); free space or choose another run folder") from None

    @classmethod
    def load(cls, path: str | Path, weights: str | None = None) -> "Stored":
        """A detector ready to use: eval mode, LoRA folded into the encoder, the JSON's facts in `about`.

        weights: where frozen parts come from, if not from where the JSON says. Errors: a missing, broken or foreign file, a
        backbone that does not fit.
        """
        path = Path(path)
        about = read_about(path)
        if about["kind"] != cls.kind:
            raise SDDError(f"{path} holds a {about['kind']!r} model, not a {cls.kind!r} one; name the right file")
        check_says(path, about, cls.needs)
        try:
            check_size(path, TENSORS)
            # copies: what is loaded lies in the file, which may change under it, and at odd addresses
            stored = load_file(path).items()
            state = {k: v.to(torch.float32 if v.is_floating_point() else v.dtype, copy=True) for k, v in stored}
        except (SafetensorError, OSError) as e:
            raise SDDError(f"{path} is broken ({e}); copy or train it again") from None
        if sha256(path) != about["sha256"]:
            raise SDDError(f"{path} is not the file that {path.with_suffix('.json').name} describes; copy both again")
        model = cls.restored(path, about, state, weights)
        model.about = about
        model.ready()
        return model.eval()

    @classmethod
    def restored(cls, path: Path, about: dict, state: dict[str, Tensor], weights: str | None) -> "Stored":
        """`restore`, then the state; whatever does not fit is one sentence. Sizes that the JSON claims take no memory: the
        model's own tensors are mere shapes until those of the file take their places."""
        fetched = cls.fetch(about, weights)
        try:
            with torch.device("meta"):
                model = cls.restore(about, state, fetched)
            missing, unexpected = model.load_state_dict(state, strict=False, assign=True)
            own = model.own_names()
            wrong = [k for k in missing if k in own] + unexpected + [k for k in state if k not in own]
            wrong += [k for k, t in (*model.named_parameters(), *model.named_buffers()) if t.is_meta]
            if wrong:
                raise SDDError(f"{wrong[0]} is missing or unknown")
        except MISFITS as e:
            said = " ".join(str(e).split())[:300]
            raise SDDError(
                f"{path} does not fit its own description or this backbone ({said}); copy or train it again"
            ) from None
        return model


def read_about(path: Path) -> dict:
    """The JSON beside a checkpoint; what is missing, broken or silent is one sentence that names it."""
    record = path.with_suffix(".json")
    if path == record:
        raise SDDError(f"{path} describes a checkpoint; name the .safetensors file beside it")
    for file in (path, record):
        if not file.is_file():
            raise SDDError(f"checkpoint file {file} is missing; train one with `python -m sddlib train` or name another")
    about = read_json(record)
    check_says(path, about, ABOUT)
    return about


def check_says(path: Path, about: dict, needed: Iterable[str]) -> None:
    """Refuse the JSON of a checkpoint that is silent on something."""
    if absent := sorted(set(needed) - set(about)):
        raise SDDError(f"{path.with_suffix('.json')} does not say {absent[0]!r}; copy or train it again")
