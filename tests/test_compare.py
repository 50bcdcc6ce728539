"""compare: every band is one that its rule gives, every set has its verdict, and the exit code says whether all are inside."""

import csv
import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from scores import make, rows_of, synris_rows, univfd_rows

from sddlib import SDDError, expected
from sddlib.__main__ import main
from sddlib.benchmarks import UNIVFD
from sddlib.data import read_manifest
from sddlib.evaluate import read_scores, table, write_csv
from sddlib.expected import (
    ALL,
    COLUMNS,
    METRICS,
    POINT,
    UNSEEN,
    expected_rows,
    images_digest,
    paper_bands,
    prediction,
    read_expected,
)
from sddlib.report import NAMES

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "data"))

import make_expected  # noqa: E402


def save(rows: list[dict], path: Path, **settings) -> Path:
    write_csv([r | {"score": "" if r["score"] is None else r["score"]} for r in rows], path)
    if settings:
        path.with_suffix(".json").write_text(json.dumps({"settings": settings}))
    return path


def lines(text: str) -> dict[tuple, list[str]]:
    """(set, metric) -> cells after them."""
    split = [re.split(r"\s{2,}", line) for line in text.splitlines()[1:-1]]
    return {(cells[0], cells[1]): cells[2:] for cells in split if len(cells) > 2}


def run(*arguments) -> int:
    return main(["compare", *map(str, arguments), "--draws", "60"])


def test_run_below_the_papers_tables_is_said_to_be_and_exits_with_1(tmp_path, capsys):
    path = save(univfd_rows(dalle=10), tmp_path / "sdd.csv")
    assert run(path) == 1
    out = capsys.readouterr().out
    found = lines(out)
    assert len(found) == 2 * 20 and found["sitd", "ACC"][0] == "180+180"  # 19 sets and their mean, Tables 1 and 2
    assert found["dalle", "ACC"][1] == "75.00" and found["dalle", "ACC"][-2:] == ["below", "Table 2: 98.00"]
    assert found["dalle", "AP"][-2:] == ["below", "Table 1: 99.81"]
    assert found["sitd", "ACC"][-2:] == ["above", "Table 2: 83.61"]
    assert found["progan", "AP"][-2] == "inside" and found[ALL, "ACC"][-2] == "above"
    inside = sum(cells[-2] == "inside" for cells in found.values())
    assert out.splitlines()[-1] == f"sdd.csv, SDD: {inside} of 40 inside; 0 images without a score"
    assert found["dalle", "ACC"][0] == "20+20*" and "* another number of images than the full set has" in out


def test_run_inside_every_band_exits_with_0(tmp_path, capsys):
    part = tuple(t for t in UNIVFD if t.name in ("progan", "sitd"))
    path = save(rows_of(part, {"sitd": 59}, {"sitd": 180}), tmp_path / "sdd.csv")
    assert run(path, "--table", 2) == 0
    found = lines(capsys.readouterr().out)
    assert set(found) == {("progan", "ACC"), ("sitd", "ACC")}  # no mean: the paper's is over 19 sets
    assert "*" not in found["sitd", "ACC"][0]
    assert found["sitd", "ACC"][1] == "83.61" and {cells[-2] for cells in found.values()} == {"inside"}


def test_auroc_is_compared_with_table_3(tmp_path, capsys):
    run(save(synris_rows(dalle3=5), tmp_path / "sdd.csv"))
    found = lines(capsys.readouterr().out)
    assert len(found) == 14 and {metric for _, metric in found} == {"AUROC"}
    assert found["dalle3", "AUROC"][1] == "75.00" and found["dalle3", "AUROC"][-1] == "Table 3: 85.9"


def test_paper_band_is_a_point_around_the_printed_value_wider_by_the_runs_own_interval():
    (band,) = paper_bands(2, {"sitd": (0.80, 0.75, 0.83)})
    assert band.low == pytest.approx(0.8361 - POINT - 0.03) and band.high == pytest.approx(0.8361 + POINT + 0.05)
    inside = [v for v in np.linspace(0.7, 0.95, 251) if band_of(v).low <= v <= band_of(v).high]
    assert min(inside) == pytest.approx(0.8361 - POINT - 0.03, abs=1e-3)  # its interval, a point wider, just holds 0.8361
    assert max(inside) == pytest.approx(0.8361 + POINT + 0.05, abs=1e-3)


def band_of(value: float):
    return paper_bands(2, {"sitd": (value, value - 0.05, value + 0.03)})[0]


