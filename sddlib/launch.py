"""`python -m sddlib train` under a launcher: bank, trainings and notebooks as ever, the steps shared by many processes."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

from .fitting import fit, job_bank, read_job
from .parallel import from_first, pick_device, rank, wait, world
from .profiles import ROOT, all_parameters, parameters
from .runner import run_notebooks
from .runs import new_run_dir


def train_together(profile: str, overrides: dict, run_dir: str | None, say: Callable[[str], None] = print) -> Path:
    """Called in every process. The first one runs 02_token_bank, then all train SDD and LoRA + linear together, then the first
    one runs 03_train, which finds the checkpoints. Returns the run folder, which all must see (a shared disk)."""
    folder = Path(from_first(str(Path(run_dir).resolve() if run_dir else new_run_dir(profile)) if rank() == 0 else None))

    def run_first(notebook: str, **changes) -> None:
        if rank() == 0:
            mine = {k: v for k, v in overrides.items() if k in parameters(notebook)}
            run_notebooks([notebook], profile, mine | changes, folder, say)
        wait()

    if rank() == 0:
        say(f"run folder {folder}: {world()} processes, profile {profile}")
    run_first("02_token_bank")
    p = SimpleNamespace(**all_parameters(profile, "03_train", overrides))
    weights = ROOT / Path(p.weights).expanduser()
    job = read_job(p, ROOT / Path(p.manifest).expanduser(), str(weights) if weights.exists() else p.weights, folder)
    bank = job_bank(job, pick_device())
    for kind in ("sdd", "lora", "probe"):
        fit(job, kind, bank, say)
    run_first("03_train", retrain=False)
    return folder
