"""Which modules of a preset learn: from the gradients of the whole loss, and how many values each has on ViT-L/14."""

import torch

from .backbone import Backbone
from .detector import Detector
from .optim import trainable
from .presets import Preset
from .randomness import seed_everything
from .weights import load_backbone

SMALL = {"width": 32, "heads": 4, "F_low": 12}  # sizes at which gradients are taken; the wiring is the preset's
ROUNDING = 1e-12  # what parameters without influence gather in float64


def module_of(name: str) -> str:
    """The row of the table that a trainable parameter belongs to."""
    if name.startswith("backbone."):
        return "LoRA" if "lora_" in name else "CLIP's biases and embeddings"
    first, *rest = name.split(".")
    return first if first == "head" or not rest else f"{first}.{rest[0]}"


def gradient_flow(preset: Preset) -> dict[str, bool]:
    """Module -> whether any of its values gets a gradient from the whole loss (Eq. 16) once LoRA has left its zero start.
    (In one that learns, single biases may get none, where a batch norm undoes them.)"""
    seed_everything(0)
    backbone = Backbone(load_backbone("tiny", "random"), 64, preset.norm)
    preset = preset.with_fields(**SMALL | {"M": backbone.N})  # as many tokens as patches, which the printed form needs
    f_s = torch.randn(0 if preset.bank == "none" else preset.M, backbone.D)
    model = Detector(backbone, f_s, preset).double().train()
    for layer in backbone.lora_layers().values():
        torch.nn.init.normal_(layer.lora_B["default"].weight, std=0.05)
    x, y = torch.randn(6, 3, 64, 64, dtype=torch.float64), torch.tensor([0, 1, 0, 1, 1, 0])
    model.loss(x, y)["total"].backward()
    found: dict[str, bool] = {}
    for name, p in trainable(model).items():
        moved = p.grad is not None and p.grad.abs().max().item() > ROUNDING
        found[module_of(name)] = found.get(module_of(name), False) or moved
    return found


def module_sizes(preset: Preset, name: str = "ViT-L-14-quickgelu", image_size: int = 224) -> dict[str, int]:
    """Module -> trainable values on a backbone of full size, of which only the shapes are made."""
    with torch.device("meta"):
        backbone = Backbone(load_backbone(name, "random"), image_size, preset.norm)
        model = Detector(backbone, torch.empty(preset.M, backbone.D), preset)
    found: dict[str, int] = {}
    for key, p in trainable(model).items():
        found[module_of(key)] = found.get(module_of(key), 0) + p.numel()
    return found
