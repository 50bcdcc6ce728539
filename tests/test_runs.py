"""Runs: no parameter is silently ignored, no two runs share a folder, a failure is one sentence and keeps what was done."""

import json
import os

import matplotlib.pyplot as plt
import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from sddlib import SDDError, profiles, runner, runs


@pytest.fixture
def default_profile(monkeypatch):
    monkeypatch.delenv(runs.PROFILE_VARIABLE, raising=False)


def cells(notebook: str, folder, **changes) -> dict:
    """What the kernel of a notebook holds when the cell after its parameters runs."""
    values = profiles.parameters(notebook) | {"run_dir": str(folder)} | changes
    return {"__name__": "__main__", "In": ["", "x"], "Out": {}, "_i1": "x", "exit": print, **values}


def yaml_file(folder, text: str) -> str:
    path = folder / "own.yaml"
    path.write_text(text)
    return str(path)


def test_profile_mini_is_what_the_notebooks_default_to():
    for notebook in profiles.notebook_names():
        defaults = profiles.parameters(notebook)
        given = profiles.profile_parameters("mini", notebook)
        assert given == {name: defaults[name] for name in given}, f"{notebook} and profiles/mini.yaml differ"
        assert set(defaults) - set(given) == {"run_dir"}, f"profiles/mini.yaml leaves out parameters of {notebook}"


def test_every_profile_holds_known_names_only():
    for path in profiles.PROFILES.glob("*.yaml"):
        profiles.read_profile(path.stem)


@pytest.mark.parametrize(
    "text, named",
    [
        ("03_train: {epohcs: 1}", "'epohcs' is no parameter of 03_train; near it are epochs"),
        ("common: {sed: 1}", "'sed' is no parameter of any notebook; near it are seed"),
        ("03_trian: {epochs: 1}", "'03_trian' is no notebook; near it are 03_train"),
        ("common: [1", "not valid YAML"),
        ("- 1", "must hold sections"),
    ],
)
def test_profile_with_a_wrong_name_is_refused_and_the_right_one_named(tmp_path, text, named):
    with pytest.raises(SDDError, match=named):
        profiles.read_profile(yaml_file(tmp_path, text))


def test_unknown_profile_notebook_and_override_are_refused():
    with pytest.raises(SDDError, match="no profile 'smok'; there are smoke"):
        profiles.read_profile("smok")
    with pytest.raises(SDDError, match="no notebook '03_trian'; there are 03_train"):
        profiles.resolve(["03_trian"])
    with pytest.raises(SDDError, match="'epohcs' is no parameter of 03_train; near it are epochs"):
        profiles.check_overrides({"epohcs": 1}, ["03_train"])
    with pytest.raises(SDDError, match="not name=value"):
        profiles.parse_overrides(["epochs"])


def test_common_value_reaches_only_notebooks_that_have_it(tmp_path):
    path = yaml_file(tmp_path, "common: {image_size: 64}")
    assert profiles.profile_parameters(path, "03_train") == {"image_size": 64}
    assert profiles.profile_parameters(path, "04_evaluate") == {}


def test_values_of_a_wrong_type_are_refused_and_yaml_floats_understood(tmp_path):
    assert profiles.all_parameters("mini", "03_train", {"lr": "1e-3"})["lr"] == 1e-3
    assert profiles.parse_overrides(["lr=5e-4", "preset_fields={M: 8}", "run_dir="])["preset_fields"] == {"M": 8}
    for name, value in (("epochs", "three"), ("epochs", 1.5), ("epochs", True), ("lr", "fast"), ("manifest", 3)):
        with pytest.raises(SDDError, match=f"parameter {name} = "):
            profiles.all_parameters("mini", "03_train", {name: value})


def test_notebooks_are_found_by_number_stem_file_and_as_a_whole():
    assert profiles.resolve(["03", "notebooks/02_token_bank.ipynb"]) == ["02_token_bank", "03_train"]
    assert profiles.resolve(["all"]) == [n for n in profiles.notebook_names() if n[:2] <= "06"]
    assert profiles.resolve(["full"]) == profiles.notebook_names()


def test_literal_that_is_no_parameter_is_refused_by_start(tmp_path, default_profile):
    with pytest.raises(SDDError, match="'epohcs' is no parameter of 03_train; near it are epochs"):
        runs.start("03_train", cells("03_train", tmp_path, epohcs=1))


