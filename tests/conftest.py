"""One smoke run of the main job, through the command line, for every test that looks at what a run leaves."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from filelock import FileLock

ROOT = Path(__file__).parent.parent


def call(*arguments, cwd=ROOT, **environment) -> subprocess.CompletedProcess:
    """`python -m sddlib ...` as a user calls it."""
    return subprocess.run(
        [sys.executable, "-m", "sddlib", *map(str, arguments)],
        cwd=cwd,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=600,
    )


@pytest.fixture(scope="session")
def command():
    """`python -m sddlib ...` as a function of its arguments."""
    return call


BESIDE = ("runs", "build", "dist", "__pycache__")  # folders in which other things may write meanwhile; so are hidden ones


def tree_state() -> dict[str, tuple[int, int]]:
    """Size and time of every file of the repository."""
    found = {}
    for folder, below, files in os.walk(ROOT):
        below[:] = [
            name for name in below if name not in BESIDE and not name.startswith(".") and not name.endswith(".egg-info")
        ]
        for path in (Path(folder, name) for name in files):
            found[path.relative_to(ROOT).as_posix()] = (path.lstat().st_size, path.lstat().st_mtime_ns)
    return found


@pytest.fixture(scope="session")
def smoke_run(tmp_path_factory, worker_id):
    """dir: the run folder; stdout: what the command printed; changed: files of the repository that are others after it. The
    first test process that asks makes it for all: only look."""
    base = tmp_path_factory.getbasetemp() if worker_id == "master" else tmp_path_factory.getbasetemp().parent
    folder, said = base / "smoke", base / "smoke.json"
    with FileLock(base / "smoke.lock"):
        if not said.is_file():
            before = tree_state()
            # variables that must not reach the kernels: one would change parameters, the other hide every figure
            done = call("run", "all", "07", "--profile", "smoke", "--run-dir", folder, SDDLIB_PROFILE="mini", MPLBACKEND="Agg")
            changed = sorted({name for name, _ in before.items() ^ tree_state().items()})
            # a failure fails every test, at once
            said.write_text(json.dumps([done.returncode, done.stdout, done.stderr, changed]))
    code, stdout, stderr, changed = json.loads(said.read_text())
    assert code == 0, stderr
    return SimpleNamespace(dir=folder, stdout=stdout, changed=changed)
