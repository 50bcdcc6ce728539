"""Train anything with `loss(x, y)` and `forward(x).logit`: one loop for one process or many; killed, it goes on."""

import random
import time
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, Subset
from tqdm.auto import tqdm

from . import SDDError
from .backbone import Backbone
from .crops import Crops, TwinBatches
from .data import Sample
from .optim import TrainConfig, parameter_groups, schedule, trainable
from .parallel import average_gradients, everyones, from_first, pick_device, rank, world
from .perturb import Augment
from .resume import States, random_state, set_random_state, stop_requests


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch; weights made and batches drawn afterwards are the same on the same machine."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def progress(iterable, **options):
    """A tqdm bar that is quiet when there is no terminal or notebook page to look at it."""
    # An iterator of our own: tqdm.auto calls iter() once more on anything else, which starts a loader's workers twice and
    # draws from its generator, so that the order of batches would depend on the number of workers.
    disable = None if rank() == 0 else True
    return tqdm(iter(iterable), total=len(iterable), leave=False, disable=disable, mininterval=1.0, **options)


def trainable_state(model: nn.Module) -> dict[str, torch.Tensor]:
    """Trainable parameters and the buffers that training moves (BN statistics): enough to restore an epoch."""
    return {n: p.detach() for n, p in [*trainable(model).items(), *model.named_buffers()]}


@torch.inference_mode()
def validate(model: nn.Module, loader: DataLoader, device: torch.device) -> tuple[float, np.ndarray, np.ndarray]:
    """(mean BCE, logits (n,), labels (n,)) of a validation set in eval mode. Each process computes what its loader holds, and
    all get all of it, by rank."""
    model.eval()
    logits, labels = [torch.empty(0)], [torch.empty(0, dtype=torch.long)]
    for x, y, _ in loader:
        logits.append(model(x.to(device)).logit.float().cpu())
        labels.append(y)
    z, y = (torch.cat(found) for found in zip(*everyones((torch.cat(logits), torch.cat(labels))), strict=True))
    return F.binary_cross_entropy_with_logits(z, y.float()).item(), z.numpy(), y.numpy()


class Training:
    """A model, its data, optimizer and schedule, and how far they have come."""

    def __init__(
        self, model: nn.Module, train_samples: list[Sample], val_samples: list[Sample], config: TrainConfig, size: int
    ):
        if not train_samples or not val_samples:
            raise SDDError("training needs images in both the train and the val split; check the manifest's split column")
        if config.batch > len(train_samples):
            raise SDDError(f"batch {config.batch} is larger than the {len(train_samples)} training images; lower it")
        self.model, self.config, self.samples, self.device = model, config, train_samples, pick_device()
        model.to(self.device)
        if isinstance(getattr(model, "backbone", None), Backbone):
            model.backbone.precision = config.dtype(self.device)
        seed_everything(config.seed + 10_007 * rank())  # processes drop out different things
        looks = {"resize": config.resize, "augment": Augment(blur_prob=config.augment, jpeg_prob=config.augment)}
        self.crops = Crops(train_samples, size, train=True, seed=config.seed, keep=config.keep, **looks)
        self.order = torch.Generator().manual_seed(config.seed)
        self.batches = TwinBatches(train_samples, config.batch, self.order, config.accumulate, (rank(), world()))
        self.loader = DataLoader(self.crops, batch_sampler=self.batches, num_workers=config.workers)
        mine = Subset(Crops(val_samples, size, train=False, keep=config.keep), range(rank(), len(val_samples), world()))
        self.val_loader = DataLoader(mine, 32, num_workers=config.workers)
        self.steps = len(self.batches) // config.accumulate  # an epoch
        self.optimizer = torch.optim.AdamW(parameter_groups(model, config), lr=config.lr)
        self.scheduler = schedule(self.optimizer, config, config.epochs * self.steps)
        self.epoch, self.step, self.sums, self.seconds = 0, 0, {}, 0.0
        self.history, self.best, self.best_state = [], float("inf"), {}
        self.order_state = self.order.get_state()

    def state(self) -> dict:
        """All that the rest of the training depends on."""
        names = ("epoch", "step", "sums", "seconds", "history", "best", "best_state", "order_state")
        parts = {"model": trainable_state(self.model), "optimizer": self.optimizer.state_dict()}
        parts |= {"scheduler": self.scheduler.state_dict(), "random": everyones(random_state())}
        return {name: getattr(self, name) for name in names} | parts

    def load(self, state: dict) -> dict:
        """Go back to a `state`; returns this process's random state, for when the loader has been started."""
        if len(state["random"]) != world():
            raise SDDError(f"this training was begun with {len(state['random'])} processes; go on with as many")
        self.model.load_state_dict(state.pop("model"), strict=False)
        self.optimizer.load_state_dict(state.pop("optimizer"))
        self.scheduler.load_state_dict(state.pop("scheduler"))
        drawn = state.pop("random")[rank()]
        for name, value in state.items():
            setattr(self, name, value)
        self.order.set_state(self.order_state)
        self.batches.skip = self.step
        return drawn

    def do_step(self, parts: list) -> None:
        """One step of the optimizer on a batch that comes as a list of (x, y, index)."""
        self.optimizer.zero_grad(set_to_none=True)
        for x, y, index in parts:
            losses = self.model.loss(x.to(self.device), y.to(self.device))
            if not torch.isfinite(losses["total"]):
                raise self.not_finite(f"the loss became {losses['total'].item()}", index)
            (losses["total"] / len(parts)).backward()
            for name, value in losses.items():
                self.sums[name] = self.sums.get(name, 0.0) + value.item() / len(parts)
        average_gradients(self.model.parameters())
        norm = torch.nn.utils.get_total_norm([p.grad for p in self.model.parameters() if p.grad is not None])
        if not torch.isfinite(norm):
            raise self.not_finite(f"a gradient became {norm.item()}", torch.cat([index for *_, index in parts]))
        self.optimizer.step()
        if self.config.schedule == "cosine":
            self.scheduler.step()
        self.step += 1

    def not_finite(self, what: str, index: torch.Tensor) -> SDDError:
        names = [self.samples[i].path.name for i in index.tolist()]
        files = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        where = f"epoch {self.epoch + 1}, batch {self.step + 1} ({files})"
        return SDDError(f"{what} in {where}; look at these images or lower the learning rate; the last state is kept")

    def end_epoch(self) -> bool:
        """Validate, note the epoch and keep it if it is the best; whether training is over."""
        config, begin = self.config, time.perf_counter()
        val_bce, z, labels = validate(self.model, self.val_loader, self.device)
        if not np.isfinite(val_bce):
            raise SDDError(f"the validation loss became {val_bce} in epoch {self.epoch + 1}; lower the learning rate")
        if config.schedule == "plateau":
            self.scheduler.step(val_bce)
        sums = everyones(self.sums)
        row = {"epoch": self.epoch + 1, **{k: sum(s[k] for s in sums) / len(sums) / self.steps for k in self.sums}}
        row |= {"val_bce": val_bce, "val_acc": float(((z > 0) == labels).mean()), "lr": self.optimizer.param_groups[0]["lr"]}
        row["seconds"] = self.seconds + time.perf_counter() - begin
        self.history.append(row)
        if val_bce < self.best:
            self.best = val_bce
            self.best_state = {k: v.cpu().clone() for k, v in trainable_state(self.model).items()}
        self.epoch, self.step, self.sums, self.seconds = self.epoch + 1, 0, {}, 0.0
        self.order_state = self.order.get_state()
        best_epoch = min(self.history, key=lambda r: r["val_bce"])["epoch"]
        if config.schedule == "plateau":
            return row["lr"] < config.floor
        return self.epoch - best_epoch >= config.patience


