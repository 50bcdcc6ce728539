"""What perturbations do to verdicts and to the ranking, with 95 % intervals over photographs. All from saved scores."""

from collections.abc import Iterable
from functools import partial

import numpy as np

from .calibration import logits
from .columns import columns
from .intervals import Interval, interval, set_draws, weighted_auroc
from .report import NAMES
from .robustness import NATIVE, REAL, UNSEEN, Grid, families, unseen_families
from .thresholds import share_interval, weighted_above


def names_of(grid: Grid) -> list[str]:
    """The perturbations of a grid; every method has the same."""
    return list(next(iter(grid.values())))


def shares_right(
    grid: Grid, thresholds: dict[str, float], seen: set[str], draws: int, seed: int
) -> dict[tuple[str, str, str], Interval]:
    """(method, perturbation, group) -> the share of the group's images that a verdict at the method's threshold gets right.

    Group: "real", a family of fakes, or "unseen", the mean over the unseen families. The same draws serve everything."""
    found = {}
    for method, columns_of in grid.items():
        groups = {}
        for name, rows in columns_of.items():
            groups[name, REAL] = [r for r in rows if not r["label"]]
            for family, part in families(rows, seen).items():
                groups[name, family] = [r for r in part if r["label"]]
        above = partial(weighted_above, threshold=thresholds[method])
        drawn = set_draws(groups, above, draws, np.random.default_rng(seed))
        for name, rows in columns_of.items():
            unseen = unseen_families(families(rows, seen))
            drawn[name, REAL] = 1 - drawn[name, REAL]
            drawn[name, UNSEEN] = np.mean([drawn[name, f] for f in unseen], axis=0)
            groups[name, UNSEEN] = [r for f in unseen for r in groups[name, f]]
        found |= {(method, *key): share_interval(v, groups[key]) for key, v in drawn.items()}
    return found


def auroc_draws(
    grid: Grid, pairs: Iterable[tuple[str, str]], seen: set[str], draws: int, seed: int
) -> dict[tuple[str, str, str], np.ndarray]:
    """(method, perturbation of the reals, perturbation of the fakes) -> (draws + 1,) mean AUROC over the unseen families, the
    estimate first; every method and pair under the same draws of photographs."""
    groups = {}
    for method, columns_of in grid.items():
        for real, fake in pairs:
            rows = [r for r in columns_of[real] if not r["label"]] + [r for r in columns_of[fake] if r["label"]]
            split = families(rows, seen)
            groups |= {(method, real, fake, f): split[f] for f in unseen_families(split)}
    drawn = set_draws(groups, weighted_auroc, draws, np.random.default_rng(seed))
    means: dict = {}
    for (*key, _), values in drawn.items():
        means.setdefault(tuple(key), []).append(values)
    return {key: np.mean(values, axis=0) for key, values in means.items()}


def rankings(grid: Grid, seen: set[str], draws: int, seed: int) -> dict[str, dict[tuple[str, str], Interval]]:
    """{"auroc": (method, perturbation) -> mean AUROC over the unseen families, "change": the same minus that of the native
    pictures, paired, "lead": (method, perturbation) -> SDD's AUROC minus the method's}."""
    names = names_of(grid)
    drawn = auroc_draws(grid, [(name, name) for name in names], seen, draws, seed)
    found: dict = {"auroc": {}, "change": {}, "lead": {}}
    for (method, name, _), values in drawn.items():
        found["auroc"][method, name] = interval(values)
        found["change"][method, name] = interval(values - drawn[method, NATIVE, NATIVE])
        if method != "sdd":
            found["lead"][method, name] = interval(drawn["sdd", name, name] - values)
    return found


