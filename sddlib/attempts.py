"""One attempt at a run of a sweep, in a process of its own: it claims the folder, runs the notebooks, records how that ended.

The process lives no longer than the one that started it, whichever way that one ends (its stdin closes then), and takes its
kernels along: no run goes on unseen.
"""

import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import psutil

from . import SDDError
from .grids import identity, settings
from .profiles import ROOT
from .registry import Registry, claim, state_of
from .runner import run_notebooks

BUSY, STOPPED = 75, 76  # exit codes: another process has the claim; the parent has ended or asked to stop
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
ABOUT = ("attempt", "sweep", "id", "notebooks", "profile", "overrides", "varied")  # of a job, kept in every record
DIED = "the Dask worker that ran it died, for want of memory or stopped from outside"
_children: dict[str, subprocess.Popen] = {}  # attempt -> its process, of this one
_stopped: set[str] = set()
_stopping = threading.Event()


def attend(job: dict) -> str:
    """Start the process of a job (see `sweeps.new_job`), wait, and say how the run stands: done, failed, busy or stopped.

    Runs in a thread of the sweep or in a Dask worker. Records the death of its process, which that could not record.
    """
    registry, attempt = Registry(Path(job["index"])), job["attempt"]
    if attempt in _stopped:
        return "stopped"
    if started(registry, job):
        return fail(registry, job, DIED)  # a scheduler hands what a dead worker had to the next one
    command = [sys.executable, "-m", "sddlib.attempts"]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, bufsize=0, cwd=ROOT, env=environment(job), start_new_session=True)
    with suppress(BrokenPipeError):  # if it is dead already, its exit code says so
        child.stdin.write(json.dumps(job).encode() + b"\n")
    _children[attempt] = child
    if attempt in _stopped:
        child.stdin.close()
    code = child.wait()
    del _children[attempt]
    child.stdin.close()
    if code in (BUSY, STOPPED):
        return "busy" if code == BUSY else "stopped"
    return registry.latest(job["run"])["event"] if code == 0 else fail(registry, job, how_it_died(code))


def started(registry: Registry, job: dict) -> bool:
    """Is this very attempt the last thing that is known of the run, without an end?"""
    last = registry.latest(job["run"])
    return last is not None and (last["event"], last["attempt"]) == ("started", job["attempt"])


def fail(registry: Registry, job: dict, error: str) -> str:
    """Record that a run has failed, with a sentence."""
    registry.append(job["run"], "failed", **{k: job[k] for k in ABOUT}, error=" ".join(error.split()))
    return "failed"


def how_it_died(code: int) -> str:
    """A sentence for the exit code of a process that has not recorded its end."""
    if code >= 0:
        return f"its process ended with exit code {code}"
    name = signal.Signals(-code).name
    return f"its process was killed ({name})" + (", most likely for want of memory" if name == "SIGKILL" else "")


def stop(attempts: list[str]) -> None:
    """End the processes of these attempts, those to come too."""
    _stopped.update(attempts)
    for attempt in attempts:
        if child := _children.get(attempt):
            child.stdin.close()


def environment(job: dict) -> dict[str, str]:
    """Of a run's process: this one's, with the thread counts of whoever started the sweep (a Dask worker has its own, and
    results depend on them); without any, runs that share a machine share its cores."""
    threads = dict(job["threads"])
    if job["share"] > 1:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        threads.setdefault("OMP_NUM_THREADS", str(max(1, cores // job["share"])))
    return {k: v for k, v in os.environ.items() if k not in THREADS} | threads


def perform(job: dict) -> int:
    """What the process of an attempt does. Returns its exit code: BUSY, or 0 when the registry says how the run ended."""
    registry, run, folder = Registry(Path(job["index"])), job["run"], Path(job["folder"])
    about = {k: job[k] for k in ABOUT}
    with claim(folder) as mine:
        if not mine:
            return BUSY
        if settled(registry.latest(run), job):
            return 0
        registry.append(run, "started", **about)
        try:
            if identity(settings(job["notebooks"], job["profile"], job["overrides"])) != job["id"]:
                raise SDDError("its settings changed after the sweep began, or are others where it runs; start the sweep again")
            say = lambda text: print(f"{run}: {text}", flush=True)  # noqa: E731
            summary = run_notebooks(job["notebooks"], job["profile"], job["overrides"], folder, say)
        except Exception as e:  # whatever it is, it must reach the registry
            wait_if_stopping()
            fail(registry, job, str(e) if isinstance(e, SDDError) else f"{type(e).__name__}: {e}")
            return 0
        wait_if_stopping()
        numbers = {k: v for k, v in summary.items() if type(v) in (int, float)}
        registry.append(run, "done", **about, summary=numbers)
    return 0


def settled(record: dict | None, job: dict) -> bool:
    """Is there nothing to do: done, or failed and not the failure that this job is to try again?"""
    state = state_of(record, Path(job["folder"]))
    return state == "done" or (state == "failed" and record["attempt"] != job["again"])


def wait_if_stopping() -> None:
    """A kernel that was ended on purpose is no failure: leave the last word to `end_with_parent`."""
    if _stopping.is_set():
        threading.Event().wait()


def end_with_parent() -> None:
    """Wait until stdin closes; then end the kernels below this process, and this process."""
    while os.read(0, 1):
        pass
    _stopping.set()
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            process.kill()
    os._exit(STOPPED)


def serve() -> int:
    """Take a job as a line of JSON from stdin and perform it."""
    line = sys.stdin.readline()
    if not line:
        return STOPPED
    threading.Thread(target=end_with_parent, daemon=True).start()
    return perform(json.loads(line))


if __name__ == "__main__":
    sys.exit(serve())
