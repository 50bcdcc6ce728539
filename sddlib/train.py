"""Train anything with `loss(x, y)` and `forward(x).logit`: AdamW, warm-up, cosine decay, early stopping."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from . import SDDError
from .backbone import Backbone
from .data import Crops, Sample, TwinBatches


@dataclass(frozen=True)
class TrainConfig:
    """How to train, Sec. 4.1. The paper prints lr 1e-4, batch 32 and early stopping; profiles set their own."""

    epochs: int = 10  # at most; the paper names no number
    batch: int = 32  # images a step, as printed
    lr: float = 1e-4  # peak, as printed
    scratch: float = 1.0  # factor on the rate of modules that start from random weights; LoRA keeps lr
    weight_decay: float = 5e-4  # release
    decay_all: bool = False  # decay biases and norms too (release)
    schedule: str = "cosine"  # to 0 at the last epoch (silent); "plateau" (release): lr/10 after `patience` epochs without gain
    warmup: float = 0.1  # share of all steps with linearly rising rate, under "cosine"
    patience: int = 3  # epochs without a lower validation loss before training stops, or the rate falls
    floor: float = 1e-6  # "plateau" stops when the rate falls below (release)
    resize: int = 0  # px that a training picture's shorter side is brought to before the crop (release: 512); 0: native
    precision: str = "float32"  # of the encoder's matrix products while training, or "bfloat16": quicker where hardware has it
    seed: int = 0
    workers: int = 0
    keep: bool = True  # hold decoded pictures in memory

    def __post_init__(self):
        if self.schedule not in ("cosine", "plateau"):
            raise SDDError(f"schedule {self.schedule!r} is unknown; use 'cosine' or 'plateau'")
        if self.precision not in ("float32", "bfloat16"):
            raise SDDError(f"precision {self.precision!r} is unknown; use 'float32' or 'bfloat16'")


# How each preset is trained at full scale: by the paper, and by the authors' release (its betas are AdamW's defaults; its
# patience is not known, 5 is UnivFD's). The plateau sets the release's end; its epochs are out of reach.
TRAINING = {
    "paper": TrainConfig(keep=False),
    "release": TrainConfig(1000, lr=1e-5, decay_all=True, schedule="plateau", patience=5, resize=512, keep=False),
}


def pick_device() -> torch.device:
    """The GPU if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch; weights made and batches drawn afterwards are the same on the same machine."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def progress(iterable, **options):
    """A tqdm bar that is quiet when there is no terminal or notebook page to look at it."""
    # An iterator of our own: tqdm.auto calls iter() once more on anything else, which starts a loader's workers twice and
    # draws from its generator, so that the order of batches would depend on the number of workers.
    return tqdm(iter(iterable), total=len(iterable), leave=False, disable=None, mininterval=1.0, **options)


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


@torch.inference_mode()
def validate(model: nn.Module, loader: DataLoader, device: torch.device) -> tuple[float, np.ndarray, np.ndarray]:
    """(mean BCE, logits (n,), labels (n,)) of a validation set in eval mode."""
    model.eval()
    logits, labels = [], []
    for x, y, _ in loader:
        logits.append(model(x.to(device)).logit.float().cpu())
        labels.append(y)
    z, y = torch.cat(logits), torch.cat(labels)
    return F.binary_cross_entropy_with_logits(z, y.float()).item(), z.numpy(), y.numpy()


def train(
    model: nn.Module,
    train_samples: list[Sample],
    val_samples: list[Sample],
    config: TrainConfig,
    size: int,
    log: Callable[[str], None] = print,
) -> list[dict]:
    """Train in place and leave the model in eval mode with the weights of its best validation epoch.

    size: crop side in pixels. Returns a history: a dict an epoch with every loss term (training means), val_bce, val_acc,
    lr (for the next epoch), seconds. Stops early after `patience` epochs without a lower validation BCE, or, on a plateau
    schedule, when the rate has fallen below the floor. A loss that is not finite is an error.
    """
    if not train_samples or not val_samples:
        raise SDDError("training needs images in both the train and the val split; check the manifest's split column")
    device = pick_device()
    model.to(device)
    if isinstance(getattr(model, "backbone", None), Backbone):
        model.backbone.precision = getattr(torch, config.precision)
    seed_everything(config.seed)
    crops = Crops(train_samples, size, train=True, seed=config.seed, keep=config.keep, resize=config.resize)
    order = torch.Generator().manual_seed(config.seed)
    options = {"num_workers": config.workers}
    loader = DataLoader(crops, batch_sampler=TwinBatches(train_samples, config.batch, order), **options)
    val_loader = DataLoader(Crops(val_samples, size, train=False, keep=config.keep), 32, **options)
    if not len(loader):
        raise SDDError(f"batch {config.batch} is larger than the {len(crops)} training images; lower it")
    optimizer = torch.optim.AdamW(parameter_groups(model, config), lr=config.lr)
    total = config.epochs * len(loader)
    rise = max(1, round(config.warmup * total))
    cosine = plateau = None
    if config.schedule == "cosine":
        cosine = torch.optim.lr_scheduler.LambdaLR(
            optimizer,
            lambda s: (s + 1) / rise if s < rise else 0.5 * (1 + np.cos(np.pi * (s - rise) / max(1, total - rise))),
        )
    else:
        plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.1, patience=config.patience - 1, threshold=0)
    history, best, best_state = [], float("inf"), {}
    for epoch in range(config.epochs):
        crops.epoch, start, sums = epoch, time.perf_counter(), {}
        model.train()
        for x, y, _ in progress(loader, desc=f"epoch {epoch + 1}/{config.epochs}"):
            losses = model.loss(x.to(device), y.to(device))
            if not torch.isfinite(losses["total"]):
                raise SDDError(f"the loss became {losses['total'].item()} in epoch {epoch + 1}; lower the learning rate")
            optimizer.zero_grad(set_to_none=True)
            losses["total"].backward()
            optimizer.step()
            if cosine:
                cosine.step()
            for name, value in losses.items():
                sums[name] = sums.get(name, 0.0) + value.item()
        val_bce, z, labels = validate(model, val_loader, device)
        if not np.isfinite(val_bce):
            raise SDDError(f"the validation loss became {val_bce} in epoch {epoch + 1}; lower the learning rate")
        if plateau:
            plateau.step(val_bce)
        row = {"epoch": epoch + 1, **{k: v / len(loader) for k, v in sums.items()}}
        row |= {"val_bce": val_bce, "val_acc": float(((z > 0) == labels).mean()), "lr": optimizer.param_groups[0]["lr"]}
        row["seconds"] = time.perf_counter() - start
        history.append(row)
        log("  ".join(f"{k} {v:.4g}" for k, v in row.items()))
        if val_bce < best:
            best = val_bce
            best_state = {k: v.detach().cpu().clone() for k, v in trainable_state(model).items()}
        elif cosine and epoch + 1 - min(history, key=lambda r: r["val_bce"])["epoch"] >= config.patience:
            break
        if plateau and row["lr"] < config.floor:
            break
    model.load_state_dict(best_state, strict=False)
    return history


def trainable_state(model: nn.Module) -> dict[str, torch.Tensor]:
    """Trainable parameters and the buffers that training moves (BN statistics): enough to restore the best epoch."""
    return {n: p for n, p in [*trainable(model).items(), *model.named_buffers()]}
