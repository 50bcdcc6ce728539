"""doctor: what is missing or broken is a line with its cure and exit code 1, never a traceback."""

import importlib
import json
import shutil
import subprocess
import sys
from collections import namedtuple
from importlib import metadata
from pathlib import Path

import pytest

from sddlib import __main__ as cli
from sddlib import doctor, embedded, machine
from sddlib.machine import Finding

ROOT = Path(__file__).resolve().parent.parent


def one(check) -> Finding:
    """The only finding of a check that is not ok."""
    (found,) = [f for f in check() if f.level != "ok"]
    return found


def test_every_check_says_something_here_and_every_trouble_has_a_cure():
    for check, cure in doctor.CHECKS.items():
        found = doctor.examine(check, cure)
        assert found and all(f.what and f.level in ("ok", "warn", "fail") for f in found)
        assert all(bool(f.cure) == (f.level != "ok") for f in found)


def test_exit_code_is_1_exactly_if_something_fails(monkeypatch, capsys):
    for levels, code in ((["ok"], 0), (["ok", "warn"], 0), (["ok", "fail", "warn"], 1)):
        monkeypatch.setattr(doctor, "CHECKS", {lambda levels=levels: iter([Finding(x, "it", "do") for x in levels]): "x"})
        assert cli.main(["doctor"]) == code
        said = capsys.readouterr().out
        assert all(f"[{x}]" in said for x in levels) and said.splitlines()[-1].endswith(f"{levels.count('fail')} to mend")


def test_a_check_that_dies_is_a_failure_and_the_others_go_on(monkeypatch, capsys):
    def broken():
        yield Finding("ok", "first part")
        raise RuntimeError("gone\nwrong")

    monkeypatch.setattr(doctor, "CHECKS", {broken: "mend it", lambda: iter([Finding("ok", "second")]): ""})
    assert doctor.doctor() == 1
    said = capsys.readouterr().out
    assert "[ok]   first part" in said and "[fail] broken: RuntimeError: gone wrong\n       cure: mend it" in said
    assert "second" in said


def test_without_torch_doctor_runs_to_its_end_and_names_it():
    code = "import sys\nsys.modules['torch'] = None\nfrom sddlib.__main__ import main\nsys.exit(main(['doctor']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 1 and done.stderr == ""
    assert "[fail] device: ModuleNotFoundError" in done.stdout and "cure: make -B env" in done.stdout
    for part in ("memory:", "disk for runs:", "data:", "kernel python3", "widgets:"):
        assert part in done.stdout


# --- versions


def installed(monkeypatch, lines: list[str], found: dict[str, str], python: str = ">=3.10"):
    """An installation of sddlib that asks for `lines` in an environment that holds `found`."""

    def version(name):
        if name not in found:
            raise metadata.PackageNotFoundError(name)
        return found[name]

    class About(dict):
        def get_all(self, name, default):
            return ["notebooks", "test", "dev"]

    monkeypatch.setattr(doctor.metadata, "metadata", lambda name: About({"Requires-Python": python}))
    monkeypatch.setattr(doctor.metadata, "requires", lambda name: lines)
    monkeypatch.setattr(doctor.metadata, "version", version)
    monkeypatch.setattr(doctor, "declared", lambda path: set())


@pytest.mark.parametrize(
    "line, found, level, said",
    [
        ("torch>=2.6,<3", {"torch": "2.5.1"}, "fail", "package torch is 2.5.1, outside <3,>=2.6"),
        ("torch>=2.6,<3", {"torch": "3.0"}, "fail", "is 3.0, outside"),
        ("torch>=2.6,<3", {}, "fail", "package torch is not installed"),
        ('ipywidgets>=8; extra == "notebooks"', {}, "fail", "is not installed (extra notebooks)"),
        ('nbval>=0.11; extra == "test"', {}, "warn", "is not installed (extra test)"),
        ('pre-commit>=4; extra == "dev"', {"pre-commit": "3.1"}, "warn", "is 3.1, outside >=4 (extra dev)"),
    ],
)
def test_bounds_are_those_of_the_installed_package(monkeypatch, line, found, level, said):
    installed(monkeypatch, [line], found)
    trouble = one(doctor.versions)
    assert trouble.level == level and said in trouble.what and "pip install" in trouble.cure


def test_versions_inside_are_counted_by_extra_and_python_is_held_to_its_bound(monkeypatch):
    installed(monkeypatch, ["a>=1", "b", 'c<3; extra == "test"'], {"a": "1.0", "b": "7", "c": "2.9"})
    assert [f.what for f in doctor.versions()][1] == "packages inside their bounds: 2 of sddlib, 1 of extra test"
    installed(monkeypatch, [], {}, ">=4")
    assert one(doctor.versions).level == "fail"


def test_an_installation_older_than_pyproject_is_noticed(monkeypatch, tmp_path):
    pytest.importorskip("tomllib")
    project = '[project]\ndependencies = ["a>=1", "b<2"]\n[project.optional-dependencies]\ntest = ["c"]\n'
    (tmp_path / "pyproject.toml").write_text(project)
    real = doctor.declared
    installed(monkeypatch, ["a>=1", 'c; extra == "test"'], {"a": "1", "c": "1"})
    monkeypatch.setattr(doctor, "declared", real)
    monkeypatch.setattr(doctor, "ROOT", tmp_path)
    trouble = one(doctor.versions)
    assert trouble.level == "warn" and "pyproject.toml asks for b<2," in trouble.what


