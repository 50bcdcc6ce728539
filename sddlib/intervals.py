"""Confidence intervals from score files: photographs are drawn, not files, and training seeds with them."""

import numpy as np

from . import SDDError
from .evaluate import arrays, by_generator, seen_generators


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


def photograph_draws(count: int, draws: int, rng: np.random.Generator) -> np.ndarray:
    """(draws + 1, count) weights of photographs drawn with replacement; row 0 takes every one once and gives the estimate."""
    weights = np.ones((draws + 1, count))
    for d in range(1, draws + 1):
        weights[d] = np.bincount(rng.integers(count, size=count), minlength=count)
    return weights


def bootstrap(runs: list[dict[str, list[dict]]], draws: int = 1000, seed: int = 0, split: str = "test") -> dict:
    """95 % intervals of the mean AP over unseen generators, for each method and each difference of two.

    runs: one dict a training seed, method -> rows of its scores file (the same images everywhere). A draw takes seeds with
    replacement and photographs with replacement; a photograph comes with its real crops and all their fakes, and the same
    photographs serve every seed of the draw, since all seeds are tested on the same ones. Returns
    {method or (a, b): (estimate, low, high)}; (a, b) is a - b, paired: both see the same draw.
    """
    rng, methods = np.random.default_rng(seed), list(runs[0])
    seen = seen_generators(runs[0][methods[0]])
    unseen = [g for g in by_generator(runs[0][methods[0]], split) if g not in seen]
    if not unseen:
        raise SDDError(f"the {split} split holds no fakes of an unseen generator; check the manifest's split and generator")
    photos = sorted({r["photo"] for rows in by_generator(runs[0][methods[0]], split).values() for r in rows})
    where = {p: i for i, p in enumerate(photos)}
    weights = photograph_draws(len(photos), draws, rng)
    chosen = rng.integers(len(runs), size=(draws + 1, len(runs)))
    chosen[0] = np.arange(len(runs))
    samples = {}
    for m in methods:
        by_seed = np.zeros((len(runs), draws + 1))
        for k, run in enumerate(runs):
            groups = by_generator(run[m], split)
            for g in unseen:
                rows = [r for r in groups[g] if r["score"] not in (None, "")]
                y, s = arrays(rows)
                by_seed[k] += weighted_ap(y, s, weights[:, [where[r["photo"]] for r in rows]]) / len(unseen)
        samples[m] = np.take_along_axis(by_seed.T, chosen, 1).mean(1)
    if not all(np.isfinite(v).all() for v in samples.values()):
        raise SDDError("a draw held no fake of some generator: too few photographs for an interval; score more of them")
    samples |= {(a, b): samples[a] - samples[b] for i, a in enumerate(methods) for b in methods[i + 1 :]}
    return {n: (float(v[0]), *map(float, np.percentile(v[1:], (2.5, 97.5)))) for n, v in samples.items()}
