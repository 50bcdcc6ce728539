"""Scoring as a user does it: files and folders in, one CSV row a file out, whatever is wrong with a file."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from pathlib import Path
from tempfile import NamedTemporaryFile

import torch
from torch import nn

from . import SDDError
from .columns import columns, printable
from .data import IMAGE_SUFFIXES, scan_paths
from .evaluate import iter_scores, write_csv
from .journal import Journal, about_hash, head_of, journal_of
from .parallel import pick_device
from .profiles import ROOT
from .runs import device_name

MOST = 10_000  # images in a forward pass
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


def check_out(out: Path, inputs: list[Path], option: str = "--out", header: str = ",".join(COLUMNS)) -> None:
    """Refuse, before anything is computed, a CSV that cannot be written or that would replace an input, a device, or a file
    that this command has not written: one that does not begin with `header`. "" takes any."""
    if out.is_dir():
        raise SDDError(f"{option} {out} is a folder; name a CSV file")
    folder = os.path.dirname(os.path.realpath(out))  # of links in a circle, too
    if not os.path.isdir(folder):
        raise SDDError(f"{option} {out}: its folder does not exist; make it first")
    if out.exists() and (not out.is_file() or any(os.path.exists(p) and os.path.samefile(p, out) for p in inputs)):
        raise SDDError(f"{option} {out} is an input or no regular file; name another file")
    if out.exists() and out.stat().st_size and header and first_line(out) != header:
        raise SDDError(f"{option} {out} exists and is no CSV of this command; name another file")
    beside = [p for p in map(Path, inputs) if p.name.startswith(f"{out.name}.") and os.path.realpath(p.parent) == folder]
    if beside:
        raise SDDError(f"{beside[0]} has the name of a file that is written beside {option} {out}; name another file")
    try:  # under a name that no file has, and no shorter than those of the files which are written
        NamedTemporaryFile(dir=out.parent, prefix=f"{out.name}.journal.", suffix=".part").close()
    except OSError as e:
        raise SDDError(f"{option} {out} cannot be written ({e.strerror}); name another file") from None


def first_line(path: Path) -> str:
    """What a file begins with, as far as a CSV's header would go."""
    with path.open("rb") as file:
        return file.readline(4096).decode(errors="replace").rstrip("\r\n")


def score_to_csv(
    paths: list[str], out: Path, checkpoint: Path | None, threshold: float | None, batch: int, resume: bool = False
) -> int:
    """Write OUT with COLUMNS and print a summary line; returns how many files could not be read. verdict: fake if score >
    threshold, else real, "" beside an error.

    checkpoint: None for the shipped one. threshold: None for the checkpoint's own. An unreadable file is a row with its
    error; if no file can be read that is an SDDError, after the rows are written. While it runs, scores lie in OUT.journal,
    batch by batch; resume: take those that a killed scoring has left there, so that OUT becomes what it would have been.
    """
    if not 1 <= batch <= MOST:
        raise SDDError(f"--batch {batch} is no number of images to score at once; use 1 to {MOST}")
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
    head = head_of(about_hash(model.about), batch, files, f"torch {torch.__version__} on {device_name(pick_device())}")
    with journal_of(out, files, head, resume) as journal:
        if resume:
            print(taken(journal, head["machine"]), flush=True)
        score_rest(model, journal, out, threshold, batch)
        count = write_out(journal.rows(), out, threshold, journal)
        few = [judged(row, threshold) for row in islice(journal.rows(), FEW)]
        journal.delete()
    if count[""] == len(files):
        raise SDDError(
            f"none of the {len(files)} files could be read, first {few[0]['path']}: {few[0]['error']}; all are in {out}"
        )
    if len(files) <= FEW:
        print(columns([["P(generated)", "verdict", "file"], *map(texts, few)], right_from=3))
    said = f"{count['fake']} fake, {count['real']} real, {count['']} unreadable, threshold {threshold:.4g}"
    print(f"{said}; rows in {printable(out)}")
    if threshold == model.about.get("threshold"):
        print(error_rates(model.about))
    return count[""]


def score_rest(model: nn.Module, journal: Journal, out: Path, threshold: float, batch: int) -> None:
    """Score the files that are not in the journal yet. After a Ctrl-C, OUT holds all that was scored before it."""
    files, pending = journal.files, []  # the latter: (number, row) of the batch under way
    try:
        for number, row in enumerate(iter_scores(model, files[journal.done :], batch), journal.done + 1):
            pending.append((number, row))
            if number % batch == 0 or number == len(files):
                journal.add([row for _, row in pending])
                pending = []
    except KeyboardInterrupt:
        rest = [row for number, row in pending if number > journal.done]
        if journal.done or rest:
            count = write_out(chain(journal.rows(), rest), out, threshold, journal)
            print(f"{count.total()} of {len(files)} rows are in {printable(out)}; --resume goes on with the others")
        raise


def write_out(rows: Iterable[dict], out: Path, threshold: float, journal: Journal) -> Counter:
    """Write OUT; returns how often each verdict was given. Error: a full disk, which leaves OUT as it was."""
    count: Counter = Counter()

    def counted() -> Iterator[dict]:
        for row in rows:
            row = judged(row, threshold)
            count[row["verdict"]] += 1
            yield row

    try:
        write_csv(counted(), out, COLUMNS)
    except OSError as e:
        cure = f"free space and go on with --resume ({journal.done} scores are in {journal.path})"
        raise SDDError(f"{out} cannot be written ({e.strerror}); {cure}") from None
    return count


def judged(row: dict, threshold: float) -> dict:
    """A row of `iter_scores` with its verdict."""
    return row | {"threshold": threshold, "verdict": "" if row["error"] else verdict(row["score"], threshold)}


def taken(journal: Journal, machine: str) -> str:
    """The sentence on what a resumed scoring goes on from."""
    left, name = journal.left, printable(journal.path)
    if not left.done:
        return f"--resume: no rows in {name}, so all {len(journal.files)} files are scored"
    torn = ", a torn line left out" if left.torn else ""
    other = left.head["machine"]
    moved = f"; they were made by {other}, the others by {machine}: last digits may differ" if other != machine else ""
    return f"--resume: {left.done} of {len(journal.files)} rows taken from {name}{torn}{moved}"


def left_out(others: list[Path]) -> str:
    """The sentence on files in folders that are not looked at."""
    return f"{len(others)} files left out: no suffix of {', '.join(sorted(IMAGE_SUFFIXES))}"


def texts(row: dict) -> list[str]:
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
