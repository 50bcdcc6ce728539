"""Is a benchmark on disk the one that was published? Counts, broken and doubled files, and what files alone give away.

Nothing is dropped or resampled: what is found is a `Report`; `verify_report` makes text of it.
"""

import os
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from .benchmarks import PROGAN_20, SYNRIS, UNIVFD, TestSet, side_of
from .data import SPLITS
from .filefacts import cores, inspect_files, misnamed
from .layouts import Listing, Names, absent_classes, benchmark_root, half_sets, list_benchmark, reals_of
from .leaks import leaks
from .near_duplicates import alike, look_alikes
from .places import SHARING

COLUMNS = "path split set family label bytes sha256 phash format mode width height quality error problems".split()
CLASS = ("real", "fake")
SHARED = {"+".join(s.name for s in sets): folder for folder, sets in SHARING.items()}  # reals' generator -> their folder


def shown_set(generator: str, label: int) -> str:
    """A set as a reader knows it: reals that sets share by their folder."""
    return generator if label else SHARED.get(generator, generator)


@dataclass
class Report:
    """What was found. files: a row a file (COLUMNS; paths relative to the root). sets: a row for each class of each set. leaks:
    (split, set) -> AUROC by name, and how many reals and fakes it is of. The lists hold sentences or (path, sentence)."""

    root: str
    layout: str
    listing: Listing
    files: list[dict]
    sets: list[dict] = field(default_factory=list)
    leaks: dict[tuple[str, str], dict] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    differs: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    empty: list[tuple[str, str]] = field(default_factory=list)
    undecodable: list[tuple[str, str]] = field(default_factory=list)
    mislabelled: list[tuple[str, str]] = field(default_factory=list)
    duplicates: list[list[dict]] = field(default_factory=list)
    misnamed: list[tuple[str, str]] = field(default_factory=list)
    look_alikes: list[str] = field(default_factory=list)
    flat: list[str] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """1 if it is not whole or has files that would spoil it, else 0; leaks and duplicates within a split are warnings."""
        spoiling = (self.missing, self.differs, self.empty, self.undecodable, self.mislabelled, self.look_alikes, self.across)
        return int(any(spoiling))

    @property
    def across(self) -> list[str]:
        """Files of the same bytes on two sides of training, validation and test."""
        return [" = ".join(r["path"] for r in g) for g in self.duplicates if len({side_of(r["split"]) for r in g}) > 1]


def verify(path: str, layout: str, classes: Names = None, splits: Names = None, workers: int | None = None) -> Report:
    """Read and decode every file of a benchmark. Arguments as `read_benchmark`; workers: processes, None for all cores."""
    listing, root = list_benchmark(path, layout, classes, splits), benchmark_root(path)
    facts = inspect_files([str(s.path) for s in listing.samples], workers or cores())
    files = []
    for s, f in zip(listing.samples, facts, strict=True):
        where = s.photo if layout != "manifest" else os.path.relpath(s.path, root)
        known = {"split": s.split, "set": s.generator, "family": s.family, "label": s.label}
        files.append({"path": where, **known, **f, "problems": []})
    report = Report(str(path), layout, listing, files)
    cells: dict[tuple, list[dict]] = defaultdict(list)
    for r in files:
        cells[r["split"], r["set"], r["label"]].append(r)
    expected = expected_sets(layout, splits)
    report.sets = [describe(key, rows, expected) for key, rows in cells.items()]
    report.missing, report.differs = count_sets(report, cells, expected)
    report.missing += [f"{folder}: an empty folder" for folder in listing.empty]
    for split, name in absent_classes(listing.samples, root, classes or PROGAN_20, splits) if layout == "univfd" else ():
        report.missing.append(f"{split} progan: no images of class {name}")
    if layout == "synris":
        known = {s.name for s in SYNRIS}
        report.unknown = list(dict.fromkeys(r["set"] for r in files if r["split"] == "test" and r["set"] not in known))
    find_bad_files(report, root)
    find_duplicates(report)
    find_look_alikes(report)
    for split in SPLITS:
        for name, rows in tested_together(cells, split, layout).items():
            rows = [r for r in rows if not r["error"]]
            counts = Counter(r["label"] for r in rows)
            report.leaks[split, name] = leaks(rows) | {"n_real": counts[0], "n_fake": counts[1]}
    for r in files:
        r["problems"] = "; ".join(r["problems"])
    return report


def expected_sets(layout: str, splits: Names) -> dict[tuple[str, str], TestSet]:
    """(split, name) -> the sets that a public layout must have: UnivFD's 19 and ProGAN in train and val; SynRIS's 13."""
    test = {"univfd": UNIVFD, "synris": SYNRIS}.get(layout, ())
    found = {(split, "progan"): TestSet("progan", "gan") for split in ("train", "val") if layout == "univfd"}
    found |= {("test", s.name): s for s in test}
    return {key: s for key, s in found.items() if not splits or key[0] in splits}


