"""The memory plan against a real training step on a GPU or the CPU: in a fresh process, with random weights."""

import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from time import perf_counter
from typing import NamedTuple

import torch

from .backbone import Backbone
from .detector import Detector
from .optim import TrainConfig, parameter_groups, trainable
from .parallel import pick_device
from .plan import GB, PRECISIONS, memory_plan
from .presets import get_preset
from .randomness import seed_everything
from .timing import GPUMemory, Memory
from .weights import load_backbone

# glibc gives a block of this many bytes back to the system as soon as it is freed: resident memory is then what is in use, not
# what was in use some time before, which here is half as much again
RETURNED = {"MALLOC_MMAP_THRESHOLD_": str(2**20)}


class Measured(NamedTuple):
    """planned, measured: bytes that a training step adds at most to weights, gradients and optimizer. total: bytes of the whole
    plan, what it assumes for a GPU included; taken: of a GPU's memory when the step is done, whoever uses it, 0 on a CPU.
    loss: the step's. moved: share of trainable tensors that the step changed. score: P(generated) of one image afterwards.
    seconds: of the step, of the score, and of the plan."""

    planned: int
    measured: int
    total: float
    taken: int
    loss: float
    moved: float
    score: float
    seconds: tuple[float, float, float]


def one_step(
    name: str, size: int, batch: int, checkpointing: bool = False, preset: str = "paper", precision: str = "float32"
) -> Measured:
    """Train SDD on random weights and images for one step, score an image. For a process of its own."""
    chosen, device = get_preset(preset), pick_device()
    seed_everything(0)
    backbone = Backbone(load_backbone(name, "random"), size, chosen.norm)
    model = Detector(backbone, torch.randn(chosen.M, backbone.D), chosen).train()
    for layer in backbone.lora_layers().values():
        torch.nn.init.normal_(layer.lora_B["default"].weight, std=0.01)  # off its zero start, where A has no gradient
    model.to(device)
    backbone.checkpoint(checkpointing)
    backbone.precision = PRECISIONS[precision]
    optimizer = torch.optim.AdamW(parameter_groups(model, TrainConfig()))
    _settle(optimizer)
    x, y = torch.randn(batch, 3, size, size).to(device), (torch.arange(batch) % 2).to(device)
    times = [perf_counter()]
    plan = memory_plan(model, batch, size, precision, checkpointing, device=device.type)
    before = {n: p.detach().clone() for n, p in trainable(model).items()}
    times.append(perf_counter())
    with GPUMemory() if device.type == "cuda" else Memory() as memory:
        loss = model.loss(x, y)["total"]
        loss.backward()
        optimizer.step()
    used = taken()
    times.append(perf_counter())
    moved = [not torch.equal(p, before[n]) for n, p in trainable(model).items()]
    backbone.merge_lora()
    with torch.inference_mode():
        score = torch.sigmoid(model.eval()(x[:1]).logit).item()
    times.append(perf_counter())
    planning, step, scoring = (b - a for a, b in zip(times, times[1:], strict=False))
    planned, measured = plan.activations + plan.working, memory.growth
    each = loss.item(), sum(moved) / len(moved), score, (step, scoring, planning)
    return Measured(planned, measured, plan.total, used, *each)


def _settle(optimizer: torch.optim.Optimizer) -> None:
    """Gradients and moments as in the middle of a training: there, and here all 0."""
    rates = [group["lr"] for group in optimizer.param_groups]
    for group in optimizer.param_groups:
        group["lr"] = 0.0
        for p in group["params"]:
            p.grad = torch.zeros_like(p)
    optimizer.step()
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate


def taken() -> int:
    """Bytes of the GPU's memory that are in use, by whatever program; 0 without a GPU."""
    if pick_device().type == "cpu":
        return 0
    free, there = torch.cuda.mem_get_info()
    return there - free


def fresh(*arguments) -> Measured:
    """`one_step` in a new process: memory that an earlier job has given back would be used again unseen. Of a GPU's memory only
    what the process has taken."""
    before, others = dict(os.environ), taken()
    os.environ.update(RETURNED)
    try:
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            found = pool.submit(one_step, *arguments).result()
        return found._replace(taken=found.taken - others)
    finally:
        os.environ.clear()
        os.environ.update(before)


def report(name: str, size: int, batch: int, precision: str) -> None:
    """Print plan, measurement and their ratio, with and without gradient checkpointing."""
    device = pick_device().type
    for checkpointing in (False, True):
        m = fresh(name, size, batch, checkpointing, "paper", precision)
        print(
            f"training step on the {'GPU' if device == 'cuda' else 'CPU'}, {batch} images, {precision}, "
            f"{'with' if checkpointing else 'without'} gradient checkpointing: "
            f"planned {m.planned / GB:.2f} GB above the weights, measured {m.measured / GB:.2f}; "
            f"measured / planned {m.measured / m.planned:.2f}"
        )
        if device == "cuda":
            print(f"  all memory of the GPU: planned {m.total / GB:.1f} GB, taken {m.taken / GB:.1f}")
