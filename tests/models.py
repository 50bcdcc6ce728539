"""Tiny detectors for tests."""

from pathlib import Path

import torch

from sddlib.backbone import Backbone
from sddlib.detector import Detector
from sddlib.presets import get_preset
from sddlib.weights import load_backbone


def enliven(model: torch.nn.Module) -> torch.nn.Module:
    """The model with every part saying something: LoRA is off the identity, BN statistics are not 0 and 1."""
    with torch.no_grad():
        for layer in model.backbone.lora_layers().values():
            layer.lora_B["default"].weight.normal_(0, 0.05)
        for m in model.modules():
            if isinstance(m, torch.nn.BatchNorm2d):
                m.running_mean.normal_(0, 0.1)
                m.running_var.uniform_(0.5, 1.5)
    return model


def tiny_checkpoint(path: Path, kind=Detector, **about) -> Path:
    """A detector of any kind on the tiny CLIP, saved at `path` with a threshold of 0.5."""
    torch.manual_seed(0)
    preset = get_preset("paper", M=10, width=32, heads=4, channels=(4, 6, 8), F_low=12)
    backbone = Backbone(load_backbone("tiny", "random"), 64, preset.norm)
    model = enliven(kind.build(backbone, preset, {"f_s": torch.randn(preset.M, backbone.D)}))
    model.save(path, {"backbone": "tiny", "weights": "random", "seed": 0, "threshold": 0.5, **about})
    return path
