"""Where the tokens of a detector's bank come from: which photograph, and which of its patches."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from . import SDDError
from .detector import Detector
from .limits import TENSORS, check_size
from .profiles import read_json

DRAWN = ("js", "random")  # kinds of a bank whose tokens are tokens of photographs
SLACK = 0.05  # of a token's coordinate: half precision moves one of CLIP's by less


class Origin(NamedTuple):
    """file: path of the photograph's crop, relative to its benchmark; patch: its position in the crop's grid, row by row."""

    file: str
    patch: int


def written(index: Iterable[int], files: list[str], N: int) -> list[str]:
    """What a checkpoint's JSON says of its bank: "file#patch" of every token. index: positions image * N + patch; files: the
    images in their order."""
    return [f"{files[i // N]}#{i % N}" for i in map(int, index)]


def read_origins(model: Detector, checkpoint: Path) -> list[Origin] | None:
    """The origin of each of a detector's M bank tokens; None where nothing tells.

    Read from the checkpoint's JSON; for one that does not say it, from the bank of the run folder around it, provided
    that it is the same bank.
    """
    if model.preset.bank not in DRAWN:
        return None
    said = model.about.get("bank")
    if said is None:
        said = _of_run(model, checkpoint.parent.parent / "bank.safetensors")
    if said is None:
        return None
    try:
        parts = [text.rsplit("#", 1) for text in said]
        found = [Origin(file, int(patch)) for file, patch in parts]
    except (AttributeError, TypeError, ValueError):
        found = []
    if len(found) != len(model.f_s) or not all(0 <= o.patch < model.backbone.N for o in found):
        raise SDDError(
            f"{checkpoint.with_suffix('.json')}: 'bank' does not name a file and a patch for each of the tokens; mend it"
        )
    return found


def _of_run(model: Detector, path: Path) -> list[str] | None:
    """`written` for the bank file of a run, if it holds this detector's tokens."""
    if not path.is_file() or not path.with_suffix(".json").is_file():
        return None
    try:
        check_size(path, TENSORS)
        bank, facts = load_file(path), read_json(path.with_suffix(".json"))
        same = bank["f_s"].shape == model.f_s.shape and torch.allclose(bank["f_s"], model.f_s.cpu(), rtol=0, atol=SLACK)
        return written(bank["index"], facts["files"], model.backbone.N) if same else None
    except (SafetensorError, LookupError, OSError) as e:
        raise SDDError(f"the bank {path} is broken ({e}); run notebook 02_token_bank in its folder again") from None