# --- machine


@pytest.mark.parametrize("free, total, level", [(10, 16, "ok"), (2, 16, "warn"), (2, 3, "fail")])
def test_memory_is_held_against_what_a_run_takes(monkeypatch, free, total, level):
    psutil = importlib.import_module("psutil")
    facts = namedtuple("Facts", "total available")(total * 1e9, free * 1e9)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: facts)
    (found,) = machine.memory()
    assert found.level == level and "`make run` takes 3.8 GB" in found.what


@pytest.mark.parametrize("free, levels", [(50, ["ok", "ok"]), (0.4, ["ok", "fail"]), (0.05, ["fail", "fail"])])
def test_disk_is_held_against_a_run_and_against_the_fetch_that_is_still_to_come(monkeypatch, tmp_path, free, levels):
    monkeypatch.setenv("SDDLIB_CACHE", str(tmp_path / "not" / "yet"))
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda folder: usage._replace(free=int(free * 1e9)))
    found = list(machine.disk())
    assert [f.level for f in found] == levels
    assert "a whole run of profile mini takes" in found[0].what and str(tmp_path) in found[1].what


def test_torchvision_that_does_not_fit_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    trouble = one(machine.device)
    assert trouble.level == "fail" and "torchvision does not work" in trouble.what and "TORCH=" in trouble.cure


# --- weights, data


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache with a file that stands in for the embedded CLIP, and its record."""
    monkeypatch.setenv("SDDLIB_CACHE", str(tmp_path))
    file = tmp_path / embedded.FILE
    file.write_bytes(b"weights")
    file.with_suffix(".json").write_text(json.dumps({"bytes": 7, "sha256": embedded.sha256(file)}))
    return file


def test_weights_are_there_and_hashed(cache):
    assert [f.level for f in doctor.weights()] == ["ok", "ok"]


@pytest.mark.parametrize("content, said", [(b"weighty", "SHA-256 is not the recorded one"), (b"x", "corrupt (1 bytes")])
def test_weights_of_another_hash_are_found_and_the_cure_deletes_them(cache, content, said):
    cache.write_bytes(content)
    trouble = one(doctor.weights)
    assert trouble.level == "fail" and said in trouble.what
    assert trouble.cure == f"rm {cache}; python -m sddlib env"


def test_missing_weights_are_fetched_by_the_cure(cache):
    cache.unlink()
    assert one(doctor.weights).cure.startswith("python -m sddlib env")


def test_shipped_checkpoint_that_is_not_its_jsons_file_is_found(cache, tmp_path, monkeypatch):
    folder = tmp_path / "data" / "checkpoints"
    folder.mkdir(parents=True)
    monkeypatch.setattr(doctor, "ROOT", tmp_path)
    assert "is missing" in one(doctor.weights).what
    (folder / "sdd-mini.safetensors").write_bytes(b"other")
    shutil.copy2(ROOT / "data" / "checkpoints" / "sdd-mini.json", folder)
    assert "is not the file that its JSON describes" in one(doctor.weights).what


def test_images_are_counted_against_the_manifest(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "ROOT", tmp_path)
    assert "manifest.csv is missing" in one(doctor.data).what
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "manifest.csv").write_text("path,split\na.png,train\nb.png,train\nc.png,test\n")
    for name in "abc":
        (folder / f"{name}.png").write_bytes(b"x")
    (found,) = doctor.data()
    assert found.level == "ok" and "all 3 images" in found.what and "train 2, test 1" in found.what
    (folder / "b.png").unlink()
    (folder / "c.png").write_bytes(b"")
    trouble = one(doctor.data)
    assert "2 of 3 images of manifest.csv are missing or empty, first b.png" in trouble.what and "git checkout" in trouble.cure


# --- kernels, widgets


def kernels(monkeypatch, **python: str) -> list[Finding]:
    from jupyter_client.kernelspec import KernelSpecManager

    specs = {name: {"spec": {"argv": [path, "-m", "x"]}, "resource_dir": f"/k/{name}"} for name, path in python.items()}
    monkeypatch.setattr(KernelSpecManager, "get_all_specs", lambda self: specs)
    return list(doctor.kernels())


def test_kernels_of_this_python_are_ok(monkeypatch):
    assert [f.level for f in kernels(monkeypatch, python3="python", sddlib=sys.executable)] == ["ok", "ok"]


def test_a_kernel_of_another_python_is_found_and_named(monkeypatch, tmp_path):
    other = tmp_path / "python"
    other.symlink_to(sys.executable)  # as in another venv of the same base
    first, second = kernels(monkeypatch, python3=sys.executable, sddlib=str(other))
    assert (first.level, second.level) == ("ok", "fail")
    assert str(other) in second.what and "/k/sddlib" in second.what and "--name sddlib" in second.cure


def test_missing_kernels_are_said(monkeypatch):
    assert [f.level for f in kernels(monkeypatch)] == ["fail", "warn"]


def test_missing_widgets_are_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    (found,) = doctor.examine(doctor.widgets, "install them")
    assert found.level == "fail" and "ipywidgets" in found.what and found.cure == "install them"


def test_widgets_without_jupyterlabs_part_are_said(monkeypatch):
    import jupyter_core.paths

    monkeypatch.setattr(jupyter_core.paths, "jupyter_path", lambda *parts: [])
    assert one(doctor.widgets).level == "warn"
