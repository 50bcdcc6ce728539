"""What a run is expected to reach on each test set: bands from earlier runs (data/expected.csv) and from the paper's tables.

**From earlier runs**: the 99.8 % prediction interval for one more training with another seed, tested on the same images. Values
are taken as logits, where a set at 0.99 and one at 0.6 vary alike; their spread over the runs is pooled over all sets of a
method and metric (three values alone say too little, and can agree by chance), and the interval is
mean +- t(sets * (runs - 1)) * spread * sqrt(1 + 1/runs). 99.8 %, since a file is held against 36 bands at once: asking two of
the three runs behind data/expected.csv about the third, 8 of 9 files lay inside every band. The level was chosen by that very
count (5 of 9 at 99 %, 6 at 99.5 %, 9 at 99.9 %), which is therefore no estimate of false alarms.

**From the paper** (SDD only): the printed value +- POINT, and further by the way from the run's value to the ends of its own
95 % interval over photographs: a run is inside exactly if that interval, a point wider on each side, holds the printed value.
The paper does not say how its values vary from training to training, so the point is a choice: 1 % of the images of a set.
"""

import csv
import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import stats

from . import SDDError, __version__
from .evaluate import read_scores, table
from .paper import read_tables
from .profiles import ROOT
from .report import NAMES, check_seeds
from .tables import PAPER, common_sets

EXPECTED = ROOT / "data" / "expected.csv"
COLUMNS = ["benchmark", "images", "method", "set", "metric", "low", "high", "source"]
METRICS = ("ap", "acc", "auroc")  # those of Tables 1-3
UNSEEN, ALL = "mean of unseen", "mean of all"
POINT = 0.01
LEVEL = 0.998


@dataclass(frozen=True)
class Band:
    """Where a metric of a test set is expected, as shares of 1."""

    set: str
    metric: str
    low: float
    high: float
    source: str


def images_digest(rows: list[dict]) -> str:
    """12 hex digits over paths, labels, generators and splits of a scores file: which images were scored."""
    lines = "\n".join(f"{r['path']},{r['label']},{r['generator']},{r['split']}" for r in rows)
    return hashlib.sha256(lines.encode(errors="surrogateescape")).hexdigest()[:12]


def measured(rows: list[dict]) -> dict[tuple[str, str], float]:
    """(set, metric) -> value for every test set, and for the mean of the unseen ones."""
    lines, _ = table(rows)
    unseen = [line for line in lines if not line["seen"]]
    values = {(line["generator"], metric): line[metric] for line in lines for metric in METRICS}
    return values | {(UNSEEN, metric): float(np.mean([line[metric] for line in unseen])) for metric in METRICS}


def prediction(values: np.ndarray, least: float = 1e-4) -> np.ndarray:
    """Values (runs, sets) as shares of 1 -> (2, sets): low and high of one more run. Shares are kept `least` off 0 and 1."""
    runs, sets = values.shape
    if runs < 2:
        raise SDDError("a spread needs two runs or more; name runs of other seeds")
    share = np.clip(values, least, 1 - least)
    logits = np.log(share / (1 - share))
    spread, freedom = np.sqrt(logits.var(0, ddof=1).mean()), sets * (runs - 1)
    half = stats.t.ppf((1 + LEVEL) / 2, freedom) * spread * np.sqrt(1 + 1 / runs)
    return 1 / (1 + np.exp(-(logits.mean(0) + np.array([[-half], [half]]))))


def expected_rows(run_dirs: list[Path], benchmark: str) -> list[dict]:
    """Rows of data/expected.csv from whole runs that differ in their seed alone: a band for each method, set and metric."""
    check_seeds(run_dirs)
    made = []
    for method in NAMES:
        runs = [read_scores(folder / "scores" / f"{method}.csv") for folder in run_dirs]
        if len(digests := {images_digest(rows) for rows in runs}) > 1:
            raise SDDError("these runs did not score the same images; name runs of one manifest and profile")
        found = [measured(rows) for rows in runs]
        facts = {"benchmark": benchmark, "images": digests.pop(), "method": method}
        facts["source"] = f"{len(runs)} runs of sddlib {__version__}"
        for metric in METRICS:
            sets = [name for name, kind in found[0] if kind == metric]
            bands = prediction(np.array([[values[name, metric] for name in sets] for values in found]))
            for name, low, high in zip(sets, *bands, strict=True):
                made.append({**facts, "set": name, "metric": metric, "low": f"{low:.4f}", "high": f"{high:.4f}"})
    return made


def read_expected(path: Path | None = None) -> list[dict]:
    """The rows of data/expected.csv, or of another file like it, low and high as numbers."""
    path = path or EXPECTED
    if not path.is_file():
        raise SDDError(f"the expected values {path} are missing; restore data/expected.csv")
    with path.open(newline="", encoding="utf-8") as f:
        rows = list(csv.DictReader(f))
    try:
        if not rows or list(rows[0]) != COLUMNS:
            raise ValueError
        return [r | {"low": float(r["low"]), "high": float(r["high"])} for r in rows]
    except (TypeError, ValueError):
        raise SDDError(f"{path} must hold the columns {', '.join(COLUMNS)} with numbers; make it again") from None


def earlier_bands(rows: list[dict], method: str) -> list[Band]:
    """The bands of a method on exactly the images of these rows, or [] where no earlier run scored them."""
    digest = images_digest(rows)
    return [
        Band(r["set"], r["metric"], r["low"], r["high"], f"{r['benchmark']}, {r['source']}")
        for r in read_expected()
        if (r["images"], r["method"]) == (digest, method)
    ]


def paper_bands(number: int, intervals: dict[str, tuple[float, float, float]]) -> list[Band]:
    """What Table `number` expects of SDD. intervals: (value, low, high) of a run on each test set and on ALL, whose mean the
    table prints too; it is compared if the run has the table's sets, all of them and no others."""
    metric, _, sets = PAPER[number]
    texts = {c.set: c.text for c in read_tables() if (c.table, c.method) == (number, "Ours")}
    names = {t.name: texts[t.name] for t in common_sets(number, intervals)}
    if len(names) == len(sets) and not intervals.keys() - {*names, UNSEEN, ALL}:
        names[ALL] = texts["mean"]
    bands = []
    for name, text in names.items():
        (value, low, high), printed = intervals[name], float(text) / 100
        ends = max(0.0, printed - POINT - (high - value)), min(1.0, printed + POINT + (value - low))
        bands.append(Band(name, metric, *ends, f"Table {number}: {text}"))
    return bands
