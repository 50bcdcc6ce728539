"""Sweeps: a grid of papermill runs, each in a folder and a process of its own, resumable, with a registry and a table over it.

What is done is skipped, what was killed goes on in its folder (03_train takes the checkpoints it finds), what has failed waits
until it is asked for again. Sweeps over the same grid may go on side by side: each run is run once.
"""

import os
import time
from concurrent.futures import FIRST_COMPLETED, Future, wait
from pathlib import Path
from uuid import uuid4

from . import SDDError
from .attempts import THREADS, fail, settled, started
from .columns import columns
from .grids import Grid, read_grid
from .pools import Pool, dask_pool, local_pool
from .registry import Registry, held, state_of
from .runs import RUNS, shown

SHOWN = ("mean_ap_unseen", "lora_mean_ap_unseen", "probe_mean_ap_unseen", "ap_seen", "seconds")  # of a summary
POLL = 0.2  # seconds
TROUBLE = 10.0  # seconds between looks for what keeps a pool from going on


def sweep(grid: Grid, runs: Path = RUNS, jobs: int = 1, scheduler: str = "", retry: bool = False, say=print) -> list[dict]:
    """Run what of a grid is not done, in RUNS/GRID/RUN; what happens is added to RUNS/index.jsonl. Returns `overview`.

    jobs: processes at a time; or scheduler: address of a Dask scheduler, whose workers then run. retry: failed runs too.
    """
    if jobs < 1:
        raise SDDError(f"--jobs {jobs}: give a whole number above 0")
    runs = runs.resolve()  # as the processes of the runs stand elsewhere
    folder, registry = runs / grid.name, Registry(runs / "index.jsonl")
    if folder.is_symlink() or (folder / "run.json").exists():
        raise SDDError(f"{shown(folder)} is a run folder, no sweep's; rename the grid file")
    todo = []
    for row in overview(grid, runs, say):
        if row["state"] == "done" or (row["state"] == "failed" and not retry):
            say(f"{row['run']}: is {row['state']}" + ("; --retry runs it again" if row["state"] == "failed" else ""))
        else:
            todo.append(new_job(grid, row, runs))
    if todo:
        folder.mkdir(parents=True, exist_ok=True)
        with dask_pool(scheduler, folder, len(todo)) if scheduler else local_pool(jobs) as pool:
            work(todo, pool, registry, say)
    return overview(grid, runs)


def new_job(grid: Grid, row: dict, runs: Path) -> dict:
    """All that the process of a run has to know, as plain values: it may start on another machine.

    again: the attempt whose failure may be tried again. share (see `Pool`) is set when the pool is known.
    """
    again = row["record"]["attempt"] if row["state"] == "failed" else ""
    run, places = row["of"], {"folder": str(runs / row["run"]), "index": str(runs / "index.jsonl")}
    job = {"run": row["run"], "sweep": grid.name, "id": run.id, "attempt": uuid4().hex[:12], "again": again, **places}
    job |= {"notebooks": grid.notebooks, "profile": grid.profile, "overrides": run.overrides, "varied": run.varied}
    return job | {"share": 1, "threads": {name: os.environ[name] for name in THREADS if name in os.environ}}


def work(todo: list[dict], pool: Pool, registry: Registry, say=print) -> None:
    """Hand jobs to a pool until all have ended. A run that another sweep has at hand is waited for, the others go first."""
    waiting, active, told, looked = [job | {"share": pool.share} for job in todo], {}, set(), time.monotonic()

    def say_once(text: str) -> None:
        if text and text not in told:
            told.add(text)
            say(text)

    try:
        while waiting or active:
            hand_out(waiting, active, pool, registry, say_once)
            for future in wait(active, POLL, FIRST_COMPLETED).done:
                job = active.pop(future)
                state = outcome(future, job, registry)
                if state == "busy":
                    waiting.append(job)
                else:
                    say(ending(job, registry.latest(job["run"]), state))
            if waiting and not active:
                time.sleep(POLL)
            if time.monotonic() - looked > TROUBLE:
                looked = time.monotonic()
                say_once(pool.trouble())
    except BaseException:  # Ctrl-C above all
        pool.stop([job["attempt"] for job in todo])
        raise


