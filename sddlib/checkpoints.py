"""Reading CLIP weights somebody else saved: which file, what format, which activation; nothing in it runs."""

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import IO

import torch
from safetensors import SafetensorError, safe_open

from sddlib import SDDError
from sddlib.embedded import GRID, sha256, to_open_clip
from sddlib.limits import JSON, TENSORS, check_size

UNPICKLING = (UnpicklingError, RuntimeError, EOFError, OSError, ValueError, LookupError, TypeError, MemoryError)
UNPICKLING += (zipfile.BadZipFile,)  # what torch raises at files that it did not write
# In the order in which a folder is searched: plain tensors before anything torch has to unpack.
NAMES = ("open_clip_model.safetensors", "model.safetensors", "open_clip_pytorch_model.bin", "pytorch_model.bin")


@dataclass
class Source:
    """An image tower's tensors under open_clip's names, and what is known of them."""

    state: dict[str, torch.Tensor]
    label: str  # how messages call it
    preprocess: dict = field(default_factory=dict)  # mean, std, interpolation, where the source says
    quick_gelu: bool | None = None  # None: the source does not say, the model's name decides


def find_weights(path: Path) -> Path:
    """The weights file itself, or the one in a folder (the two usual names first, else the only candidate)."""
    if path.is_file():
        return path
    for name in NAMES:
        if (path / name).is_file():
            return path / name
    if not path.is_dir():  # a device or a pipe, which would be waited for
        raise SDDError(f"{path} is no regular file: give the path of a weights file or folder.")
    files = sorted(p for p in path.iterdir() if p.suffix in (".safetensors", ".pt", ".pth", ".bin"))
    if len(files) != 1:
        found = f"{len(files)} weights files" if files else "no weights file"
        raise SDDError(f"The folder {path} holds {found} (.safetensors, .pt, .pth, .bin): give the path of one file.")
    return files[0]


def read_source(path: Path, label: str = "") -> Source:
    """Read a weights file: safetensors, tensors saved by torch, or one of OpenAI's archives (by its hash).

    Understands open_clip's full model, its bare image tower, training checkpoints, and the ``vision_model.*`` naming.
    """
    label = label or str(path)
    declared: dict = {}
    if path.suffix == ".safetensors":
        state, declared = _read_safetensors(path)
    elif _is_script(path):
        state, declared = _read_openai(path), {"activation": "quick_gelu"}
    else:
        state = _read_torch(path)
    visual = _image_tower(state, label)
    quick, preprocess = _beside(path)
    if "activation" in declared:
        quick = declared["activation"] == "quick_gelu"
    return Source(visual, label, preprocess, quick)


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Tensors by name, from safetensors or from plain tensors saved by torch, as they are in the file."""
    found = _read_safetensors(path)[0] if path.suffix == ".safetensors" else _read_torch(path)
    if not isinstance(found, Mapping) or not all(isinstance(v, torch.Tensor) for v in found.values()):
        raise SDDError(f"{path} holds more than tensors by name: give a plain state dict.")
    return dict(found)


def _read_safetensors(path: Path) -> tuple[dict, dict]:
    check_size(path, TENSORS)
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys() if not key.startswith(GRID)}, file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise SDDError(f"{path} is not a readable safetensors file ({str(error).splitlines()[0]}): fetch it again.") from error


def _read_torch(path: Path) -> dict:
    check_size(path, TENSORS)
    try:
        check_packed(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except SDDError:
        raise
    except UNPICKLING as error:
        raise SDDError(
            f"{path} is damaged or holds more than plain tensors, so it is not opened: save it as safetensors."
        ) from error


def check_packed(file: Path | IO[bytes]) -> None:
    """Refuse a zip archive that holds more than it has bytes: torch never packs tensors, and a few bytes may unpack to all
    the memory there is."""
    if not zipfile.is_zipfile(file):
        return
    with zipfile.ZipFile(file) as archive:
        if packed := [part.filename for part in archive.infolist() if part.file_size > part.compress_size]:
            raise SDDError(f"{getattr(file, 'name', file)} holds packed parts, first {packed[0]}: save it as safetensors.")


def _is_script(path: Path) -> bool:
    """OpenAI published its models as TorchScript archives: zip files with a ``code`` folder."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any("/code/" in name or name.endswith("/constants.pkl") for name in archive.namelist())
    except (zipfile.BadZipFile, NotImplementedError, ValueError):  # none, or a damaged one
        return False


def openai_hashes() -> dict[str, str]:
    """SHA-256 -> model name of OpenAI's own archives, as open_clip lists them (the hash is part of their address)."""
    import open_clip

    pairs = [
        (open_clip.get_pretrained_url(model, "openai"), model) for model in open_clip.list_pretrained_models_by_tag("openai")
    ]
    return {url.split("/")[-2]: model for url, model in pairs if url}


def _read_openai(path: Path) -> dict:
    """A script archive can run code when it is opened, so only the published ones are."""
    found = sha256(path)
    if found not in openai_hashes():
        raise SDDError(
            f"{path} is a TorchScript archive and none of OpenAI's (SHA-256 {found}): save its tensors as safetensors."
        )
    return torch.jit.load(str(path), map_location="cpu").state_dict()


def _image_tower(state, label: str) -> dict[str, torch.Tensor]:
    """The image tower's tensors under open_clip's own names, whatever they were wrapped in."""
    if isinstance(state, Mapping):
        state = next((state[key] for key in ("state_dict", "model") if isinstance(state.get(key), Mapping)), state)
    if not isinstance(state, Mapping) or not any(isinstance(value, torch.Tensor) for value in state.values()):
        raise SDDError(f"{label} holds no tensors by name: give a CLIP state dict.")
    state = {key.removeprefix("module."): value for key, value in state.items() if isinstance(value, torch.Tensor)}
    if any(key.startswith("vision_model.") for key in state):
        return to_open_clip({k: v for k, v in state.items() if k.startswith(("vision_model.", "visual_projection."))})
    if any(key.startswith("visual.") for key in state):
        return {key.removeprefix("visual."): value for key, value in state.items() if key.startswith("visual.")}
    return state


def _beside(path: Path) -> tuple[bool | None, dict]:
    """What a configuration file in the same folder says: (QuickGELU or not, preprocessing)."""
    for name in ("open_clip_config.json", "config.json"):
        file = path.parent / name
        if not file.is_file():
            continue
        check_size(file, JSON)
        try:
            config = json.loads(file.read_text())
            if name == "open_clip_config.json":
                model, preprocess = config.get("model_cfg", {}), config.get("preprocess_cfg", {})
                return bool(model.get("quick_gelu", False)), dict(preprocess)
            activation = config.get("hidden_act") or config.get("vision_config", {}).get("hidden_act")
        except (ValueError, AttributeError, TypeError, RecursionError) as error:
            raise SDDError(f"{file} is not valid JSON: mend it or give the weights in a folder without it.") from error
        if activation:
            return activation == "quick_gelu", {}
    return None, {}
