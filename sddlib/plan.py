"""How much of a GPU's memory a training step takes, counted before training starts."""

from dataclasses import dataclass

import torch
from torch import nn

from . import SDDError
from .backbone import Backbone
from .counting import scoring_bytes, training_bytes

GB = 1e9  # bytes; a card that is sold with n GB has a little more than n * GB
CARDS = (24, 40, 80)
CONTEXT = 1.0 * GB  # assumed: CUDA's context and the work spaces of cuBLAS and cuDNN
SLACK = 0.1  # assumed: what the allocator loses, as a share of what a step makes and drops
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes on each GPU while training with AdamW in steps of `batch` images a GPU.

    weights: parameters and buffers, float32. gradients: of trainable values only, as the optimizer's two moments. buckets:
    the second copy of the gradients that several GPUs exchange. activations: what the forward pass keeps for the backward
    one, images and autocast's copies of weights included. working: the most that is alive beside them at once. `trainable`
    counts values.
    """

    batch: int
    size: int
    precision: str
    checkpointing: bool
    device: str
    trainable: int
    weights: int
    gradients: int
    optimizer: int
    buckets: int
    activations: int
    working: int

    @property
    def counted(self) -> int:
        """All that was counted."""
        return self.weights + self.gradients + self.optimizer + self.buckets + self.activations + self.working

    @property
    def assumed(self) -> float:
        """What a GPU takes besides, by CONTEXT and SLACK; nothing on a CPU."""
        return CONTEXT + SLACK * (self.activations + self.working) if self.device == "cuda" else 0.0

    @property
    def total(self) -> float:
        return self.counted + self.assumed

    def spare(self, card: float) -> float:
        """Bytes that a card of so many GB has left; below 0: that it lacks."""
        return card * GB - self.total

    def text(self) -> str:
        """All of it, a few lines to print."""
        fits = [f"{c} GB: {abs(self.spare(c)) / GB:.1f} {'to spare' if self.spare(c) >= 0 else 'too little'}" for c in CARDS]
        checkpointing = "with" if self.checkpointing else "without"
        lines = [
            f"memory of training in each {'GPU' if self.device == 'cuda' else 'process'}, in GB: {self.batch} images at once, "
            f"{self.size} px, {self.precision}, {checkpointing} gradient checkpointing",
            f"  weights {self.weights / GB:.2f}, gradients {self.gradients / GB:.2f}, AdamW {self.optimizer / GB:.2f} "
            f"({self.trainable:,} trainable values)" + (f", exchange {self.buckets / GB:.2f}" if self.buckets else ""),
            f"  kept for the backward pass {self.activations / GB:.2f}, working memory beside it {self.working / GB:.2f}",
        ]
        if self.device == "cuda":
            lines.append(f"  assumed, not counted: CUDA {CONTEXT / GB:.1f}, allocator {(self.assumed - CONTEXT) / GB:.2f}")
        lines.append(f"  total {self.total / GB:.1f}" + (f"; {', '.join(fits)}" if self.device == "cuda" else ""))
        if self.device == "cuda" and self.spare(CARDS[0]) < 0:
            cures = [] if self.checkpointing else ["gradient checkpointing"]
            cures += [] if self.precision == "bfloat16" else ["bfloat16"]
            lines.append(f"  less: {', '.join([*cures, 'fewer images a step, gradients summed over more steps'])}")
        return "\n".join(lines)


def memory_plan(
    model: nn.Module,
    batch: int,
    size: int,
    precision: str = "float32",
    checkpointing: bool = False,
    gpus: int = 1,
    device: str = "cuda",
) -> MemoryPlan:
    """The memory of training a model that has a `backbone` and `loss(x, y)`, whatever mode or device it is in.

    Neither the model nor any random number changes, and nothing is computed: seconds, and a few MB. batch: images that one GPU
    holds at once (with gradients summed over several small batches, one of these). size: crop side in pixels. precision,
    checkpointing: of the backbone, as in training. device: for "cuda" dropout and attention are counted as a GPU computes them,
    for "cpu" as a CPU does, without CUDA's own share.
    """
    if not isinstance(getattr(model, "backbone", None), Backbone) or not hasattr(model, "loss"):
        raise SDDError(f"a {type(model).__name__} has no backbone and loss whose memory could be planned; give a detector")
    if type(batch) is not int or batch < 1:
        raise SDDError(f"a batch of {batch!r} images cannot be planned; give a whole number above 0")
    if precision not in PRECISIONS:
        raise SDDError(f"precision {precision!r} is unknown; use {' or '.join(map(repr, PRECISIONS))}")
    if device not in ("cuda", "cpu"):
        raise SDDError(f"memory of {device!r} cannot be planned; use 'cuda' or 'cpu'")
    try:
        kept, peak = training_bytes(model, batch, size, PRECISIONS[precision], checkpointing, device)
    except ValueError as e:  # torch's batch norm on a single image
        raise SDDError(f"a training step of {batch} images is impossible ({e}); raise the batch") from None
    learned = [p for p in model.parameters() if p.requires_grad]
    gradients = sum(p.numel() * p.element_size() for p in learned)
    return MemoryPlan(
        batch=batch,
        size=size,
        precision=precision,
        checkpointing=checkpointing,
        device=device,
        trainable=sum(p.numel() for p in learned),
        weights=weight_bytes(model),
        gradients=gradients,
        optimizer=2 * gradients,
        buckets=gradients if gpus > 1 else 0,
        activations=kept,
        working=peak - kept,
    )


def weight_bytes(model: nn.Module) -> int:
    """Of parameters and buffers."""
    return sum(t.numel() * t.element_size() for t in (*model.parameters(), *model.buffers()))


def scoring_memory(model: nn.Module, batch: int, size: int) -> float:
    """Bytes of a GPU's memory that scoring in batches takes, with what is assumed for CUDA."""
    working = scoring_bytes(model, batch, size)
    return weight_bytes(model) + CONTEXT + (1 + SLACK) * working
