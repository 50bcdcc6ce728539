"""What a score is worth as a probability: reliability diagrams, their error, and a temperature, from saved scores.

In all of this the two classes count alike, however many images they have: a calibrated score of 0.8 then means that four of
five such images are fake where one image in two is. A world with fewer fakes needs other probabilities.
"""

import numpy as np
from scipy.optimize import minimize_scalar

from . import SDDError
from .intervals import chunks, photographs
from .metrics import arrays, check_validation

TEMPERATURES = (0.05, 20.0)  # where a temperature is looked for
LEAST = 1e-15  # probabilities nearer to 0 or 1 are taken for this near: float64 holds no logit for 1


def logits(scores: np.ndarray) -> np.ndarray:
    """log(p / (1 - p)) of scores in [0, 1]."""
    p = np.clip(scores, LEAST, 1 - LEAST)
    return np.log(p) - np.log1p(-p)


def sigmoid(z: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-z)), without overflow."""
    return np.exp(-np.logaddexp(0, -z))


def balanced(y: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Weights w (draws, n), scaled so that either class of y (n,) has half of a row's weight; NaN without the class."""
    found = np.empty(w.shape)
    for label in (0, 1):
        part = w[:, y == label]
        total = part.sum(1, keepdims=True)
        found[:, y == label] = np.divide(part, 2 * total, out=np.full(part.shape, np.nan), where=total > 0)
    return found


def nll(y: np.ndarray, z: np.ndarray, temperature: float = 1.0) -> float:
    """Mean negative log-likelihood (nats) of labels y under sigmoid(z / temperature), classes balanced."""
    z = z / temperature
    return float(balanced(y, np.ones((1, len(y))))[0] @ (np.logaddexp(0, z) - y * z))


def fit_temperature(rows: list[dict]) -> float:
    """The `best_temperature` of validation rows, which have a label and a score; rows of another split are an error."""
    check_validation(rows, "a temperature")
    y, s = arrays(rows)
    return best_temperature(y, logits(s))


def best_temperature(y: np.ndarray, z: np.ndarray) -> float:
    """The temperature T of sigmoid(z / T) with the lowest `nll` on labels y and logits z; one of TEMPERATURES where it lies
    beyond them.

    Temperature scaling, Guo et al., ICML 2017, Sec. 4.2. It changes neither the order of scores nor the side of 0.5.
    """
    if len(set(y.tolist())) < 2:
        raise SDDError("a temperature needs validation scores of both classes; check the val split")
    low, high = np.log(TEMPERATURES)  # the nll is convex in 1/T, so that it has one minimum, whatever the scale
    best = minimize_scalar(lambda t: nll(y, z, np.exp(t)), bounds=(low, high), method="bounded", options={"xatol": 1e-6})
    return (
        min(TEMPERATURES, key=lambda t: nll(y, z, t)) if best.x - low < 1e-4 or high - best.x < 1e-4 else float(np.exp(best.x))
    )


def weighted_bins(y: np.ndarray, p: np.ndarray, w: np.ndarray, bins: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(share of the weight, mean p, share of fakes) of each of `bins` equal intervals of [0, 1], each (draws, bins), under the
    weights w (draws, n), classes balanced; the last two are NaN where an interval is empty."""
    w, where = balanced(y, w), np.minimum((p * bins).astype(int), bins - 1)
    inside = np.eye(bins)[where]  # (n, bins)
    mass = w @ inside
    p_sum, fake = (w * p) @ inside, (w * y) @ inside
    empty = np.full(mass.shape, np.nan)
    return mass, np.divide(p_sum, mass, out=empty.copy(), where=mass > 0), np.divide(fake, mass, out=empty, where=mass > 0)


def reliability(rows: list[dict], p: np.ndarray, bins: int, draws: int, seed: int) -> dict:
    """A reliability diagram and its expected calibration error, with 95 % intervals over photographs.

    rows: with label and photo; p: their probabilities, in their order. Returns {"n" (bins,), "p" and "fake" (bins,): mean
    probability and share of fakes, NaN where n = 0; "low", "high" (bins,); "ece": (estimate, low, high)}. The error is the mean
    distance of the two over the intervals (Naeini et al., AAAI 2015); in a sample it is above 0 even for the best of scores,
    and in a sample of a sample larger still, so that its interval is shifted by what the draws are larger on average.
    """
    y = np.array([r["label"] for r in rows])
    if len(set(y.tolist())) < 2:
        raise SDDError("a reliability diagram needs images of both classes; give a set that has them")
    photos, strata = photographs({"all": rows})
    where = np.array([photos[r["photo"]] for r in rows])
    found = [weighted_bins(y, p, w[:, where], bins) for w in chunks(strata, draws, np.random.default_rng(seed))]
    mass, mean, fake = (np.concatenate(part) for part in zip(*found, strict=True))
    ece = np.nansum(mass * np.abs(mean - fake), 1)
    low, high = np.full((2, bins), np.nan)
    there = mass[0] > 0
    low[there], high[there] = np.nanpercentile(fake[:, there], (2.5, 97.5), axis=0)
    n = np.bincount(np.minimum((p * bins).astype(int), bins - 1), minlength=bins)
    ends = np.percentile(ece[1:], (2.5, 97.5)) - (ece[1:].mean() - ece[0])
    spread = (float(ece[0]), *map(float, ends.clip(0, 1)))
    return {"n": n, "p": mean[0], "fake": fake[0], "low": low, "high": high, "ece": spread}
