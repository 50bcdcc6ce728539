"""Run all works in any notebook alone: what it needs is loaded where it is there, else made first by the notebook it is of."""

import json
import re

import pytest
import yaml

from sddlib import SDDError, needs, profiles
from sddlib.needs import MAKERS, SHARED, ensure
from sddlib.runs import PROFILE_VARIABLE, Run


@pytest.fixture
def calls(monkeypatch):
    """What `ensure` would run: (notebook, profile, changes). Each leaves what it makes."""
    made = []

    def run_notebooks(names, profile, overrides, run_dir, say, latest=True):
        made.extend((name, profile, overrides) for name in names)
        assert not latest
        for name in (n for n, maker in MAKERS.items() if maker in names):
            put(run_dir, name)

    monkeypatch.setattr(needs, "run_notebooks", run_notebooks)
    monkeypatch.delenv(PROFILE_VARIABLE, raising=False)
    return made


def put(folder, *names) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
        (folder / name).with_suffix(".json").touch()


def run(folder, **values) -> Run:
    return Run("06_visualise", {"seed": 0, **values}, folder, "cpu")


def test_what_is_there_is_not_made_again(tmp_path, calls, capsys):
    put(tmp_path, "checkpoints/sdd.safetensors", "scores/sdd.csv")
    ensure(run(tmp_path), "checkpoints/sdd.safetensors", "scores/sdd.csv")
    assert not calls and capsys.readouterr().out == "there: checkpoints/sdd.safetensors, scores/sdd.csv\n"


def test_what_is_missing_is_made_in_running_order_and_which_and_how_long_is_said(tmp_path, calls, capsys):
    ensure(run(tmp_path), "scores/sdd.csv", "checkpoints/sdd.safetensors")
    assert [name for name, *_ in calls] == ["03_train", "04_evaluate"]
    said = capsys.readouterr().out
    assert "missing: scores/sdd.csv, checkpoints/sdd.safetensors" in said
    assert re.search(r"03_train runs now; profile mini takes about [\d.]+ minutes on 2 CPU cores", said)
    assert re.search(r"made in \d+ s", said)


def test_only_what_is_missing_is_made(tmp_path, calls):
    put(tmp_path, "checkpoints/sdd.safetensors")
    ensure(run(tmp_path), "checkpoints/sdd.safetensors", "scores/sdd.csv")
    assert [name for name, *_ in calls] == ["04_evaluate"]


def test_scores_of_weights_that_are_made_anew_are_looked_at_anew(tmp_path, calls):
    put(tmp_path, "scores/sdd.csv", "checkpoints/sdd.safetensors")
    (tmp_path / "checkpoints" / "sdd.json").unlink()  # tensors without their facts cannot be loaded
    ensure(run(tmp_path), "checkpoints/sdd.safetensors", "scores/sdd.csv")
    assert [name for name, *_ in calls] == ["03_train", "04_evaluate"]


def test_profile_is_the_runs_own_then_the_variables_then_mini(tmp_path, calls, monkeypatch):
    ensure(run(tmp_path / "a"), "bank.safetensors")
    monkeypatch.setenv(PROFILE_VARIABLE, "smoke")
    ensure(run(tmp_path / "b"), "bank.safetensors")
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "run.json").write_text(json.dumps({"profile": "field"}))
    ensure(run(tmp_path / "c"), "bank.safetensors")
    assert [profile for _, profile, _ in calls] == ["mini", "smoke", "field"]


def test_seed_and_data_are_those_of_the_calling_notebook_and_nothing_else_is(tmp_path, calls):
    ensure(run(tmp_path, seed=7, manifest="m.csv", images=8, draws=3, batch=99, run_dir="x", force=True), "bank.safetensors")
    assert calls == [("03_train", "mini", {"seed": 7, "manifest": "m.csv"})]


def test_recorded_settings_of_the_run_stay(tmp_path, calls):
    """A training that was stopped goes on with its rates; its benchmark is that of the scoring that follows."""
    recorded = {
        "03_train": {"lr": 1.0, "limit": 5, "force": True, "run_dir": "x", "gone": 1},
        "01_feature_statistics": {"limit": 6},
    }
    (tmp_path / "run.json").write_text(json.dumps({"profile": "smoke", "parameters": recorded}))
    ensure(run(tmp_path, seed=3), "checkpoints/sdd.safetensors", "scores/sdd.csv")
    assert calls[0] == ("03_train", "smoke", {"lr": 1.0, "limit": 5, "seed": 3})
    assert calls[1] == ("04_evaluate", "smoke", {"limit": 5, "seed": 3})


def test_unknown_needs_and_notebooks_that_leave_nothing_are_errors(tmp_path, calls, monkeypatch):
    with pytest.raises(SDDError, match="no notebook is known to make 'x.csv'"):
        ensure(run(tmp_path), "x.csv")
    monkeypatch.setattr(needs, "run_notebooks", lambda *_, **__: None)
    with pytest.raises(SDDError, match="04_evaluate has run and left no scores/lora.csv"):
        ensure(run(tmp_path), "scores/lora.csv")


def test_shared_parameters_are_those_that_profiles_have_in_common():
    common = yaml.safe_load((profiles.PROFILES / "mini.yaml").read_text())["common"]
    assert set(SHARED) == set(common) - {"force"}
    assert set(MAKERS.values()) <= set(profiles.notebook_names())


def test_a_notebook_alone_in_an_empty_folder_runs_what_it_needs_first(command, tmp_path):
    done = command("run", "06", "--profile", "smoke", "--run-dir", tmp_path / "run", "--seed", 1)
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["profile"] == "smoke" and set(record["parameters"]) == {"03_train", "04_evaluate", "06_visualise"}
    assert {values["seed"] for values in record["parameters"].values()} == {1}
    assert record["parameters"]["03_train"] == profiles.all_parameters("smoke", "03_train", {"seed": 1}) | {
        "run_dir": str(tmp_path / "run")
    }
    copies = {path.stem for path in (tmp_path / "run" / "notebooks").glob("*.ipynb")}
    assert copies == set(record["parameters"]) and list((tmp_path / "run" / "figures").glob("feature_planes.svg"))
    log = (tmp_path / "run" / "log.txt").read_text()
    assert "missing: checkpoints/sdd.safetensors, scores/sdd.csv" in log and "sdd.safetensors: trained in" in log
    assert "%|" not in log  # no bars where nobody looks
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["seed"] == 1
