"""The paper's Tables 1-4 as data (`reported`, never `run here`), and two checks that any table of this field can be put to."""

import csv
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from . import SDDError

TABLES = Path(__file__).resolve().parent.parent / "data" / "paper_tables.csv"
COLUMNS = ["table", "method", "ref", "metric", "set", "value"]
# Images (real + fake) of those full UnivFD test sets whose sizes are known here
SIZES = {"sitd": 360, "san": 438, "deepfake": 5405, "cyclegan": 2642, "crn": 12764, "imle": 12764}
DIFFUSION = ("guided", "ldm_200", "ldm_200_cfg", "ldm_100", "glide_100_27", "glide_50_27", "glide_100_10", "dalle")
SIZES |= dict.fromkeys(DIFFUSION, 2000)


@dataclass(frozen=True)
class Cell:
    """One number of table 1 (AP), 2 (ACC), 3 (AUROC) or 4 (ablation: mAP, mean ACC, and the number of ticks, whose columns our
    copy has lost). text: as printed, in percent but for ticks; ref: the venue that Tables 1 and 2 give a method."""

    table: int
    method: str
    metric: str
    set: str
    text: str
    ref: str = ""

    @property
    def value(self) -> float:
        return float(self.text)


def read_tables(path: str | Path = TABLES) -> list[Cell]:
    """Every printed number of Tables 1-4, in the paper's order; "mean" is the set of the printed averages."""
    path = Path(path)
    if not path.is_file():
        raise SDDError(f"the paper's tables {path} are missing; restore data/paper_tables.csv")
    with path.open(newline="") as f:
        rows = list(csv.DictReader(f))
    if not rows or list(rows[0]) != COLUMNS:
        raise SDDError(f"{path} must hold the columns {', '.join(COLUMNS)} and at least one row; restore it")
    return [Cell(int(r["table"]), r["method"], r["metric"], r["set"], r["value"], r["ref"]) for r in rows]


def agreement(exact: float, text: str) -> str:
    """How a printed number comes from an exact one: "rounded", "truncated", or "differs". Both in the same unit."""
    digits = len(text.partition(".")[2])
    shifted = exact * 10**digits
    if abs(shifted - float(text) * 10**digits) <= 0.5 + 1e-6:
        return "rounded"
    return "truncated" if math.floor(shifted + 1e-6) == round(float(text) * 10**digits) else "differs"


def recomputed_means(cells: Iterable[Cell]) -> list[dict]:
    """For every row of Tables 1-3: its mean over the sets as computed here, as printed, and how the two agree."""
    groups: dict[tuple, list[Cell]] = {}
    for c in cells:
        if c.table != 4:
            groups.setdefault((c.table, c.method), []).append(c)
    found = []
    for (table, method), row in groups.items():
        values = [c.value for c in row if c.set != "mean"]
        (printed,) = [c.text for c in row if c.set == "mean"]
        mean = sum(values) / len(values)
        found.append(
            {"table": table, "method": method, "mean": mean, "printed": printed, "agreement": agreement(mean, printed)}
        )
    return found


def correct_images(percent: str, n: int) -> int | None:
    """The k of an accuracy k/n that prints as `percent` by rounding or truncation, or None: then no detector can have it."""
    k = round(float(percent) / 100 * n)
    return next((i for i in (k, k - 1, k + 1) if 0 <= i <= n and agreement(100 * i / n, percent) != "differs"), None)


def impossible_accuracies(cells: Iterable[Cell], sizes: dict[str, int] = SIZES) -> list[Cell]:
    """Accuracies that no count of correct images out of the set's size gives; only sets whose size is known are looked at."""
    known = [c for c in cells if c.metric == "ACC" and c.set in sizes]
    return [c for c in known if correct_images(c.text, sizes[c.set]) is None]
