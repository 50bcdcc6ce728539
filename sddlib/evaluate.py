"""Scores once, saved with their paths; every table, threshold and interval is computed from that file."""

import csv
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TextIO

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset

from . import SDDError
from .benchmarks import stand_against
from .data import Sample, cut, normalised, open_image, read_csv
from .disk import replaced
from .metrics import arrays, fit_threshold, metrics
from .parallel import pick_device
from .progress import progress

COLUMNS = "path label generator family split photo score width height format error".split()
Prepare = Callable[[Image.Image], Image.Image]  # what a protocol does to a picture before the crop
Read = Callable[[Image.Image], torch.Tensor]  # a crop as a model's input


class Scorable(Dataset):
    """Images as (input, facts), where a file that cannot be read is a blank crop with its error: never the end of a run.
    read: a crop as a model's input; prepare: what a protocol does to the picture before."""

    def __init__(self, paths: list[Path], size: int, prepare: Prepare | None = None, read: Read = normalised):
        self.paths, self.size, self.prepare, self.read = paths, size, prepare, read

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int):
        try:
            picture, form, (width, height) = open_image(self.paths[i])
            picture = self.prepare(picture) if self.prepare else picture
        except SDDError as e:
            blank = Image.new("RGB", (self.size, self.size))
            return self.read(blank), {"width": "", "height": "", "format": "", "error": str(e)}
        return self.read(cut(picture, self.size)), {"width": width, "height": height, "format": form, "error": ""}


def _collate(batch):
    return torch.stack([x for x, _ in batch]), [f for _, f in batch]


def iter_scores(
    model: nn.Module, paths: list[Path], batch: int = 32, workers: int = 0, prepare: Prepare | None = None
) -> Iterator[dict]:
    """A row an image as soon as its batch is done: path, score = P(fake), width, height, format, error, in the order given;
    score is "" beside an error. prepare: done to every picture before its centre crop; None: nothing, as `Scorer.score`."""
    device = pick_device()
    model.to(device).eval()
    data = Scorable(paths, model.image_size, prepare, model.prepare)
    loader = DataLoader(data, batch, num_workers=workers, collate_fn=_collate)
    left = iter(paths)
    for x, facts in progress(loader, desc="scoring"):
        with torch.inference_mode():
            # float64: a float32 sigmoid rounds every logit above 17 to the same 1.0
            p = torch.sigmoid(model(x.to(device)).logit.double()).tolist()
        for s, f in zip(p, facts, strict=True):
            if not f["error"] and not np.isfinite(s):
                f["error"] = "the model's score is no number; use a checkpoint whose weights are whole"
            yield {"path": str(next(left)), "score": "" if f["error"] else s, **f}


def score_paths(model: nn.Module, paths: list[Path], batch: int = 32, workers: int = 0) -> list[dict]:
    """All rows of `iter_scores`."""
    return list(iter_scores(model, paths, batch, workers))


def sample_rows(
    model: nn.Module, samples: list[Sample], root: Path, batch: int = 32, workers: int = 0, prepare: Prepare | None = None
) -> Iterator[dict]:
    """`iter_scores` with all of COLUMNS; paths are written relative to `root`, so that a file means the same elsewhere."""
    scored = iter_scores(model, [s.path for s in samples], batch, workers, prepare)
    for row, s in zip(scored, samples, strict=True):
        facts = {k: getattr(s, k) for k in ("label", "generator", "family", "split", "photo")}
        yield {**row, **facts, "path": os.path.relpath(s.path, root)}


def score_samples(model: nn.Module, samples: list[Sample], root: Path, batch: int = 32, workers: int = 0) -> list[dict]:
    """All rows of `sample_rows`."""
    return list(sample_rows(model, samples, root, batch, workers))


def write_csv(rows: Iterable[dict], path: str | Path, columns: Iterable[str] = COLUMNS) -> None:
    """Write rows atomically: a killed run leaves the old file or the new one."""
    # a file name may be any bytes
    with replaced(Path(path)) as part, part.open("w", newline="", encoding="utf-8", errors="surrogateescape") as f:
        write_rows(f, rows, columns)