def test_printed_mean_is_compared_only_where_the_sets_are_the_tables():
    values = {t.name: (0.9, 0.9, 0.9) for t in UNIVFD} | {ALL: (0.9, 0.9, 0.9), UNSEEN: (0.9, 0.9, 0.9)}
    assert paper_bands(1, values)[-1].source == "Table 1: 98.51" and len(paper_bands(1, values)) == 20
    assert len(paper_bands(1, values | {"mine": (0.9, 0.9, 0.9)})) == 19
    assert len(paper_bands(1, {k: v for k, v in values.items() if k != "san"})) == 18


# --- bands from earlier runs


def test_prediction_is_students_interval_on_logits_with_a_pooled_spread():
    values = np.array([[0.5, 0.9], [0.6, 0.92], [0.7, 0.88]])
    logits = np.log(values / (1 - values))
    spread = np.sqrt((logits[:, 0].var(ddof=1) + logits[:, 1].var(ddof=1)) / 2)
    half = stats.t.ppf(0.999, 4) * spread * np.sqrt(4 / 3)
    low, high = prediction(values)
    np.testing.assert_allclose(np.log(low / (1 - low)), logits.mean(0) - half)
    np.testing.assert_allclose(np.log(high / (1 - high)), logits.mean(0) + half)
    assert (low > 0).all() and (prediction(np.array([[1.0], [1.0]])) <= 1).all()
    with pytest.raises(SDDError, match="two runs or more"):
        prediction(values[:1])


def test_prediction_holds_998_of_1000_further_values():
    rng = np.random.default_rng(0)
    hits = []
    for _ in range(1000):
        logits = np.linspace(0, 4, 12) + 0.3 * rng.standard_normal((4, 12))
        low, high = prediction(1 / (1 + np.exp(-logits[:3])))
        one = 1 / (1 + np.exp(-logits[3]))
        hits.append(((low <= one) & (one <= high)).mean())
    assert 0.995 < np.mean(hits) < 0.9995


def run_folder(folder: Path, seed: int, **changes) -> Path:
    """A run of one seed: three methods on one seen and two unseen generators."""
    (folder / "scores").mkdir(parents=True)
    for m, method in enumerate(NAMES):
        rng = np.random.default_rng((seed, m))
        rows = make(0, "camera", (0.5 * rng.random(9)).tolist(), "val")
        rows += make(1, "gan", (0.5 + 0.5 * rng.random(9)).tolist(), "val")
        rows += make(0, "camera", (0.8 * rng.random(30)).tolist())
        for g in ("gan", "vae", "flow"):
            rows += make(1, g, (0.2 + 0.8 * rng.random(30)).tolist())
        save(rows, folder / "scores" / f"{method}.csv")
    parameters = {"03_train": {"seed": seed, "lr": 1e-3} | changes, "04_evaluate": {"seed": seed}}
    (folder / "run.json").write_text(json.dumps({"parameters": parameters}))
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return [run_folder(folder / str(seed), seed) for seed in range(3)]


@pytest.fixture
def bands(runs, tmp_path, monkeypatch):
    """data/expected.csv of these runs, made by the script."""
    path = tmp_path / "expected.csv"
    assert make_expected.main([*map(str, runs), "--to", str(path), "--benchmark", "toy"]) == 0
    monkeypatch.setattr(expected, "EXPECTED", path)
    return path


def test_bands_are_made_from_runs_of_several_seeds_by_a_command(runs, bands):
    rows = list(csv.DictReader(bands.open(newline="")))
    assert list(rows[0]) == COLUMNS and {r["benchmark"] for r in rows} == {"toy"}
    assert {(r["method"], r["set"], r["metric"]) for r in rows} == {
        (m, s, k) for m in NAMES for s in ("gan", "vae", "flow", UNSEEN) for k in METRICS
    }
    values = []
    for folder in runs:
        found = table(read_scores(folder / "scores" / "lora.csv"))[0]
        ap = [line["ap"] for line in found]
        values.append([*ap, np.mean(ap[1:])])
    low, high = prediction(np.array(values))
    mine = [r for r in rows if (r["method"], r["metric"]) == ("lora", "ap")]
    assert [r["set"] for r in mine] == ["gan", "vae", "flow", UNSEEN]
    np.testing.assert_allclose([float(r["low"]) for r in mine], low, atol=6e-5)
    np.testing.assert_allclose([float(r["high"]) for r in mine], high, atol=6e-5)


