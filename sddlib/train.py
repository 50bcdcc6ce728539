"""Train anything with `loss(x, y)` and `forward(x).logit`: one loop for one process or many; killed, it goes on."""

import time
from collections.abc import Callable

from torch import nn

from . import SDDError
from .data import Sample
from .optim import TrainConfig
from .parallel import everyones, from_first, rank
from .progress import progress
from .randomness import set_random_state
from .resume import States, stop_requests
from .training import Training


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
    work = Training(model, train_samples, val_samples, config, size)
    found = from_first(states.load() if states and rank() == 0 else None)
    drawn = work.load(found) if found else None
    if found and rank() == 0:
        log(f"goes on after epoch {work.epoch}, step {work.step} of {work.steps}")
    try:
        with stop_requests() as asked:
            while not work.over:
                run_epoch(work, states, asked, drawn)
                drawn = None
                work.end_epoch()
                if rank() == 0:
                    log("  ".join(f"{k} {v:.4g}" for k, v in work.history[-1].items()))
                if any(everyones(asked())):
                    stop(work, states)
    except SDDError as e:
        if states and (kept := states.files()):
            raise SDDError(f"{e} ({kept[-1].name} is kept)") from None
        raise
    model.load_state_dict(work.best_state, strict=False)
    model.eval()
    return work.history


def run_epoch(work: Training, states: States | None, asked: Callable[[], bool], drawn: dict | None) -> None:
    """The steps of an epoch that are left, keeping the state when due. drawn: the random state to go on with, or None."""
    work.crops.epoch, k = work.epoch, work.config.accumulate
    work.model.train()
    begin, before, parts = time.perf_counter(), work.seconds, []
    if drawn and not work.step:
        set_random_state(drawn)
    batches = progress(work.loader, desc=f"epoch {work.epoch + 1}/{work.config.epochs}")
    if drawn and work.step:  # a state within an epoch is from after the start of its loader, which draws too
        set_random_state(drawn)
    for part in batches:
        parts.append(part)
        if len(parts) < k:
            continue
        work.do_step(parts)
        parts, work.seconds = [], before + time.perf_counter() - begin
        if any(everyones(asked())):
            stop(work, states)
        if states and from_first(states.due()):
            keep(work, states)


def keep(work: Training, states: States) -> None:
    """Write the state: every process gives its part, the first one writes."""
    state = work.state()
    if rank() == 0:
        states.save(work.epoch * work.steps + work.step, state)


def stop(work: Training, states: States | None) -> None:
    """End at the user's wish; what was computed is kept."""
    if states:
        keep(work, states)
    kept = f", its state is kept in {states.folder}" if states else ""
    raise KeyboardInterrupt(f"stopped in epoch {work.epoch + 1} after step {work.step} of {work.steps}{kept}")
