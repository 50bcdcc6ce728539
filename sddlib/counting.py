"""What a step of a model takes, counted without computing it: bytes alive at once, and floating-point operations.

The model's own forward and backward pass run operator by operator on fake tensors, which have shape, type and storage but no
data. (Plain "meta" tensors would not do: they know no autocast, and attention on them is never fused.)
"""

import copy
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.flop_counter import FlopCounterMode

from .reconstruction import MHA


class Ledger(TorchDispatchMode):
    """While it is entered: `live`, the bytes of all storages that operators have made and nobody has dropped, and `peak`, the
    most there were. What `known` holds is not counted, nor are views of it."""

    def __init__(self, known: Iterable[Tensor]):
        super().__init__()
        self.live = self.peak = 0
        self.known = [t.untyped_storage() for t in known]  # held, so that their ids are given to no other
        self.seen = {id(s) for s in self.known}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for t in tree_iter(result):
            if isinstance(t, Tensor) and id(storage := t.untyped_storage()) not in self.seen:
                self.seen.add(id(storage))
                self.live += storage.nbytes()
                weakref.finalize(storage, self._drop, id(storage), storage.nbytes()).atexit = False
        self.peak = max(self.peak, self.live)
        return result

    def _drop(self, key: int, size: int) -> None:
        self.seen.discard(key)
        self.live -= size


class ByteDropout(nn.Dropout):
    """Dropout as a GPU computes it: it keeps a byte a value for the backward pass, where the CPU keeps a float."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.native_dropout(x, self.p, self.training)[0]


@contextmanager
def shadow(model: nn.Module, device: str) -> Iterator[nn.Module]:
    """A copy of a model without data, and all that is computed inside on fake tensors; the model and the state of random
    numbers are left as they are.

    device: "cuda" has dropout and attention counted as a GPU computes them (attention fused under dropout too), "cpu" as here.
    """
    memo: dict[int, object] = {}  # for deepcopy: what stands for what
    with (mode := FakeTensorMode()):
        for t in (*model.parameters(), *model.buffers()):
            fake = torch.empty_strided(t.shape, t.stride(), dtype=t.dtype, device="cpu")
            memo[id(t)] = nn.Parameter(fake, t.requires_grad) if isinstance(t, nn.Parameter) else fake
    if device == "cuda":
        memo |= {id(m): ByteDropout(m.p) for m in model.modules() if type(m) is nn.Dropout and m.p}
    twin = copy.deepcopy(model, memo)
    for m in twin.modules():
        if isinstance(m, MHA) and device == "cuda":
            m.dropout = 0.0
    with torch.random.fork_rng(devices=[]), mode:
        yield twin


def images(batch: int, size: int) -> tuple[Tensor, Tensor]:
    """x (batch, 3, size, size) and labels y (batch,)."""
    return torch.empty(batch, 3, size, size), torch.zeros(batch, dtype=torch.int64)


def training_bytes(
    model: nn.Module, batch: int, size: int, precision: torch.dtype, checkpointing: bool, device: str
) -> tuple[int, int]:
    """(bytes kept for the backward pass, most bytes alive at once in a step), both with the images, without parameters,
    buffers and the gradients that the optimizer reads. As in the middle of a training: gradients are there already."""
    with shadow(model, device) as twin:
        twin.backbone.precision = precision
        twin.backbone.checkpoint(checkpointing)
        twin.train()
        known = [*twin.parameters(), *twin.buffers()]
        for p in twin.parameters():
            if p.requires_grad:
                p.grad = torch.empty_like(p)
                known.append(p.grad)
        with Ledger(known) as ledger:
            x, y = images(batch, size)
            loss = twin.loss(x, y)["total"]
            kept = ledger.live
            loss.backward()
    return kept, ledger.peak


def scoring_bytes(model: nn.Module, batch: int, size: int) -> int:
    """The most bytes alive at once while a batch is scored, parameters and buffers not among them."""
    with shadow(model, "cuda") as twin:
        scoring(twin)
        with Ledger([*twin.parameters(), *twin.buffers()]) as ledger:
            twin(images(batch, size)[0])
    return ledger.peak


def scoring(twin: nn.Module) -> None:
    """Eval mode, LoRA folded in. No `no_grad` is needed, for nothing wants gradients any more; under it the bank's queries
    would be looked up by addresses, which fake tensors have not."""
    getattr(twin, "backbone", twin).merge_lora()
    twin.requires_grad_(False).eval()


def flops(model: nn.Module, size: int, training: bool, checkpointing: bool = False) -> int:
    """Floating-point operations that one more image costs (a multiplication and an addition are two), of matrix products,
    attention and convolutions: what is done once a batch, as with the bank alone, is not in it.

    training: a forward and a backward pass as `loss` has them, else a forward pass as in scoring.
    """

    def total(batch: int) -> int:
        x, y = images(batch, size)
        # attention as two matrix products, for the counter knows no formula for the CPU's fused kernel
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
            if training:
                twin.loss(x, y)["total"].backward()
            else:
                twin(x)
        return counter.get_total_flops()

    with shadow(model, "cuda") as twin:
        if training:
            twin.backbone.checkpoint(checkpointing)
            twin.train()
        else:
            scoring(twin)
        return (total(4) - total(2)) // 2  # two at least, which batch norm in training needs
