"""Evaluation: metrics by hand and by scikit-learn, thresholds from validation only, paired intervals over photographs."""

import itertools

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import accuracy_score, average_precision_score, balanced_accuracy_score, roc_auc_score
from torch import nn

from sddlib import SDDError, intervals
from sddlib.baselines.lora import LinearOutput
from sddlib.benchmarks import opposed
from sddlib.data import Sample, normalised, read_csv
from sddlib.evaluate import (
    COLUMNS,
    by_generator,
    iter_scores,
    read_scores,
    score_paths,
    score_samples,
    seen_generators,
    table,
    write_csv,
)
from sddlib.intervals import bootstrap
from sddlib.metrics import best_threshold, fit_threshold, metrics
from sddlib.report import generator_table
from sddlib.tables import accuracy_table


class Brightness(nn.Module):
    """Scores a crop by its mean, so that every score can be told beforehand; notes whether it was in eval mode."""

    def __init__(self, side: int = 16):
        super().__init__()
        self.image_size, self.prepare = side, normalised
        self.modes = []

    def forward(self, x):
        self.modes.append(self.training)
        return LinearOutput(x.mean((1, 2, 3)), x)


def grey(path, level: int, size=(20, 18)):
    Image.new("RGB", size, (level,) * 3).save(path)
    return path


# --- scoring


