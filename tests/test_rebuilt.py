"""Every number of the tables once more from the score file alone, by an implementation that shares no line with the library."""

import json
import random
import re
from pathlib import Path

import numpy as np
import pytest
import rebuilt

from sddlib import SDDError
from sddlib.baselines.trials import STORE, profile_trials, read_trials
from sddlib.evaluate import read_scores, table, write_csv
from sddlib.metrics import best_threshold
from sddlib.metrics import metrics as library
from sddlib.report import NAMES

NAMED = {"ap": "mean_ap", "auroc": "mean_auroc", "acc_val": "mean_acc", "acc": "mean_acc05", "min_ap": "min_ap"}


def made_up(seed: int, levels: int, split: str = "test") -> list[dict]:
    """A scores file: reals of all and of named generators, three generators of which one is seen, a tenth unreadable. levels:
    how many scores there are, few for heavy ties; 1: all the same."""
    rng, rows = random.Random(seed), []
    cells = [("val", 0, "camera", 20), ("val", 1, "gan", 15), ("test", 0, "camera", 12), ("test", 0, "vae+flow", 9)]
    cells += [(part, 1, g, rng.randint(8, 30)) for part in dict.fromkeys(("test", split)) for g in ("gan", "vae", "flow")]
    for part, label, generator, n in cells:
        for i in range(n):
            score = 0.75 if levels == 1 else (rng.randrange(levels) + label * rng.randint(0, 1)) / levels
            score = None if i > 1 and rng.random() < 0.1 else min(1.0, score)
            row = {"path": f"{part}/{generator}/{label}/{i}.png", "label": label, "generator": generator, "family": "f"}
            row |= {"split": part, "photo": f"{part}{i}", "score": "" if score is None else score}
            rows.append(row | {"width": 9, "height": 9, "format": "PNG", "error": "broken" if score is None else ""})
    return rows


def check(path: Path, split: str = "test") -> None:
    """The library's table of this file is the one rebuilt from it."""
    lines, summary = table(read_scores(path), split)
    expected, means = rebuilt.table(rebuilt.read(path), split)
    assert [line["generator"] for line in lines] == list(expected)
    for line in lines:
        for key, value in expected[line["generator"]].items():
            assert line[key] == pytest.approx(value, abs=1e-12), (line["generator"], key)
    over = "unseen" if "mean_ap_unseen" in summary else "seen"
    assert summary["threshold"] == means["threshold"]
    for key, name in NAMED.items():
        assert summary[f"{name}_{over}"] == pytest.approx(means[key], abs=1e-12), key
    assert summary.get("ap_seen") == pytest.approx(means["ap_seen"], abs=1e-12)


@pytest.mark.parametrize("levels", [1, 2, 4, 10, 1000])
@pytest.mark.parametrize("seed", range(4))
def test_tables_of_made_up_files_with_ties_and_unreadable_rows_can_be_rebuilt(seed, levels, tmp_path):
    for split in ("test", "dev"):
        rows = made_up(seed, levels, split)
        write_csv(rows, tmp_path / "scores.csv")
        assert any(r["error"] for r in rows)
        check(tmp_path / "scores.csv", split)


def test_what_a_run_leaves_can_be_rebuilt_from_its_score_files(smoke_run):
    """Scores, the numbers of 04_evaluate, and those of summary.json; and the thresholds that the checkpoints carry."""
    handed = json.loads((smoke_run.dir / "metrics" / "04_evaluate.json").read_text())
    summary = json.loads((smoke_run.dir / "summary.json").read_text())
    for method in NAMES:
        path = smoke_run.dir / "scores" / f"{method}.csv"
        check(path)
        _, means = rebuilt.table(rebuilt.read(path))
        prefix = "" if method == "sdd" else f"{method}_"
        numbers = {f"{prefix}mean_{k}_unseen": means[v] for k, v in (("ap", "ap"), ("auroc", "auroc"), ("acc", "acc_val"))}
        for name, value in (numbers | {f"{prefix}ap_seen": means["ap_seen"]}).items():
            assert handed[name] == summary[name] == pytest.approx(value, abs=1e-12), name
        about = json.loads((smoke_run.dir / "checkpoints" / f"{method}.json").read_text())
        assert about["threshold"] == pytest.approx(means["threshold"], abs=1e-6)


