"""Set-up: one list of dependencies, two commands, a second call that installs nothing, one sentence on failure."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
MAKE = shutil.which("make")
needs_make = pytest.mark.skipif(MAKE is None, reason="make is not on this machine; the python -m lines do without it")


def make(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
    """``make`` in ``folder``, without the variables a surrounding make hands down."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS"))}
    command = [MAKE, "--no-print-directory", *arguments]
    return subprocess.run(command, cwd=folder, env=clean | environment, capture_output=True, text=True, timeout=60)


def checkout(folder: Path) -> Path:
    """What ``make env`` reads, copied."""
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy2(ROOT / name, folder / name)
    return folder


def fake_python(path: Path, log: Path, fails_at: str = "") -> Path:
    """An interpreter that writes down its arguments instead of obeying, and fails where one matches ``fails_at``."""
    fail = f'case "$*" in *"{fails_at}"*) exit 1;; esac\n' if fails_at else ""
    copy = 'if [ "$2" = venv ]; then mkdir -p "$3/bin"; cp "$0" "$3/bin/python"; fi\n'
    path.write_text(f'#!/bin/sh\necho "$*" >> "{log}"\n{fail}{copy}')
    path.chmod(0o755)
    return path


def test_environment_yml_holds_python_pip_and_this_project_only():
    listed = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    python, pip, below = listed
    requires = re.search(r'requires-python = "(.+)"', (ROOT / "pyproject.toml").read_text())[1]
    assert python == f"python{requires}"
    assert pip == "pip"
    assert below == {"pip": ["-e .[notebooks,test]"]}


def test_every_extra_named_by_environment_and_makefile_is_in_pyproject():
    project = (ROOT / "pyproject.toml").read_text()
    for name in ("environment.yml", "Makefile"):
        (extras,) = set(re.findall(r"-e '?\.\[([\w,]+)\]", (ROOT / name).read_text()))
        for extra in extras.split(","):
            assert re.search(rf"^{extra} = \[", project, re.MULTILINE), f"{name} asks for an extra {extra!r}"


