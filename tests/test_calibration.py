"""Scores as probabilities and as verdicts: temperatures, reliability and thresholds are what their definitions say."""

import numpy as np
import pytest

from sddlib import SDDError
from sddlib.calibration import (
    TEMPERATURES,
    balanced,
    best_temperature,
    fit_temperature,
    logits,
    nll,
    reliability,
    sigmoid,
    weighted_bins,
)
from sddlib.robustness import NATIVE, REAL, UNSEEN
from sddlib.thresholds import (
    RULES,
    false_alarms_at_tpr,
    needed_thresholds,
    rule_table,
    threshold_at_fpr,
    threshold_at_tpr,
    threshold_rules,
    weighted_above,
    weighted_fpr_at_tpr,
)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def rows_of(reals, fakes: dict[str, list[float]], split: str = "test") -> list[dict]:
    """Photograph i shows the i-th real and the i-th fake of every generator, each a family of its own."""
    made = [("camera", i, 0, s) for i, s in enumerate(reals)]
    made += [(g, i, 1, s) for g, scores in fakes.items() for i, s in enumerate(scores)]
    return [
        {
            "path": f"{split}/{g}/{i}",
            "photo": f"{split}{i}",
            "label": y,
            "generator": g,
            "family": g,
            "split": split,
            "score": s,
        }
        for g, i, y, s in made
    ]


def planted(rng, n: int = 4000) -> tuple[np.ndarray, np.ndarray]:
    """Labels, half of them fake, and logits that are calibrated for them: two normal distributions around -2 and 2."""
    y = np.arange(n) % 2
    return y, rng.normal(np.where(y == 1, 2.0, -2.0), 2.0)


def test_logits_undo_the_sigmoid_and_stay_finite_at_0_and_1():
    z = np.array([-20.0, -3.0, 0.0, 1e-3, 8.0, 20.0])
    assert np.allclose(logits(sigmoid(z)), z, rtol=1e-5)
    assert np.isfinite(logits(np.array([0.0, 1.0]))).all()
    assert np.array_equal(sigmoid(np.array([-1e4, 1e4])), [0, 1])


def test_classes_count_alike_however_many_images_they_have():
    y = np.array([0, 1, 1, 1])
    w = balanced(y, np.array([[1.0, 1, 1, 1], [2, 0, 0, 3], [0, 1, 1, 1]]))
    assert np.allclose(w[0], [0.5, 1 / 6, 1 / 6, 1 / 6]) and np.allclose(w[1], [0.5, 0, 0, 0.5])
    assert np.isnan(w[2, 0]) and np.allclose(w[2, 1:].sum(), 0.5)


@pytest.mark.parametrize("scale", [0.5, 1.0, 3.0])
def test_temperature_of_stretched_logits_is_the_stretch(scale, rng):
    y, z = planted(rng, 20000)
    assert best_temperature(y, scale * z) == pytest.approx(scale, rel=0.06)


def test_temperature_has_the_least_loss_of_its_range(rng):
    y, z = planted(rng, 200)
    best = best_temperature(y, z)
    assert all(nll(y, z, best) <= nll(y, z, t) + 1e-9 for t in np.geomspace(*TEMPERATURES, 60))


def test_temperature_of_separated_scores_is_the_lowest_and_of_inverted_ones_the_highest():
    y, z = np.array([0, 0, 1, 1]), np.array([-2.0, -1, 1, 2])
    assert best_temperature(y, z) == TEMPERATURES[0] and best_temperature(y, -z) == TEMPERATURES[1]
    with pytest.raises(SDDError, match="both classes"):
        best_temperature(y[:2], z[:2])


def test_a_temperature_is_fitted_on_validation_rows_alone(rng):
    y, z = planted(rng, 100)
    val = rows_of(sigmoid(z[y == 0]), {"old": sigmoid(z[y == 1])}, "val")
    assert fit_temperature(val) == pytest.approx(best_temperature(y, z), rel=1e-4)
    for split in ("train", "dev", "test"):
        with pytest.raises(
            SDDError, match=f"a temperature is fitted on validation alone, and {split}/camera/0 is of split {split}"
        ):
            fit_temperature(val + rows_of([0.5], {}, split))


def test_loss_is_the_cross_entropy_and_does_not_depend_on_the_share_of_reals(rng):
    y, z = planted(rng, 50)
    p = sigmoid(z)
    assert nll(y, z) == pytest.approx(-np.mean(y * np.log(p) + (1 - y) * np.log(1 - p)))
    many = np.concatenate([np.arange(50), np.flatnonzero(y == 0), np.flatnonzero(y == 0)])
    assert nll(y[many], z[many], 2.0) == pytest.approx(nll(y, z, 2.0))


def test_error_of_scores_that_are_too_sure_is_how_much_they_are_too_sure():
    rows = rows_of([0.9] * 10, {"g": [0.9] * 10})
    found = reliability(rows, np.full(20, 0.9), 10, 20, 0)
    assert found["ece"][0] == pytest.approx(0.4) and found["n"].tolist() == [0] * 9 + [20]
    assert found["p"][9] == pytest.approx(0.9) and found["fake"][9] == pytest.approx(0.5)
    assert np.isnan(found["p"][0]) and np.isnan(found["low"][0])


