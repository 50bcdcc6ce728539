"""Tiny detectors for tests."""

import torch


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