def hand_out(waiting: list[dict], active: dict[Future, dict], pool: Pool, registry: Registry, say) -> None:
    """Move jobs from waiting to active while the pool takes some; those that ended elsewhere meanwhile are dropped."""
    for job in list(waiting):
        if len(active) == pool.at_once:
            return
        last = registry.latest(job["run"])
        if held(Path(job["folder"])):
            whose = f" (process {last['pid']} on {last['host']})" if last and last["event"] == "started" else ""
            say(f"{job['run']}: another process is at it{whose}")
            continue
        waiting.remove(job)
        if settled(last, job):
            say(f"{job['run']}: has ended elsewhere")
        else:
            active[pool.submit(job)] = job


def outcome(future: Future, job: dict, registry: Registry) -> str:
    """What `attend` returned; if it could not return, the run has failed, unless it never started."""
    if future.cancelled():
        if not started(registry, job):
            return "not started, since the connection to the scheduler was lost"
        return fail(registry, job, "the connection to the Dask scheduler was lost while it ran")
    if error := future.exception():
        name = type(error).__name__
        return fail(registry, job, "the Dask workers that ran it died" if name == "KilledWorker" else f"{name}: {error}")
    return future.result()


def ending(job: dict, record: dict | None, state: str) -> str:
    """A line for a run that has ended."""
    if state == "failed":
        return f"{job['run']}: failed: {record['error']}"
    return f"{job['run']}: {state}" + (f" in {record['summary']['seconds']:.0f} s" if state == "done" else "")


def overview(grid: Grid | None, runs: Path = RUNS, say=lambda text: None) -> list[dict]:
    """A row a run: run ("GRID/RUN"), state (see `state_of`), varied (name -> value), record (its latest, or None), of (its
    GridRun, or None). Of a grid, or of all that the registry knows."""
    registry = Registry(runs / "index.jsonl")
    latest, torn = registry.read()
    for number in torn:
        say(f"{shown(registry.path)}: line {number} is torn, its writer was killed; it does not count")
    if grid:
        known = [(f"{grid.name}/{run.name}", run.varied, run) for run in grid.runs]
    else:
        known = [(name, record["varied"], None) for name, record in latest.items()]
    return [
        {"run": n, "state": state_of(latest.get(n), runs / n), "varied": varied, "record": latest.get(n), "of": run}
        for n, varied, run in known
    ]


def table(rows: list[dict]) -> str:
    """Rows of `overview` as text: run, state, what varies, numbers of the summary; below it what failed runs said."""
    varied = list(dict.fromkeys(name for row in rows for name in row["varied"]))
    numbers = [row["record"]["summary"] if row["state"] == "done" else {} for row in rows]
    keys = [key for key in SHOWN if any(key in summary for summary in numbers)]
    body = [
        [
            row["run"],
            row["state"],
            *(_text(row["varied"].get(n, ""), n) for n in varied),
            *(_text(s[k], k) if k in s else "" for k in keys),
        ]
        for row, s in zip(rows, numbers, strict=True)
    ]
    failed = [f"{row['run']}: {row['record']['error']}" for row in rows if row["state"] == "failed"]
    return "\n".join([columns([["run", "state", *varied, *keys], *body], 2), *failed])


def _text(value, name: str) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:.0f}" if name == "seconds" else f"{value:.3f}" if name in SHOWN else f"{value:g}"


def command(args) -> int:
    """`python -m sddlib sweep`. args: grid, jobs, scheduler, retry, list. Returns the exit code: 1 if a run is not done."""
    if args.jobs is not None and args.scheduler:
        raise SDDError("--jobs counts processes of this machine and --scheduler names other ones; give one")
    if args.list and (args.retry or args.scheduler or args.jobs is not None):
        raise SDDError("--list runs nothing; leave out --jobs, --scheduler and --retry")
    if not args.list and args.grid is None:
        raise SDDError("name a grid file to run; without one there is only --list, of all runs of all sweeps")
    grid, say = read_grid(Path(args.grid)) if args.grid else None, lambda text: print(text, flush=True)
    if args.list:
        rows = overview(grid, RUNS, say)
    else:
        args.folder = RUNS / grid.name
        say(f"{len(grid.runs)} runs of {', '.join(grid.notebooks)}, profile {grid.profile}: {shown(args.folder)}")
        rows = sweep(grid, RUNS, 1 if args.jobs is None else args.jobs, args.scheduler or "", args.retry, say)
    if not rows:
        raise SDDError(f"{shown(RUNS)} knows of no sweep; name a grid file")
    say(f"\n{table(rows)}")
    return 0 if all(row["state"] == "done" for row in rows) else 1
