"""Notebooks: house form, nothing stored, every parameter used, and a whole small run from the first to the last."""

import ast
import base64
import csv
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pytest
from labels import counted, unlabelled
from PIL import Image

from sddlib import profiles
from sddlib.evaluate import COLUMNS
from sddlib.report import NAMES
from sddlib.runner import SUMMARY_KEYS

ROOT = Path(__file__).parent.parent
ALL = sorted((ROOT / "notebooks").glob("*.ipynb"))
each = pytest.mark.parametrize("path", ALL, ids=lambda path: path.stem)
BY_START = {"seed", "run_dir"}  # used by `start` itself


def code(path: Path) -> list:
    return [c for c in nbformat.read(path, 4).cells if c.cell_type == "code"]


@each
def test_one_parameters_cell_behind_the_one_for_colab_with_one_commented_literal_a_line(path):
    cells = nbformat.read(path, 4).cells
    tagged = [i for i, c in enumerate(cells) if "parameters" in c.metadata.get("tags", [])]
    assert tagged == [2]
    assert profiles.parameters(path.stem)
    for line in cells[2].source.splitlines():
        assert re.fullmatch(r"\w+ = .+  # \S.+", line), f"no help text or no literal in {line!r}"


@each
def test_kernelspec_is_python3(path):
    assert nbformat.read(path, 4).metadata.kernelspec.name == "python3"


@each
def test_no_outputs_and_no_widget_state_are_stored(path):
    notebook = nbformat.read(path, 4)
    assert "widgets" not in notebook.metadata
    assert all(c.outputs == [] and c.execution_count is None for c in code(path))


@each
def test_title_is_a_question_with_answers_needs_makes_minutes(path):
    first = nbformat.read(path, 4).cells[0].source
    assert re.match(r"# .+\?\n", first)
    for word in ("**Answers**", "**Needs**", "**Makes**", "**Minutes** 2 CPU cores", "GPU: "):
        assert word in first


@each
def test_the_cell_after_the_parameters_starts_the_run(path):
    assert f'start("{path.stem}", globals())' in nbformat.read(path, 4).cells[3].source


@each
def test_code_cells_are_short(path):
    for cell in code(path):
        assert len(cell.source.splitlines()) <= 40, cell.source.splitlines()[0]


def read_of_p(tree: ast.AST) -> set[str]:
    """The names that code reads from p, itself or in functions of sddlib.fitting that it hands p to."""
    library = {
        f.name: f for f in ast.parse((ROOT / "sddlib" / "fitting.py").read_text()).body if isinstance(f, ast.FunctionDef)
    }
    used = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "p":
            used.add(node.attr)
        if isinstance(node, ast.Call) and any(isinstance(a, ast.Name) and a.id == "p" for a in node.args):
            used |= read_of_p(library[node.func.id])
    return used


@each
def test_every_parameter_is_used(path):
    used = set().union(*(read_of_p(ast.parse(cell.source)) for cell in code(path)[2:]))
    assert set(profiles.parameters(path.stem)) == used | BY_START


@each
def test_claims_are_proved_and_figures_interpreted(path):
    cells = nbformat.read(path, 4).cells
    assert sum("assert " in c.source for c in code(path)) >= 2
    for cell, after in zip(cells, cells[1:], strict=False):
        if "save_figure" in cell.source:
            assert after.cell_type == "markdown" and re.search(r"\bnot\b|nothing", after.source)
    assert any("## Findings" in c.source for c in cells[-5:]) and "**Limits.**" in cells[-1].source


def test_backend_is_left_to_the_notebook():
    for file in (*(ROOT / "sddlib").rglob("*.py"), *ALL):
        assert not re.search(r"matplotlib\.use\(|MPLBACKEND\S*\s*[=,]\s*\\?[\"']Agg|plt\.switch_backend", file.read_text()), (
            file
        )


def test_pytest_runs_the_notebooks_themselves(pytestconfig):
    assert "notebooks" in pytestconfig.getini("testpaths")
    assert {"--nbval-lax", "--nbval-current-env"} <= set(pytestconfig.getini("addopts"))


def papermill(folder: Path, *options: str, **environment) -> subprocess.CompletedProcess:
    """Plain papermill, from a folder that has nothing to do with the repository."""
    command = [sys.executable, "-m", "papermill", *options, "--no-progress-bar"]
    return subprocess.run(command, cwd=folder, env=os.environ | environment, capture_output=True, text=True, timeout=300)


def test_plain_papermill_refuses_a_misspelt_parameter(tmp_path):
    done = papermill(tmp_path, str(ROOT / "notebooks" / "03_train.ipynb"), "out.ipynb", "-p", "epohcs", "1")
    assert done.returncode != 0
    assert "SDDError: 'epohcs' is no parameter of 03_train; near it are epochs" in done.stderr