def test_kept_scores_of_profile_mini_can_be_rebuilt():
    """Of the numbers in the README: seed by seed, SDD, LoRA and the probe."""
    runs, _ = read_trials(profile_trials("mini", {}, STORE), NAMES)
    assert len(runs) == 3
    for run in runs:
        for rows in run.values():
            lines, summary = table(rows)
            expected, means = rebuilt.table(rows)
            for line in lines:
                for key, value in expected[line["generator"]].items():
                    assert line[key] == pytest.approx(value, abs=1e-12)
            assert summary["mean_ap_unseen"] == pytest.approx(means["ap"], abs=1e-12)


def test_hand_worked_cases_hold_for_both():
    """AP, AUROC, ACC at 0.5, threshold, best ACC; fractions worked on paper."""
    cases = [
        # a fake above two tied (one real, one fake), a real below: AP 1/2 * 1 + 1/2 * 2/3
        ([(1, 0.9), (0, 0.5), (1, 0.5), (0, 0.1)], 5 / 6, 7 / 8, 3 / 4, 0.3, 3 / 4),
        # all the same: chance; every threshold calls all one thing, of both the lower is taken
        ([(0, 0.7), (1, 0.7), (0, 0.7), (1, 0.7)], 1 / 2, 1 / 2, 1 / 2, 0.7 - 1e-6, 1 / 2),
        # upside down: fakes come last; AP 1/2 * 1/3 + 1/2 * 2/4
        ([(0, 0.9), (0, 0.8), (1, 0.2), (1, 0.1)], 5 / 12, 0, 0, 0.1 - 1e-6, 1 / 2),
        # more reals than fakes: all called real is right 4 times of 5, and the oracle knows it
        ([(0, 0.1), (0, 0.6), (0, 0.7), (0, 0.8), (1, 0.65)], 1 / 3, 1 / 2, 2 / 5, 0.625, 4 / 5),
        # a real at exactly 0.5 is called real
        ([(0, 0.5), (1, 0.9)], 1, 1, 1, 0.7, 1),
    ]
    for found, ap, area, acc, at, best in cases:
        assert rebuilt.average_precision(found) == pytest.approx(ap) and rebuilt.auroc(found) == pytest.approx(area)
        assert rebuilt.accuracy(found, 0.5) == pytest.approx(acc) and rebuilt.oracle(found) == pytest.approx(best)
        assert rebuilt.threshold(found) == pytest.approx(at)
        y, s = (np.array([p[k] for p in found]) for k in (0, 1))
        m = library(y, s, at)
        assert (m["ap"], m["auroc"], m["acc"], m["acc_oracle"]) == pytest.approx((ap, area, acc, best))
        assert best_threshold(y, s) == pytest.approx(at)
        for score in s:  # a score that equals the threshold is called real by both
            assert library(y, s, score)["acc_val"] == pytest.approx(rebuilt.accuracy(found, score))


@pytest.mark.parametrize("gone", [("val", 0), ("val", 1), ("test", 0)])
def test_sets_of_one_class_are_refused_by_both(gone, tmp_path):
    rows = [r for r in made_up(0, 10) if (r["split"], r["label"]) != gone]
    write_csv(rows, tmp_path / "scores.csv")
    with pytest.raises(SDDError, match="both classes"):
        table(read_scores(tmp_path / "scores.csv"))
    with pytest.raises(ValueError, match="one class has no scores"):
        rebuilt.table(rebuilt.read(tmp_path / "scores.csv"))


def test_the_other_implementation_is_another_one():
    imports = re.findall(r"^(?:import|from) (\S+)", Path(rebuilt.__file__).read_text(), re.M)
    assert set(imports) == {"csv", "bisect", "fractions"}
