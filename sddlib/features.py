"""Do real and fake features differ in the same way whatever a picture shows? Fig. 1 and Sec. 1 (the paper's Appendix A).

A concept's difference is the mean of its fake features minus the mean of its real features. All statistics come from inner
products between photographs, so that a bootstrap or a shuffle of concepts costs next to nothing. n: images, D: features,
P: photographs, R: rows of a contrast, C: concepts, S: draws of photographs.
"""

from typing import NamedTuple

import numpy as np
from sklearn.covariance import LedoitWolf

from . import SDDError
from .data import Sample, content_ids


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


class Contrast(NamedTuple):
    """Reals against the fakes of one generator, a row a photograph: inner products (R, R), photographs (R,) as numbers, and
    sides (R,). Of twins a row is the mean difference fake - real and its side 1; without twins a row is the mean of the fake
    (side 1) or real (side -1) images of a photograph."""

    gram: np.ndarray
    photo: np.ndarray
    side: np.ndarray


def contrast(F: np.ndarray, samples: list[Sample], generator: str, photos: list[str]) -> Contrast:
    """The reals and the fakes of `generator` of these photographs. Where every fake has a real twin (same photograph, same
    file name), the same crops are compared. F: (n, D) features of samples."""
    content, where = content_ids(samples), {photo: i for i, photo in enumerate(photos)}
    real = {c: i for i, (s, c) in enumerate(zip(samples, content, strict=True)) if s.label == 0 and s.photo in where}
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


def draw_photographs(concepts: dict[str, int], samples: list[Sample], draws: int, seed: int) -> np.ndarray:
    """(1 + draws, P) weights: row 0 takes every photograph once, the others draw within each concept with replacement, at
    least two different ones; where reals and fakes are no twins, within the reals and the fakes of a concept."""
    sides: dict[str, set] = {}
    for s in samples:
        sides.setdefault(s.photo, set()).add(s.label)
    strata: dict[tuple, list[int]] = {}
    for i, (photo, c) in enumerate(concepts.items()):
        strata.setdefault((c, *sorted(sides[photo])), []).append(i)
    rng, weights = np.random.default_rng(seed), np.ones((1 + draws, len(concepts)))
    for mine in strata.values():
        n = len(mine)
        if n < 2:
            raise SDDError("a concept has a single photograph to draw from; lower k, raise limit or label more of them")
        for row in weights[1:]:
            while np.count_nonzero(drawn := np.bincount(rng.integers(n, size=n), minlength=n)) < 2:
                pass
            row[mine] = drawn
    return weights


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


def agreement(G: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Direction agreement of the concepts' differences, (S,) plain and (S,) noise-corrected, from `products`.

    plain: mean cosine over the pairs of concepts. Few photographs make it too small, and more so where features are noisier.
    corrected: sum of the inner products of pairs over the sum of the products of their noise-free lengths: a mean
    cosine in which a pair counts by its lengths, so that a difference lost in noise says nothing of its direction. It may
    exceed 1 by chance; NaN where no two concepts have a difference.
    """
    i, j = np.triu_indices(G.shape[1], 1)
    if not len(i):
        raise SDDError("one concept has nothing to agree with; raise k or limit, or label more photographs")
    diagonal = np.diagonal(G, axis1=1, axis2=2)
    plain = (G[:, i, j] / np.sqrt(diagonal[:, i] * diagonal[:, j])).mean(1)
    size = np.sqrt(lengths.clip(0))
    base = (size[:, i] * size[:, j]).sum(1)
    return plain, np.divide(G[:, i, j].sum(1), base, out=np.full(len(base), np.nan), where=base > 0)


class Reading(NamedTuple):
    """One generator in one space, for every draw of photographs: `products` and `agreement`."""

    G: np.ndarray
    lengths: np.ndarray
    plain: np.ndarray
    corrected: np.ndarray


def consistency(
    spaces: dict[str, np.ndarray],
    samples: list[Sample],
    concepts: dict[str, int],
    generators: list[str],
    weights: np.ndarray,
    dealt: np.ndarray | None = None,
) -> dict[str, dict[str, Reading]]:
    """Readings by space and generator, all with the same draws (S, P) of photographs, so that differences are paired.

    spaces: name -> comparable features (n, D) of samples; concepts: photo -> number; dealt: (S, P) numbers instead.
    """
    photos, concept = list(concepts), np.array(list(concepts.values())) if dealt is None else dealt
    found: dict[str, dict[str, Reading]] = {space: {} for space in spaces}
    for space, F in spaces.items():
        for g in generators:
            G, lengths = products(contrast(F, samples, g, photos), weights, concept)
            found[space][g] = Reading(G, lengths, *agreement(G, lengths))
    return found


def interval(values: np.ndarray) -> tuple[float, float, float]:
    """(estimate, low, high) from values (1 + draws,) whose first is the estimate: the 95 % between percentiles. NaN where no
    draw, or not the estimate, could be measured."""
    drawn = values[1:][np.isfinite(values[1:])]
    low, high = np.percentile(drawn, (2.5, 97.5)) if len(drawn) and np.isfinite(values[0]) else (np.nan, np.nan)
    return float(values[0]), float(low), float(high)


def shuffled(concept: np.ndarray, draws: int, seed: int) -> np.ndarray:
    """(draws, P) concepts dealt out anew to the photographs, as many to each as before."""
    return np.random.default_rng(seed).permuted(np.tile(concept, (draws, 1)), axis=1)


def beside_chance(value: float, chance: np.ndarray) -> tuple[float, float]:
    """(mean, p) of an agreement among those (S,) of random concepts: p is the share of groupings, the true one among them, that
    agree no better. NaN where the value, or none of the others, could be measured."""
    known = chance[np.isfinite(chance)]
    if not len(known) or not np.isfinite(value):
        return np.nan, np.nan
    return float(known.mean()), float((1 + np.count_nonzero(known <= value)) / (1 + len(known)))


def angles(G: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """omega (C,) in radians between each concept's difference and the sum of the others', and lengths (C,). G: (C, C).

    The others only: a difference always agrees with a mean that it is part of, even if all are at right angles.
    """
    own = np.diag(G)
    others = G.sum(1) - own
    rest = G.sum() - 2 * G.sum(1) + own  # squared length of the sum of the others
    cosine = np.divide(others, np.sqrt(own * rest.clip(0)), out=np.full(len(own), np.nan), where=rest > 0)
    return np.arccos(cosine.clip(-1, 1)), np.sqrt(own)


def noise_free(reading: Reading) -> tuple[np.ndarray, np.ndarray]:
    """`angles` of a reading's estimate with noise-free lengths: omega (C,) and length (C,). A concept whose difference is lost
    in noise has NaN for both, and is left out of the others' sum."""
    G, found = reading.G[0].copy(), reading.lengths[0] > 0
    np.fill_diagonal(G, reading.lengths[0])
    omega, size = np.full((2, len(G)), np.nan)
    omega[found], size[found] = angles(G[np.ix_(found, found)])
    return omega, size


def mean_corrected(readings: dict[str, Reading], generators: list[str]) -> np.ndarray:
    """(S,) noise-corrected agreement, mean over generators."""
    return np.mean([readings[g].corrected for g in generators], axis=0)
