"""What a run's report and table of seeds make of its scores alone: what means are over, and whose scores they are."""

from pathlib import Path

import nbformat
import numpy as np
import pytest
from nbformat.v4 import new_markdown_cell
from pages import notebook, rows, words
from scores import make

from sddlib.evaluate import read_scores, table, write_csv
from sddlib.report import NAMES, seeds_table
from sddlib.report_page import write_report
from sddlib.runs import write_json


def scored(folder: Path, unseen: str = "", seed: int = 0) -> Path:
    """A run folder with made-up scores of all methods: training held "gan", the test split that and `unseen`."""
    rng = np.random.default_rng(seed)
    for method in NAMES:
        found = []
        for label, generator, split in ((0, "camera", "val"), (1, "gan", "val"), (0, "camera", "test"), (1, "gan", "test")):
            found += make(label, generator, list(rng.uniform(0.2 * label, 0.8 + 0.2 * label, 20)), split)
        found += make(1, unseen, list(rng.uniform(0.2, 1, 20))) if unseen else []
        (folder / "scores").mkdir(parents=True, exist_ok=True)
        write_csv(found, folder / "scores" / f"{method}.csv")
    return folder


def test_run_whose_generators_were_all_seen_is_reported_whole_and_called_so(tmp_path):
    run = scored(tmp_path / "run")
    html = write_report(run).read_text(encoding="utf-8")
    text, summary = words(html), table(read_scores(run / "scores" / "sdd.csv"))[1]
    assert "cannot be shown" not in text and "never" not in text and "unseen" not in text
    assert "were tested on other images of 1 generator seen in training." in text
    assert "Over 1 generator, all seen in training" in text and "over 1 generator of 1 family, seen in training" in text
    sdd = rows(html, "headline")[0]
    assert sdd[1].split()[0] == f"{summary['mean_ap_seen']:.3f}"
    assert sdd[-2:] == [f"{summary[f'mean_{key}_seen']:.3f}" for key in ("auroc", "acc")]
    assert rows(html, "generators")[-1][:2] == ["mean of seen", f"{summary['mean_ap_seen']:.2f}"]


def test_means_of_a_run_with_an_unseen_generator_are_over_that_one_alone(tmp_path):
    run = scored(tmp_path / "run", "new")
    text = words(write_report(run).read_text(encoding="utf-8"))
    assert "were tested on 1 generator they had never seen." in text and "mean of unseen" in text
    assert "over 1 generator of 1 family, unseen in training" in text


def test_scores_without_an_error_have_a_place_on_the_axis(tmp_path):
    parts = [
        make(label, name, [0.1 + 0.8 * label] * 5, s) for s in ("val", "test") for label, name in ((0, "camera"), (1, "gan"))
    ]
    (tmp_path / "scores").mkdir()
    write_csv(sum(parts, []), tmp_path / "scores" / "sdd.csv")
    html = write_report(tmp_path).read_text(encoding="utf-8")
    assert "left:nan" not in html and "left:100" in html


@pytest.mark.parametrize("unseen, over", [("", "seen"), ("new", "unseen")])
def test_seeds_say_over_which_generators_their_means_are(unseen, over, tmp_path):
    runs = [scored(tmp_path / str(seed), unseen, seed) for seed in (0, 1)]
    for seed, run in enumerate(runs):
        write_json(run / "run.json", {"parameters": {n: {"seed": seed} for n in ("03_train", "04_evaluate")}})
    text = seeds_table(runs, draws=20)
    assert "nan" not in text and text.count(f"mean_ap_{over}") == 2 and ("unseen" in text) == bool(unseen)
    mean = np.mean([table(read_scores(run / "scores" / "sdd.csv"))[1][f"mean_ap_{over}"] for run in runs])
    assert f"{mean:.3f} ± " in next(line for line in text.splitlines() if line.startswith(f"mean_ap_{over}"))


def test_scores_of_other_checkpoints_are_called_so_and_notebooks_that_only_loaded_are_no_reason(tmp_path):
    run = scored(tmp_path / "run", "new")
    for method in NAMES:
        write_json(run / "scores" / f"{method}.json", {"settings": {"checkpoint": f"of {method}"}})
        write_json(run / "checkpoints" / f"{method}.json", {"sha256": f"of {method}"})
    (run / "notebooks").mkdir()
    for name, year in (("04_evaluate", "2026"), ("03_train", "2999")):
        executed = notebook(new_markdown_cell("# Is it?"))
        executed.metadata.papermill.end_time = f"{year}-01-01T00:00:00+00:00"
        nbformat.write(executed, run / "notebooks" / f"{name}.ipynb")
    assert "not of the checkpoints" not in write_report(run).read_text(encoding="utf-8")
    write_json(run / "checkpoints" / "lora.json", {"sha256": "another"})
    text = words(write_report(run).read_text(encoding="utf-8"))
    assert f"The scores of {NAMES['lora']} are not of the checkpoints here" in text and "cannot be shown" not in text
