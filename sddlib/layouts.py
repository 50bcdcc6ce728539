"""Public benchmarks on disk as samples: where an image lies says its class, generator and split. No image is opened."""

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from . import SDDError
from .benchmarks import SYNRIS, UNIVFD, stand_against
from .data import IMAGE_SUFFIXES, SPLITS, Sample, read_manifest
from .places import EXPECTED, Parts, class_folders, is_training, place, split_of, walk

LAYOUTS = ("manifest", *EXPECTED)
OWN_REALS = ("univfd", "synris")
LENT = {"val": ("dev",)}  # splits that use the reals of another
RANK = {s.name: i for i, s in enumerate((*UNIVFD, *SYNRIS))}
Names = tuple[str, ...] | None


@dataclass
class Listing:
    """samples: in the order of splits, of the papers' tables, of paths. mixed: images that lie in a folder of reals and in one
    of fakes at once; among the samples they have the class of the outer one. unread: folder -> images in it for which the
    layout has no place. other: suffix -> files beside the samples that are no images by their names. empty: class folders
    without an image."""

    samples: list[Sample] = field(default_factory=list)
    mixed: list[Path] = field(default_factory=list)
    unread: Counter = field(default_factory=Counter)
    other: Counter = field(default_factory=Counter)
    empty: list[str] = field(default_factory=list)


def benchmark_root(path: str | Path) -> Path:
    """Where relative paths of a benchmark start: the folder itself, or the one that a manifest lies in."""
    return Path(path) if Path(path).is_dir() else Path(path).parent


def read_benchmark(path: str | Path, layout: str, classes: Names = None, splits: Names = None) -> list[Sample]:
    """The images of a benchmark. path: a manifest CSV, or the root of another of LAYOUTS. Reads what is there.

    classes: of layout univfd, the class folders of train and val to read (such as PROGAN_4). splits: keep only these. A real's
    generator names the fakes it stands against (see `data.Sample`); reals that sets share come once; every image of a folder
    is a photograph of its own, named by its path. Which sets are missing is for `verify` to say; an SDDError is raised for a
    set with one class only, an empty class folder, an image in folders of both classes, and a root without any image.
    """
    found = list_benchmark(path, layout, classes, splits)
    if layout == "manifest":
        return found.samples
    if found.mixed:
        raise SDDError(f"{found.mixed[0]} lies in a folder of reals and in one of fakes; move it out of one")
    if found.empty:
        raise SDDError(f"{Path(path, found.empty[0])} holds no images; fill it or remove it")
    for split, name in absent_classes(found.samples, Path(path), classes, splits):
        raise SDDError(f"{Path(path, split, 'progan')} has no images of class {name!r}; add them or name other classes")
    for split, name, lacking in half_sets(found.samples, layout):
        raise SDDError(f"{path}: set {name} of {split} has no {lacking} images; complete it or remove it")
    return found.samples


def list_benchmark(path: str | Path, layout: str, classes: Names = None, splits: Names = None) -> Listing:
    """What `read_benchmark` would read and what not, without an error for sets that are not whole."""
    if layout not in LAYOUTS:
        raise SDDError(f"layout {layout!r} is unknown; use {', '.join(LAYOUTS)}")
    if unknown := [s for s in splits or () if s not in SPLITS]:
        raise SDDError(f"split {unknown[0]!r} is unknown; use {', '.join(SPLITS)}")
    if classes and layout != "univfd":
        raise SDDError(f"classes choose training folders of layout univfd, and layout {layout} has none; leave them out")
    if layout == "manifest":
        if Path(path).is_dir():
            raise SDDError(f"{path} is a folder; name a manifest CSV, or its layout: {', '.join(EXPECTED)}")
        found = Listing(read_manifest(path, splits))
    elif Path(path).is_dir():
        found = _list(Path(path), layout, classes, splits)
    else:
        raise SDDError(f"{path} is no folder; layout {layout} needs the root of {EXPECTED[layout]}")
    if not found.samples:
        where = f" in {', '.join(splits)}" if splits else ""
        raise SDDError(f"{path} has no images of layout {layout}{where}; expected {EXPECTED.get(layout, 'rows of them')}")
    return found


