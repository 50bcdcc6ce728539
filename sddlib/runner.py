"""The strict papermill runner: every parameter explicit and known, one sentence for a failure, one summary at the end."""

import os
import time
from contextlib import contextmanager
from pathlib import Path

from . import SDDError
from .profiles import NOTEBOOKS, all_parameters, check_overrides, read_json
from .progress import HEADLESS
from .runs import PROFILE_VARIABLE, RUNS, machine_text, peak_rss_mb, set_latest, shown, versions, write_json

LAUNCHED = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")  # set by a launcher
_SUMMARY = ("mean_ap_unseen", "mean_auroc_unseen", "mean_acc_unseen", "ap_seen")
_ALL_SEEN = ("mean_ap_seen", "mean_auroc_seen", "mean_acc_seen")  # instead of the first three where none was unseen
SUMMARY_KEYS = tuple(prefix + key for prefix in ("", "probe_", "lora_") for key in (*_SUMMARY, *_ALL_SEEN))


@contextmanager
def kernel_environment():
    """Kernels inherit the environment: without the profile variable, without a backend that would hide every figure, without
    what makes a process one of many; and without bars, at which nobody looks."""
    kept = {name: os.environ.pop(name, None) for name in (PROFILE_VARIABLE, "MPLBACKEND", *LAUNCHED, HEADLESS)}
    os.environ[HEADLESS] = "1"
    try:
        yield
    finally:
        del os.environ[HEADLESS]
        os.environ.update({k: v for k, v in kept.items() if v is not None})


def run_notebooks(names: list[str], profile: str, overrides: dict, run_dir: Path, say=print, latest: bool = True) -> dict:
    """Run notebooks in order, every parameter given explicitly; stop at the first that fails. Returns the summary.

    names: stems. latest: let runs/latest point at the folder, if it lies there. Everything is checked before anything starts.
    Executed copies lie in RUN/notebooks, what kernels printed in RUN/log.txt. A failure is one sentence with notebook, cell and
    error; what was computed stays.
    """
    check_overrides(overrides, names)
    values = {name: all_parameters(profile, name, overrides) | {"run_dir": str(run_dir)} for name in names}
    before = run_dir / "run.json"
    known = (read_json(before).get("parameters") or {}) if before.is_file() else {}
    known |= values
    trained = known.get("03_train", next(iter(values.values())))  # whose seed is the run's
    record = {
        "profile": profile,
        "seed": trained["seed"],
        "parameters": known,
        "versions": versions(),
        "machine": machine_text(),
    }
    write_json(before, record)
    if latest and run_dir.parent == RUNS:
        set_latest(run_dir)
    begun, seconds = time.perf_counter(), {}
    for name in names:
        say(f"{name} ...")
        begin = time.perf_counter()
        execute(name, values[name], run_dir, say)
        seconds[name] = round(time.perf_counter() - begin, 1)
        say(f"{name}: {seconds[name]:.0f} s")
    return write_summary(run_dir, record, time.perf_counter() - begun, seconds)


class _Log:
    """What a kernel prints: all of it to a file, what is said of a training under way also to the screen."""

    def __init__(self, stream, say):
        self.stream, self.say = stream, say

    def write(self, text: str) -> None:
        self.stream.write(text)
        for line in text.splitlines():
            if line.startswith(("epoch ", "goes on after ", "memory of training ", "  total ")):
                self.say(f"  {line}")

    def flush(self) -> None:
        self.stream.flush()


def execute(name: str, values: dict, run_dir: Path, say) -> None:
    """One notebook through papermill into RUN/notebooks."""
    from nbclient.exceptions import DeadKernelError
    from papermill import PapermillExecutionError, execute_notebook

    copy = run_dir / "notebooks" / f"{name}.ipynb"
    copy.parent.mkdir(parents=True, exist_ok=True)
    options = {"kernel_name": "python3", "cwd": str(NOTEBOOKS), "progress_bar": False}
    options["extra_arguments"] = ["--log-level=ERROR"]  # a kernel's own warnings are about its sockets
    try:
        with kernel_environment(), (run_dir / "log.txt").open("a") as stream:
            log = _Log(stream, say)
            execute_notebook(NOTEBOOKS / f"{name}.ipynb", copy, values, stdout_file=log, stderr_file=stream, **options)
    except PapermillExecutionError as e:
        error = " ".join(f"{e.ename}: {e.evalue}".split())
        raise SDDError(
            f"{name} stopped in cell [{e.exec_count}] with {error} (see {shown(copy)}; what was done is kept)"
        ) from None
    except DeadKernelError:
        raise SDDError(f"{name}: its kernel died, most likely for want of memory (see {shown(copy)})") from None


def write_summary(run_dir: Path, record: dict, seconds: float, each: dict[str, float]) -> dict:
    """RUN/summary.json: the notebooks' numbers under SUMMARY_KEYS, time, peak memory, seed, profile, versions.

    What notebooks later than the last one left in the same folder before is not repeated if a bank or checkpoints were made
    anew: it belongs to other ones.
    """
    left, anew = sorted((run_dir / "metrics").glob("*.json")), any(name[:2] in ("02", "03") for name in each)
    handed = [read_json(path) for path in left if not anew or path.stem <= max(each)]
    found = {key: m[key] for m in handed for key in SUMMARY_KEYS if key in m}
    peak = max([peak_rss_mb(), *(m["peak_rss_mb"] for m in handed)])
    summary = {**found, "seconds": round(seconds, 1), "seconds_each": each, "peak_rss_mb": round(peak)}
    summary |= {key: record[key] for key in ("seed", "profile", "versions")}
    write_json(run_dir / "summary.json", summary)
    return summary
