"""Tables: numbers checked by hand, every column and row with its source, sets that are not the paper's are not compared."""

import re

import numpy as np
import pytest
from scores import make, rows_of, synris_rows, univfd_rows
from sklearn.metrics import roc_auc_score

from sddlib import SDDError
from sddlib.benchmarks import SYNRIS, UNIVFD
from sddlib.evaluate import table
from sddlib.intervals import WEIGHTED, chunks, interval, photograph_draws, set_draws, weighted_acc, weighted_auroc
from sddlib.metrics import oracle_accuracy
from sddlib.paper import correct_images
from sddlib.report import threshold_table
from sddlib.tables import accuracy_table, common_sets, equalised_table, family_table, methods_table, paper_table


def lines(text: str) -> dict[str, list[str]]:
    """First cell of each line -> its cells; cells are apart by two blanks or more, empty ones are not seen."""
    return {cells[0]: cells for cells in (re.split(r"\s{2,}", line) for line in text.splitlines())}


@pytest.fixture(scope="module")
def runs():
    """SDD misses 59 of SITD's 180 fakes (301 of 360 right, as the paper has it) and half of DALL-E's; LoRA misses nothing."""
    return {"sdd": univfd_rows(sitd=59, dalle=10), "lora": univfd_rows()}


@pytest.fixture(scope="module")
def accuracy(runs):
    return paper_table(2, runs, {"sdd": univfd_rows(sitd=90)}, "full-native", draws=30)


def test_accuracy_table_has_the_papers_numbers_and_the_runs_side_by_side(accuracy):
    found = lines(accuracy)
    assert found["set"][3:] == [
        *("SDD reported", "SDD run here", "low", "high", "difference", "LoRA + linear run here", "SDD, JPEG run here")
    ]
    sitd = found["sitd"]
    assert sitd[1:5] == ["low-level", "180+180", "83.61", "83.61"]
    assert sitd[7:] == ["+0.00", "100.00", "75.00"]
    assert float(sitd[5]) < 83.61 < float(sitd[6])
    dalle = found["dalle"]  # 20 reals shared by seven sets, 20 fakes
    assert dalle[1:5] == ["autoregressive", "20+20*", "98.00", "75.00"] and dalle[7] == "-23.00"
    assert found["progan"][2:5] == ["20+20", "99.88", "100.00"]  # its full size is not known here: no star
    assert found["cyclegan"][2] == "1321+1321"


def test_means_and_minimum_of_the_accuracy_table(accuracy):
    rows = [re.split(r"\s{2,}", line) for line in accuracy.splitlines()]
    means = {cells[1]: cells for cells in rows if cells[0].startswith("mean of")}
    assert set(means) == {"gan", "low-level", "perceptual", "diffusion", "all"}
    assert means["low-level"][0] == "mean of 2" and means["diffusion"][0] == "mean of 7" and means["all"][0] == "mean of 19"
    here = (301 / 360 + 1) / 2
    assert means["low-level"][2:4] == [f"{(83.61 + 77.45) / 2:.2f}", f"{100 * here:.2f}"]
    total = (17 + 301 / 360 + 0.75) / 19
    assert means["all"][2:4] == ["93.61", f"{100 * total:.2f}"] and means["all"][6] == f"{100 * total - 93.6111:+.2f}"
    (least,) = [cells for cells in rows if cells[0] == "minimum"]
    assert least[1:4] == ["san / dalle", "77.45", "75.00"] and least[-2:] == ["100.00", "75.00"]
    assert float(means["all"][4]) <= 100 * total <= float(means["all"][5])


def test_ap_and_auroc_tables_take_their_own_metric(runs):
    # half of dalle's fakes lie above its reals, with precision 1, and half below them, with precision 20 of 40
    ap = 0.5 * 1 + 0.5 * 0.5
    found = lines(paper_table(1, runs, {}, "ojha1k", draws=20))
    assert found["dalle"][3:5] == ["99.81", f"{100 * ap:.2f}"] and found["dalle"][7] == f"{100 * ap - 99.81:+.2f}"
    synris = {"sdd": synris_rows(dalle3=5)}
    found = lines(paper_table(3, synris, {}, "full-native", draws=20))
    # a quarter of the fakes lies below every real; the full size of the set is not known: no star
    assert found["dalle3"][2:5] == ["20+20", "85.9", "75.00"]
    assert found["mean of 13"][2] == "95.06"  # of what the paper prints as 95.1
    assert paper_table(1, synris, {}, "full-native") == "" == paper_table(3, runs, {}, "full-native")


