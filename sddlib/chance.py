"""What the chance of training does to comparisons: one spread for all trainings, and intervals that allow for many changes."""

from collections.abc import Iterable

import numpy as np
from scipy.stats import t


def pooled_spread(trainings: Iterable[Iterable[float]]) -> tuple[float, int]:
    """(standard deviation of one training's number, degrees of freedom) from groups of trainings that share a spread and not a
    mean; (nan, 0) where no group holds two."""
    groups = [np.array(list(group)) for group in trainings]
    free = sum(len(group) - 1 for group in groups)
    squares = sum(((group - group.mean()) ** 2).sum() for group in groups)
    return (float(np.sqrt(squares / free)), free) if free else (float("nan"), 0)


def spread_of_one(differences: Iterable[float]) -> float:
    """Standard deviation of one training's number, from the differences of trainings made twice: each holds two of them."""
    return float(np.sqrt(np.mean(np.square(list(differences))) / 2))


def half_width(error: float, free: float, changes: int = 1) -> float:
    """Half of Student's 95 % interval. error: standard error; free: its degrees of freedom, inf for one that is known; changes:
    how many intervals are to hold the truth together, by Bonferroni's 5 % / changes for each."""
    return float(t.ppf(1 - 0.05 / (2 * changes), free) * error)