def write_rows(file: TextIO, rows: Iterable[dict], columns: Iterable[str]) -> None:
    """Header and rows as CSV. A row with a carriage return is quoted: the csv of Python 3.11 leaves one bare, which a
    reader takes for the end of the row."""
    how = {"fieldnames": list(columns), "extrasaction": "ignore", "lineterminator": "\n"}
    plain, quoted = csv.DictWriter(file, **how), csv.DictWriter(file, **how, quoting=csv.QUOTE_ALL)
    plain.writeheader()
    for row in rows:
        (quoted if any("\r" in v for v in row.values() if isinstance(v, str)) else plain).writerow(row)


def read_scores(path: str | Path) -> list[dict]:
    """Rows of a scores.csv with label as int and score as float (None beside an error)."""
    path = Path(path)
    if not path.is_file():
        raise SDDError(f"scores file {path} is missing; run notebook 04_evaluate or `python -m sddlib run` first")
    rows = read_csv(path)
    absent = [c for c in COLUMNS if not rows or c not in rows[0]]
    if absent:
        raise SDDError(f"scores file {path} has no column {absent[0]!r} or no rows; write it with sddlib.evaluate")
    for number, r in enumerate(rows, 2):
        try:
            r["label"], r["score"] = int(r["label"]), float(r["score"]) if r["score"] else None
        except (TypeError, ValueError):
            r["label"] = None
        if r["label"] not in (0, 1) or r["score"] is not None and not 0 <= r["score"] <= 1:
            raise SDDError(f"scores file {path}: row {number} has no label 0 or 1 or no score in 0..1; write the file again")
    return rows


def by_generator(rows: list[dict], split: str = "test") -> dict[str, list[dict]]:
    """For each generator of the split, in file order: the reals it stands against (dev's are validation's), then its fakes."""
    names = dict.fromkeys(r["generator"] for r in rows if r["label"] == 1 and r["split"] == split)
    reals = [r for r in rows if r["label"] == 0 and r["split"] == ("val" if split == "dev" else split)]
    against = stand_against((r["generator"] for r in reals), names)
    groups = {g: [r for r in reals if r["generator"] in against[g]] for g in names}
    for r in rows:
        if r["label"] == 1 and r["split"] == split:
            groups[r["generator"]].append(r)
    return groups


def seen_generators(rows: list[dict]) -> set[str]:
    """Generators whose fakes lie in validation, that is in training: every other one is unseen."""
    return {r["generator"] for r in rows if r["label"] == 1 and r["split"] == "val"}


def headline(lines: list[dict]) -> tuple[str, list[dict]]:
    """The lines of a table that means are taken over, and what to call them: ("unseen", those of generators that were not in
    training), or ("seen", all) where training held every generator, which says nothing about others."""
    unseen = [line for line in lines if not line["seen"]]
    return ("unseen", unseen) if unseen else ("seen", lines)


def table(rows: list[dict], split: str = "test") -> tuple[list[dict], dict[str, float]]:
    """Per-generator metrics of a scores file, and the summary over unseen generators.

    The threshold is fitted on the file's own validation rows. Summary: threshold, mean_ap_unseen, mean_auroc_unseen,
    mean_acc_unseen (at the validation threshold), mean_acc05_unseen, min_ap_unseen, and ap_seen where there is one. Where
    training held every generator the names end in _seen.
    """
    threshold = fit_threshold([r for r in rows if r["split"] == "val"])
    seen = seen_generators(rows)
    lines = []
    for name, group in by_generator(rows, split).items():
        family = next(r["family"] for r in group if r["label"] == 1)
        facts = {"generator": name, "family": family, "seen": name in seen}
        lines.append({**facts, **metrics(*arrays(group), threshold)})
    if not lines:
        raise SDDError(f"the {split} split holds no fakes; check the manifest's split and label")
    over, chosen = headline(lines)
    mean = {k: float(np.mean([line[k] for line in chosen])) for k in ("ap", "auroc", "acc", "acc_val")}
    summary = {"threshold": threshold, f"mean_ap_{over}": mean["ap"], f"mean_auroc_{over}": mean["auroc"]}
    summary |= {f"mean_acc_{over}": mean["acc_val"], f"mean_acc05_{over}": mean["acc"]}
    summary[f"min_ap_{over}"] = min(line["ap"] for line in chosen)
    if trained_on := [line["ap"] for line in lines if line["seen"]]:
        summary["ap_seen"] = float(np.mean(trained_on))
    return lines, summary