def test_runs_the_bands_were_made_from_lie_inside_and_a_worse_one_below(runs, bands, tmp_path, capsys):
    for method in NAMES:
        assert run(runs[1] / "scores" / f"{method}.csv") == 0
        assert "12 of 12 inside" in capsys.readouterr().out
    rows = read_scores(runs[1] / "scores" / "lora.csv")
    worse = [r | {"score": r["score"] * 0.1} if r["generator"] == "flow" and r["label"] else r for r in rows]
    path = save(worse, tmp_path / "mine.csv", method="lora")  # the record says whose scores they are
    assert run(path) == 1
    found = lines(capsys.readouterr().out)
    assert {name for (name, _), cells in found.items() if cells[-2] == "below"} >= {"flow"}
    assert found["vae", "AP"][-2] == "inside" and found["flow", "AP"][-1].startswith("toy, 3 runs of sddlib")
    assert run(path, "--method", "probe") == 1 and "linear probe" in capsys.readouterr().out


def test_mistakes_are_one_line_and_exit_with_2(runs, bands, tmp_path, capsys):
    rows = read_scores(runs[0] / "scores" / "sdd.csv")
    toy = save(rows, tmp_path / "sdd.csv")
    (tmp_path / "more").mkdir()
    cases = [
        ([tmp_path / "none.csv"], "is missing"),
        ([save(rows, tmp_path / "scores.csv")], "does not say of which method it is; give --method"),
        ([toy, "--method", "sd"], "give --method with one of sdd, lora, probe"),
        ([toy, "--table", 1], "holds no test set of the paper's Table 1"),
        ([save(rows[:-1], tmp_path / "more" / "sdd.csv")], "has sets of data/expected.csv but other images"),
        ([save(univfd_rows(), tmp_path / "more" / "probe.csv")], "compare scores of sdd"),
        ([save(renamed(rows), tmp_path / "more" / "lora.csv")], "holds no test set that is known here"),
        ([save(rows, tmp_path / "more" / "a.csv", method="sdd", jpeg=96)], "under equalised"),
        ([save(rows, tmp_path / "more" / "b.csv", method="sdd", protocol={"name": "full-resize256"})], "under full-resize256"),
    ]
    for arguments, said in cases:
        assert run(*arguments) == 2, said
        err = capsys.readouterr().err
        assert said in err and len(err.splitlines()) == 1
    assert main(["compare", str(toy), "--draws", "0"]) == 2 and "--draws 0" in capsys.readouterr().err


def renamed(rows: list[dict]) -> list[dict]:
    return [r | {"generator": r["generator"] + "_mine"} for r in rows]


def test_images_without_a_score_are_counted(tmp_path, capsys):
    rows = univfd_rows()
    rows[-1]["score"] = None
    run(save(rows, tmp_path / "sdd.csv"), "--table", 2)
    out = capsys.readouterr().out
    assert "1 images without a score" in out and lines(out)["dalle", "ACC"][0] == "20+19*"


def test_runs_of_one_seed_or_of_other_settings_make_no_bands(runs, tmp_path):
    with pytest.raises(SDDError, match="different seeds"):
        expected_rows([runs[0], runs[0]], "toy")
    with pytest.raises(SDDError, match="lr of 03_train"):
        expected_rows([runs[0], run_folder(tmp_path / "b", 5, lr=1.0)], "toy")
    other = tmp_path / "c"
    shutil.copytree(runs[1], other)
    rows = read_scores(other / "scores" / "sdd.csv")
    save(rows[:-1], other / "scores" / "sdd.csv")
    with pytest.raises(SDDError, match="did not score the same images"):
        expected_rows([runs[0], other], "toy")


def test_broken_or_missing_bands_are_one_sentence(tmp_path):
    with pytest.raises(SDDError, match="are missing"):
        read_expected(tmp_path / "none.csv")
    for text in ("a,b\n1,2\n", ",".join(COLUMNS) + "\n", ",".join(COLUMNS) + "\nm,i,sdd,s,ap,low,1,x\n"):
        (tmp_path / "e.csv").write_text(text)
        with pytest.raises(SDDError, match="must hold the columns"):
            read_expected(tmp_path / "e.csv")


# --- what is committed


def test_committed_bands_are_of_the_mini_benchmark_and_every_method():
    rows = read_expected()
    manifest = ROOT / "data" / "manifest.csv"
    scored = [s for s in read_manifest(manifest) if s.split != "train"]
    facts = [vars(s) | {"path": s.path.relative_to(manifest.parent).as_posix()} for s in scored]
    assert {r["images"] for r in rows} == {images_digest(facts)} and {r["benchmark"] for r in rows} == {"mini"}
    sets = {s.generator for s in scored if s.split == "test" and s.label} | {UNSEEN}
    assert {(r["method"], r["set"], r["metric"]) for r in rows} == {(m, s, k) for m in NAMES for s in sets for k in METRICS}
    assert all(0 <= r["low"] < r["high"] <= 1 for r in rows)
