"""What the chance of training does to comparisons: many changes at once, and trainings that were made twice."""

from collections.abc import Iterable

import numpy as np
from scipy.stats import t


def at_once(trainings: dict[str, list[float]], base: str) -> dict[str, tuple[float, float]]:
    """Change -> (low, high) of its mean minus that of `base`, by intervals that all hold the truth in 95 of 100 cases or more.

    trainings: name -> a number a training; all are taken as trained independently, with the same spread. Source: Student's
    interval with the pooled variance of all names, and Bonferroni's 5 % / (2 changes) on each side. {} where no name was
    trained twice, since then nothing tells the spread.
    """
    names, free = [n for n in trainings if n != base], sum(len(v) - 1 for v in trainings.values())
    if base not in trainings or not names or not free:
        return {}
    spread = pooled_spread((np.std(v, ddof=1), len(v)) for v in trainings.values() if len(v) > 1)
    width = t.ppf(1 - 0.05 / (2 * len(names)), free) * spread
    found = {}
    for n in names:
        shift = np.mean(trainings[n]) - np.mean(trainings[base])
        half = width * np.sqrt(1 / len(trainings[n]) + 1 / len(trainings[base]))
        found[n] = (float(shift - half), float(shift + half))
    return found


def pooled_spread(spreads: Iterable[tuple[float, int]]) -> float:
    """One standard deviation for all from (standard deviation, how many trainings) of each; nan where nothing was trained
    twice."""
    squares, free = [], []
    for sd, n in spreads:
        if n > 1:
            squares.append(sd**2)
            free.append(n - 1)
    return float(np.sqrt(np.average(squares, weights=free))) if free else float("nan")


def spread_of_one(differences: Iterable[float]) -> float:
    """Standard deviation of one training's number, from the differences of trainings made twice: each holds two of them."""
    return float(np.sqrt(np.mean(np.square(list(differences))) / 2))