def _list(root: Path, layout: str, classes: Names, splits: Names) -> Listing:
    def skip(parts: Parts) -> bool:
        if splits and split_of(parts) not in splits:
            return True
        return bool(classes) and layout == "univfd" and is_training(parts) and len(parts) > 2 and parts[2] not in classes

    found, blocks, read, unread, tops = Listing(), [], Counter(), Counter(), {}
    for parts, files in walk(root, skip):
        images, others = [], []
        for name in files:
            suffix = os.path.splitext(name)[1].lower()
            (images if suffix in IMAGE_SUFFIXES else others).append(name)
        facts = place(layout, parts)
        if facts is None:
            unread[parts] += len(images)
            continue
        check_name(root, layout, parts, facts, tops)
        found.other.update(os.path.splitext(name)[1].lower() or "no suffix" for name in others)
        folder, prefix = root.joinpath(*parts), "/".join(parts)
        block = [Sample(folder / name, *facts, f"{prefix}/{name}") for name in images]
        inside = class_folders(layout, parts)
        read[parts[: inside[0][0] + 1]] += len(block)
        if len({label for _, label in inside}) > 1:
            found.mixed += [s.path for s in block]
        _, generator, _, split = facts
        blocks.append(((SPLITS.index(split), RANK.get(generator.split("+")[0], len(RANK)), parts), block))
    found.samples = [s for _, block in sorted(blocks, key=lambda b: b[0]) for s in block]
    found.empty = ["/".join(parts) for parts, n in read.items() if not n]
    known = {parts[:i] for parts in read for i in range(len(parts) + 1)}
    for parts, n in unread.items():  # put together under the topmost folder of which nothing is read
        top = next((parts[:i] for i in range(len(parts) + 1) if parts[:i] not in known), parts)
        if n:
            found.unread["/".join(top) or "."] += n
    return found


def check_name(root: Path, layout: str, parts: Parts, facts: tuple, tops: dict) -> None:
    """Refuse a generator's name that reals would read as several, and a diffusion set at both of its places. tops: those of
    the sets so far."""
    label, generator, _, split = facts
    if layout != "univfd" and label and "+" in generator:
        raise SDDError(f"{root}: generator {generator!r} has a + in its name, which joins the names of several; rename it")
    if layout == "univfd" and tops.setdefault((label, generator, split), parts[0]) != parts[0]:
        raise SDDError(f"{root}: set {generator} lies in diffusion_datasets and in test/diffusion_datasets; keep one")


def absent_classes(samples: list[Sample], root: Path, classes: Names, splits: Names = None) -> list[tuple[str, str]]:
    """(split, class): which of the wanted class folders of layout univfd's train and val, where these are, hold no samples."""
    present = {tuple(s.photo.split("/")[:3:2]) for s in samples if s.split in ("train", "val")}  # SPLIT/progan/CLASS/...
    there = [p for p in ("train", "val") if (not splits or p in splits) and (root / p / "progan").is_dir()]
    return [(split, name) for split in there for name in classes or () if (split, name) not in present]


def reals_of(layout: str, reals: Iterable[str], fakes: Iterable[str]) -> dict[str, list[str]]:
    """Generator of fakes -> those of `reals` (generator values) that stand against it. A set of univfd or synris has reals of
    its own or shared ones, which name it; elsewhere reals that name none of the fakes stand against all."""
    if layout in OWN_REALS:
        return {g: [r for r in reals if g in r.split("+")] for g in fakes}
    return stand_against(reals, fakes)


def half_sets(samples: list[Sample], layout: str) -> list[tuple[str, str, str]]:
    """(split, set, "real" or "fake"): the sets that lack a class. The reals of dev are those of val."""
    cells, found = {(s.split, s.label, s.generator) for s in samples}, []
    for split in SPLITS:
        side = "val" if split == "dev" else split
        fakes = {g for part, label, g in cells if label and part == split}
        reals = {g for part, label, g in cells if not label and part == side}
        if split == "dev" and not reals:
            continue  # val was not asked for
        against = reals_of(layout, reals, fakes)
        found += [(split, g, "real") for g in sorted(fakes) if not against[g]]
        if split == side and layout in OWN_REALS:
            found += [(split, r, "fake") for r in sorted(reals) if not fakes & set(r.split("+"))]
        elif split == side and reals and not any(label and part in (split, *LENT.get(split, ())) for part, label, _ in cells):
            found.append((split, min(reals), "fake"))
    return found
