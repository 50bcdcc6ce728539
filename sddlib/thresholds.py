"""Where a threshold lies by several rules, and what it brings: false alarms and found fakes, from saved scores."""

from functools import partial

import numpy as np

from . import SDDError
from .intervals import Interval, interval, set_draws
from .metrics import arrays, best_threshold, fit_threshold
from .robustness import REAL, UNSEEN, families, unseen_families

RULES = {
    "half": "0.5",
    "val": "validation, best balanced accuracy",
    "val_fpr": "validation, 5 % false alarms",
    "test_tpr": "TEST, 95 % of the unseen fakes",
    "test_best": "TEST, best balanced accuracy (oracle)",
}


def threshold_at_tpr(y: np.ndarray, s: np.ndarray, tpr: float = 0.95) -> float:
    """The highest threshold that a share `tpr` of the fakes exceeds: just below one of their scores."""
    fakes = np.sort(s[y == 1])
    if not len(fakes):
        raise SDDError("a share of fakes needs scores of fakes; there are none")
    return float(np.nextafter(fakes[int((1 - tpr) * len(fakes) + 1e-9)], -np.inf))


def threshold_at_fpr(y: np.ndarray, s: np.ndarray, fpr: float = 0.05) -> float:
    """The lowest threshold that at most a share `fpr` of the reals exceeds: one of their scores."""
    reals = np.sort(s[y == 0])
    if not len(reals):
        raise SDDError("a share of false alarms needs scores of reals; there are none")
    return float(reals[len(reals) - 1 - int(fpr * len(reals) + 1e-9)])


def weighted_fpr_at_tpr(y: np.ndarray, s: np.ndarray, w: np.ndarray, tpr: float = 0.95) -> np.ndarray:
    """The share of reals above the highest threshold that a share `tpr` of the fakes exceeds, labels y (n,) and scores s (n,)
    under weights w (draws, n) -> (draws,). NaN for a weighting without reals or without fakes."""
    order = np.argsort(-s, kind="stable")
    y, s, w = y[order], s[order], w[:, order]
    ends = np.append(np.flatnonzero(np.diff(s)), len(s) - 1)  # last of each group of equal scores
    fakes, reals = np.cumsum(w * y, 1)[:, ends], np.cumsum(w * (1 - y), 1)[:, ends]
    first = (fakes >= tpr * fakes[:, -1:] - 1e-9).argmax(1)
    taken, total = np.take_along_axis(reals, first[:, None], 1)[:, 0], reals[:, -1]
    return np.divide(taken, total, out=np.full(len(total), np.nan), where=(total > 0) & (fakes[:, -1] > 0))


def weighted_above(y: np.ndarray, s: np.ndarray, w: np.ndarray, threshold: float = 0.5) -> np.ndarray:
    """The share of images called fake, score > threshold, under weights w (draws, n) -> (draws,); NaN for none."""
    total = w.sum(1)
    return np.divide((w * (s > threshold)).sum(1), total, out=np.full(len(total), np.nan), where=total > 0)


def share_interval(values: np.ndarray, rows: list[dict]) -> Interval:
    """`interval` of draws of a share among these rows. Where no draw differs from 0 or from 1, drawing again says nothing of
    how rare the other case is: the bound is then the exact binomial one for as many trials as there are photographs."""
    middle, low, high = interval(values)
    if low < high or middle not in (0, 1):
        return middle, low, high
    reach = 1 - 0.025 ** (1 / len({r["photo"] for r in rows}))
    return (middle, 0.0, reach) if middle == 0 else (middle, 1 - reach, 1.0)


def threshold_rules(rows: list[dict], seen: set[str]) -> dict[str, float]:
    """Rule of RULES -> threshold, from native rows of validation and test; the last two need the labels of the test set's reals
    and unseen fakes, and are bounds."""
    val = [r for r in rows if r["split"] == "val"]
    test = arrays([r for r in rows if r["split"] == "test" and r["generator"] not in seen])
    found = (0.5, fit_threshold(val), threshold_at_fpr(*arrays(val)), threshold_at_tpr(*test), best_threshold(*test))
    return dict(zip(RULES, found, strict=True))


def rule_table(
    rows: list[dict], thresholds: dict[str, float], seen: set[str], draws: int, seed: int
) -> dict[str, dict[str, Interval]]:
    """Rule -> {"real": share of the reals among test rows that it calls fake, "unseen" and "seen": share of the fakes that it
    finds, mean over families}; no "seen" where the test set has no seen generator."""
    split = families(rows, seen)
    groups = {REAL: [r for r in rows if not r["label"]]} | {f: [r for r in part if r["label"]] for f, part in split.items()}
    unseen = unseen_families(split)
    kinds = {UNSEEN: unseen, "seen": [f for f in split if f not in unseen]}
    found = {}
    for rule, t in thresholds.items():
        drawn = set_draws(groups, partial(weighted_above, threshold=t), draws, np.random.default_rng(seed))
        found[rule] = {REAL: share_interval(drawn[REAL], groups[REAL])}
        for kind, names in kinds.items():
            if names:
                fakes = [r for f in names for r in groups[f]]
                found[rule][kind] = share_interval(np.mean([drawn[f] for f in names], axis=0), fakes)
    return found


def false_alarms_at_tpr(rows: list[dict], seen: set[str], draws: int, seed: int, tpr: float = 0.95) -> dict[str, Interval]:
    """Family -> false alarms at the threshold that finds a share `tpr` of its own fakes, and "unseen": the mean over the unseen
    families. rows: of the test split."""
    split = families(rows, seen)
    drawn = set_draws(split, partial(weighted_fpr_at_tpr, tpr=tpr), draws, np.random.default_rng(seed))
    drawn[UNSEEN] = np.mean([drawn[f] for f in unseen_families(split)], axis=0)
    against = {name: [r for r in part if not r["label"] and r["score"] is not None] for name, part in split.items()}
    against[UNSEEN] = [r for f in unseen_families(split) for r in against[f]]
    return {name: share_interval(v, against[name]) for name, v in drawn.items()}


def needed_thresholds(grid: dict, seen: set[str], fpr: float = 0.05) -> dict[tuple[str, str], tuple[float, float]]:
    """(method, perturbation) -> (the lowest threshold that at most a share `fpr` of the perturbed reals exceeds, the share
    of the perturbed fakes above it, mean over the unseen families)."""
    found = {}
    for method, by in grid.items():
        for name, rows in by.items():
            t, split = threshold_at_fpr(*arrays(rows), fpr), families(rows, seen)
            parts = [arrays([r for r in split[f] if r["label"]])[1] for f in unseen_families(split)]
            found[method, name] = t, float(np.mean([(s > t).mean() for s in parts]))
    return found
