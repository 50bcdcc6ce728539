"""Scoring as a user does it: files and folders in, one CSV row a file out, whatever is wrong with a file."""

import os
from pathlib import Path

from . import SDDError
from .data import scan_paths
from .evaluate import iter_scores, write_csv
from .profiles import ROOT
from .recipes import load_scorer

COLUMNS = "path score verdict threshold width height format error".split()
SHIPPED = ROOT / "data" / "checkpoints" / "sdd-mini.safetensors"


def verdict(score: float, threshold: float) -> str:
    """fake if score > threshold, else real."""
    return "fake" if score > threshold else "real"


def own_threshold(about: dict) -> float | None:
    """The threshold that a checkpoint's JSON names, fitted on validation; None where it names none in 0..1."""
    threshold = about.get("threshold")
    return threshold if isinstance(threshold, float) and 0 <= threshold <= 1 else None


def check_out(out: Path, inputs: list[Path], option: str = "--out") -> None:
    """Refuse, before anything is computed, a CSV that cannot be written or that would replace an input or a device."""
    if out.is_dir():
        raise SDDError(f"{option} {out} is a folder; name a CSV file")
    if not out.resolve().parent.is_dir():
        raise SDDError(f"{option} {out}: its folder does not exist; make it first")
    if out.exists() and (not out.is_file() or any(os.path.exists(p) and os.path.samefile(p, out) for p in inputs)):
        raise SDDError(f"{option} {out} is an input or no regular file; name another file")
    trial = out.with_name(out.name + ".part")
    try:
        trial.touch()
        trial.unlink()
    except OSError as e:
        raise SDDError(f"{option} {out} cannot be written ({e.strerror}); name another file") from None


def score_to_csv(paths: list[str], out: Path, checkpoint: Path | None, threshold: float | None, batch: int) -> list[dict]:
    """Write OUT with COLUMNS and print a summary line. verdict: fake if score > threshold, else real, "" beside an error.

    checkpoint: None for the shipped one. threshold: None for the checkpoint's own. An unreadable file is a row with its
    error; if no file can be read that is an SDDError, after the rows are written.
    """
    if batch < 1:
        raise SDDError(f"--batch {batch} is no number of images; use 1 or more")
    if threshold is not None and not 0 <= threshold <= 1:
        raise SDDError(f"--threshold {threshold} is no probability; use 0 to 1")
    if not all(map(str, paths)):
        raise SDDError("an empty path was given; name files or folders")
    files, checkpoint = scan_paths(paths), checkpoint or SHIPPED
    check_out(out, [*files, checkpoint, checkpoint.with_suffix(".json")])
    if not files:
        raise SDDError(f"no image files in {', '.join(map(str, paths))}; name files, or folders that hold some")
    model = load_scorer(checkpoint)
    if threshold is None and (threshold := own_threshold(model.about)) is None:
        raise SDDError(f"{checkpoint.with_suffix('.json')} names no threshold in 0..1; give one with --threshold")
    rows = []
    try:
        for row in iter_scores(model, files, batch):
            found = "" if row["error"] else verdict(row["score"], threshold)
            rows.append(row | {"threshold": threshold, "verdict": found})
    finally:  # also what was scored before a Ctrl-C
        if rows:
            write_csv(rows, out, COLUMNS)
    count = {v: sum(r["verdict"] == v for r in rows) for v in ("fake", "real", "")}
    if count[""] == len(rows):
        raise SDDError(
            f"none of the {len(rows)} files could be read, first {rows[0]['path']}: {rows[0]['error']}; all are in {out}"
        )
    print(f"{count['fake']} fake, {count['real']} real, {count['']} unreadable, threshold {threshold:.4g}; rows in {out}")
    return rows