def one_sided(
    grid: Grid, steps: Iterable[str], seen: set[str], draws: int, seed: int
) -> tuple[dict[str, dict], dict[str, dict]]:
    """What a compression of one class alone does to the ranking: whose pictures were compressed ("both", "reals" or "fakes") ->
    (method, perturbation) -> mean AUROC over the unseen families; and the same minus that of native pictures, paired.

    A detector of compression would be near 0 with one class compressed and near 1 with the other.
    """
    steps = list(steps)
    sides = {"both": [(n, n) for n in steps], "reals": [(n, NATIVE) for n in steps], "fakes": [(NATIVE, n) for n in steps]}
    pairs = [(NATIVE, NATIVE), *(pair for part in sides.values() for pair in part)]
    drawn, auroc, change = auroc_draws(grid, pairs, seen, draws, seed), {}, {}
    for who, part in sides.items():
        auroc[who], change[who] = {}, {}
        for m in grid:
            for name, (real, fake) in zip(steps, part, strict=True):
                auroc[who][m, name] = interval(drawn[m, real, fake])
                change[who][m, name] = interval(drawn[m, real, fake] - drawn[m, NATIVE, NATIVE])
    return auroc, change


def compression_verdict(equalised: Interval, lost: Interval, one_class: Iterable[tuple[Interval, Interval]]) -> str:
    """The answer to "is it only a detector of compression?"; what counts is where intervals lie.

    equalised: AUROC with both classes compressed alike; lost: that minus native; one_class: (AUROC, that minus native) with one
    class compressed. Equalising alone does not tell a detector that reads compression from one whose evidence compression wipes
    out: only the former turns over, or gains, when one class is compressed.
    """
    one_class = list(one_class)
    if any(high < 0.5 and changed < 0 for (_, _, high), (_, _, changed) in one_class):
        return "YES: compressing one class turns its ranking over"
    if equalised[1] <= 0.5:
        return "PERHAPS: with all pictures compressed alike it is not surely better than chance"
    if any(low > 0 for _, (_, low, _) in one_class):
        return "NOT ONLY: it ranks pictures compressed alike, but compressing one class helps it, so it reads compression too"
    if lost[2] < 0:
        return "NO: compressing one class never turns or helps it; but compression wipes out some of what it reads"
    return "NO: compressing one class never turns or helps it, and compressing all alike costs nothing sure"


def shifts(grid: Grid, steps: Iterable[str], draws: int, seed: int) -> dict[tuple[str, str, int], Interval]:
    """(method, perturbation, label) -> mean change of the logit of an image of that class, in units of the distance between the
    mean logits of native fakes and native reals: +1 would make a mean real a mean fake. Rows without a score count nowhere."""
    found = {}
    for method, columns_of in grid.items():
        native = {r["path"]: r for r in columns_of[NATIVE] if r["score"] is not None}
        z = {path: float(logits(np.array(r["score"]))) for path, r in native.items()}
        centre = [np.mean([z[path] for path, r in native.items() if r["label"] == label]) for label in (0, 1)]
        groups = {}
        for name in steps:
            for r in columns_of[name]:
                if r["score"] is not None and r["path"] in z:
                    moved = (float(logits(np.array(r["score"]))) - z[r["path"]]) / (centre[1] - centre[0])
                    groups.setdefault((name, r["label"]), []).append(r | {"score": moved})
        drawn = set_draws(groups, weighted_mean, draws, np.random.default_rng(seed))
        found |= {(method, *key): interval(v) for key, v in drawn.items()}
    return found


def weighted_mean(y: np.ndarray, s: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Mean of s (n,) under weights w (draws, n) -> (draws,); NaN for a weighting of nothing."""
    total = w.sum(1)
    return np.divide(w @ s, total, out=np.full(len(total), np.nan), where=total > 0)


def said(value: Interval, signed: bool = False) -> str:
    """An estimate with its interval, as text."""
    return "{:+.2f} [{:+.2f}, {:+.2f}]".format(*value) if signed else "{:.2f} [{:.2f}, {:.2f}]".format(*value)


def grid_table(shares: dict, ranks: dict, grid: Grid) -> str:
    """A line a perturbation: for each method the share of reals and of unseen fakes judged right, and the AUROC."""
    header = ["perturbation", *(f"{NAMES[m]} {what}" for m in grid for what in ("real", "fake", "AUROC"))]
    body = []
    for name in names_of(grid):
        cells = [(shares[m, name, REAL], shares[m, name, UNSEEN], ranks["auroc"][m, name]) for m in grid]
        body.append([name, *(said(v) for triple in cells for v in triple)])
    return columns([header, *body])
