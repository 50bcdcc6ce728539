"""A training under way: model, data, optimizer and schedule, how far they have come, one step, the end of an epoch."""

import time

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, Subset

from . import SDDError
from .backbone import Backbone
from .crops import Crops, TwinBatches
from .data import Sample, check_training, normalised
from .optim import TrainConfig, make_schedule, parameter_groups, trainable
from .parallel import average_gradients, everyones, pick_device, rank, world
from .perturb import Augment
from .progress import progress
from .randomness import random_state, seed_everything


def trainable_state(model: nn.Module) -> dict[str, torch.Tensor]:
    """Trainable parameters and the buffers that training moves (BN statistics): enough to restore an epoch."""
    return {n: p.detach() for n, p in [*trainable(model).items(), *model.named_buffers()]}


@torch.inference_mode()
def validate(model: nn.Module, loader: DataLoader, device: torch.device) -> tuple[float, np.ndarray, np.ndarray]:
    """(mean BCE, logits (n,), labels (n,)) of a validation set in eval mode. Each process computes what its loader holds, and
    all get all of it, by rank."""
    model.eval()
    logits, labels = [torch.empty(0)], [torch.empty(0, dtype=torch.long)]
    for x, y, _ in progress(loader, desc="validation"):
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
        check_training(train_samples, val_samples)
        if config.batch > len(train_samples):
            raise SDDError(f"batch {config.batch} is larger than the {len(train_samples)} training images; lower it")
        self.model, self.config, self.samples, self.device = model, config, train_samples, pick_device()
        model.to(self.device)
        if isinstance(getattr(model, "backbone", None), Backbone):
            model.backbone.precision = config.dtype(self.device)
            model.backbone.checkpoint(config.checkpointing)
        seed_everything(config.seed + 10_007 * rank())  # processes drop out different things
        looks = {"resize": config.resize, "augment": Augment(blur_prob=config.augment, jpeg_prob=config.augment)}
        reading = {"keep": config.keep, "read": getattr(model, "prepare", normalised)}
        looks |= {"seed": config.seed, "views": getattr(model, "views", 0)}
        self.crops = Crops(train_samples, size, train=True, **reading, **looks)
        self.order = torch.Generator().manual_seed(config.seed)
        config.part(world())  # refuses a batch that cannot be cut
        self.batches = TwinBatches(train_samples, config.batch, self.order, config.accumulate, (rank(), world()))
        self.loader = DataLoader(self.crops, batch_sampler=self.batches, num_workers=config.workers)
        mine = Subset(Crops(val_samples, size, train=False, **reading), range(rank(), len(val_samples), world()))
        self.val_loader = DataLoader(mine, 32, num_workers=config.workers)
        self.steps = len(self.batches) // config.accumulate  # an epoch
        self.optimizer = torch.optim.AdamW(parameter_groups(model, config), lr=config.lr)
        self.scheduler = make_schedule(self.optimizer, config, config.epochs * self.steps)
        self.epoch, self.step, self.sums, self.seconds = 0, 0, {}, 0.0
        self.history, self.best, self.best_state, self.over = [], float("inf"), {}, False
        self.order_state = self.order.get_state()

    def state(self) -> dict:
        """All that the rest of the training depends on, if the model draws from no source of randomness of its own."""
        names = ("epoch", "step", "sums", "seconds", "history", "best", "best_state", "over", "order_state")
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
        wrong, suspects = "", []
        for x, y, index in parts:
            losses = self.model.loss(x.to(self.device), y.to(self.device))
            if not torch.isfinite(losses["total"]):
                wrong, suspects = f"the loss became {losses['total'].item()}", suspects + index.tolist()
            (losses["total"] / len(parts)).backward()
            for name, value in losses.items():
                self.sums[name] = self.sums.get(name, 0.0) + value.item() / len(parts)
        average_gradients(self.model.parameters())
        norm = torch.nn.utils.get_total_norm([p.grad for p in self.model.parameters() if p.grad is not None])
        if not wrong and not torch.isfinite(norm):
            wrong, suspects = f"a gradient became {norm.item()}", torch.cat([index for *_, index in parts]).tolist()
        self.check_finite(everyones((wrong, suspects)))
        self.optimizer.step()
        if self.config.schedule == "cosine":
            self.scheduler.step()
        self.step += 1

    def check_finite(self, found: list[tuple[str, list[int]]]) -> None:
        """Raise in all processes what one has found wrong: a loss before the gradients that it spoils."""
        said = sorted((wrong for wrong, _ in found if wrong), key=lambda wrong: "loss" not in wrong)
        if said:
            names = [self.samples[i].path.name for wrong, suspects in found if wrong == said[0] for i in suspects]
            files = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
            where = f"epoch {self.epoch + 1}, batch {self.step + 1} ({files})"
            raise SDDError(f"{said[0]} in {where}; look at these images or lower the learning rate")

    def end_epoch(self) -> None:
        """Validate, note the epoch, keep it if it is the best, and see whether training is over."""
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
        stale = self.epoch - best_epoch >= config.patience
        self.over = self.epoch == config.epochs or (row["lr"] < config.floor if config.schedule == "plateau" else stale)