def count_sets(report: Report, cells: dict, expected: dict) -> tuple[list[str], list[str]]:
    """(what is missing, what has another number of files than published), a sentence each."""
    missing, differs = [], []
    for (split, name), s in expected.items():
        for label, published in ((0, s.real), (1, s.fake)):
            keys = [k for k in cells if k[0] == split and k[2] == label and name in k[1].split("+")]
            n = sum(len(cells[k]) for k in keys)
            if not n:
                missing.append(f"{split} {name}: no {CLASS[label]} images")
            elif published is not None and n != published:
                differs.append(f"{split} {name}: {n} {CLASS[label]} images, published are {published}")
    for split, name, lacking in half_sets(report.listing.samples, report.layout):
        missing += [f"{split} {part}: no {lacking} images" for part in name.split("+")]
    return list(dict.fromkeys(missing)), differs


def describe(key: tuple[str, str, int], rows: list[dict], expected: dict) -> dict:
    """One class of a set: N, published N, and what its decodable files are like; numbers as (least, median, most)."""
    split, name, label = key
    sets = [expected.get((split, part)) for part in name.split("+")]
    published = {s and (s.fake if label else s.real) for s in sets}
    good = [r for r in rows if not r["error"]]
    found = {"split": split, "set": shown_set(name, label), "class": CLASS[label], "n": len(rows)}
    found["published"] = published.pop() if len(published) == 1 else None
    found |= {what: dict(Counter(r[what] for r in good).most_common()) for what in ("format", "mode")}
    for what in ("width", "height", "quality"):
        values = [r[what] for r in good if r[what] is not None]
        found[what] = tuple(float(v) for v in np.quantile(values, (0, 0.5, 1))) if values else None
    return found


def find_bad_files(report: Report, root: Path) -> None:
    """Fill undecodable, empty, misnamed, and of mislabelled the files whose folders contradict each other."""
    mixed = {str(p) for p in report.listing.mixed}
    for r in report.files:
        if r["bytes"] == 0:
            report.empty.append((r["path"], "zero bytes"))
            r["problems"].append("zero bytes")
        elif r["error"]:
            report.undecodable.append((r["path"], r["error"]))
            r["problems"].append("undecodable")
        if misnamed(r["path"], r["format"]):
            report.misnamed.append((r["path"], f"is {r['format']}"))
            r["problems"].append(f"its name says another container than {r['format']}")
        if mixed and str(root / r["path"]) in mixed:
            report.mislabelled.append((r["path"], "lies in a folder of reals and in one of fakes"))
            r["problems"].append("mislabelled: in folders of both classes")


def find_duplicates(report: Report) -> None:
    """Fill duplicates (files of the same bytes) and, where such files are real here and fake there, mislabelled."""
    same: dict[str, list[dict]] = defaultdict(list)
    for r in report.files:
        if r["bytes"]:
            same[r["sha256"]].append(r)
    for group in same.values():
        if len(group) < 2:
            continue
        if len({r["label"] for r in group}) > 1:
            real, fake = (next(r["path"] for r in group if r["label"] == label) for label in (0, 1))
            report.mislabelled += [
                (r["path"], f"the same bytes are {'real' if r['label'] else 'fake'} in {real if r['label'] else fake}")
                for r in group
            ]
            for r in group:
                r["problems"].append("mislabelled: the same bytes in both classes")
        else:
            report.duplicates.append(group)
            for r in group:
                r["problems"].append(f"duplicate of {group[r is group[0]]['path']}")


def find_look_alikes(report: Report) -> None:
    """Fill look_alikes, pictures on two sides of training, validation and test, and flat, files that could not be compared."""
    if len({side_of(r["split"]) for r in report.files}) < 2:
        return
    for one, other, differ in look_alikes(report.files):
        report.look_alikes.append(alike(one, other, differ))
        for r, twin in ((one, other), (other, one)):
            r["problems"].append(f"looks like {twin['path']} of split {twin['split']}")
    report.flat = [r["path"] for r in report.files if not r["error"] and not r["phash"]]


def tested_together(cells: dict, split: str, layout: str) -> dict[str, list[dict]]:
    """Generator of a split -> its fakes and the reals that they are tested against."""
    fakes = [g for part, g, label in cells if part == split and label]
    side = "val" if split == "dev" else split
    against = reals_of(layout, [g for part, g, label in cells if part == side and not label], fakes)
    return {g: [r for real in against[g] for r in cells[side, real, 0]] + cells[split, g, 1] for g in fakes}
