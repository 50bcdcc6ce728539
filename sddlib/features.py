"""Do real and fake features differ in the same way whatever a picture shows? Fig. 1 and Sec. 1 (the paper's Appendix A).

A concept's difference is the mean of its fake features minus the mean of its real features. All statistics come from inner
products between photographs, so that a bootstrap or a shuffle of concepts costs next to nothing. n: images, D: features,
P: photographs, R: rows of a contrast, C: concepts, S: draws of photographs.
"""

from typing import NamedTuple

import numpy as np
from sklearn.covariance import LedoitWolf

from . import SDDError
from .benchmarks import stand_against
from .concepts import sides, split_photographs
from .crops import content_ids
from .data import Sample


def comparable(F: np.ndarray, real: np.ndarray, how: str = "standard") -> np.ndarray:
    """Features in units of the spread of the reals, so that lengths and angles of two spaces can be compared.

    F: (n, D); real: (n,) booleans. how: "standard" divides each feature by its standard deviation over the reals (a feature
    that is constant there is left out), "whitened" also removes their correlations (Ledoit-Wolf), "none" keeps the space's
    own axes. Then all is divided by the root mean square distance of the reals from their mean.
    """
    if how == "standard":
        deviation = F[real].std(0)
        alive = deviation > 1e-6 * deviation.max()
        F = F[:, alive] / deviation[alive]
    elif how == "whitened":
        values, axes = np.linalg.eigh(LedoitWolf().fit(F[real]).covariance_)
        F = F @ axes / np.sqrt(values)
    elif how != "none":
        raise SDDError(f"scaling {how!r} is unknown; use 'standard', 'whitened' or 'none'")
    return F / np.sqrt(F[real].var(0).sum())


FLOOR = 0.1  # cosine of two halves of one concept below which its difference counts as lost in noise


class Contrast(NamedTuple):
    """Reals against the fakes of one generator, a row a photograph: inner products (R, R), photographs (R,) as numbers, and
    sides (R,). Of twins a row is the mean difference fake - real and its side 1; without twins a row is the mean of the fake
    (side 1) or real (side -1) images of a photograph."""

    gram: np.ndarray
    photo: np.ndarray
    side: np.ndarray


def contrast(F: np.ndarray, samples: list[Sample], generator: str, photos: list[str]) -> Contrast:
    """The reals and the fakes of `generator` of these photographs. Where every fake has a real twin (same photograph, same
    file name), the same crops are compared; else the reals are those that stand against the generator. F: (n, D) features of
    samples."""
    content, where = content_ids(samples), {photo: i for i, photo in enumerate(photos)}
    names = [[s.generator for s in samples if s.label == label] for label in (0, 1)]
    against = stand_against(names[0], [generator, *names[1]])[generator]
    known = [s.label == 0 and s.photo in where and s.generator in against for s in samples]
    real = {c: i for i, (c, kept) in enumerate(zip(content, known, strict=True)) if kept}
    fake = [i for i, s in enumerate(samples) if s.generator == generator and s.label == 1 and s.photo in where]
    rows: dict[tuple, list] = {}
    twins = all(content[i] in real for i in fake)
    for i in fake:
        rows.setdefault((where[samples[i].photo], 1), []).append(F[i] - F[real[content[i]]] if twins else F[i])
    for i in [] if twins else real.values():
        rows.setdefault((where[samples[i].photo], -1), []).append(F[i])
    if not fake or not real:
        raise SDDError(f"these photographs have no reals or no fakes of {generator!r}; check the concepts and the manifest")
    X = np.stack([np.mean(found, 0) for found in rows.values()])  # (R, D)
    photo, side = np.array(list(rows)).T
    return Contrast(X @ X.T, photo, side)


