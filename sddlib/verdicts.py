"""Scoring as a user does it: files and folders in, one CSV row a file out, whatever is wrong with a file."""

from pathlib import Path

from . import SDDError
from .data import scan_paths
from .evaluate import score_paths, write_csv
from .profiles import ROOT
from .recipes import load_scorer

COLUMNS = "path score verdict threshold width height format error".split()
SHIPPED = ROOT / "data" / "checkpoints" / "sdd-mini.safetensors"


def score_to_csv(paths: list[str], out: Path, checkpoint: Path | None, threshold: float | None, batch: int) -> list[dict]:
    """Write OUT with COLUMNS and print a summary line. verdict: fake if score > threshold, else real, "" beside an error.

    checkpoint: None for the shipped one. threshold: None for the checkpoint's own. An unreadable file is a row with its
    error; if no file can be read that is an SDDError, after the rows are written.
    """
    if batch < 1:
        raise SDDError(f"--batch {batch} is no number of images; use 1 or more")
    if threshold is not None and not 0 <= threshold <= 1:
        raise SDDError(f"--threshold {threshold} is no probability; use 0 to 1")
    if out.is_dir():
        raise SDDError(f"--out {out} is a folder; name a CSV file")
    if not out.resolve().parent.is_dir():
        raise SDDError(f"--out {out}: its folder does not exist; make it first")
    files = scan_paths(paths)
    if not files:
        raise SDDError(f"no image files in {', '.join(map(str, paths))}; name files, or folders that hold some")
    model = load_scorer(checkpoint or SHIPPED)
    if threshold is None:
        if "threshold" not in model.about:
            raise SDDError(f"{checkpoint or SHIPPED} names no threshold; give one with --threshold")
        threshold = model.about["threshold"]
    rows = score_paths(model, files, batch)
    for row in rows:
        row["threshold"] = threshold
        row["verdict"] = "" if row["error"] else ("fake" if row["score"] > threshold else "real")
    write_csv(rows, out, COLUMNS)
    count = {v: sum(r["verdict"] == v for r in rows) for v in ("fake", "real", "")}
    if count[""] == len(rows):
        raise SDDError(
            f"none of the {len(rows)} files could be read, first {rows[0]['path']}: {rows[0]['error']}; all are in {out}"
        )
    print(f"{count['fake']} fake, {count['real']} real, {count['']} unreadable, threshold {threshold:.4g}; rows in {out}")
    return rows
