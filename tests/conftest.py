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


@pytest.fixture(scope="session")
def smoke_run(tmp_path_factory, worker_id):
    """dir: the run folder; stdout: what the command printed. The first test process that asks makes it for all: only look."""
    base = tmp_path_factory.getbasetemp() if worker_id == "master" else tmp_path_factory.getbasetemp().parent
    folder, said = base / "smoke", base / "smoke.json"
    with FileLock(base / "smoke.lock"):
        if not said.is_file():
            # variables that must not reach the kernels: one would change parameters, the other hide every figure
            done = call("run", "all", "07", "--profile", "smoke", "--run-dir", folder, SDDLIB_PROFILE="mini", MPLBACKEND="Agg")
            said.write_text(json.dumps([done.returncode, done.stdout, done.stderr]))  # a failure fails every test, at once
    code, stdout, stderr = json.loads(said.read_text())
    assert code == 0, stderr
    return SimpleNamespace(dir=folder, stdout=stdout)