def products(data: Contrast, weights: np.ndarray, concept: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(S, C, C) inner products of the concepts' differences, and (S, C) squared lengths free of noise.

    weights: (S, P); concept: (P,) or (S, P) numbers 0..C-1. A squared mean is too long by the variance of that mean; leaving
    out what each photograph contributes with itself removes that in expectation, also in a bootstrap draw, where
    a photograph may stand more than once. Products of two concepts share no photograph and need no such care.
    """
    member = concept[..., data.photo, None] == np.arange(concept.max() + 1)  # (R, C) or (S, R, C)
    A, noise = 0.0, 0.0
    for side in np.unique(data.side):
        w = (weights[:, data.photo] * (data.side == side))[:, None] * np.swapaxes(member, -1, -2)  # (S, C, R)
        a = w / w.sum(2, keepdims=True)
        square = ((a @ data.gram) * a).sum(2)  # (S, C)
        apart = (square - a**2 @ np.diag(data.gram)) / (1 - (a**2).sum(2))
        A, noise = A + side * a, noise + square - apart
    G = A @ data.gram @ np.swapaxes(A, 1, 2)  # (S, C, C)
    return G, np.diagonal(G, axis1=1, axis2=2) - noise


def halves(data: Contrast, weights: np.ndarray, concept: np.ndarray, first: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean cosine of differences that half of the photographs each make: (S,) between concepts, and (S,) within one concept,
    whose halves share no photograph.

    weights: (S, P); concept: (P,) or (S, P); first: (S, P), true in the first half (`split_photographs`). A cosine of means is
    too small because means are noisy, and halves of one concept differ by noise alone: what they fall short of 1 is what
    noise takes from the others too.
    """
    member = concept[..., data.photo, None] == np.arange(concept.max() + 1)  # (R, C) or (S, R, C)
    A: list = [0.0, 0.0]
    for side in np.unique(data.side):
        for k in (0, 1):
            w = weights[:, data.photo] * (data.side == side) * (first[:, data.photo] == (k == 0))
            w = w[:, None] * np.swapaxes(member, -1, -2)  # (S, C, R)
            A[k] = A[k] + side * w / w.sum(2, keepdims=True)
    both = np.concatenate(A, 1)  # (S, 2C, R)
    G = both @ data.gram @ np.swapaxes(both, 1, 2)
    length = np.sqrt(np.diagonal(G, axis1=1, axis2=2)).clip(1e-300)
    cosine = G / length[:, :, None] / length[:, None]  # (S, 2C, 2C)
    C = member.shape[-1]
    same = np.tile(np.eye(C, dtype=bool), (2, 2))
    within = np.trace(cosine[:, :C, C:], axis1=1, axis2=2) / C
    return cosine[:, ~same].mean(1), within


class Reading(NamedTuple):
    """One generator in one space, for every draw of photographs: the results of `products` and `halves`, and the mean cosine
    (S,) between the concepts' whole differences."""

    G: np.ndarray
    lengths: np.ndarray
    plain: np.ndarray
    between: np.ndarray
    within: np.ndarray


def consistency(
    spaces: dict[str, np.ndarray],
    samples: list[Sample],
    concepts: dict[str, int],
    generators: list[str],
    weights: np.ndarray,
    dealt: np.ndarray | None = None,
    splits: tuple[int, int] = (200, 4),
    seed: int = 0,
) -> dict[str, dict[str, Reading]]:
    """Readings by space and generator, all with the same draws (S, P) of photographs, so that differences are paired.

    spaces: name -> comparable features (n, D) of samples; concepts: photo -> number; dealt: (S, P) numbers instead. splits:
    into halves, of the first draw, which is the estimate, and of each other one.
    """
    photos, concept = list(concepts), np.array(list(concepts.values()))
    if concept.max() < 1:
        raise SDDError("one concept has nothing to agree with; raise k or limit, or label more photographs")
    times = np.r_[splits[0], np.full(len(weights) - 1, splits[1])]
    starts, many = np.r_[0, times.cumsum()[:-1]], np.repeat(weights, times, 0)
    groups = concept if dealt is None else np.repeat(dealt, times, 0)
    first = split_photographs(many, groups, sides(concepts, samples), seed)
    i, j = np.triu_indices(concept.max() + 1, 1)
    found: dict[str, dict[str, Reading]] = {space: {} for space in spaces}
    for space, F in spaces.items():
        for g in generators:
            data = contrast(F, samples, g, photos)
            G, lengths = products(data, weights, concept if dealt is None else dealt)
            size = np.sqrt(np.diagonal(G, axis1=1, axis2=2)).clip(1e-300)
            plain = (G[:, i, j] / (size[:, i] * size[:, j])).mean(1)
            cosines = (np.add.reduceat(c, starts) / times for c in halves(data, many, groups, first))
            found[space][g] = Reading(G, lengths, plain, *cosines)
    return found


def agreement(readings: dict[str, Reading], generators: list[str]) -> np.ndarray:
    """(S,) direction agreement free of noise: cosine between concepts over that within them, both summed over generators.

    1: what a picture shows does not matter. It may exceed 1 by chance, and is NaN where halves of one concept hardly agree: a
    difference that the other half does not confirm has no direction to speak of.
    """
    between, within = (np.sum([getattr(readings[g], name) for g in generators], 0) for name in ("between", "within"))
    return np.divide(between, within, out=np.full(len(within), np.nan), where=within > FLOOR * len(generators))


def interval(values: np.ndarray) -> tuple[float, float, float]:
    """(estimate, low, high) from values (1 + draws,) whose first is the estimate: the 95 % between percentiles. Limits are NaN
    where the estimate, or more than one draw in twenty, could not be measured."""
    known = np.isfinite(values)
    sure = known[0] and known[1:].mean() >= 0.95
    low, high = np.percentile(values[1:][known[1:]], (2.5, 97.5)) if sure else (np.nan, np.nan)
    return float(values[0]), float(low), float(high)


def beside_chance(value: float, chance: np.ndarray) -> tuple[float, float]:
    """(mean, p) of an agreement among those (S,) of random concepts: p is the share of groupings, the true one among them, that
    agree no better. NaN where the value, or none of the others, could be measured."""
    known = chance[np.isfinite(chance)]
    if not len(known) or not np.isfinite(value):
        return np.nan, np.nan
    return float(known.mean()), float((1 + np.count_nonzero(known <= value)) / (1 + len(known)))


def angles(G: np.ndarray) -> np.ndarray:
    """omega (S, C) in radians between each concept's difference and the sum of the others'. G: (S, C, C) of `products`.

    The others only: a difference always agrees with a mean that it is part of, even if all are at right angles.
    """
    own, rows = np.diagonal(G, axis1=1, axis2=2), G.sum(2)
    rest = G.sum((1, 2))[:, None] - 2 * rows + own  # squared length of the sum of the others
    return np.arccos(((rows - own) / np.sqrt(own * rest).clip(1e-300)).clip(-1, 1))
