"""Scores that are computed once: by one process or by many, in parts that a killed scoring goes on from, saved with what
they depend on, so that a second evaluation reads them."""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict
from itertools import islice
from pathlib import Path

from . import SDDError, __version__
from .data import Sample
from .disk import replaced_together
from .embedded import sha256
from .evaluate import Prepare, read_scores, sample_rows, write_csv
from .parallel import from_first, rank, wait, world
from .profiles import read_json
from .protocols import Protocol
from .runs import write_json
from .stored import Stored

PART = 512  # images of a part: some batches, and not many minutes to lose


def images_hash(samples: list[Sample], root: Path) -> str:
    """sha256 over what a scores file says of its images, and the size of each file in bytes; other contents of the same size
    go unnoticed."""
    digest = hashlib.sha256()
    for s in samples:
        size = s.path.stat().st_size if s.path.is_file() else -1
        line = [os.path.relpath(s.path, root), s.label, s.generator, s.family, s.split, s.photo, size]
        digest.update(json.dumps(line).encode())
    return digest.hexdigest()


def settings_of(model: Stored, samples: list[Sample], root: Path, protocol: Protocol, quality: int) -> dict:
    """All that scores depend on, beside numerics. model: loaded from a file. quality: of the JPEG that every picture is made
    to be, or 0."""
    facts = {"checkpoint": model.about["sha256"], "method": model.kind, "image_size": model.image_size}
    facts |= {"protocol": asdict(protocol), "jpeg": quality, "images": images_hash(samples, root), "count": len(samples)}
    return facts | {"version": __version__}


def find_saved(path: Path, settings: dict) -> tuple[list[dict] | None, str]:
    """(rows of a scores file made with these settings, or None; a sentence that says which, and what differs)."""
    name, record = f"{path.parent.name}/{path.name}", path.with_suffix(".json")
    if not path.is_file() or not record.is_file():
        return None, f"{name}: scoring {settings['count']} images"
    try:
        facts = read_json(record)
        known = facts["settings"]
        if differ := [k for k in settings if known.get(k) != settings[k]]:
            return None, f"{name}: was made with another {', '.join(differ)}; scoring again"
        if facts["scores"] != sha256(path):
            return None, f"{name}: is not the file that was written; scoring again"
        return read_scores(path), f"{name}: {settings['count']} saved scores of this checkpoint, images and protocol read"
    except (SDDError, LookupError, AttributeError) as e:
        return None, f"{name}: its record is broken ({e}); scoring again"


def saved_scores(
    model: Stored,
    samples: list[Sample],
    root: Path,
    path: Path,
    protocol: Protocol,
    quality: int = 0,
    force: bool = False,
    batch: int = 32,
    workers: int = 0,
) -> list[dict]:
    """Rows of PATH as `read_scores` gives them; scored and written first if PATH is not of these settings, or by `force`.

    PATH.json holds the settings; it is written last. Processes that torch.distributed joins share the work, and need to see
    the same folder. What a killed scoring has done lies in PATH.parts and is not done again.
    """
    settings = settings_of(model, samples, root, protocol, quality)
    prepare = protocol.preparation(settings["image_size"], quality) if quality or protocol.resize or protocol.pads else None
    return scored_once(model, samples, root, path, settings, prepare, force, batch, workers)


def scored_once(
    model: Stored,
    samples: list[Sample],
    root: Path,
    path: Path,
    settings: dict,
    prepare: Prepare | None,
    force: bool = False,
    batch: int = 32,
    workers: int = 0,
    say: Callable[[str], None] = print,
) -> list[dict]:
    """What `saved_scores` does, for any preparation of the pictures. settings: all that the scores depend on, with "count";
    say: gets the sentence that tells what is done."""
    if not samples:
        raise SDDError(f"there are no images to score for {path.name}; check the splits of the benchmark")
    rows, said = (None, f"{path.parent.name}/{path.name}: scoring again, as asked") if force else find_saved(path, settings)
    if rank() == 0:
        say(said)
    if from_first(rows is not None):  # the first process decides for all: a shared disk may show the others an older state
        return read_scores(path) if rows is None else rows
    folder, begin = path.with_suffix(".parts"), time.perf_counter()
    if rank() == 0 and force:
        shutil.rmtree(folder, ignore_errors=True)
    wait()
    parts = part_files(folder, settings)
    score_parts(model, samples, root, {k: parts[k] for k in range(rank(), len(parts), world())}, prepare, batch, workers)
    wait()
    if rank() == 0:
        assemble(parts, path, samples, root, settings)
        say(f"{path.parent.name}/{path.name}: scored in {time.perf_counter() - begin:.0f} s")
    wait()
    return read_scores(path)


def part_files(folder: Path, settings: dict) -> list[Path]:
    """Where the parts of a scoring lie, in order; another scoring has other names."""
    digest = hashlib.sha256(json.dumps([settings, PART], sort_keys=True).encode()).hexdigest()[:12]
    return [folder / f"{digest}-{k:05d}.csv" for k in range(-(-settings["count"] // PART))]


def score_parts(model, samples: list[Sample], root: Path, parts: dict[int, Path], prepare, batch: int, workers: int) -> None:
    """Write those parts (number -> file) that are not there yet, each as soon as its last image is scored."""
    absent = {k: file for k, file in parts.items() if not file.is_file()}
    images = {k: samples[k * PART : (k + 1) * PART] for k in absent}
    if len(absent) < len(parts):
        print(f"{len(parts) - len(absent)} of {len(parts)} parts are there")
    if not absent:
        return
    next(iter(absent.values())).parent.mkdir(parents=True, exist_ok=True)
    rows = sample_rows(model, [s for part in images.values() for s in part], root, batch, workers, prepare)
    for k, file in absent.items():
        write_csv(list(islice(rows, len(images[k]))), file)


def assemble(parts: list[Path], path: Path, samples: list[Sample], root: Path, settings: dict) -> None:
    """PATH and its JSON from all parts, every image once and in order, or an error; the parts are deleted."""
    if absent := [file for file in parts if not file.is_file()]:
        raise SDDError(f"part {absent[0].name} was not written; let all processes see the folder {path.parent}, and go on")
    rows = [row for file in parts for row in read_scores(file)]
    if [r["path"] for r in rows] != [os.path.relpath(s.path, root) for s in samples]:
        raise SDDError(f"the parts in {parts[0].parent} are not those of this scoring; delete the folder and score again")
    unreadable = sum(bool(r["error"]) for r in rows)
    with replaced_together(path, path.with_suffix(".json")) as (scores, record):
        write_csv(rows, scores)
        write_json(record, {"settings": settings, "unreadable": unreadable, "scores": sha256(scores)})
    shutil.rmtree(parts[0].parent)