def test_plain_papermill_works_from_anywhere(tmp_path):
    notebook = str(ROOT / "notebooks" / "02_token_bank.ipynb")
    done = papermill(tmp_path, notebook, "out.ipynb", "-p", "run_dir", str(tmp_path / "run"), SDDLIB_PROFILE="smoke")
    assert done.returncode == 0, done.stderr
    facts = json.loads((tmp_path / "run" / "bank.json").read_text())
    with (ROOT / "data" / "manifest.csv").open(newline="") as f:
        reals = {row["path"] for row in csv.DictReader(f) if row["split"] == "train" and row["label"] == "0"}
    assert facts["files"] and set(facts["files"]) <= reals
    assert facts["settings"]["backbone"] == "tiny" and facts["settings"]["seed"] == 0


def test_smoke_run_leaves_a_complete_summary(smoke_run):
    summary = json.loads((smoke_run.dir / "summary.json").read_text())
    keys = {key for key in SUMMARY_KEYS if "unseen" in key or "mean" not in key}  # mean_*_seen: where no generator was unseen
    assert keys == set(SUMMARY_KEYS) & set(summary)
    assert all(0 <= summary[key] <= 1 for key in keys)
    assert summary["profile"] == "smoke" and summary["seed"] == 0 and summary["versions"]["torch"]
    assert summary["seconds"] >= max(summary["seconds_each"].values()) and 100 < summary["peak_rss_mb"] < 8000


def test_smoke_run_got_the_parameters_of_its_profile_not_of_the_environment(smoke_run):
    given = json.loads((smoke_run.dir / "run.json").read_text())["parameters"]
    assert set(given) == set(profiles.resolve(["all", "07"]))
    for name, values in given.items():
        assert values == profiles.all_parameters("smoke", name, {}) | {"run_dir": str(smoke_run.dir)}


KEPT = {"repeats"}  # figures of kept trainings, of which there are none for smoke


def test_every_figure_of_the_smoke_run_is_shown_saved_and_not_blank(smoke_run):
    for path in sorted((smoke_run.dir / "notebooks").glob("*.ipynb")):
        for cell in code(path):
            names = [n for n in re.findall(r'save_figure\(\w+, "(\w+)"\)', cell.source) if n not in KEPT]
            shown = [o.data["image/png"] for o in cell.outputs if "image/png" in o.get("data", {})]
            assert len(shown) == len(names), f"{path.stem}: {names} are not shown once each"
            for name, png in zip(names, shown, strict=True):
                assert (smoke_run.dir / "figures" / f"{name}.svg").stat().st_size > 1000
                for picture in (io.BytesIO(base64.b64decode(png)), smoke_run.dir / "figures" / f"{name}.png"):
                    assert np.asarray(Image.open(picture).convert("L")).std() > 5, f"{name} is blank"
    assert list((smoke_run.dir / "figures").glob("*.png"))


def test_every_figure_of_the_smoke_run_labels_its_axes_and_says_of_how_many_it_is(smoke_run):
    figures = sorted((smoke_run.dir / "figures").glob("*.svg"))
    assert figures
    for path in figures:
        assert not unlabelled(path)
        assert counted(path), f"{path.name} does not say N"


@pytest.mark.parametrize("what, wrong", [("", 0), ("x", 1), ("y", 1), ("xy", 2), ("names", 1)])
def test_an_unlabelled_axis_is_seen(tmp_path, monkeypatch, what, wrong):
    """Without labels on the axes named by `what`; an axis of names needs none."""
    monkeypatch.setitem(plt.rcParams, "svg.fonttype", "none")
    fig, ax = plt.subplots()
    ax.bar(["camera", "gan"] if what == "names" else [1, 2], [3, 4])
    ax.set(xlabel="" if "x" in what or what == "names" else "epoch", ylabel="" if "y" in what or what == "names" else "loss")
    fig.savefig(tmp_path / "f.svg")
    assert len(unlabelled(tmp_path / "f.svg")) == wrong and not counted(tmp_path / "f.svg")
    ax.set_title("N = 12 crops")
    fig.savefig(tmp_path / "f.svg")
    assert counted(tmp_path / "f.svg")


def test_smoke_run_scores_every_method_on_the_same_images_outside_training(smoke_run):
    paths = {}
    for method in NAMES:
        with (smoke_run.dir / "scores" / f"{method}.csv").open(newline="") as f:
            rows = list(csv.DictReader(f))
        assert list(rows[0]) == COLUMNS
        assert {row["split"] for row in rows} == {"val", "dev", "test"}
        assert all(0 <= float(row["score"]) <= 1 and row["error"] == "" for row in rows)
        paths[method] = [row["path"] for row in rows]
    assert len({tuple(p) for p in paths.values()}) == 1


def test_checkpoints_say_what_made_them(smoke_run):
    for kind in NAMES:
        about = json.loads((smoke_run.dir / "checkpoints" / f"{kind}.json").read_text())
        assert about["kind"] == kind and about["backbone"] == "tiny" and about["weights"] == "random"
        assert {"seed", "data", "threshold", "val", "generators", "version", "preset", "settings"} <= set(about)


def test_run_ends_with_the_table_and_where_things_lie(smoke_run):
    table, _, end = smoke_run.stdout.partition("mean of unseen")
    assert all(name in table for name in NAMES.values()) and "(seen)" in table
    for what in ("notebooks", "figures", "scores", "summary.json"):
        assert f"{what}: {smoke_run.dir / what}" in end