def test_protocol_stands_in_the_title_and_stars_are_explained(accuracy):
    assert accuracy.splitlines()[0].startswith("Table 2: ACC at 0.5 in percent, run here under full-native; *")


def test_means_of_part_of_the_sets_are_compared_over_that_part():
    part = tuple(t for t in UNIVFD if t.name in ("progan", "sitd", "san"))
    runs = {"sdd": rows_of(part, {"san": 10}, {})}
    rows = [re.split(r"\s{2,}", line) for line in paper_table(2, runs, {}, "full-native", draws=20).splitlines()]
    (total,) = [cells for cells in rows if cells[0] == "mean of 3" and cells[1] == "all"]
    assert total[2:4] == [f"{(99.88 + 83.61 + 77.45) / 3:.2f}", f"{100 * (2 + 0.75) / 3:.2f}"]
    methods = lines(methods_table(2, runs, "full-native"))
    assert methods["SDD"][1:] == ["run here", "full-native", "91.67", "75.00"]
    assert methods["FatFormer"][1:3] == ["reported", "as printed"]


def test_every_row_of_the_methods_table_names_its_source_and_protocol(runs):
    rows = [re.split(r"\s{2,}", line) for line in methods_table(1, runs, "ojha1k").splitlines()]
    assert rows[0] == ["method", "source", "protocol", "mean AP of 19", "minimum"]
    reported = {cells[0]: cells[1:] for cells in rows if cells[1] == "reported"}
    assert len(reported) == 9 and reported["SDD"] == ["reported", "as printed", "98.51", "92.06"]
    assert reported["UnivFD"][1:3] == ["ojha1k (copied)", "93.38"]
    assert {k for k, v in reported.items() if "copied" in v[1]} == {
        *("CNN-Spot", "PatchFor", "Co-occurrence", "Freq-spec", "UnivFD")
    }
    assert [cells[:3] for cells in rows[-2:]] == [["SDD", "run here", "ojha1k"], ["LoRA + linear", "run here", "ojha1k"]]
    assert methods_table(3, runs, "ojha1k") == ""


def test_every_accuracy_printed_is_a_whole_number_of_images(runs):
    for line in table(runs["sdd"])[0]:
        n = line["n_real"] + line["n_fake"]
        assert correct_images(f"{100 * line['acc']:.2f}", n) == round(line["acc"] * n)


def test_common_sets_come_in_the_papers_order():
    assert [t.name for t in common_sets(1, ["dalle", "progan", "mine", "san"])] == ["progan", "san", "dalle"]
    assert [t.name for t in common_sets(3, ["sdxl", "kandinsky2"])] == ["kandinsky2", "sdxl"] and len(SYNRIS) == 13
    assert common_sets(2, ["realesrgan_x4plus"]) == []


# --- tables of any benchmark


@pytest.fixture(scope="module")
def small():
    """Two families; validation lies at 0.2 and 0.4, so that its threshold is 0.3."""
    rows = make(0, "camera", [0.2] * 4, "val") + make(1, "gan", [0.4] * 4, "val")
    rows += make(0, "camera", [0.1, 0.1, 0.35, 0.1])
    rows += make(1, "gan", [0.9] * 4, family="GAN") + make(1, "gan2", [0.4, 0.4, 0.9, 0.05], family="GAN")
    return rows + make(1, "vae", [0.05, 0.1, 0.2, 0.6], family="VAE")


def test_accuracy_at_three_thresholds(small):
    found = lines(accuracy_table({"sdd": small}))
    assert found["ACC at threshold"][2:] == ["SDD 0.5", "SDD val", "SDD oracle"]
    assert found["gan (seen)"][1:] == ["4+4", "1.000", "0.875", "1.000"]
    assert found["gan2"][1:] == ["4+4", f"{5 / 8:.3f}", f"{6 / 8:.3f}", f"{7 / 8:.3f}"]
    # vae: a cut at 0.1 calls 0.2 and 0.6 fake and one real too; at 0.5 one fake is found and no real lost
    assert found["vae"][1:] == ["4+4", f"{5 / 8:.3f}", f"{4 / 8:.3f}", f"{5 / 8:.3f}"]
    assert found["mean of unseen"][1:] == [f"{5 / 8:.3f}", f"{5 / 8:.3f}", f"{6 / 8:.3f}"]
    assert threshold_table({"sdd": small}).splitlines()[1].endswith(f"{6 / 8:.3f}")


