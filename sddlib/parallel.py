"""Processes that share one training: accelerate starts them, here they agree on batches, statistics, losses and gradients.

With one process every function does nothing. With several, a step computes what one process computes on the whole batch:
batch normalisation and losses that compare images see all of it, and gradients are averaged.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist
import torch.distributed.nn.functional as dist_nn
from torch import Tensor, nn

from . import SDDError

_talk = None  # the group for plain values: it may wait long, and keeps them off the GPUs
_alone = False


def launched() -> bool:
    """Whether a launcher (`accelerate launch`, torchrun) has started this process and others."""
    return int(os.environ.get("WORLD_SIZE", 1)) > 1


def join() -> tuple[int, int]:
    """Join the processes that a launcher has started; (rank, number of processes)."""
    global _talk
    if launched() and not dist.is_initialized():
        check_gpus()
        from accelerate import PartialState  # knows which backend and device belong to this process

        PartialState(cpu=_on_cpu())
        _talk = dist.new_group(backend="gloo", timeout=timedelta(days=2))  # as long as the longest job of one of them
    return rank(), world()


def check_gpus() -> None:
    """Refuse more processes on this machine than it has GPUs: two that share one would wait for each other without end."""
    here = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    if not _on_cpu() and here > torch.cuda.device_count():
        raise SDDError(
            f"{here} processes were started on a machine with {torch.cuda.device_count()} GPU(s); start one a GPU, or set "
            "ACCELERATE_USE_CPU=1 to compute on the CPU"
        )


def leave() -> None:
    """Part from the others at the end."""
    if dist.is_initialized():
        dist.destroy_process_group()


@contextmanager
def alone() -> Iterator[None]:
    """While inside, this process counts as the only one."""
    global _alone
    _alone = True
    try:
        yield
    finally:
        _alone = False


def _on_cpu() -> bool:
    asked = os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes")  # accelerate launch --cpu
    return asked or not torch.cuda.is_available()


def rank() -> int:
    """Number of this process; 0 is the one that writes files."""
    return dist.get_rank() if dist.is_initialized() else 0


def world() -> int:
    """How many processes share the work."""
    return dist.get_world_size() if dist.is_initialized() and not _alone else 1


def pick_device() -> torch.device:
    """This process's GPU if there is one, else the CPU."""
    if _on_cpu():
        return torch.device("cpu")
    return torch.device("cuda", torch.cuda.current_device()) if dist.is_initialized() else torch.device("cuda")


def wait() -> None:
    """Go on when every process has come here."""
    if world() > 1:
        dist.barrier(_talk)


def from_first(value):
    """What the first process holds, in all of them. value: anything that can be pickled."""
    box = [value]
    if world() > 1:
        dist.broadcast_object_list(box, group=_talk)
    return box[0]


def everyones(value) -> list:
    """The values of all processes, by rank, in all of them."""
    found = [value] * world()
    if world() > 1:
        dist.all_gather_object(found, value, group=_talk)
    return found


def together(t: Tensor) -> Tensor:
    """(B, ...) of each process -> (world * B, ...) of all, by rank. Gradients go back to the process they came from, summed
    over the losses of all processes: `average_gradients` makes them those of one loss."""
    if world() == 1:
        return t
    if torch.is_grad_enabled() and t.requires_grad:
        return torch.cat(dist_nn.all_gather(t.contiguous()))
    parts = [torch.empty_like(t) for _ in range(world())]
    dist.all_gather(parts, t.contiguous())
    return torch.cat(parts)


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace the gradients of each process by their mean, in one message; what has none anywhere stays without."""
    if world() == 1:
        return
    parameters = [p for p in parameters if p.requires_grad]
    has = torch.tensor([float(p.grad is not None) for p in parameters], device=parameters[0].device)
    dist.all_reduce(has)
    used = [p for p, n in zip(parameters, has.tolist(), strict=True) if n]
    flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in used])
    dist.all_reduce(flat)
    for p, g in zip(used, flat.div_(world()).split([p.numel() for p in used]), strict=True):
        p.grad = g.view_as(p)


class _Shared(nn.modules.batchnorm._BatchNorm):
    """Batch normalisation whose training statistics are those of all processes' images; torch has it for GPUs only."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or world() == 1:
            return super().forward(x)
        dims = [d for d in range(x.ndim) if d != 1]
        shape = [-1 if d == 1 else 1 for d in range(x.ndim)]
        n = world() * x.numel() // x.shape[1]  # every process has equally many
        mean = dist_nn.all_reduce(x.sum(dims)) / n  # (C,)
        centred = x - mean.view(shape)
        var = dist_nn.all_reduce(centred.square().sum(dims)) / n  # (C,)
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(var * n / (n - 1), self.momentum)
        return centred * ((var + self.eps).rsqrt() * self.weight).view(shape) + self.bias.view(shape)


class BatchNorm1d(_Shared, nn.BatchNorm1d):
    """`nn.BatchNorm1d` over the images of all processes."""


class BatchNorm2d(_Shared, nn.BatchNorm2d):
    """`nn.BatchNorm2d` over the images of all processes."""