def test_start_can_run_again_when_later_cells_have_made_variables(tmp_path, default_profile, capsys):
    namespace = cells("04_evaluate", tmp_path)
    namespace["run"] = runs.start("04_evaluate", namespace)
    namespace["rows"] = [1, 2]
    assert runs.start("04_evaluate", namespace).dir == tmp_path
    assert "04_evaluate" in capsys.readouterr().out


def test_start_says_versions_device_seed_folder_and_profile(tmp_path, default_profile, capsys):
    runs.start("04_evaluate", cells("04_evaluate", tmp_path, seed=7))
    said = capsys.readouterr().out
    for word in ("seed 7", "device c", str(tmp_path), "defaults", "torch ", "sddlib "):
        assert word in said


def test_missing_parameters_cell_is_one_sentence(tmp_path, default_profile):
    with pytest.raises(SDDError, match="run the parameters cell first"):
        runs.start("04_evaluate", {})


def test_profile_variable_shrinks_defaults_but_not_what_was_given(tmp_path, monkeypatch):
    monkeypatch.setenv(runs.PROFILE_VARIABLE, "smoke")
    namespace = cells("03_train", tmp_path, batch=6)
    p = runs.start("03_train", namespace).p
    assert (p.backbone, p.epochs, p.batch) == ("tiny", 1, 6)
    assert namespace["epochs"] == 1


