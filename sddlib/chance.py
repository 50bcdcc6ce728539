"""What the chance of training does to comparisons: many changes at once, and trainings that were made twice."""

from collections.abc import Iterable

import numpy as np
from scipy.stats import dunnett


def at_once(trainings: dict[str, list[float]], base: str, seed: int = 0) -> dict[str, tuple[float, float]]:
    """Change -> (low, high) of its mean minus that of `base`, by intervals that all hold the truth in 95 of 100 cases.

    trainings: name -> a number a training, all trained independently, with a spread that is the same for all and estimated from
    all. Source: Dunnett, J. Am. Stat. Assoc. 50 (1955), as in scipy, whose numerical integral `seed` fixes. {} where no name
    was trained twice, since then nothing tells the spread.
    """
    names = [name for name in trainings if name != base]
    if base not in trainings or not names or sum(len(v) - 1 for v in trainings.values()) < 1:
        return {}
    found = dunnett(*(trainings[n] for n in names), control=trainings[base], random_state=seed).confidence_interval(0.95)
    return {n: (float(low), float(high)) for n, low, high in zip(names, found.low, found.high, strict=True)}


def spread_of_one(differences: Iterable[float]) -> float:
    """Standard deviation of one training's number, from the differences of trainings made twice: each holds two of them."""
    return float(np.sqrt(np.mean(np.square(list(differences))) / 2))