def train(
    model: nn.Module,
    train_samples: list[Sample],
    val_samples: list[Sample],
    config: TrainConfig,
    size: int,
    log: Callable[[str], None] = print,
    states: States | None = None,
) -> list[dict]:
    """Train in place and leave the model in eval mode with the weights of its best validation epoch.

    size: crop side in pixels. states: where to keep the state now and then; a training that was killed goes on from it, to the
    same weights. Returns a history: a dict an epoch with every loss term (training means), val_bce, val_acc, lr (for the next
    epoch), seconds. Stops early after `patience` epochs without a lower validation BCE, or, on a plateau schedule, when the
    rate has fallen below the floor. A loss or a gradient that is not finite is an error that names the batch.
    """
    job = Training(model, train_samples, val_samples, config, size)
    found = from_first(states.load() if states and rank() == 0 else None)
    drawn = job.load(found) if found else None
    if found and rank() == 0:
        log(f"goes on after epoch {job.epoch}, step {job.step} of {job.steps}")
    over = False
    with stop_requests() as asked:
        while job.epoch < config.epochs and not over:
            run_epoch(job, states, asked, drawn)
            drawn, over = None, job.end_epoch()
            if rank() == 0:
                log("  ".join(f"{k} {v:.4g}" for k, v in job.history[-1].items()))
        if asked():
            raise KeyboardInterrupt("stopped by the user at the end of the training")
    model.load_state_dict(job.best_state, strict=False)
    model.eval()
    return job.history


def run_epoch(job: Training, states: States | None, asked: Callable[[], bool], drawn: dict | None) -> None:
    """The steps of an epoch that are left, keeping the state when due. drawn: the random state to go on with, or None."""
    job.crops.epoch, k = job.epoch, job.config.accumulate
    job.model.train()
    begin, before, parts = time.perf_counter(), job.seconds, []
    batches = progress(job.loader, desc=f"epoch {job.epoch + 1}/{job.config.epochs}")
    if drawn:  # only now: starting a loader draws too
        set_random_state(drawn)
    for part in batches:
        parts.append(part)
        if len(parts) < k:
            continue
        job.do_step(parts)
        parts, job.seconds = [], before + time.perf_counter() - begin
        if states and from_first(asked() or states.due()):
            state = job.state()
            if rank() == 0:
                states.save(job.epoch * job.steps + job.step, state)
        if asked():
            kept = f", its state is kept in {states.folder}" if states else ""
            raise KeyboardInterrupt(f"stopped in epoch {job.epoch + 1} after step {job.step} of {job.steps}{kept}")
