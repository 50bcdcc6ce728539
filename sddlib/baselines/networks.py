"""What a diffusion model is made of, read from a file of data/make_diffusion.py or the folder of a `diffusers` pipeline.

Nothing is fetched, only safetensors are read, and no code but that of the classes named here is called.
"""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from .. import SDDError
from ..checkpoints import read_tensors
from ..embedded import sha256
from ..profiles import read_json

# folders of a pipeline that are read, beside the scheduler's -> the classes that may be named there
PARTS = {"unet": ("UNet2DModel", "UNet2DConditionModel"), "vae": ("AutoencoderKL",), "text_encoder": ("CLIPTextModel",)}
PARTS |= {"tokenizer": ("CLIPTokenizer", "CLIPTokenizerFast")}
LEFT = ("scheduler", "safety_checker", "feature_extractor")  # no part of a map, or read elsewhere
LIBRARIES = ("diffusers", "transformers")
LONGEST = 16  # layers of a block, the most: a file claims them


class Networks(NamedTuple):
    """What a pipeline is made of. vae: None where diffusion is in pixels; text_encoder, tokenizer: None without text."""

    unet: nn.Module
    scheduler: dict
    vae: nn.Module | None = None
    text_encoder: nn.Module | None = None
    tokenizer: Callable | None = None


def library(name: str):
    """diffusers or transformers, which are imported when they are needed: it takes seconds."""
    try:
        return import_module(name)
    except ImportError as e:
        raise SDDError(f"this baseline needs {name} ({e}); install sddlib with its extra `baselines`") from None


def read_file(file: Path) -> Networks:
    """The networks of a file of data/make_diffusion.py: a U-Net's tensors, and beside it a JSON with its and the scheduler's
    settings."""
    about = read_json(file.with_suffix(".json"))
    try:
        if too_long := [k for k, v in about["unet"].items() if k == "layers_per_block" and v > LONGEST or len(str(v)) > 1000]:
            raise SDDError(f"{too_long[0]} is more than any U-Net has")
        with torch.device("meta"):  # what the JSON claims takes no memory
            unet = library("diffusers").UNet2DModel(**about["unet"])
        unet.load_state_dict({k: v.to(torch.float32, copy=True) for k, v in read_tensors(file).items()}, assign=True)
        if about["sha256"] != sha256(file):
            raise SDDError("another file")
    except (SDDError, RuntimeError, LookupError, TypeError, AttributeError, ArithmeticError) as e:
        said = " ".join(str(e).split())[:200]
        raise SDDError(f"{file} is not what its JSON describes ({said}); copy both again or make it") from None
    return Networks(unet.eval().requires_grad_(False), about["scheduler"])


def read_folder(folder: Path) -> Networks:
    """The networks of a `diffusers` pipeline saved in a folder: U-Net and scheduler, and the VAE, text encoder and tokenizer
    it may have. A safety checker and what else has no part in a picture is left; any other part is an error."""
    index, found = read_json(folder / "model_index.json"), {}
    if "unet" not in index or "text_encoder_2" in index:
        raise SDDError(
            f"the pipeline {folder} has no U-Net or two text encoders; give one like Stable Diffusion 1 or 2, or DDPM"
        )
    scheduler = read_json(folder / "scheduler" / "scheduler_config.json")
    for part, named in index.items():
        if part not in (*PARTS, *LEFT) and isinstance(named, list) and named[:1] and named[0] in LIBRARIES:
            raise SDDError(
                f"the pipeline {folder} has a {part}, which is not understood; give one like Stable Diffusion or DDPM"
            )
    for part in PARTS:
        of, name = (index.get(part) or (None, None))[:2]
        if of not in LIBRARIES:
            continue
        if name not in PARTS[part]:
            known = " or ".join(PARTS[part])
            raise SDDError(
                f"{part} of the pipeline {folder} is a {name!r}, and what is read is a {known}; give such a pipeline"
            )
        options = {} if part == "tokenizer" else {"use_safetensors": True}
        try:
            found[part] = getattr(library(of), name).from_pretrained(folder, subfolder=part, local_files_only=True, **options)
        except (OSError, ValueError, AttributeError, RuntimeError) as e:
            said = " ".join(str(e).split())[:200]
            raise SDDError(f"{part} of the pipeline {folder} cannot be read ({said}); save it again with safetensors") from None
    if "unet" not in found:
        raise SDDError(f"the U-Net of the pipeline {folder} is of no library that is read; give one of diffusers")
    unet, takes = found["unet"].config, found["vae"].config.latent_channels if "vae" in found else 3
    if unet.in_channels != takes or unet.get("class_embed_type") or unet.get("num_class_embeds"):
        raise SDDError(
            f"the U-Net of the pipeline {folder} takes {unet.in_channels} channels where a picture has {takes}, or the number "
            "of a class; give one that makes pictures of noise alone or of noise and a text"
        )
    nets = {k: v.float().eval().requires_grad_(False) if isinstance(v, nn.Module) else v for k, v in found.items()}
    return Networks(scheduler=scheduler, **nets)