def test_oracle_accuracy_is_the_best_of_all_thresholds():
    for seed in range(6):
        rng = np.random.default_rng(seed)
        y, s = np.r_[0, 1, rng.integers(0, 2, 30)], np.round(rng.random(32), 1 if seed % 2 else 6)
        best = max(((s > t) == y).mean() for t in [-1, *np.linspace(-0.1, 1.1, 3000), *s])
        assert oracle_accuracy(y, s) == pytest.approx(best)
    assert oracle_accuracy(np.array([0, 0, 1]), np.array([0.9, 0.9, 0.1])) == pytest.approx(2 / 3)  # all real is best


def test_family_means_count_each_set_once_and_the_minimum_is_one_sets(small):
    found = lines(family_table({"sdd": small}))
    assert found["GAN"][1] == "2" and found["GAN"][3] == f"{(1 + 5 / 8) / 2:.3f}"
    assert found["VAE"][1] == "1" and found["VAE"][3] == f"{5 / 8:.3f}"
    assert found["mean of all sets"][1] == "3" and found["mean of all sets"][3] == f"{(1 + 5 / 8 + 5 / 8) / 3:.3f}"
    aps = {line["generator"]: line["ap"] for line in table(small)[0]}
    assert found["minimum"][1:] == [f"{min(aps.values()):.3f}", f"{5 / 8:.3f}"]


def test_equalised_columns_stand_beside_the_native_ones_of_the_same_images(small):
    half = [r | {"score": 0.45} if r["generator"] == "vae" else r for r in small]
    found = lines(equalised_table({"sdd": small, "lora": small}, {"sdd": half}))
    assert found["ACC at 0.5"][1:] == ["SDD AP native", "SDD AP JPEG", "SDD ACC native", "SDD ACC JPEG"]
    assert found["vae"][2:] == ["1.000", f"{5 / 8:.3f}", f"{4 / 8:.3f}"]
    assert found["gan (seen)"][1:] == ["1.000"] * 4
    with pytest.raises(SDDError, match="equalised scores of sdd are of other images"):
        equalised_table({"sdd": small}, {"sdd": small[1:]})


# --- intervals


def test_weighted_metrics_are_scikit_learns_and_the_plain_accuracy():
    rng = np.random.default_rng(0)
    y, s = rng.integers(0, 2, 60), rng.integers(0, 12, 60) / 12
    w = rng.integers(0, 4, (40, 60)).astype(float)
    expected = [roc_auc_score(y, s, sample_weight=row) for row in w]
    np.testing.assert_allclose(weighted_auroc(y, s, w), expected, rtol=1e-12)
    np.testing.assert_allclose(weighted_acc(y, s, w), [np.average((s > 0.5) == y, weights=row) for row in w])
    assert np.isnan(weighted_auroc(y, s, np.where(y == 1, 0.0, w))).all() and set(WEIGHTED) == {"ap", "acc", "auroc"}


def test_draws_do_not_depend_on_the_pieces_they_are_made_in(monkeypatch):
    strata = [np.array([0, 2, 5]), np.array([1, 3, 4, 6])]
    whole = photograph_draws(strata, 25, np.random.default_rng(3))
    assert (whole[:, strata[0]].sum(1) == 3).all() and (whole[:, strata[1]].sum(1) == 4).all() and (whole[0] == 1).all()
    for size in (1, 10, 25, 100):
        monkeypatch.setattr("sddlib.intervals.CHUNK", size)
        pieces = list(chunks(strata, 25, np.random.default_rng(3)))
        assert np.array_equal(np.concatenate(pieces), whole) and max(map(len, pieces)) <= size + 1


def test_sets_that_share_reals_move_together_and_their_mean_is_surer_than_each():
    rng = np.random.default_rng(0)
    reals = make(0, "a+b", rng.random(60).tolist())
    groups = {g: reals + make(1, g, rng.random(60).tolist()) for g in "ab"}
    drawn = set_draws(groups, WEIGHTED["auroc"], 200, np.random.default_rng(0))
    assert np.corrcoef(drawn["a"], drawn["b"])[0, 1] > 0.2
    estimate, low, high = interval(drawn["a"])
    y, s = ([r[k] for r in groups["a"]] for k in ("label", "score"))
    assert estimate == pytest.approx(roc_auc_score(y, s)) and low < estimate < high
