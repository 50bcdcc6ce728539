"""One smoke run of the main job, through the command line, for every test that looks at what a run leaves."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

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
def smoke_run(tmp_path_factory):
    """dir: the run folder; stdout: what the command printed."""
    folder = tmp_path_factory.mktemp("runs") / "smoke"
    # variables that must not reach the kernels: one would change parameters, the other hide every figure
    done = call("run", "all", "--profile", "smoke", "--run-dir", folder, SDDLIB_PROFILE="mini", MPLBACKEND="Agg")
    assert done.returncode == 0, done.stderr
    return SimpleNamespace(dir=folder, stdout=done.stdout)
