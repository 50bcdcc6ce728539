"""`python -m sddlib run` under a launcher: before the first process runs a notebook, all do its heavy part together."""

import gc
import time
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import torch

from . import SDDError
from .disk import expanded
from .fitting import fit, job_bank, read_job
from .parallel import from_first, join, pick_device, rank, wait, world
from .profiles import ROOT, all_parameters, check_overrides, parameters
from .registry import claimed
from .runner import run_notebooks
from .runs import new_run_dir, write_json
from .score_run import score_run


def train_together(p: SimpleNamespace, folder: Path) -> None:
    """The trainings of 03_train, which then finds the checkpoints."""
    weights = ROOT / expanded(p.weights)
    job = read_job(p, ROOT / expanded(p.manifest), str(weights) if weights.exists() else p.weights, folder)
    bank = job_bank(job, pick_device())
    for kind in ("sdd", "lora", "probe"):
        fit(job, kind, bank)


def score_together(p: SimpleNamespace, folder: Path) -> None:
    """The scores of 04_evaluate, which then reads them."""
    chosen = {name: getattr(p, name) for name in ("layout", "limit", "protocol", "equalise", "force", "batch", "workers")}
    score_run(folder, ROOT / expanded(p.manifest), **chosen)


HEAVY = {"03_train": (train_together, {"force": False}), "04_evaluate": (score_together, {"force": False})}


def run_together(names: list[str], profile: str, overrides: dict, run_dir: str | None, say=print) -> tuple[Path, dict]:
    """Called in every process with notebooks in running order. Returns the run folder, which all must see (a shared disk), and
    the summary, with the time of the shared work; {} in all processes but the first."""
    check_overrides(overrides, names)
    join()
    folder = Path(from_first(str(Path(run_dir).resolve() if run_dir else new_run_dir(profile)) if rank() == 0 else None))
    with ExitStack() as held:
        claim_for_all(folder, held)
        return share(names, profile, overrides, folder, say)


def claim_for_all(folder: Path, held: ExitStack) -> None:
    """The first process claims the run folder; where another one is at work in it, all stop with the sentence that says so."""
    refused = ""
    if rank() == 0:
        try:
            held.enter_context(claimed(folder))
        except (SDDError, OSError) as e:  # the others wait for an answer
            refused = str(e)
    if refused := from_first(refused):
        raise SDDError(refused)


def share(names: list[str], profile: str, overrides: dict, folder: Path, say) -> tuple[Path, dict]:
    """What `run_together` does in a run folder that is claimed."""
    if rank() == 0:
        say(f"run folder {folder}: {', '.join(names)} with profile {profile}, {world()} processes")
    begun, each, summary = time.perf_counter(), {}, {}
    for name in names:
        begin = time.perf_counter()
        mine, done = {k: v for k, v in overrides.items() if k in parameters(name)}, {}
        if name in HEAVY:
            prepare, done = HEAVY[name]
            prepare(SimpleNamespace(**all_parameters(profile, name, mine)), folder)
        if rank() == 0:
            free_memory()
            summary = run_notebooks([name], profile, mine | done, folder, say)
            each[name] = round(time.perf_counter() - begin, 1)
            summary |= {"seconds": round(time.perf_counter() - begun, 1), "seconds_each": each, "processes": world()}
            write_json(folder / "summary.json", summary)
        wait()
    return folder, summary


def free_memory() -> None:
    """Give back what this process holds on its GPU and does not use: the notebook's kernel works on the same one."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
