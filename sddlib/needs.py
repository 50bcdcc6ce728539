"""What a notebook needs of earlier ones: loaded where it is there, else made by running those first, in the same run folder."""

import re
import time
from pathlib import Path

import nbformat

from . import SDDError
from .profiles import NOTEBOOKS, parameters, read_json
from .runner import run_notebooks
from .runs import Run, profile_variable

MAKERS = {  # what lies in a run folder -> the notebook that makes it
    "bank.safetensors": "03_train",  # of all training reals; 02_token_bank may look at some only
    "checkpoints/sdd.safetensors": "03_train",
    "checkpoints/lora.safetensors": "03_train",
    "checkpoints/probe.safetensors": "03_train",
    "scores/sdd.csv": "04_evaluate",
    "scores/lora.csv": "04_evaluate",
    "scores/probe.csv": "04_evaluate",
}
# Parameters that mean the same in every notebook: which data and which encoder. One run folder holds one choice of them.
SHARED = ("seed", "manifest", "layout", "limit", "classes", "train_images", "backbone", "weights", "image_size", "preset")
SHARED += ("preset_fields",)
DEFAULT = "mini"  # the profile that equals the notebooks' own defaults


def ensure(run: Run, *names: str, say=print) -> None:
    """Have these files in the run folder, each one of MAKERS. What is missing is computed by the notebooks that make it, in
    running order, as `python -m sddlib run` would do it; what that is and how long it takes is said. An SDDError where a
    notebook fails, or does not leave what it should.

    Parameters: those that run.json records for the notebook if it has run here before, else the run's profile (of a folder
    without a record: SDDLIB_PROFILE, or mini); and of SHARED those of the calling notebook.
    """
    if unknown := [n for n in names if n not in MAKERS]:
        raise SDDError(f"no notebook is known to make {unknown[0]!r}; there are {', '.join(MAKERS)}")
    missing = [n for n in names if not present(run.dir / n)]
    if found := [n for n in names if n not in missing]:
        say(f"there: {', '.join(found)}")
    if not missing:
        return
    first = min(MAKERS[n] for n in missing)
    notebooks = sorted({MAKERS[n] for n in names if MAKERS[n] >= first})  # what was made of something that is made anew, too
    say(f"missing: {', '.join(missing)}")
    for notebook in notebooks:
        say(f"{notebook} runs now; profile mini takes {minutes(notebook)} minutes on 2 CPU cores")
    begin = time.perf_counter()
    for notebook in notebooks:
        profile, overrides = settings(run, notebook)
        run_notebooks([notebook], profile, overrides, run.dir, say, latest=False)
    if still := [n for n in names if not present(run.dir / n)]:
        raise SDDError(f"{MAKERS[still[0]]} has run and left no {still[0]}; look at {run.dir / 'notebooks'}")
    say(f"made in {time.perf_counter() - begin:.0f} s")


def present(path: Path) -> bool:
    """Whether a file is there, and the JSON beside it that tensors need."""
    return path.is_file() and (path.suffix != ".safetensors" or path.with_suffix(".json").is_file())


def minutes(notebook: str) -> str:
    """What the head of a notebook says of its time on two CPU cores."""
    head = nbformat.read(NOTEBOOKS / f"{notebook}.ipynb", 4).cells[0].source
    return re.search(r"\*\*Minutes\*\* 2 CPU cores: (about [\d.]+)", head)[1]


def settings(run: Run, notebook: str) -> tuple[str, dict]:
    """(profile, changes to it) with which a notebook runs in the folder of another."""
    record = run.dir / "run.json"
    facts = read_json(record) if record.is_file() else {}
    known, accepted = facts.get("parameters") or {}, parameters(notebook)
    earlier = [known[n] for n in sorted(set(MAKERS.values())) if n in known and n != notebook]
    changes = {k: v for values in earlier for k, v in values.items() if k in SHARED}
    changes |= {k: v for k, v in known.get(notebook, {}).items() if k not in ("run_dir", "force")}
    changes |= {k: v for k, v in vars(run.p).items() if k in SHARED}
    return facts.get("profile") or profile_variable() or DEFAULT, {k: v for k, v in changes.items() if k in accepted}
