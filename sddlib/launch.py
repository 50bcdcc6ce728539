"""`python -m sddlib run` under a launcher: before the first process runs a notebook, all do its heavy part together."""

from pathlib import Path
from types import SimpleNamespace

from .fitting import fit, job_bank, read_job
from .parallel import from_first, pick_device, rank, wait, world
from .profiles import ROOT, all_parameters, check_overrides, parameters
from .runner import run_notebooks
from .runs import new_run_dir
from .score_run import score_run


def train_together(p: SimpleNamespace, folder: Path) -> None:
    """The trainings of 03_train, which then finds the checkpoints."""
    weights = ROOT / Path(p.weights).expanduser()
    job = read_job(p, ROOT / Path(p.manifest).expanduser(), str(weights) if weights.exists() else p.weights, folder)
    bank = job_bank(job, pick_device())
    for kind in ("sdd", "lora", "probe"):
        fit(job, kind, bank)


def score_together(p: SimpleNamespace, folder: Path) -> None:
    """The scores of 04_evaluate, which then reads them."""
    chosen = {name: getattr(p, name) for name in ("layout", "limit", "protocol", "equalise", "rescore", "batch", "workers")}
    score_run(folder, ROOT / Path(p.manifest).expanduser(), **chosen)


HEAVY = {"03_train": (train_together, {"retrain": False}), "04_evaluate": (score_together, {"rescore": False})}


def run_together(names: list[str], profile: str, overrides: dict, run_dir: str | None, say=print) -> Path:
    """Called in every process with notebooks in running order. Returns the run folder, which all must see (a shared disk)."""
    check_overrides(overrides, names)
    folder = Path(from_first(str(Path(run_dir).resolve() if run_dir else new_run_dir(profile)) if rank() == 0 else None))
    if rank() == 0:
        say(f"run folder {folder}: {', '.join(names)} with profile {profile}, {world()} processes")
    for name in names:
        mine, done = {k: v for k, v in overrides.items() if k in parameters(name)}, {}
        if name in HEAVY:
            prepare, done = HEAVY[name]
            prepare(SimpleNamespace(**all_parameters(profile, name, mine)), folder)
        if rank() == 0:
            run_notebooks([name], profile, mine | done, folder, say)
        wait()
    return folder
