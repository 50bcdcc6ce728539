"""From a manifest or a folder to normalised crops: Sample -> decode -> crop -> CLIP mean/std -> (3, H, W)."""

import csv
import hashlib
import os
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from . import SDDError
from .benchmarks import side_of
from .limits import CELLS, CSV, check_size
from .pictures import IMAGE_SUFFIXES, decode, open_image, to_rgb  # noqa: F401  the last two for those who look here

SPLITS = ("train", "val", "dev", "test")
# CLIP's, as in `open_clip.constants`: importing that package takes seconds, and most commands need no CLIP
MEAN = torch.tensor((0.48145466, 0.4578275, 0.40821073)).view(3, 1, 1)
STD = torch.tensor((0.26862954, 0.26130258, 0.27577711)).view(3, 1, 1)


@dataclass(frozen=True)
class Sample:
    """One image of a benchmark. label: 1 = fake. photo: the photograph it shows, the unit of splits and bootstraps.
    generator: of a fake, what made it; of a real, the generators it stands against joined by "+", or a name that is none of
    theirs (camera), and then it stands against all."""

    path: Path
    label: int
    generator: str
    family: str
    split: str
    photo: str


def read_manifest(path: str | Path, splits: tuple[str, ...] | None = None) -> list[Sample]:
    """The rows of a manifest CSV in file order; image paths are relative to the manifest and may lead anywhere: a picture is
    only ever decoded. splits: keep only these.

    Columns path, label, generator, split, and perhaps family and photo: without them a generator is its own family, and every
    image shows a photograph of its own.
    """
    path = Path(path)
    if not path.is_file():
        raise SDDError(f"manifest {path} is missing; give the path of a CSV with path,label,generator,split[,family,photo]")
    rows = read_csv(path)
    needed = ("path", "label", "generator", "split")
    absent = [c for c in needed if rows and c not in rows[0]]
    if not rows or absent:
        raise SDDError(f"manifest {path} has no " + (f"column {absent[0]!r}" if absent else "rows") + "; mend the CSV")
    if any(r["label"] not in ("0", "1") for r in rows):
        raise SDDError(f"manifest {path} has a label that is neither 0 (real) nor 1 (fake); mend the CSV")
    columns = [c for c in (*needed, "family", "photo") if c in rows[0]]
    for number, r in enumerate(rows, 2):
        if None in r or any(not r[c] for c in columns):
            raise SDDError(f"manifest {path}: row {number} has an empty cell or too many or few cells; mend it")
        if r["split"] not in SPLITS:
            raise SDDError(f"manifest {path}: row {number} has the split {r['split']!r}; use {', '.join(SPLITS)}")
    if len({r["path"] for r in rows}) < len(rows):
        raise SDDError(f"manifest {path} lists a path twice; mend the CSV")
    for r in rows:
        r |= {"family": r.get("family", r["generator"]), "photo": r.get("photo", r["path"])}
    facts = ("generator", "family", "split", "photo")
    samples = [Sample(path.parent / r["path"], int(r["label"]), *(r[c] for c in facts)) for r in rows]
    check_splits(samples, path)
    return [s for s in samples if splits is None or s.split in splits]


def read_csv(path: Path) -> list[dict]:
    """The rows of a CSV in UTF-8, with or without the mark that Excel puts before it; file names may be any bytes. A field has
    131,072 characters at most, the csv module's own limit."""
    try:
        check_size(path, CSV)
        with path.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as f:
            reader = csv.DictReader(f)
            most = CELLS // max(1, len(reader.fieldnames or ()))
            rows = list(islice(reader, most + 1))
    except (csv.Error, OSError) as e:
        raise SDDError(f"{path} cannot be read as a CSV file ({e}); mend it or name another") from None
    if len(rows) > most:
        raise SDDError(f"{path} has more than {CELLS:,} cells, and no more are read; give fewer rows or columns")
    return rows


def check_splits(samples: list[Sample], name) -> None:
    """Refuse a photograph that lies on both sides of training, validation and test. `dev` shares validation's."""
    where: dict[str, str] = {}
    for s in samples:
        side = side_of(s.split)
        if where.setdefault(s.photo, side) != side:
            raise SDDError(f"{name}: photograph {s.photo!r} is in {where[s.photo]} and in {side}; keep it in one split")


def check_training(train: list[Sample], val: list[Sample]) -> None:
    """Refuse training images of another split than train, and images of another than val to choose an epoch or a setting by."""
    for samples, split, what in ((train, "train", "training"), (val, "val", "the choice of a checkpoint")):
        if foreign := [s for s in samples if s.split != split]:
            name = f"{foreign[0].path.name} is of split {foreign[0].split}"
            raise SDDError(f"{what} takes images of split {split}, and {name}; leave out what is of another")


def data_hash(samples: list[Sample]) -> str:
    """sha256 over names, labels and splits in order: which data a detector saw."""
    lines = "\n".join(f"{s.path.name},{s.label},{s.generator},{s.split}" for s in samples)
    return hashlib.sha256(lines.encode(errors="surrogateescape")).hexdigest()


def scan_paths(paths: list[str | Path], others: list[Path] | None = None) -> list[Path]:
    """Files as given, and the image files below each folder, sorted. What does not exist or cannot be opened, a folder too,
    is kept for its error row. others: a list that takes the files in folders whose suffix is no image's."""
    found: list[Path] = []
    for p in map(Path, paths):
        if not os.path.isdir(p):
            found.append(p)
            continue
        inside: list[Path] = []
        seen: set[str] = set()  # links are followed, a loop of them only once
        for folder, below, files in os.walk(p, onerror=lambda e: inside.append(Path(e.filename)), followlinks=True):  # noqa: B023
            if os.path.realpath(folder) in seen:
                below.clear()
                continue
            seen.add(os.path.realpath(folder))
            images = [f for f in files if Path(f).suffix.lower() in IMAGE_SUFFIXES]
            inside += [Path(folder, f) for f in images]
            if others is not None:
                others += [Path(folder, f) for f in sorted({*files} - {*images})]
        found += sorted(inside)
    return found


def cut(picture: Image.Image, size: int, left: float = 0.5, top: float = 0.5, flip: bool = False) -> Image.Image:
    """A size*size crop; never resized up or down when large enough.

    left, top in [0, 1]: where in the free room the crop sits; 0.5 is the centre. A side below `size` is first enlarged
    (bicubic, aspect kept), since there is nothing to crop.
    """
    w, h = picture.size
    if min(w, h) < size:
        scale = size / min(w, h)
        picture = picture.resize((max(size, round(w * scale)), max(size, round(h * scale))), Image.BICUBIC)
        w, h = picture.size
    x, y = round((w - size) * left), round((h - size) * top)
    crop = picture.crop((x, y, x + size, y + size))
    return crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flip else crop


def normalised(crop: Image.Image) -> Tensor:
    """An RGB picture as a CLIP-normalised (3, H, W) tensor."""
    return (torch.from_numpy(np.array(crop)).permute(2, 0, 1).float() / 255 - MEAN) / STD


def to_input(picture: Image.Image, size: int, left: float = 0.5, top: float = 0.5, flip: bool = False) -> Tensor:
    """`cut`, then `normalised`: (3, size, size)."""
    return normalised(cut(picture, size, left, top, flip))
