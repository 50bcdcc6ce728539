"""python -m sddlib compare: does a scores file lie where it is expected? One line a set and metric."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from . import SDDError
from .columns import printable
from .evaluate import by_generator, read_scores, seen_generators
from .expected import ALL, UNSEEN, Band, earlier_bands, paper_bands, read_expected
from .intervals import WEIGHTED, interval, set_draws
from .profiles import read_json
from .report import NAMES, columns
from .tables import MAIN, PAPER, common_sets, size, sized

NATIVE = "full-native"  # the protocol that data/expected.csv was made with


def settings_beside(path: Path) -> dict:
    """What the JSON beside a scores file says of how it was made; {} where there is none."""
    record = path.with_suffix(".json")
    settings = read_json(record).get("settings") if record.is_file() else {}
    kinds = {"protocol": dict, "method": str}
    if not isinstance(settings, dict) or any(not isinstance(settings.get(k, kind()), kind) for k, kind in kinds.items()):
        raise SDDError(f"{record} does not say how {path.name} was made; evaluate again or take it away")
    return settings


def set_intervals(rows: list[dict], metric: str, draws: int, seed: int = 0) -> dict[str, tuple[float, float, float]]:
    """(value, low, high) of a metric, 95 % over photographs, for every test set, their mean, and that of the unseen ones."""
    drawn = set_draws(by_generator(rows), WEIGHTED[metric], draws, np.random.default_rng(seed))
    means = {ALL: list(drawn.values()), UNSEEN: [v for name, v in drawn.items() if name not in seen_generators(rows)]}
    drawn |= {name: np.mean(values, axis=0) for name, values in means.items() if values}
    return {name: interval(values) for name, values in drawn.items()}


def check_classes(rows: list[dict], path: Path) -> None:
    """Refuse a test set without a scored image of each class: its AP, AUROC and accuracy would be of nothing."""
    for name, part in by_generator(rows).items():
        labels = [r["label"] for r in part if r["score"] is not None]
        if len(set(labels)) < 2:
            found = f"{labels.count(0)} real and {labels.count(1)} generated images with a score"
            raise SDDError(f"{path}: test set {name} has {found}; compare scores of whole sets, with both classes")


def expectations(rows: list[dict], path: Path, method: str, tables: Iterable[int]) -> tuple[list[Band], list[int]]:
    """(bands of earlier runs on exactly these images, []), or ([], the paper's tables to compare with): those that are named,
    else every one that has sets of the file. Neither is an error that says why."""
    settings, names, tables = settings_beside(path), set(by_generator(rows)), list(tables)
    protocol = settings.get("protocol", {}).get("name", NATIVE)
    if protocol != NATIVE or settings.get("jpeg"):
        how = "equalised" if settings.get("jpeg") else protocol
        raise SDDError(f"{path} is of pictures under {how}, but what is expected is of {NATIVE}; compare such scores")
    if not tables and (bands := earlier_bands(rows, method)):
        return bands, []
    if absent := [n for n in tables if not common_sets(n, names)]:
        raise SDDError(f"{path} holds no test set of the paper's Table {absent[0]}; leave out --table {absent[0]}")
    tables = tables or [n for n in PAPER if common_sets(n, names)]
    if not tables:
        known = {r["set"] for r in read_expected()} & names
        why = "has sets of data/expected.csv but other images" if known else "holds no test set that is known here"
        raise SDDError(f"nothing is expected of {path}: it {why}; compare scores of a whole benchmark, without a limit")
    if method != MAIN:
        raise SDDError(f"the paper's tables say what SDD reaches and not what {method} does; compare scores of {MAIN}")
    return [], tables


def sizes(rows: list[dict], numbers: list[int]) -> dict[str, str]:
    """N of reals and fakes with a score, of every test set; starred where a table of the paper is about another number."""
    published = {t.name: t for n in numbers for t in PAPER[n][2]}
    found = {}
    for name, part in by_generator(rows).items():
        labels = [r["label"] for r in part if r["score"] is not None]
        line = {"n_real": labels.count(0), "n_fake": labels.count(1)}
        found[name] = sized(published[name], line) if name in published else size(line)
    return found


def compare(path: Path, method: str = "", tables: Iterable[int] = (), draws: int = 1000) -> bool:
    """Print a line for every band that there is for a scores file; whether the run lies inside all of them.

    method: sdd, lora or probe; "": what the file's JSON or its name says. tables: of the paper (1, 2, 3), and no other bands.
    draws: of the 95 % intervals over photographs. What a band is: see `sddlib.expected`.
    """
    if draws < 1:
        raise SDDError(f"--draws {draws} is no number of draws; use 1 or more")
    rows = read_scores(path)
    method = method or settings_beside(path).get("method") or path.stem
    if method not in NAMES:
        raise SDDError(f"{path} does not say of which method it is; give --method with one of {', '.join(NAMES)}")
    check_classes(rows, path)
    bands, numbers = expectations(rows, path, method, tables)
    metrics = dict.fromkeys([b.metric for b in bands] + [PAPER[n][0] for n in numbers])
    found = {metric: set_intervals(rows, metric, draws) for metric in metrics}
    bands += [band for n in numbers for band in paper_bands(n, found[PAPER[n][0]])]
    body, outside, counts = [], 0, sizes(rows, numbers)
    for band in bands:
        value, low, high = found[band.metric][band.set]
        verdict = "below" if value < band.low else "above" if value > band.high else "inside"
        outside += verdict != "inside"
        percent = [f"{100 * v:.2f}" for v in (value, low, high, band.low, band.high)]
        body.append([band.set, band.metric.upper(), counts.get(band.set, ""), *percent, verdict, band.source])
    header = ["set", "metric", "N real+fake", "run here", "95 % low", "high", "expected low", "high", "verdict", "expected by"]
    print(columns([header, *body], 2))
    if any(count.endswith("*") for count in counts.values()):
        print("* another number of images than the full set has: the paper's number is not of these")
    unread = sum(r["score"] is None for r in rows)
    inside = f"{len(bands) - outside} of {len(bands)} inside; {unread} images without a score"
    print(f"{printable(path.name)}, {NAMES[method]}: {inside}")
    return not outside
