"""Scores that are kept: a CSV of paths and logits, and a JSON of what made them; read back, they are checked to be of the very
images of a benchmark."""

import os
from pathlib import Path

from .. import SDDError
from ..calibration import logits, sigmoid
from ..data import Sample, data_hash, read_csv
from ..disk import replaced_together
from ..evaluate import write_csv
from ..runs import shown, write_json

SCORED = ("val", "test")  # splits whose scores are kept: thresholds come from the first


def write_scores(rows: list[dict], file: Path, facts: dict) -> None:
    """FILE.csv with path and logit of every row, and FILE.json. Six digits of a logit tell scores near 0 or 1 apart."""
    file.parent.mkdir(parents=True, exist_ok=True)
    texts = ["" if r["score"] in (None, "") else f"{logits(r['score']):.6g}" for r in rows]
    with replaced_together(file, file.with_suffix(".json")) as (csv, record):
        write_csv([{"path": r["path"], "logit": text} for r, text in zip(rows, texts, strict=True)], csv, ("path", "logit"))
        write_json(record, facts)


def read_rows(file: Path, about: dict, samples: list[Sample], root: Path) -> list[dict]:
    """The rows of a kept file, completed from the samples of the benchmark. about: its JSON; root: what paths start at."""
    try:
        stored = [(r["path"], float(sigmoid(float(r["logit"]))) if r["logit"] != "" else None) for r in read_csv(file)]
        check_images(shown(file), [path for path, _ in stored], about["settings"], samples, root)
    except SDDError:
        raise  # is one of the following too
    except (LookupError, TypeError, ValueError) as e:
        raise SDDError(f"{shown(file)} or its JSON is broken ({e!r}); take both from the repository again") from None
    facts, kept = ("label", "generator", "family", "split", "photo"), (s for s in samples if s.split in SCORED)
    return [
        {"path": path, **{k: getattr(s, k) for k in facts}, "score": score}
        for (path, score), s in zip(stored, kept, strict=True)
    ]


def check_images(name: str, paths: list[str], settings: dict, samples: list[Sample], root: Path) -> None:
    """Refuse scores that are not of these very samples: by path and order, and by the hash of names, labels, generators and
    splits in what made them. settings: of `Trials.settings`, whose "images" are all of them, or of `fitting.Job`, whose "data"
    are those of train and val."""
    if "kind" in settings:
        key, hashed = "images", [s for s in samples if s.split in ("train", *SCORED)]
    else:
        key, hashed = "data", [s for split in ("train", "val") for s in samples if s.split == split]
    known = [os.path.relpath(s.path, root) for s in samples if s.split in SCORED]
    if paths != known or settings[key] != data_hash(hashed):
        raise SDDError(f"{name} holds other images than this manifest; train and score again on this benchmark")
