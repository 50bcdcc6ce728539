"""One way to a CLIP image tower: embedded, from a local file or folder, from an open_clip tag, or random.

The text tower is never built, nothing is unpickled, and every key must fit. The activation is checked, because OpenAI's
weights computed with plain GELU run without complaint and give wrong features.
"""

import os
import warnings
from pathlib import Path

import open_clip
import torch
from open_clip.model import _build_vision_tower, set_model_preprocess_cfg
from open_clip.transform import PreprocessCfg, merge_preprocess_dict
from open_clip.transformer import QuickGELU, VisionTransformer

from sddlib import SDDError
from sddlib.checkpoints import Source, find_weights, read_source
from sddlib.disk import expanded
from sddlib.embedded import NAME as EMBEDDED_NAME
from sddlib.embedded import cache_dir, check_cached, fetch_embedded
from sddlib.hub import find_tag

__all__ = ["cache_dir", "fetch_embedded", "load_backbone"]

RANDOM = 500_000_000  # values of a tower with random weights, the most: ViT-L/14 has 304 million, and a checkpoint may name any
# For tests and the smoke profile: every mechanism of a CLIP tower, nothing to fetch.
TINY = {
    "embed_dim": 32,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 64, "layers": 3, "width": 64, "head_width": 16, "patch_size": 16},
}


def load_backbone(name: str, weights: str | Path, seed: int = 0) -> VisionTransformer:
    """A CLIP image tower on the CPU in float32, in eval mode, with no parameter that requires a gradient.

    name: an open_clip model ("ViT-L-14-quickgelu", "ViT-B-16-quickgelu", ...) or "tiny" (3 blocks, width 64, 64 px).
    weights: "embedded" (OpenAI's ViT-B/16 out of the cache, fetched if it is not there), a file or folder (safetensors,
    or tensors saved by torch), an open_clip tag such as "openai", or "random" (seeded by ``seed``, for tests).
    The tower carries ``preprocess_cfg`` (size in pixels, mean, std). Whatever is wrong is an SDDError of one sentence.
    """
    with torch.device("cpu"):  # also where a caller builds shapes alone
        return _load(name, weights, seed)


def _load(name: str, weights: str | Path, seed: int) -> VisionTransformer:
    config = model_config(name)
    if str(weights) == "random":
        count = sum(p.numel() for p in _shapes(name, config).parameters())
        if count > RANDOM:
            raise SDDError(
                f"{name} with random weights would fill {count * 4 / 2**30:.0f} GiB with nothing: use a smaller model."
            )
        with torch.random.fork_rng(devices=[]):  # the caller's random numbers are left as they were
            torch.manual_seed(seed)
            return _finish(_build(name, config), config, {})
    source = _open(name, weights)
    _check_activation(name, source)
    visual = _shapes(name, config)
    _check_fit(name, visual.state_dict(), source)
    visual.load_state_dict({key: value.float().contiguous() for key, value in source.state.items()}, strict=True, assign=True)
    return _finish(visual, config, source.preprocess)


def _shapes(name: str, config: dict) -> VisionTransformer:
    """The image tower without memory, and without the time that random numbers take which are replaced at once."""
    with torch.device("meta"):
        return _build(name, config)


def model_config(name: str) -> dict:
    """open_clip's configuration of a model (or the tiny one); an unknown name is an SDDError that names near ones."""
    if name == "tiny":
        return TINY
    known = open_clip.list_models()
    if name not in known:
        import difflib

        near = ", ".join(difflib.get_close_matches(str(name), known, n=3, cutoff=0.5)) or "ViT-B-16-quickgelu"
        raise SDDError(f"Unknown backbone {name!r}: use tiny or a model that open_clip knows, for example {near}.")
    return open_clip.get_model_config(name)


def _build(name: str, config: dict) -> VisionTransformer:
    """The image tower alone, with the activation the configuration asks for."""
    visual = _build_vision_tower(config["embed_dim"], config["vision_cfg"], config.get("quick_gelu", False))
    if not isinstance(visual, VisionTransformer):
        raise SDDError(f"{name} is no plain CLIP vision transformer (it builds a {type(visual).__name__}): use a ViT model.")
    return visual


def _open(name: str, weights: str | Path) -> Source:
    """Where the weights come from, already read: cache, path, or tag."""
    if str(weights) == "embedded":
        if name.removesuffix("-quickgelu") != EMBEDDED_NAME.removesuffix("-quickgelu"):
            raise SDDError(f"The embedded weights are OpenAI's ViT-B/16: use the name {EMBEDDED_NAME}, not {name}.")
        if name != EMBEDDED_NAME:
            return Source({}, "The embedded CLIP", quick_gelu=True)  # refused by its activation before anything is fetched
        return read_source(check_cached(fetch_embedded()))
    path = expanded(weights)
    if os.path.exists(path):  # which answers for a name of any length
        return read_source(find_weights(path))
    if isinstance(weights, Path) or len(path.parts) > 1 or path.suffix in (".safetensors", ".pt", ".pth", ".bin"):
        raise SDDError(f"No weights at {path}: give the path of a weights file or folder, a tag, or 'embedded'.")
    return find_tag(name, str(weights))


def _check_activation(name: str, source: Source) -> None:
    """OpenAI's weights need QuickGELU, most others GELU; a source that declares its own must agree with the name."""
    wanted = model_config(name).get("quick_gelu", False)
    if source.quick_gelu is None and not wanted:
        warnings.warn(
            f"{source.label} does not say its activation and {name} computes GELU: right for most, wrong for OpenAI's.",
            stacklevel=4,
        )
    if source.quick_gelu is None or source.quick_gelu == wanted:
        return
    base = name.removesuffix("-quickgelu")
    cure = f"{base}-quickgelu" if source.quick_gelu else base
    has, computes = ("QuickGELU", "GELU") if source.quick_gelu else ("GELU", "QuickGELU")
    raise SDDError(
        f"{source.label} was trained with {has} but {name} computes {computes}, which gives wrong features: "
        f"use the name {cure}."
    )


def _check_fit(name: str, wanted: dict, source: Source) -> None:
    """Every tensor present, none left over, every shape right; otherwise one sentence with the first difference."""
    missing, extra = wanted.keys() - source.state.keys(), source.state.keys() - wanted.keys()
    differ = [key for key in wanted.keys() & source.state.keys() if wanted[key].shape != source.state[key].shape]
    said = []
    if differ:
        key = min(differ)
        said.append(f"{key} is {tuple(source.state[key].shape)} instead of {tuple(wanted[key].shape)}")
    if missing:
        said.append(f"{len(missing)} tensors are missing, first {min(missing)}")
    if extra:
        said.append(f"{len(extra)} tensors are left over, first {min(extra)}")
    if said:
        raise SDDError(f"{source.label} does not fit {name} ({'; '.join(said)}): use the model's own name and weights.")


def _finish(visual: VisionTransformer, config: dict, preprocess: dict) -> VisionTransformer:
    """Freeze, put in eval mode, attach the preprocessing, and assert the activation that the configuration names."""
    quick = any(isinstance(module, QuickGELU) for module in visual.modules())
    assert quick == config.get("quick_gelu", False), "the tower's activation is not the one its configuration names"
    size = {"size": visual.image_size}
    set_model_preprocess_cfg(visual, merge_preprocess_dict(merge_preprocess_dict(PreprocessCfg(), preprocess), size))
    return visual.requires_grad_(False).eval()
