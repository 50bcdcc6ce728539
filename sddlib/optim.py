"""What moves the weights and at which rate: AdamW's groups, warm-up with cosine decay, or the plateau of the release."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from . import SDDError


@dataclass(frozen=True)
class TrainConfig:
    """How to train, Sec. 4.1. The paper prints lr 1e-4, batch 32 and early stopping; profiles set their own."""

    epochs: int = 10  # at most; the paper names no number
    batch: int = 32  # images a step, over all processes, as printed
    accumulate: int = 1  # parts of a batch that go one after another, for less memory; losses and BN then see a part each
    lr: float = 1e-4  # peak, as printed
    scratch: float = 1.0  # factor on the rate of modules that start from random weights; LoRA keeps lr
    weight_decay: float = 5e-4  # release
    decay_all: bool = False  # decay biases and norms too (release)
    schedule: str = "cosine"  # to 0 at the last epoch (silent); "plateau" (release): lr/10 after `patience` epochs without gain
    warmup: float = 0.1  # share of all steps with linearly rising rate, under "cosine"
    patience: int = 3  # epochs without a lower validation loss before training stops, or the rate falls
    floor: float = 1e-6  # "plateau" stops when the rate falls below (release, UnivFD)
    resize: int = 0  # px that a training picture's shorter side is brought to before the crop (release: 512, UnivFD: 256)
    augment: float = 0.0  # probability of blur and that of JPEG on training pictures (UnivFD: 0.5)
    precision: str = "float32"  # of the encoder's matrix products while training; "bfloat16"; "auto": that where a GPU has it
    checkpointing: bool = False  # compute the encoder's activations again in the backward pass: less memory, more time
    seed: int = 0
    workers: int = 0
    keep: bool = True  # hold decoded pictures in memory

    def __post_init__(self):
        if self.schedule not in ("cosine", "plateau"):
            raise SDDError(f"schedule {self.schedule!r} is unknown; use 'cosine' or 'plateau'")
        if self.precision not in ("float32", "bfloat16", "auto"):
            raise SDDError(f"precision {self.precision!r} is unknown; use 'float32', 'bfloat16' or 'auto'")

    def dtype(self, device: torch.device) -> torch.dtype:
        """What `precision` means on a device."""
        if self.precision == "auto":
            return (
                torch.bfloat16
                if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
                else torch.float32
            )
        return getattr(torch, self.precision)

    def part(self, world: int) -> int:
        """Images of a batch that one of `world` processes holds at once."""
        if self.batch % (self.accumulate * world):
            raise SDDError(
                f"batch {self.batch} cannot be cut into {self.accumulate} parts for {world} processes; choose a multiple"
            )
        return self.batch // (self.accumulate * world)


# How each preset is trained at full scale: by the paper, and by the authors' release (its betas are AdamW's defaults; its
# patience is not known, 5 is UnivFD's). The plateau sets the release's end; its epochs are out of reach.
TRAINING = {
    "paper": TrainConfig(keep=False),
    "release": TrainConfig(1000, lr=1e-5, decay_all=True, schedule="plateau", patience=5, resize=512, keep=False),
}


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that training may change, by name."""
    return {n: p for n, p in model.named_parameters() if p.requires_grad}


def parameter_groups(model: nn.Module, config: TrainConfig) -> list[dict]:
    """For the optimizer: what is learned inside the backbone at config.lr, the rest at config.lr * config.scratch; no decay on
    biases and norms, whose size means something, unless decay_all."""
    groups: dict[tuple, list] = {}
    for name, p in trainable(model).items():
        rate = config.lr if name.startswith("backbone.") else config.lr * config.scratch
        groups.setdefault((rate, config.weight_decay if p.ndim > 1 or config.decay_all else 0.0), []).append(p)
    return [{"params": found, "lr": rate, "weight_decay": decay} for (rate, decay), found in groups.items()]


def make_schedule(optimizer: torch.optim.Optimizer, config: TrainConfig, steps: int):
    """The scheduler: "cosine" steps after each of all `steps`, "plateau" after an epoch, with its validation loss."""
    if config.schedule == "plateau":
        return torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.1, patience=config.patience - 1, threshold=0)
    rise = max(1, round(config.warmup * steps))

    def factor(s: int) -> float:
        return (s + 1) / rise if s < rise else 0.5 * (1 + float(np.cos(np.pi * (s - rise) / max(1, steps - rise))))

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
