"""Confidence intervals from score files: photographs are drawn, not files, and training seeds with them."""

from collections.abc import Callable, Hashable, Iterator

import numpy as np

from . import SDDError
from .evaluate import by_generator, seen_generators
from .metrics import arrays
from .progress import progress

Interval = tuple[float, float, float]  # estimate, low, high
CHUNK = 100  # draws weighted at once: 1000 of a benchmark with 90,000 photographs would take a gigabyte


def weighted_ap(y: np.ndarray, s: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Average precision of labels y (n,) and scores s (n,) under many weightings w (draws, n) at once -> (draws,).

    The same as scikit-learn's `average_precision_score` with sample weights: equal scores share one threshold. NaN for a
    weighting without fakes.
    """
    order = np.argsort(-s, kind="stable")
    y, s, w = y[order], s[order], w[:, order]
    ends = np.append(np.flatnonzero(np.diff(s)), len(s) - 1)  # last of each group of equal scores
    hits, taken = np.cumsum(w * y, 1)[:, ends], np.cumsum(w, 1)[:, ends]
    precision = np.divide(hits, taken, out=np.zeros(hits.shape), where=taken > 0)
    gained = np.diff(hits, axis=1, prepend=0)
    found = hits[:, -1]
    return np.divide((gained * precision).sum(1), found, out=np.full(len(found), np.nan), where=found > 0)


def weighted_auroc(y: np.ndarray, s: np.ndarray, w: np.ndarray) -> np.ndarray:
    """As `weighted_ap`: the share of (real, fake) pairs with the fake above, equal scores counting half. NaN without pairs."""
    order = np.argsort(s, kind="stable")
    y, s, w = y[order], s[order], w[:, order]
    ends = np.append(np.flatnonzero(np.diff(s)), len(s) - 1)
    reals, fakes = np.cumsum(w * (1 - y), 1)[:, ends], np.cumsum(w * y, 1)[:, ends]
    equal, fake = np.diff(reals, axis=1, prepend=0), np.diff(fakes, axis=1, prepend=0)
    won, pairs = (fake * (reals - equal / 2)).sum(1), reals[:, -1] * fakes[:, -1]
    return np.divide(won, pairs, out=np.full(len(pairs), np.nan), where=pairs > 0)


def weighted_acc(y: np.ndarray, s: np.ndarray, w: np.ndarray) -> np.ndarray:
    """As `weighted_ap`: accuracy at the threshold 0.5. NaN for a weighting of nothing."""
    total = w.sum(1)
    return np.divide((w * ((s > 0.5) == y)).sum(1), total, out=np.full(len(total), np.nan), where=total > 0)


WEIGHTED = {"ap": weighted_ap, "acc": weighted_acc, "auroc": weighted_auroc}


def photographs(groups: dict[Hashable, list[dict]]) -> tuple[dict[str, int], list[np.ndarray]]:
    """(photograph -> position, positions of each stratum). A stratum holds the photographs with reals, with fakes, or both, so
    that drawing inside it keeps the proportion of the classes, on which average precision and accuracy depend."""
    labels: dict[str, set] = {}
    for rows in groups.values():
        for r in rows:
            labels.setdefault(r["photo"], set()).add(r["label"])
    where, strata = {p: i for i, p in enumerate(sorted(labels))}, {}
    for p, i in where.items():
        strata.setdefault(frozenset(labels[p]), []).append(i)
    if min(map(len, strata.values()), default=0) < 2:
        raise SDDError("one photograph is too few photographs for an interval; score more of them, of both classes")
    return where, [np.array(members) for members in strata.values()]


def photograph_draws(strata: list[np.ndarray], draws: int, rng: np.random.Generator) -> np.ndarray:
    """(draws + 1, photographs) weights of photographs drawn with replacement, in each stratum as many as it holds; row 0 takes
    every one once and gives the estimate."""
    weights = np.ones((draws + 1, sum(map(len, strata))))
    for d in range(1, draws + 1):
        for members in strata:
            n = len(members)
            weights[d, members] = np.bincount(rng.integers(n, size=n), minlength=n)
    return weights


def chunks(strata: list[np.ndarray], draws: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """The rows of `photograph_draws` in pieces of at most CHUNK draws."""
    yield photograph_draws(strata, min(CHUNK, draws), rng)
    for done in range(CHUNK, draws, CHUNK):
        yield photograph_draws(strata, min(CHUNK, draws - done), rng)[1:]


def set_draws(
    groups: dict[Hashable, list[dict]], metric: Callable, draws: int, rng: np.random.Generator
) -> dict[Hashable, np.ndarray]:
    """A metric of every group of rows under the same draws of photographs: (draws + 1,), the estimate first.

    metric: one of WEIGHTED. Rows without a score count nowhere. A draw that leaves a group without fakes, or without reals
    where the metric needs them, is an error.
    """
    groups = {key: [r for r in rows if r["score"] not in (None, "")] for key, rows in groups.items()}
    photos, strata = photographs(groups)
    parts, values = {}, {key: [] for key in groups}
    for key, rows in groups.items():
        parts[key] = (*arrays(rows), np.array([photos[r["photo"]] for r in rows], dtype=int))
    for weights in progress(chunks(strata, draws, rng), -(-draws // CHUNK), desc="draws"):
        for key, (y, s, where) in parts.items():
            values[key].append(metric(y, s, weights[:, where]))
    found = {key: np.concatenate(v) for key, v in values.items()}
    if not all(np.isfinite(v).all() for v in found.values()):
        raise SDDError("a draw held no fake of some generator: too few photographs for an interval; score more of them")
    return found


def interval(values: np.ndarray) -> Interval:
    """(estimate, low, high) of draws whose first is the estimate: 95 % lie between low and high."""
    return (float(values[0]), *map(float, np.percentile(values[1:], (2.5, 97.5))))


def mean_draws(
    files: dict[Hashable, list[dict]],
    draws: int,
    rng: np.random.Generator,
    split: str = "test",
    metric: Callable = weighted_ap,
) -> dict[Hashable, np.ndarray]:
    """Of every scores file the mean of a metric over unseen generators (over all where training held every one), under the same
    draws of photographs: (draws + 1,), the estimate first. files: key -> rows, of the same images."""
    seen = seen_generators(next(iter(files.values())))
    groups = {(key, g): rows for key, file in files.items() for g, rows in by_generator(file, split).items()}
    if not groups:
        raise SDDError(f"the {split} split holds no fakes; check the manifest's split and label")
    groups = {key: rows for key, rows in groups.items() if key[1] not in seen} or groups
    drawn = set_draws(groups, metric, draws, rng)
    return {key: np.mean([v for (k, _), v in drawn.items() if k == key], axis=0) for key in files}


def bootstrap(
    runs: list[dict[str, list[dict]]], draws: int = 1000, seed: int = 0, split: str = "test", metric: Callable = weighted_ap
) -> dict:
    """95 % intervals of the mean AP, or another metric of WEIGHTED, over unseen generators (over all where training held every
    one), for each method and each difference of two.

    runs: one dict a training seed, method -> rows of its scores file (the same images everywhere). A draw takes seeds with
    replacement and photographs with replacement; a photograph comes with its real crops and all their fakes, and the same
    photographs serve every seed of the draw, since all seeds are tested on the same ones. Returns
    {method or (a, b): (estimate, low, high)}; (a, b) is a - b, paired: both see the same draw.
    """
    rng, methods = np.random.default_rng(seed), list(runs[0])
    drawn = mean_draws({(m, k): run[m] for m in methods for k, run in enumerate(runs)}, draws, rng, split, metric)
    chosen = rng.integers(len(runs), size=(draws + 1, len(runs)))
    chosen[0] = np.arange(len(runs))
    samples = {}
    for m in methods:
        by_seed = np.array([drawn[m, k] for k in range(len(runs))])
        samples[m] = np.take_along_axis(by_seed.T, chosen, 1).mean(1)
    samples |= {(a, b): samples[a] - samples[b] for i, a in enumerate(methods) for b in methods[i + 1 :]}
    return {n: interval(v) for n, v in samples.items()}
