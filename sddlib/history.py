"""What was looked at in `09_explore`: rows, as a CSV and as an HTML table. No widgets."""

import base64
import io
from dataclasses import asdict
from datetime import datetime
from html import escape
from pathlib import Path

from . import SDDError
from .edits import Edits
from .evaluate import write_csv, write_rows
from .explore import Look, Subject
from .panels import rows_html, shown
from .verdicts import verdict

COLUMNS = "number time image checkpoint crop resize blur jpeg left top score logit threshold verdict D_s".split()
NAME = "explored.csv"


def entry(image: str, edits: Edits, look: Look, subject: Subject) -> dict:
    """A row of COLUMNS, not yet numbered. image: its name; D_s: mean over the map, "" where there is none."""
    facts = {"time": f"{datetime.now():%Y-%m-%d %H:%M:%S}", "image": image, "checkpoint": str(subject.path)}
    found = {"score": look.score, "logit": look.logit, "threshold": subject.threshold}
    found |= {"verdict": verdict(look.score, subject.threshold), "D_s": "" if look.D_s is None else float(look.D_s.mean())}
    return {**facts, **asdict(edits), **found}


def add(rows: list[dict], row: dict) -> None:
    """Put a row at the end with its number, unless the last one says the same."""
    if rows and all(rows[-1][k] == row[k] for k in row if k != "time"):
        return
    rows.append({"number": len(rows) + 1, **row})


def csv_text(rows: list[dict]) -> str:
    """All rows as CSV."""
    file = io.StringIO()
    write_rows(file, rows, COLUMNS)
    return file.getvalue()


def save(rows: list[dict], folder: Path) -> Path:
    """FOLDER/explored.csv, all rows; the folder is made."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_csv(rows, folder / NAME, COLUMNS)
    except OSError as e:
        raise SDDError(f"{folder / NAME} cannot be written ({e.strerror}); free space or choose another run folder") from None
    return folder / NAME


def link(rows: list[dict]) -> str:
    """A link that downloads the CSV through the browser."""
    content = base64.b64encode(csv_text(rows).encode(errors="surrogateescape")).decode()
    return f'<a download="{escape(NAME)}" href="data:text/csv;charset=utf-8;base64,{content}">download {escape(NAME)}</a>'


def table(rows: list[dict]) -> str:
    """The rows as a table, the newest first."""
    lines = [["", "image", "checkpoint", "changes", "P(fake)", "verdict", "mean D_s"]]
    for r in reversed(rows):
        D_s = "" if r["D_s"] == "" else f"{r['D_s']:.3f}"
        lines.append([r["number"], r["image"], Path(r["checkpoint"]).stem, changes(r), shown(r["score"]), r["verdict"], D_s])
    return f'<div class="history">{rows_html(lines)}</div>'


def changes(row: dict) -> str:
    """What was done to the picture, in words; "none" for nothing."""
    plain = asdict(Edits())
    units = {
        "crop": "crop {} %",
        "resize": "resize {} %",
        "blur": "blur {} px",
        "jpeg": "JPEG {}",
        "left": "window x {} %",
        "top": "window y {} %",
    }
    return ", ".join(text.format(row[name]) for name, text in units.items() if row[name] != plain[name]) or "none"
