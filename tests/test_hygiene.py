"""What people expect of a repository of notebooks: hooks that strip and lint, a cell for Colab, a citation."""

import shlex
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import nbformat
import pytest
import yaml
from nbformat.v4 import new_output

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
each = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
COLAB = nbformat.read(NOTEBOOKS[0], 4).cells[1].source


# --- hooks


def hooks() -> dict[str, dict]:
    (repo,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert repo["repo"] == "local"  # nothing is fetched: the environment has what pyproject.toml bounds
    return {hook["id"]: hook for hook in repo["hooks"]}


def nbstripout(*arguments) -> subprocess.CompletedProcess:
    """The hook's own command, with more arguments."""
    command = [sys.executable, *shlex.split(hooks()["nbstripout"]["entry"])[1:]]
    return subprocess.run([*command, *map(str, arguments)], capture_output=True, text=True)


def test_hooks_are_ruff_and_nbstripout_of_the_environment():
    assert list(hooks()) == ["ruff-check", "ruff-format", "nbstripout"]
    assert all(hook["language"] == "system" and hook["entry"].startswith("python -m ") for hook in hooks().values())
    assert "jupyter" in hooks()["ruff-check"]["types_or"] and hooks()["nbstripout"]["types"] == ["jupyter"]


def test_nbstripout_finds_nothing_to_strip_from_any_notebook():
    done = nbstripout("--verify", *NOTEBOOKS)
    assert done.returncode == 0, done.stdout


def test_nbstripout_takes_outputs_counts_widgets_and_papermills_marks_and_nothing_else(tmp_path):
    notebook = nbformat.read(NOTEBOOKS[0], 4)
    cell = notebook.cells[2]
    cell.outputs, cell.execution_count = [new_output("stream", text="x")], 3
    cell.metadata["papermill"] = {"duration": 1}
    notebook.metadata["papermill"] = {"version": "1"}
    notebook.metadata["widgets"] = {"application/vnd.jupyter.widget-state+json": {"state": {}, "version_major": 2}}
    dirty = tmp_path / "n.ipynb"
    dirty.write_text(nbformat.writes(notebook) + "\n")
    assert nbstripout("--verify", dirty).returncode == 1
    assert nbstripout(dirty).returncode == 0
    assert dirty.read_text() == NOTEBOOKS[0].read_text()


def test_tools_are_bounded_alike_for_developers_and_tests():
    lines = [line.split("#")[0].strip(' ",\n') for line in (ROOT / "pyproject.toml").read_text().splitlines()]
    for tool in ("ruff", "nbstripout"):
        bounds = [line for line in lines if line.startswith(f"{tool}>")]
        assert len(bounds) == 2 and len(set(bounds)) == 1
    assert any(line.startswith("pre-commit>") for line in lines)


# --- Colab


@each
def test_first_code_cell_is_the_one_for_colab_and_the_same_everywhere(path):
    cell = nbformat.read(path, 4).cells[1]
    assert cell.source == COLAB and cell.metadata.tags == ["colab"] and len(cell.source.splitlines()) <= 15


def test_colab_cell_does_nothing_elsewhere():
    namespace = {}
    exec(COLAB, namespace)
    assert set(namespace) - {"__builtins__"} == {"sys"}


@pytest.mark.parametrize("place", [".", "clone", "drive/MyDrive/sdd", ".."])
def test_colab_cell_installs_the_repository_that_it_finds(tmp_path, monkeypatch, place):
    here = tmp_path / "content"
    here.mkdir()
    (here / place / "sddlib").mkdir(parents=True)
    (here / place / "sddlib" / "needs.py").touch()
    (here / "other").mkdir()
    called = []
    monkeypatch.setitem(sys.modules, "google.colab", ModuleType("google.colab"))
    monkeypatch.setattr(subprocess, "check_call", called.append)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(here)
    exec(COLAB, {})
    ((*command, target),) = called
    assert command == [sys.executable, "-m", "pip", "install", "--quiet", "--editable"]
    folder = Path(target.removesuffix("[notebooks]"))
    assert folder.resolve() == (here / place).resolve() and Path(sys.path[0]) == folder


def test_colab_cell_says_what_to_do_where_there_is_no_repository(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "google.colab", ModuleType("google.colab"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="clone the repository here, or mount the Drive"):
        exec(COLAB, {})


# --- citation


def test_citation_names_the_software_and_the_paper_it_implements():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= set(cited) and cited["type"] == "software"
    assert all(cited["authors"]) and f'version = "{cited["version"]}"' in (ROOT / "pyproject.toml").read_text()
    assert f'license = "{cited["license"]}"' in (ROOT / "pyproject.toml").read_text()
    (paper,) = cited["references"]
    assert paper["title"] == "Semantic Discrepancy-aware Detector for Image Forgery Identification" and paper["year"] == 2025
    assert [a["family-names"] for a in paper["authors"]] == ["Wang", "Yu", "Xu", "Cui"] and "ICCV" in paper["conference"][
        "name"
    ]