def test_calibrated_scores_have_little_error_and_a_hundred_copies_of_the_reals_change_nothing(rng):
    y, z = planted(rng)
    p = sigmoid(z)
    rows = rows_of(p[y == 0], {"g": p[y == 1]})
    ordered = np.array([r["score"] for r in rows])
    found = reliability(rows, ordered, 10, 50, 0)
    assert found["ece"][0] < 0.03 and found["n"].sum() == len(rows)
    assert found["ece"][1] <= found["ece"][0] <= found["ece"][2] and (found["low"] <= found["fake"]).all()
    copies = np.array([[100.0 if r["label"] == 0 else 1.0 for r in rows]])
    labels = np.array([r["label"] for r in rows])
    _, mean, fake = weighted_bins(labels, ordered, copies, 10)
    assert np.allclose(mean[0], found["p"]) and np.allclose(fake[0], found["fake"])


def test_one_class_has_no_calibration_error():
    with pytest.raises(SDDError, match="both classes"):
        reliability(rows_of([0.2, 0.3, 0.4], {}), np.array([0.2, 0.3, 0.4]), 4, 10, 0)


def test_a_probability_of_1_lies_in_the_last_interval_and_0_in_the_first():
    mass, _, fake = weighted_bins(np.array([0, 1]), np.array([0.0, 1.0]), np.ones((1, 2)), 5)
    assert mass[0].tolist() == [0.5, 0, 0, 0, 0.5] and (fake[0, 0], fake[0, 4]) == (0, 1)


@pytest.mark.parametrize("tpr", [0.5, 0.9, 0.95, 1.0])
def test_threshold_for_a_share_of_fakes_finds_that_share_and_no_higher_one_does(tpr, rng):
    y, s = np.arange(80) % 2, np.round(rng.random(80), 1)  # many ties
    t = threshold_at_tpr(y, s, tpr)
    fakes = s[y == 1]
    assert (fakes > t).mean() >= tpr
    higher = min(s[s > t])
    assert (fakes > higher).mean() < tpr
    assert weighted_fpr_at_tpr(y, s, np.ones((1, 80)), tpr)[0] == pytest.approx((s[y == 0] > t).mean())


@pytest.mark.parametrize("fpr", [0.0, 0.05, 0.3])
def test_threshold_for_false_alarms_allows_no_more_and_no_lower_one_does(fpr, rng):
    y, s = np.arange(80) % 2, np.round(rng.random(80), 2)
    reals, t = s[y == 0], threshold_at_fpr(y, s, fpr)
    assert (reals > t).mean() <= fpr
    assert (reals > np.nextafter(t, -1)).mean() > fpr


def test_thresholds_need_the_class_they_are_taken_from():
    with pytest.raises(SDDError, match="no"):
        threshold_at_tpr(np.array([0]), np.array([0.1]))
    with pytest.raises(SDDError, match="none"):
        threshold_at_fpr(np.array([1]), np.array([0.1]))


def test_weights_count_as_repeated_images(rng):
    y, s, w = np.arange(30) % 2, rng.random(30), rng.integers(0, 4, 30)
    again = np.repeat(np.arange(30), w)
    for metric in (weighted_fpr_at_tpr, weighted_above):
        plain = metric(y[again], s[again], np.ones((1, len(again))))[0]
        assert metric(y, s, w[None].astype(float))[0] == pytest.approx(plain)
    assert np.isnan(weighted_fpr_at_tpr(y, s, (y == 1)[None].astype(float))[0])
    assert np.isnan(weighted_above(y, s, np.zeros((1, 30)))[0])


def test_rules_take_validation_for_what_a_user_has_and_test_only_where_they_say_so():
    val = rows_of([0.1, 0.2, 0.3], {"old": [0.4, 0.8, 0.9]}, "val")
    test = rows_of([0.1, 0.2, 0.6], {"old": [0.9, 0.9, 0.9], "new": [0.3, 0.5, 0.7]})
    rules = threshold_rules(val + test, {"old"})
    assert set(rules) == set(RULES)
    assert rules["half"] == 0.5 and rules["val"] == pytest.approx(0.35) and rules["val_fpr"] == 0.3
    assert 0.2 < rules["test_tpr"] < 0.3
    changed = threshold_rules(val + [r | {"score": 1 - r["score"]} for r in test], {"old"})
    for rule in rules:
        assert (changed[rule] == rules[rule]) == (not rule.startswith("test")), rule
    outcome = rule_table(test, rules, {"old"}, 20, 0)
    assert outcome["val"][REAL][0] == pytest.approx(1 / 3) and outcome["val"][UNSEEN][0] == pytest.approx(2 / 3)
    assert outcome["val"]["seen"][0] == 1.0 and outcome["test_tpr"][UNSEEN][0] == 1.0
    assert "seen" not in rule_table([r for r in test if r["generator"] != "old"], rules, {"old"}, 20, 0)["val"]


def test_false_alarms_at_95_percent_are_those_of_each_family_and_their_mean():
    test = rows_of([0.1, 0.2, 0.6, 0.3], {"old": [0.9] * 4, "a": [0.7] * 4, "b": [0.25] * 4})
    found = false_alarms_at_tpr(test, {"old"}, 20, 0)
    assert found["a"][:2] == (0, 0) and found["a"][2] == pytest.approx(0.6024, abs=1e-4)  # no false alarm among four
    assert {k: v[0] for k, v in found.items()} == {"old (seen)": 0.0, "a": 0.0, "b": 0.5, UNSEEN: 0.25}


def test_needed_threshold_is_that_of_the_perturbed_reals():
    grid = {"sdd": {NATIVE: rows_of([0.1, 0.2], {"a": [0.15, 0.9]}), "blur1": rows_of([0.5, 0.6], {"a": [0.7, 0.1]})}}
    found = needed_thresholds(grid, set())
    assert found["sdd", NATIVE] == (0.2, 0.5) and found["sdd", "blur1"] == (0.6, 0.5)
