"""Diffusion models small enough for a test: random weights, saved as `diffusers` saves its pipelines."""

import json
from pathlib import Path

import torch

WORDS = ["<|startoftext|>", "<|endoftext|>", *"abcdefghijklmnopqrstuvwxyz", *(f"{c}</w>" for c in "abcdefghijklmnopqrstuvwxyz")]
PIXELS = {"sample_size": 16, "block_out_channels": (8, 16), "layers_per_block": 1, "norm_num_groups": 4, "add_attention": False}
PIXELS |= {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2}
SCHEDULER = {"beta_schedule": "squaredcos_cap_v2", "prediction_type": "v_prediction", "clip_sample": False}


def index(folder: Path, **parts) -> None:
    """model_index.json as `diffusers` writes it."""
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "Pipeline", **parts}))


def pixel_file(path: Path, seed: int = 0) -> Path:
    """An unconditional model in pixels, as data/make_diffusion.py leaves it."""
    from diffusers import UNet2DModel
    from safetensors.torch import save_file

    from sddlib.embedded import sha256

    torch.manual_seed(seed)
    save_file(UNet2DModel(**PIXELS).state_dict(), path)
    about = {"unet": PIXELS, "scheduler": SCHEDULER, "sha256": sha256(path)}
    path.with_suffix(".json").write_text(json.dumps(about))
    return path


def pixel_folder(folder: Path, seed: int = 0) -> Path:
    """The model of `pixel_file` as a pipeline."""
    from diffusers import DDPMScheduler, UNet2DModel

    torch.manual_seed(seed)
    UNet2DModel(**PIXELS).save_pretrained(folder / "unet")
    DDPMScheduler(**SCHEDULER).save_pretrained(folder / "scheduler")
    index(folder, unet=["diffusers", "UNet2DModel"], scheduler=["diffusers", "DDPMScheduler"])
    return folder


def text_folder(folder: Path) -> Path:
    """A latent text-to-image pipeline: VAE (f = 2), text encoder, tokenizer of letters, U-Net, and a safety checker's name."""
    from diffusers import AutoencoderKL, PNDMScheduler, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(0)
    sizes = {"block_out_channels": (8, 16), "layers_per_block": 1, "norm_num_groups": 4}
    down, up = ("CrossAttnDownBlock2D", "DownBlock2D"), ("UpBlock2D", "CrossAttnUpBlock2D")
    text = {"cross_attention_dim": 16, "attention_head_dim": 4, "sample_size": 8}
    UNet2DConditionModel(**sizes, **text, down_block_types=down, up_block_types=up).save_pretrained(folder / "unet")
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    AutoencoderKL(**sizes, **blocks, latent_channels=4).save_pretrained(folder / "vae")
    PNDMScheduler(beta_schedule="scaled_linear", steps_offset=1, skip_prk_steps=True).save_pretrained(folder / "scheduler")
    tower = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2, "num_hidden_layers": 1}
    tower |= {"max_position_embeddings": 12, "vocab_size": len(WORDS), "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    CLIPTextModel(CLIPTextConfig(**tower)).half().save_pretrained(folder / "text_encoder")
    save_tokenizer(folder / "tokenizer")
    parts = {"unet": ["diffusers", "UNet2DConditionModel"], "vae": ["diffusers", "AutoencoderKL"]}
    parts |= {"text_encoder": ["transformers", "CLIPTextModel"], "tokenizer": ["transformers", "CLIPTokenizer"]}
    index(folder, **parts, scheduler=["diffusers", "PNDMScheduler"], safety_checker=["stable_diffusion", "SafetyChecker"])
    return folder


def save_tokenizer(folder: Path) -> None:
    """CLIP's tokenizer with letters for words."""
    folder.mkdir()
    (folder / "vocab.json").write_text(json.dumps({word: k for k, word in enumerate(WORDS)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    facts = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 12, "bos_token": WORDS[0], "eos_token": WORDS[1]}
    facts |= {"pad_token": WORDS[1], "unk_token": WORDS[1]}
    (folder / "tokenizer_config.json").write_text(json.dumps(facts))


def captioner(folder: Path) -> Path:
    """A BLIP of random weights that knows letters."""
    from transformers import BertTokenizer, BlipConfig, BlipForConditionalGeneration, BlipImageProcessor, BlipProcessor

    torch.manual_seed(0)
    folder.mkdir()
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]", *"abcdefghijklmnopqrstuvwxyz"]
    (folder / "vocab.txt").write_text("\n".join(words))
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2, "num_hidden_layers": 1, "projection_dim": 16}
    marks = {"bos_token_id": 5, "sep_token_id": 3, "eos_token_id": 3, "pad_token_id": 0}
    text = {**sizes, **marks, "vocab_size": len(words), "encoder_hidden_size": 16, "max_position_embeddings": 64}
    config = BlipConfig(text_config=text, vision_config={**sizes, "image_size": 16, "patch_size": 8})
    BlipForConditionalGeneration(config).save_pretrained(folder)
    seen = BlipImageProcessor(size={"height": 16, "width": 16})
    BlipProcessor(seen, BertTokenizer(str(folder / "vocab.txt"))).save_pretrained(folder)
    return folder
