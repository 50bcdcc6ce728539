"""Scoring as a user does it: files and folders in, one CSV row a file out, whatever is wrong with a file."""

import os
from pathlib import Path
from tempfile import NamedTemporaryFile

from . import SDDError
from .columns import columns, printable
from .data import IMAGE_SUFFIXES, scan_paths
from .evaluate import iter_scores, write_csv
from .profiles import ROOT

FEW = 10  # files whose rows are printed too
COLUMNS = "path score verdict threshold width height format error".split()
SHIPPED = ROOT / "data" / "checkpoints" / "sdd-mini.safetensors"


def verdict(score: float, threshold: float) -> str:
    """fake if score > threshold, else real."""
    return "fake" if score > threshold else "real"


def is_share(value) -> bool:
    """Whether a value of a JSON is a number in 0..1."""
    return isinstance(value, (int, float)) and 0 <= value <= 1


def own_threshold(about: dict) -> float | None:
    """The threshold that a checkpoint's JSON names, fitted on validation; None where it names none in 0..1."""
    threshold = about.get("threshold")
    return threshold if isinstance(threshold, float) and is_share(threshold) else None


def check_out(out: Path, inputs: list[Path], option: str = "--out") -> None:
    """Refuse, before anything is computed, a CSV that cannot be written or that would replace an input or a device."""
    if out.is_dir():
        raise SDDError(f"{option} {out} is a folder; name a CSV file")
    if not out.resolve().parent.is_dir():
        raise SDDError(f"{option} {out}: its folder does not exist; make it first")
    if out.exists() and (not out.is_file() or any(os.path.exists(p) and os.path.samefile(p, out) for p in inputs)):
        raise SDDError(f"{option} {out} is an input or no regular file; name another file")
    try:  # under a name that no file has, and no shorter than that of the file which is written at the end
        NamedTemporaryFile(dir=out.parent, prefix=f"{out.name}.", suffix=".part").close()
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
    checkpoint = checkpoint or SHIPPED
    if checkpoint.is_dir():
        raise SDDError(f"checkpoint {checkpoint} is a folder; name the .safetensors file")
    others: list[Path] = []
    files = scan_paths(paths, others)
    check_out(out, [*files, checkpoint, checkpoint.with_suffix(".json")])
    if others:
        print(left_out(others))
    if not files:
        raise SDDError(f"no image files in {', '.join(map(str, paths))}; name files, or folders that hold some")
    from .recipes import load_scorer  # heavy: not before it is needed

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
    if len(rows) <= FEW:
        print(columns([["P(generated)", "verdict", "file"], *map(judged, rows)], right_from=3))
    said = f"{count['fake']} fake, {count['real']} real, {count['']} unreadable, threshold {threshold:.4g}"
    print(f"{said}; rows in {printable(out)}")
    if threshold == model.about.get("threshold"):
        print(error_rates(model.about))
    return rows


def left_out(others: list[Path]) -> str:
    """The sentence on files in folders that are not looked at."""
    return f"{len(others)} files left out: no suffix of {', '.join(sorted(IMAGE_SUFFIXES))}"


def judged(row: dict) -> list[str]:
    """Score, verdict and file of a row as text; behind the name the reason where there is no score."""
    if row["error"]:
        return ["", "none", f"{printable(row['path'])}: {row['error']}"]
    return [f"{row['score']:.4f}", row["verdict"], printable(row["path"])]


def error_rates(about: dict) -> str:
    """What a checkpoint's JSON says of its errors at its own threshold, and of whom it says nothing."""
    val = about.get("val")
    val = val if isinstance(val, dict) else {}
    counted = all(isinstance(val.get(name), int) for name in ("n_real", "n_fake"))
    if not counted or not all(is_share(val.get(name)) for name in ("real_acc_val", "fake_acc_val")):
        return "This checkpoint does not say how often it errs."
    false, missed = 1 - val["real_acc_val"], 1 - val["fake_acc_val"]
    return (
        f"On validation, where the threshold was fitted, {false:.0%} of {val['n_real']} reals are called fake and "
        f"{missed:.0%} of {val['n_fake']} fakes are missed. These are of the kind it was trained on; of any other nothing is "
        "known, expect more."
    )