def test_dask_is_asked_for_alike_by_its_users_and_the_tests():
    bounds = re.findall(r'^    ("distributed[^"]*")', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert len(bounds) == 2 and len(set(bounds)) == 1


def test_no_other_file_lists_dependencies():
    assert not [name for name in ("requirements.txt", "setup.py", "setup.cfg", "Pipfile") if (ROOT / name).exists()]


def test_installed_versions_satisfy_the_listed_bounds():
    from importlib.metadata import requires, version

    from packaging.requirements import Requirement

    wanted = [Requirement(line) for line in requires("sddlib")]
    assert {"torch", "open_clip_torch", "peft", "papermill", "nbval"} <= {line.name for line in wanted}
    extras = [{"extra": extra} for extra in ("notebooks", "test")]
    for line in wanted:
        if line.marker is None or any(line.marker.evaluate(extra) for extra in extras):
            assert line.specifier.contains(version(line.name), prereleases=True), f"{line}, but {version(line.name)}"


def test_lowest_versions_that_are_tested_are_the_lower_bounds():
    from packaging.version import Version

    lines = (ROOT / "tests" / "lowest.txt").read_text().splitlines()
    tested = dict(line.split("==") for line in lines if not line.startswith("#"))
    listed = re.findall(r'^    "([\w.-]+)>=([\d.]+)', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    bounds = {name: Version(version) for name, version in listed if name != "pip"}  # pip installs the others
    assert {name: Version(version) for name, version in tested.items()} == bounds


@needs_make
def test_second_make_env_installs_nothing(tmp_path):
    checkout(tmp_path)
    log = tmp_path / "log"
    python = fake_python(tmp_path / "python", log)
    first = make(tmp_path, "env", f"PYTHON={python}")
    assert first.returncode == 0, first.stderr
    assert "-m pip install" in log.read_text() and "-m sddlib env" in log.read_text()
    log.unlink()
    assert make(tmp_path, "env", f"PYTHON={python}").returncode == 0
    assert log.read_text().splitlines() == ["-m sddlib env"]


@needs_make
def test_changed_dependencies_are_installed_by_the_next_call(tmp_path):
    checkout(tmp_path)
    log = tmp_path / "log"
    python = fake_python(tmp_path / "python", log)
    make(tmp_path, "env", f"PYTHON={python}")
    later = (tmp_path / ".venv" / ".installed").stat().st_mtime + 10
    os.utime(tmp_path / "pyproject.toml", (later, later))
    log.unlink()
    make(tmp_path, "env", f"PYTHON={python}")
    assert "-m pip install" in log.read_text()


@needs_make
@pytest.mark.parametrize("fails_at", ["-m pip install", "import torch, torchvision"])
def test_failed_torch_installation_says_what_to_do_and_is_tried_again(tmp_path, fails_at):
    checkout(tmp_path)
    python = fake_python(tmp_path / "python", tmp_path / "log", fails_at)
    for _ in range(2):  # a failure must not count as installed
        done = make(tmp_path, "env", f"PYTHON={python}")
        assert done.returncode != 0
        said = [line for line in done.stderr.splitlines() if line.startswith("make env:")]
        assert len(said) == 1 and 'TORCH="torch==' in said[0] and "PIP_ARGS=" in said[0]


@needs_make
def test_named_torch_builds_reach_pip(tmp_path):
    checkout(tmp_path)
    log = tmp_path / "log"
    python = fake_python(tmp_path / "python", log)
    make(tmp_path, "env", f"PYTHON={python}", "TORCH=torch==2.9.1 torchvision==0.24.1", "PIP_ARGS=--no-index", "VENV=v")
    (install,) = [line for line in log.read_text().splitlines() if "pip install" in line]
    assert install.endswith("--no-index -e .[notebooks,test] torch==2.9.1 torchvision==0.24.1")
    assert (tmp_path / "v" / ".installed").exists()


@needs_make
@pytest.mark.parametrize("version", ["Python 3.9.18", ""])
def test_old_or_absent_python_is_one_sentence(tmp_path, version):
    checkout(tmp_path)
    old = tmp_path / "python"
    if version:
        old.write_text(f'#!/bin/sh\n[ "$1" = -V ] && echo "{version}" && exit 0\nexit 1\n')
        old.chmod(0o755)
    done = make(tmp_path, "env", f"PYTHON={old}")
    said = [line for line in done.stderr.splitlines() if line.startswith("make env:")]
    assert done.returncode != 0 and len(said) == 1
    assert "3.10 or newer" in said[0] and version in said[0] and "PYTHON=" in said[0]
    assert not (tmp_path / ".venv").exists()


@needs_make
def test_make_run_and_make_test_set_up_first(tmp_path):
    checkout(tmp_path)
    log = tmp_path / "log"
    python = fake_python(tmp_path / "python", log)
    make(tmp_path, "run", f"PYTHON={python}")
    make(tmp_path, "test", f"PYTHON={python}")
    said = [line for line in log.read_text().splitlines() if "-m sddlib" in line or "-m pytest" in line]
    assert said == ["-m sddlib env", "-m sddlib run all --profile mini", "-m sddlib env", "-m pytest"]


def test_ci_calls_make_test_and_ends_with_the_closing_line_and_exit_code(tmp_path):
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
    for name in (".ci", "bin"):
        (tmp_path / name).mkdir()
    shutil.copy2(ROOT / ".ci" / "run", tmp_path / ".ci" / "run")
    stand_in = tmp_path / "bin" / "make"
    closing = "========= 1 failed, 2 passed in 0.12s ========="
    test = f'echo "{closing}"; echo "make: *** Error 1" >&2; exit 7'
    stand_in.write_text(f'#!/bin/sh\necho "make $*"\nif [ "$1" = test ]; then {test}; fi\n')
    stand_in.chmod(0o755)
    path = f"{stand_in.parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run([tmp_path / ".ci" / "run"], env=os.environ | {"PATH": path}, capture_output=True, text=True)
    lines = done.stdout.splitlines()
    assert done.returncode == 7
    assert lines[0] == "make env" and "make test" in lines and lines[-1] == closing
    assert [line for line in lines if line.startswith("-- make test: ") and line.endswith(" s, exit code 7")]


def test_ci_does_not_test_where_set_up_fails(tmp_path):
    for name in (".ci", "bin"):
        (tmp_path / name).mkdir()
    shutil.copy2(ROOT / ".ci" / "run", tmp_path / ".ci" / "run")
    stand_in = tmp_path / "bin" / "make"
    stand_in.write_text('#!/bin/sh\necho "make $*"\nexit 3\n')
    stand_in.chmod(0o755)
    path = f"{stand_in.parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run([tmp_path / ".ci" / "run"], env=os.environ | {"PATH": path}, capture_output=True, text=True)
    assert done.returncode == 3 and "make test" not in done.stdout


def test_kernelspec_sddlib_runs_this_python():
    if sys.prefix == sys.base_prefix:
        pytest.skip("not in a virtual environment: make env registers the kernel inside one")
    spec = json.loads((Path(sys.prefix) / "share" / "jupyter" / "kernels" / "sddlib" / "kernel.json").read_text())
    assert Path(spec["argv"][0]).parent.resolve() == Path(sys.executable).parent.resolve()
    assert spec["language"] == "python"


def test_licence_is_apache_2():
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License" in text and "Version 2.0, January 2004" in text and "END OF TERMS AND CONDITIONS" in text
    assert 'license = "Apache-2.0"' in (ROOT / "pyproject.toml").read_text()


def test_git_keeps_figures_and_ignores_what_runs_leave():
    ignored = (ROOT / ".gitignore").read_text().split()
    assert {".venv*/", "runs/", "__pycache__/"} <= set(ignored)
    assert not any("figures" in line for line in ignored)
