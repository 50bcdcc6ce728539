"""What became of the runs of sweeps: a file that processes append to, and the claim that only one has on a run folder.

Both rest on locks of the operating system, which frees them when their process ends in whatever way: none is ever left over by
a killed one. Between machines they hold on a shared disk whose locks do (NFS 4, Lustre with -o flock); on one whose locks do
not reach that far, start the sweeps of a grid on one machine.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from socket import gethostname

from filelock import FileLock

from . import SDDError
from .disk import alone
from .limits import JSON, check_size, is_name

CLAIM = "claim.lock"  # in a run folder
EVENTS = ("started", "done", "failed")


class Registry:
    """A JSON object a line, appended and never changed; the latest line of a run says how it stands."""

    def __init__(self, path: Path):
        self.path = path

    def _locked(self) -> FileLock:
        return FileLock(self.path.with_suffix(".lock"))

    def append(self, run: str, event: str, **facts) -> None:
        """Add a line for a run. A torn line that a killed writer left at the end stays a line of its own."""
        record = {"run": run, "event": event, "time": datetime.now().astimezone().isoformat(timespec="seconds")}
        line = json.dumps(record | {"host": gethostname(), "pid": os.getpid()} | facts).encode() + b"\n"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._locked(), self.path.open("a+b", buffering=0) as file:
            if size := file.seek(0, os.SEEK_END):
                file.seek(size - 1)
                line = line if file.read(1) == b"\n" else b"\n" + line
            if (written := file.write(line)) != len(line):
                raise OSError(f"only {written} of {len(line)} bytes could be added to {self.path}; is the disk full?")
            os.fsync(file.fileno())

    def read(self) -> tuple[dict[str, dict], list[int]]:
        """(run -> its latest record, numbers of the lines that are torn)."""
        if not self.path.is_file():
            return {}, []
        with self._locked():
            check_size(self.path, JSON)
            lines = self.path.read_bytes().split(b"\n")
        latest, torn = {}, []
        for number, line in enumerate(lines, 1):
            if record := _record(line):
                latest[record["run"]] = record
            elif line:
                torn.append(number)
        return latest, torn

    def latest(self, run: str) -> dict | None:
        """The latest record of a run."""
        return self.read()[0].get(run)


def _record(line: bytes) -> dict | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    whole = isinstance(record, dict) and isinstance(record.get("run"), str) and record.get("event") in EVENTS
    whole = whole and all(map(is_name, record["run"].split("/")))  # the path of a folder in this one
    return record if whole else None


@contextmanager
def claim(folder: Path) -> Iterator[bool]:
    """Hold the claim on a run folder, which is made: True, or False while another process has it."""
    folder.mkdir(parents=True, exist_ok=True)
    with alone(folder / CLAIM) as mine:
        yield mine


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Hold the claim on a run folder, which is made, or an SDDError while another process has it."""
    with claim(folder) as mine:
        if not mine:
            raise SDDError(f"another process is at work in the run folder {folder}; wait for it, or name another --run-dir")
        yield


def held(folder: Path) -> bool:
    """Is a living process at work in a run folder?"""
    if not folder.is_dir():
        return False
    with claim(folder) as free:
        return not free


def state_of(record: dict | None, folder: Path) -> str:
    """How a run stands: not started (or what it left is gone), running, unfinished (its process was killed), done, failed."""
    if record is None:
        return "not started"
    if record["event"] == "started" and folder.is_dir():
        return "running" if held(folder) else "unfinished"
    if record["event"] == "failed" or (record["event"] == "done" and (folder / "summary.json").is_file()):
        return record["event"]
    return "not started"
