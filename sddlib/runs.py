"""A run is a folder: parameters, executed notebooks, figures, scores, metrics and one summary. Nothing is silently ignored."""

import json
import os
import platform
import sys
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

from . import SDDError, __version__
from .disk import expanded, replaced
from .limits import is_name
from .profiles import ROOT, near, parameters, profile_parameters, read_json

RUNS = ROOT / "runs"
PROFILE_VARIABLE = "SDDLIB_PROFILE"
LIBRARIES = ("torch", "open_clip_torch", "peft", "numpy", "scikit-learn")


def profile_variable() -> str:
    """The profile that shrinks a notebook's defaults (for nbval), or "". The only place that reads the variable."""
    return os.environ.get(PROFILE_VARIABLE, "")


def versions() -> dict[str, str]:
    """Versions of what a result depends on."""
    return {"sddlib": __version__, "python": platform.python_version(), **{name: version(name) for name in LIBRARIES}}


def machine_text() -> str:
    """System, processor, cores of this process and memory, as text; no name of the machine."""
    import psutil

    info, name = Path("/proc/cpuinfo"), platform.processor()
    if info.is_file():
        lines = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        name = lines[0].partition(":")[2].strip() if lines else name
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = psutil.virtual_memory().total / 2**30
    return f"{platform.system()} {platform.machine()}, {name or 'unknown processor'}, {cores} cores, {memory:.0f} GiB"


def device_name(device) -> str:
    """A torch device as a report names it: the GPU's model, or the CPU with its threads."""
    import torch

    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type}, {torch.get_num_threads()} threads"


def peak_rss_mb() -> float:
    """Largest resident memory of this process, or of any child that has ended, in MiB."""
    try:
        import resource
    except ImportError:  # Windows
        import psutil

        return psutil.Process().memory_info().peak_wset / 2**20
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) / unit


def write_json(path: Path, value) -> None:
    """Write JSON atomically; the folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replaced(path) as part:
        part.write_text(json.dumps(value, indent=1) + "\n")


def shown(path: Path) -> str:
    """A path as a reader of the repository would write it."""
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


class Run:
    """What a notebook knows of its run. p: its parameters as attributes; dir: the run folder; device."""

    def __init__(self, notebook: str, values: dict, folder: Path, device):
        self.notebook, self.p, self.dir, self.device = notebook, SimpleNamespace(**values), folder, device

    def path(self, name: str) -> Path:
        """A path among the parameters; a relative one starts at the repository's root, wherever the kernel stands."""
        return ROOT / expanded(name)

    def weights(self, name: str) -> str:
        """`embedded`, `random` and open_clip tags as they are; a file or folder below the repository by its full path."""
        return str(self.path(name)) if self.path(name).exists() else name

    def metrics(self, **values) -> None:
        """Hand numbers to the summary: RUN/metrics/NOTEBOOK.json; a second call adds to the first."""
        path = self.dir / "metrics" / f"{self.notebook}.json"
        known = read_json(path) if path.is_file() else {}
        write_json(path, known | values | {"peak_rss_mb": peak_rss_mb(), "device": device_name(self.device)})

    def save_figure(self, fig, name: str) -> None:
        """RUN/figures/NAME.png and .svg. The figure stays open, so that the notebook shows it too."""
        if not is_name(name):
            raise SDDError(f"{name!r} cannot be the name of a figure; give letters, digits, - and _")
        folder = self.dir / "figures"
        folder.mkdir(parents=True, exist_ok=True)
        for form, options in (("png", {"dpi": 150}), ("svg", {"metadata": {"Date": None}})):
            with replaced(folder / f"{name}.{form}") as part:
                fig.savefig(part, format=form, **options)


def start(notebook: str, namespace: dict) -> Run:
    """The cell after the parameters of every notebook: check them, seed, pick the device, make the run folder, say all that.

    namespace: the notebook's globals(). A literal in it that is no parameter is an error (papermill only warns of one). With
    SDDLIB_PROFILE set, parameters that still have their defaults take that profile's values; given ones stay.
    """
    defaults = parameters(notebook)
    if not any(isinstance(v, Run) for v in namespace.values()):  # on a second call later cells' variables are there too
        refuse_unknown(notebook, namespace, defaults)
    absent = [name for name in defaults if name not in namespace]
    if absent:
        raise SDDError(f"{notebook}: {absent[0]!r} is not set; run the parameters cell first")
    from .figures import style  # heavy, and of no use to a run that has been refused
    from .parallel import pick_device
    from .randomness import seed_everything

    values, profile = {name: namespace[name] for name in defaults}, profile_variable()
    if profile:
        changes = profile_parameters(profile, notebook)
        values |= {k: v for k, v in changes.items() if values[k] == defaults[k]}
    namespace.update(values)
    folder = ROOT / (expanded(values["run_dir"]) if values["run_dir"] else RUNS / (profile or "lab"))
    folder.mkdir(parents=True, exist_ok=True)
    record = folder / "run.json"
    profile = read_json(record).get("profile") if record.is_file() else profile or "defaults of the notebook"
    seed_everything(values["seed"])
    style()
    run = Run(notebook, values, folder, pick_device())
    print(f"{notebook}: profile {profile}, seed {values['seed']}, device {run.device}, run folder {shown(folder)}")
    print(", ".join(f"{name} {number}" for name, number in versions().items()))
    return run


def refuse_unknown(notebook: str, namespace: dict, known) -> None:
    """An error for the first literal among the globals that is no parameter: a misspelt one, most likely."""
    literal = (bool, int, float, str, list, dict, tuple, set, type(None))
    for name, value in namespace.items():
        mine = name.startswith("_") or name in ("In", "Out") or type(value) not in literal
        if not mine and name not in known:
            raise SDDError(
                f"{name!r} is no parameter of {notebook}; near it are {near(name, known)} (`del {name}` if it is a slip)"
            )


def new_run_dir(profile: str, root: Path | None = None) -> Path:
    """A fresh folder runs/YYYYmmdd-HHMMSS-PROFILE, its own even if two runs start in the same second."""
    base, count = (root or RUNS) / f"{datetime.now():%Y%m%d-%H%M%S}-{Path(profile).stem}", 1
    folder = base
    while True:
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            count += 1
            folder = base.with_name(f"{base.name}-{count}")


def set_latest(folder: Path) -> None:
    """Point runs/latest at a run folder; where links are impossible, runs/latest.txt names it."""
    link = folder.parent / "latest"
    try:
        part = link.with_name(f"latest.{os.getpid()}")
        part.symlink_to(folder.name, target_is_directory=True)
        part.replace(link)
    except OSError:
        link.with_suffix(".txt").write_text(folder.name + "\n")


def find_run(name: str | None = None) -> Path:
    """The folder of a named run, or of the latest one."""
    pointer = RUNS / "latest.txt"
    latest = RUNS / pointer.read_text().strip() if pointer.is_file() and not (RUNS / "latest").exists() else RUNS / "latest"
    folder = Path(name) if name else latest
    if not folder.is_dir():
        raise SDDError(f"run folder {shown(folder)} is missing; `python -m sddlib run all` makes one")
    return folder.resolve()