def test_relative_paths_start_at_the_repository_wherever_the_kernel_stands(tmp_path, default_profile, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = runs.start("04_evaluate", cells("04_evaluate", tmp_path))
    assert run.path("data/manifest.csv") == profiles.ROOT / "data" / "manifest.csv"
    assert run.path(str(tmp_path)) == tmp_path
    with pytest.raises(SDDError, match="~nobody-of-this-name/x: no home directory"):
        run.path("~nobody-of-this-name/x")
    assert run.weights("embedded") == "embedded"


def test_two_runs_never_share_a_folder(tmp_path):
    assert len({runs.new_run_dir("mini", tmp_path) for _ in range(3)}) == 3


def test_latest_points_at_the_newest_run_with_or_without_links(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "RUNS", tmp_path)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        runs.set_latest(tmp_path / name)
        assert runs.find_run() == (tmp_path / name).resolve()
    assert not os.path.isabs(os.readlink(tmp_path / "latest"))
    (tmp_path / "latest").unlink()

    def impossible(*_, **__):
        raise OSError

    monkeypatch.setattr(type(tmp_path), "symlink_to", impossible)
    runs.set_latest(tmp_path / "one")
    assert runs.find_run() == (tmp_path / "one").resolve()
    with pytest.raises(SDDError, match="missing"):
        runs.find_run(str(tmp_path / "nowhere"))


def test_metrics_of_two_calls_are_joined_and_reach_the_summary(tmp_path):
    run = runs.Run("04_evaluate", {}, tmp_path, "cpu")
    run.metrics(mean_ap_unseen=0.5, of_no_interest=1)
    run.metrics(probe_ap_seen=0.25)
    record = {"seed": 3, "profile": "smoke", "versions": runs.versions()}
    summary = runner.write_summary(tmp_path, record, 1.23, {"04_evaluate": 1.2})
    assert summary == json.loads((tmp_path / "summary.json").read_text())
    assert (summary["mean_ap_unseen"], summary["probe_ap_seen"], summary["seed"]) == (0.5, 0.25, 3)
    assert "of_no_interest" not in summary and summary["peak_rss_mb"] > 50


def test_saved_figure_is_png_and_svg_with_text_and_stays_open(tmp_path):
    from sddlib.figures import style

    style()
    fig, ax = plt.subplots()
    ax.set_xlabel("readable")
    run = runs.Run("04_evaluate", {}, tmp_path, "cpu")
    run.save_figure(fig, "one")
    first = (tmp_path / "figures" / "one.svg").read_bytes()
    assert b">readable<" in first and (tmp_path / "figures" / "one.png").stat().st_size > 1000
    run.save_figure(fig, "one")
    assert (tmp_path / "figures" / "one.svg").read_bytes() == first
    assert plt.fignum_exists(fig.number)
    plt.close(fig)


def test_kernels_see_neither_profile_variable_nor_backend(monkeypatch):
    monkeypatch.setenv(runs.PROFILE_VARIABLE, "smoke")
    monkeypatch.setenv("MPLBACKEND", "Agg")
    with runner.kernel_environment():
        assert not {runs.PROFILE_VARIABLE, "MPLBACKEND"} & set(os.environ)
    assert os.environ[runs.PROFILE_VARIABLE] == "smoke" and os.environ["MPLBACKEND"] == "Agg"


@pytest.fixture
def three_notebooks(tmp_path, monkeypatch):
    """Notebooks of which the second fails."""
    folder = tmp_path / "notebooks"
    (folder / "profiles").mkdir(parents=True)
    (folder / "profiles" / "p.yaml").write_text("common: {seed: 5}\n")
    bodies = {"00_a": "print('epoch 1 done')", "01_b": "x = seed\nraise ValueError('too\\nbad')", "02_c": "pass"}
    for name, body in bodies.items():
        first = new_code_cell('seed = 0\nrun_dir = ""', metadata={"tags": ["parameters"]})
        spec = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
        nbformat.write(new_notebook(cells=[first, new_code_cell(body)], metadata=spec), folder / f"{name}.ipynb")
    for module in (profiles, runner):
        monkeypatch.setattr(module, "NOTEBOOKS", folder)
    monkeypatch.setattr(profiles, "PROFILES", folder / "profiles")
    return tmp_path / "run"


def test_failing_notebook_is_one_sentence_and_earlier_ones_are_kept(three_notebooks):
    said = []
    with pytest.raises(SDDError) as failure:
        runner.run_notebooks(["00_a", "01_b", "02_c"], "p", {}, three_notebooks, said.append)
    assert "01_b stopped in cell [3] with ValueError: too bad" in str(failure.value)
    assert sorted(p.stem for p in (three_notebooks / "notebooks").iterdir()) == ["00_a", "01_b"]
    assert json.loads((three_notebooks / "run.json").read_text())["seed"] == 5
    assert "  epoch 1 done" in said and "epoch 1 done" in (three_notebooks / "log.txt").read_text()


def test_summary_leaves_out_later_numbers_only_when_checkpoints_were_made_anew(three_notebooks):
    def go(name: str, seed: int) -> dict:
        return runner.run_notebooks([name], "p", {"seed": seed}, three_notebooks, lambda _: None)

    go("00_a", 1)
    runs.write_json(three_notebooks / "metrics" / "02_c.json", {"ap_seen": 0.5, "peak_rss_mb": 1})
    runs.write_json(three_notebooks / "metrics" / "04_d.json", {"mean_ap_unseen": 0.5, "peak_rss_mb": 1})
    assert {"ap_seen", "mean_ap_unseen"} <= set(go("00_a", 1))
    summary = go("02_c", 2)
    assert summary["ap_seen"] == 0.5 and "mean_ap_unseen" not in summary
    parameters = json.loads((three_notebooks / "run.json").read_text())["parameters"]
    assert {n: p["seed"] for n, p in parameters.items()} == {"00_a": 1, "02_c": 2}


def test_broken_run_record_is_one_sentence(three_notebooks):
    for text in ("", "{", "[]", "null", "[" * 100_000):
        three_notebooks.mkdir(exist_ok=True)
        (three_notebooks / "run.json").write_text(text)
        with pytest.raises(SDDError, match="run.json is broken"):
            runner.run_notebooks(["00_a"], "p", {}, three_notebooks)


def test_wrong_override_is_refused_before_anything_starts(three_notebooks):
    with pytest.raises(SDDError, match="'sede' is no parameter of 00_a; near it are seed"):
        runner.run_notebooks(["00_a"], "p", {"sede": 1}, three_notebooks)
    assert not three_notebooks.exists()


def test_source_as_one_text_or_as_lines_is_the_same_and_what_is_no_notebook_is_named(three_notebooks):
    path = profiles.NOTEBOOKS / "00_a.ipynb"
    notebook = json.loads(path.read_text())
    assert isinstance(notebook["cells"][0]["source"], list) and profiles.parameters("00_a") == {"seed": 0, "run_dir": ""}
    notebook["cells"][0]["source"] = "".join(notebook["cells"][0]["source"])
    path.write_text(json.dumps(notebook))
    assert profiles.parameters("00_a") == {"seed": 0, "run_dir": ""}
    for text in ("", "{", "[]", "{}", "null", "[" * 100_000):
        path.write_text(text)
        with pytest.raises(SDDError, match=r"00_a.ipynb is no notebook .*restore it"):
            profiles.parameters("00_a")