def test_an_unreadable_file_is_a_row_with_its_error_and_changes_no_other_score(tmp_path):
    good = [grey(tmp_path / f"{i}.png", 40 * i) for i in range(5)]
    noise = np.random.default_rng(0).integers(0, 256, (50, 50, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "broken.png")
    (tmp_path / "broken.png").write_bytes((tmp_path / "broken.png").read_bytes()[:3000])
    (tmp_path / "text.jpg").write_text("no image")
    paths = [good[0], tmp_path / "broken.png", *good[1:3], tmp_path / "absent.png", *good[3:], tmp_path / "text.jpg"]
    model = Brightness().train()
    rows = score_paths(model, paths, batch=3)
    assert [r["path"] for r in rows] == [str(p) for p in paths]
    failed = [r for r in rows if r["error"]]
    assert [r["path"].split("/")[-1] for r in failed] == ["broken.png", "absent.png", "text.jpg"]
    assert all(r["score"] == r["width"] == r["height"] == r["format"] == "" for r in failed)
    alone = score_paths(model, good)
    assert [r for r in rows if not r["error"]] == alone
    assert (alone[0]["width"], alone[0]["height"], alone[0]["format"], alone[0]["error"]) == (20, 18, "PNG", "")
    assert not any(model.modes)


def test_a_run_of_unreadable_files_only_still_ends_in_rows(tmp_path):
    rows = score_paths(Brightness(), [tmp_path / "a.png", tmp_path / "b.png"])
    assert [r["error"] for r in rows] == ["no such file"] * 2


def test_scores_do_not_depend_on_batch_size_or_workers(tmp_path):
    paths = [grey(tmp_path / f"{i}.png", 30 * i) for i in range(7)]
    one = score_paths(Brightness(), paths, batch=1)
    for options in ({"batch": 3}, {"batch": 32}, {"batch": 2, "workers": 2}):
        other = score_paths(Brightness(), paths, **options)
        np.testing.assert_allclose([r["score"] for r in other], [r["score"] for r in one], atol=1e-6)


def test_very_sure_scores_stay_apart(tmp_path):
    class Sure(Brightness):
        def forward(self, x):
            return LinearOutput(torch.tensor([20.0, 25.0, 30.0])[: len(x)], x)

    rows = score_paths(Sure(), [grey(tmp_path / f"{v}.png", v) for v in (10, 20, 30)])
    assert len({r["score"] for r in rows}) == 3 and max(r["score"] for r in rows) < 1


def test_preparation_comes_before_the_crop_and_its_failure_is_a_row(tmp_path):
    def halve(picture: Image.Image) -> Image.Image:
        if picture.width > 90:
            raise SDDError("too wide")
        return picture.point(lambda v: v // 2)

    paths = [grey(tmp_path / "a.png", 200), grey(tmp_path / "wide.png", 200, (100, 20)), grey(tmp_path / "b.png", 100)]
    a, wide, b = iter_scores(Brightness(), paths, prepare=halve)
    assert a["score"] == score_paths(Brightness(), paths[2:])[0]["score"] > b["score"]
    assert (wide["score"], wide["error"], wide["width"]) == ("", "too wide", "")
    assert (a["width"], a["height"], a["format"]) == (20, 18, "PNG")


def test_scores_file_comes_back_as_it_was_written(tmp_path):
    samples = [
        Sample(grey(tmp_path / "a.png", 37), 0, "camera", "camera", "val", "p1"),
        Sample(tmp_path / "gone, really.png", 1, "gan", "GAN", "test", "p,2"),
        Sample(grey(tmp_path / "c.png", 101), 1, "gan", "GAN", "test", "p3"),
    ]
    rows = score_samples(Brightness(), samples, tmp_path)
    write_csv(rows, tmp_path / "scores.csv")
    assert (tmp_path / "scores.csv").read_text().splitlines()[0] == ",".join(COLUMNS)
    back = read_scores(tmp_path / "scores.csv")
    assert [r["path"] for r in back] == ["a.png", "gone, really.png", "c.png"]
    assert [r["score"] for r in back] == [rows[0]["score"], None, rows[2]["score"]]  # to the last bit
    assert [(r["label"], r["generator"], r["photo"]) for r in back] == [
        (0, "camera", "p1"),
        (1, "gan", "p,2"),
        (1, "gan", "p3"),
    ]
    assert back[1]["error"] == "no such file" and not list(tmp_path.glob("*.part"))


def test_any_name_comes_back_from_a_csv(tmp_path):
    names = ["a\rb.png", "c\nd.png", "\r", 'e,"f".png', "caf\udce9.png", "plain.png"]
    write_csv([{"path": name, "score": 0.5} for name in names], tmp_path / "s.csv", ("path", "score"))
    assert [r["path"] for r in read_csv(tmp_path / "s.csv")] == names
    assert (tmp_path / "s.csv").read_bytes().endswith(b"\nplain.png,0.5\n")  # no marks where none are needed


def test_broken_scores_files_are_one_sentence(tmp_path):
    with pytest.raises(SDDError, match="is missing"):
        read_scores(tmp_path / "no.csv")
    for text, said in (("", "no rows"), (",".join(COLUMNS) + "\n", "no rows"), ("path,score\na,1\n", "'label'")):
        (tmp_path / "s.csv").write_text(text)
        with pytest.raises(SDDError, match=said):
            read_scores(tmp_path / "s.csv")


# --- metrics


def test_metrics_worked_by_hand():
    y, s = np.array([1, 0, 1, 0, 1]), np.array([0.9, 0.8, 0.7, 0.2, 0.1])
    m = metrics(y, s, threshold=0.75)
    assert m["ap"] == pytest.approx((1 / 1 + 2 / 3 + 3 / 5) / 3)
    assert m["auroc"] == pytest.approx(3 / 6)
    assert m["acc"] == pytest.approx(3 / 5) and m["real_acc"] == 1 / 2 and m["fake_acc"] == pytest.approx(2 / 3)
    assert m["acc_val"] == pytest.approx(2 / 5) and m["real_acc_val"] == 1 / 2 and m["fake_acc_val"] == pytest.approx(1 / 3)
    assert (m["n_real"], m["n_fake"]) == (2, 3)


def test_ties_are_worth_half_in_auroc_and_one_step_in_ap():
    y, s = np.array([1, 0, 1, 0]), np.array([0.5, 0.5, 0.9, 0.1])
    m = metrics(y, s, 0.5)
    assert m["auroc"] == pytest.approx((1 + 1 + 0.5 + 1) / 4)
    assert m["ap"] == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert m["fake_acc"] == 0.5 and m["real_acc"] == 1  # exactly 0.5 is called real


@pytest.mark.parametrize("seed", range(5))
def test_metrics_agree_with_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    y = np.r_[0, 1, rng.integers(0, 2, 48)]
    s = np.round(rng.random(50) * 0.7 + 0.3 * y * rng.random(50), 1 if seed % 2 else 6)
    m = metrics(y, s, 0.4)
    assert m["ap"] == average_precision_score(y, s) and m["auroc"] == roc_auc_score(y, s)
    assert m["acc"] == accuracy_score(y, s > 0.5) and m["acc_val"] == accuracy_score(y, s > 0.4)
    assert (m["real_acc_val"] + m["fake_acc_val"]) / 2 == pytest.approx(balanced_accuracy_score(y, s > 0.4))


def test_constant_scores_are_chance():
    y, s = np.array([1, 0, 0, 1, 0]), np.full(5, 0.3)
    m = metrics(y, s, best_threshold(y, s))
    assert m["auroc"] == 0.5 and m["ap"] == pytest.approx(0.4)
    assert {m["real_acc_val"], m["fake_acc_val"]} == {0.0, 1.0}  # all one class: balanced accuracy one half


@pytest.mark.parametrize("y", [[], [0, 0], [1, 1]])
def test_one_class_is_an_error_and_not_a_number(y):
    y, s = np.array(y, dtype=int), np.linspace(0, 1, len(y))
    with pytest.raises(SDDError, match="both classes"):
        metrics(y, s, 0.5)
    with pytest.raises(SDDError, match="both classes"):
        best_threshold(y, s)


@pytest.mark.parametrize("seed", range(8))
def test_threshold_has_the_best_balanced_accuracy_of_all(seed):
    rng = np.random.default_rng(seed)
    y = np.r_[0, 1, rng.integers(0, 2, 20 + seed)]
    s = np.round(rng.random(len(y)) + 0.3 * y, 1 if seed % 2 else 8)
    tried = itertools.chain([-1.0], np.linspace(-0.1, 1.5, 400), s)
    best = max(balanced_accuracy_score(y, s > t) for t in tried)
    assert balanced_accuracy_score(y, s > best_threshold(y, s)) == pytest.approx(best)


def test_threshold_of_separated_classes_lies_midway():
    assert best_threshold(np.array([0, 0, 1, 1]), np.array([0.1, 0.2, 0.6, 0.9])) == pytest.approx(0.4)


# --- tables


def rows(seed: int = 0, photos: int = 12, shift: float = 0.25) -> list[dict]:
    """A scores file in memory: each photograph has a real crop and a fake of each generator; 'gan' is seen."""
    rng, made = np.random.default_rng(seed), []
    for split, generators in (("val", ["gan"]), ("test", ["gan", "vae", "diffusion"])):
        for p in range(photos):
            for g in ("camera", *generators):
                label = int(g != "camera")
                facts = {"path": f"{split}/{g}/{p}", "label": label, "generator": g, "family": g.upper(), "split": split}
                score = float(rng.random() * 0.7 + label * shift)
                made.append({**facts, "photo": f"{split}{p}", "score": score, "error": ""})
    return made


def pick(r: list[dict], **wanted) -> list[dict]:
    return [x for x in r if all(x[k] == v for k, v in wanted.items())]


def test_each_generators_fakes_stand_against_all_reals_of_the_split():
    r = rows()
    groups = by_generator(r)
    assert list(groups) == ["gan", "vae", "diffusion"] and seen_generators(r) == {"gan"}
    for g, group in groups.items():
        assert group == pick(r, split="test", label=0) + pick(r, split="test", generator=g)


def test_reals_that_name_generators_belong_to_these_sets_alone():
    """UnivFD's layout: a set with its own reals, a folder that two sets share, and reals of no set for the rest."""
    r = rows()
    own, shared, free = (
        [{**x, "path": f"{g}/{x['path']}", "generator": g} for x in pick(r, split="test", label=0)] for g in "abc"
    )
    own, shared = ([{**x, "generator": g} for x in part] for part, g in ((own, "gan"), (shared, "vae+diffusion")))
    groups = by_generator(own + shared + free + pick(r, split="test", label=1))
    for g, mine in (("gan", own), ("vae", shared), ("diffusion", shared)):
        assert groups[g] == mine + free + pick(r, split="test", label=1, generator=g)


def test_reals_stand_against_the_generators_they_name_or_against_all():
    names = {"a": 1, "b": 2, "c": 3}
    assert opposed("b+c+gone", names) == ["b", "c"] and opposed("c", names) == ["c"]
    assert opposed("camera", names) == opposed("ab", names) == ["a", "b", "c"]


def test_dev_fakes_stand_against_validations_reals():
    r = rows()
    r += [{**x, "split": "dev", "generator": "flow"} for x in pick(r, split="val", label=1)]
    assert by_generator(r, "dev")["flow"] == pick(r, split="val", label=0) + pick(r, split="dev")


def test_table_is_metrics_a_generator_and_means_over_the_unseen_ones():
    r = rows()
    lines, summary = table(r)
    val = pick(r, split="val")
    threshold = fit_threshold(val)
    assert threshold == best_threshold(np.array([x["label"] for x in val]), np.array([x["score"] for x in val]))
    assert summary["threshold"] == threshold
    for line, group in zip(lines, by_generator(r).values(), strict=True):
        expected = metrics(np.array([x["label"] for x in group]), np.array([x["score"] for x in group]), threshold)
        assert {k: line[k] for k in expected} == expected and line["family"] == line["generator"].upper()
    unseen = [line for line in lines if line["generator"] != "gan"]
    assert summary["mean_ap_unseen"] == pytest.approx(np.mean([u["ap"] for u in unseen]))
    assert summary["mean_auroc_unseen"] == pytest.approx(np.mean([u["auroc"] for u in unseen]))
    assert summary["mean_acc_unseen"] == pytest.approx(np.mean([u["acc_val"] for u in unseen]))
    assert summary["mean_acc05_unseen"] == pytest.approx(np.mean([u["acc"] for u in unseen]))
    assert summary["min_ap_unseen"] == min(u["ap"] for u in unseen)
    assert summary["ap_seen"] == lines[0]["ap"]


def test_threshold_comes_from_validation_only():
    r = rows()
    before = table(r)[1]["threshold"]
    test = [{**x, "score": 1 - x["score"]} if x["split"] == "test" else x for x in r]
    assert table(test)[1]["threshold"] == before
    val = [{**x, "score": x["score"] / 2} if x["split"] == "val" else x for x in r]
    assert table(val)[1]["threshold"] == pytest.approx(before / 2)


@pytest.mark.parametrize("split", ["train", "dev", "test"])
def test_a_threshold_of_other_rows_than_validations_is_refused(split):
    val = pick(rows(), split="val")
    wrong = [*val, {**val[0], "split": split, "path": "x/7.png"}]
    with pytest.raises(
        SDDError, match=f"threshold is fitted on validation alone, and x/7.png is of split {split}; give the rows"
    ):
        fit_threshold(wrong)
    assert fit_threshold([*val, {**val[0], "score": None}]) == fit_threshold(val)


def test_row_with_an_error_counts_nowhere():
    r = rows()
    broken = [{**r[0], "score": None, "error": "e"}, {**pick(r, split="test", generator="vae")[0], "score": None, "error": "e"}]
    assert table(r + broken) == table(r)


def test_tables_without_validation_or_fakes_say_so():
    with pytest.raises(SDDError, match="check the val split"):
        table(pick(rows(), split="test"))
    no_fakes = [x for x in rows() if x["split"] == "val" or x["generator"] == "camera"]
    for compute in (lambda: table(no_fakes), lambda: bootstrap([{"a": no_fakes}], draws=3)):
        with pytest.raises(SDDError, match="no fakes"):
            compute()


def test_where_training_held_every_generator_means_are_over_these_and_called_so():
    only_seen = [x for x in rows(photos=40) if x["generator"] in ("camera", "gan")]
    (line,), summary = table(only_seen)
    assert line["seen"] and not any("unseen" in key for key in summary)
    assert summary["mean_ap_seen"] == summary["min_ap_seen"] == summary["ap_seen"] == line["ap"]
    assert summary["mean_acc_seen"] == line["acc_val"]
    estimate, low, high = bootstrap([{"sdd": only_seen}], draws=20)["sdd"]
    assert estimate == pytest.approx(line["ap"]) and low < high
    for text in (generator_table({"sdd": only_seen}), accuracy_table({"sdd": only_seen})):
        assert "mean of seen" in text and "unseen" not in text


# --- bootstrap


def test_interval_contains_the_estimate_and_the_estimate_is_the_tables():
    r = rows(photos=40)
    estimate, low, high = bootstrap([{"a": r}], draws=100)["a"]
    assert estimate == pytest.approx(table(r)[1]["mean_ap_unseen"])
    assert low < estimate < high and 0.02 < high - low < 0.4


def test_a_method_against_itself_differs_by_exactly_0_even_over_seeds():
    runs = [{"a": rows(k), "b": rows(k)} for k in range(3)]
    assert bootstrap(runs, draws=15)["a", "b"] == (0.0, 0.0, 0.0)


def test_differences_are_paired():
    """Methods that differ by little on every image: the difference is far surer than either of them."""
    a = rows(photos=30)
    b = [{**x, "score": x["score"] + 0.02 * x["label"]} for x in a]
    found = bootstrap([{"a": a, "b": b}], draws=100)
    width = {n: high - low for n, (_, low, high) in found.items()}
    assert width["a", "b"] < 0.3 * min(width["a"], width["b"])
    assert found["a", "b"][0] == pytest.approx(found["a"][0] - found["b"][0]) and found["a", "b"][2] <= 0


def test_a_photographs_crops_and_fakes_move_together():
    """Whatever is drawn, all rows of a photograph carry the same weight, in every generator and for every seed."""
    r, seen = rows(photos=6), []
    place = {x["score"]: x["photo"] for x in r}
    real = intervals.weighted_ap

    def watch(y, s, w):
        seen.append({place[score]: tuple(column) for score, column in zip(s, w.T, strict=True)})
        for score, column in zip(s, w.T, strict=True):
            assert seen[-1][place[score]] == tuple(column)
        return real(y, s, w)

    bootstrap([{"a": r}, {"a": r}], draws=30, metric=watch)
    assert len(seen) == 4 and all(group == seen[0] for group in seen)  # 2 seeds, 2 unseen generators
    drawn = np.array(list(seen[0].values()))
    assert drawn.shape == (6, 31) and (drawn.sum(0) == 6).all() and len(np.unique(drawn, axis=1).T) > 20


def test_weighted_ap_is_sklearns_with_ties_and_absent_images():
    rng = np.random.default_rng(0)
    y, s = rng.integers(0, 2, 60), rng.integers(0, 12, 60) / 12
    w = rng.integers(0, 4, (50, 60)).astype(float)
    expected = [average_precision_score(y, s, sample_weight=row) for row in w]
    np.testing.assert_allclose(intervals.weighted_ap(y, s, w), expected, rtol=1e-12)


def test_seeds_are_drawn_too_and_the_interval_follows_its_own_seed():
    runs = [{"a": rows(0, 16, shift)} for shift in (0.05, 0.25, 0.45)]
    wide, narrow = bootstrap(runs, draws=60)["a"], bootstrap([runs[1]] * 3, draws=60)["a"]
    assert wide[2] - wide[1] > 1.3 * (narrow[2] - narrow[1])
    assert bootstrap(runs, draws=5, seed=1) == bootstrap(runs, draws=5, seed=1) != bootstrap(runs, draws=5, seed=2)


def test_unreadable_images_are_left_out_written_or_not():
    r = rows()
    gaps = [[{**x, "score": gap} if x["photo"] == "test3" else x for x in r] for gap in (None, "")]
    without = [x for x in r if x["photo"] != "test3" or x["label"] == 0]
    without = [x | {"score": None} if x["photo"] == "test3" else x for x in without]
    expected = bootstrap([{"a": without}], draws=5)
    assert all(bootstrap([{"a": g}], draws=5) == expected for g in gaps)


def test_too_few_photographs_for_an_interval_are_said_to_be():
    few = [x for x in rows() if x["split"] != "test" or x["label"] == 0 or x["photo"] == "test0"]
    with pytest.raises(SDDError, match="too few photographs"):
        bootstrap([{"a": few}], draws=50)
