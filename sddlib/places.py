"""What a folder's place in a benchmark says of the images in it: class, generator, family, split. Names and tables only."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from . import SDDError
from .benchmarks import SYNRIS, SYNRIS_TRAINING, UNIVFD, UNIVFD_FOLDERS
from .data import SPLITS

Parts = tuple[str, ...]  # of a folder's path below the root
Facts = tuple[int, str, str, str]  # label, generator, family, split

EXPECTED = {
    "univfd": "{train,val}/progan/CLASS/{0_real,1_fake}, test/SET/[CLASS/]{0_real,1_fake} and "
    "[test/]diffusion_datasets/SET/1_fake beside imagenet/0_real and laion/0_real",
    "synris": "GENERATOR/{0_real,1_fake} and {train,val}/[GENERATOR/]{0_real,1_fake}",
    "folder": "[SPLIT/][GENERATOR/]{0_real,1_fake} or {real,fake}",
}
CLASSES = {"0_real": 0, "1_fake": 1}  # folders, whatever their case
NEARLY = ("training", "validation", "valid", "testing")  # folders that look like splits
PLAIN = CLASSES | {"real": 0, "fake": 1}  # of layout folder
OWN = {UNIVFD_FOLDERS.get(s.name, s.name): s for s in UNIVFD if not s.reals}  # folder -> set with reals of its own
SHARING = {s.reals: [t for t in UNIVFD if t.reals == s.reals] for s in UNIVFD if s.reals}  # folder of reals -> its sets
FAMILIES = {s.name: s.family for s in (*SYNRIS, SYNRIS_TRAINING)}


def class_folders(layout: str, parts: Parts) -> list[tuple[int, int]]:
    """(place in parts, label) of every folder whose name is that of a class; the outermost first."""
    names = PLAIN if layout == "folder" else CLASSES
    return [(i, names[p.lower()]) for i, p in enumerate(parts) if p.lower() in names]


def place(layout: str, parts: Parts) -> Facts | None:
    """The facts of images in a folder, or None where the layout has no place for it."""
    found = class_folders(layout, parts)
    return RULES[layout](parts, *found[0]) if found else None


def split_of(parts: Parts) -> str:
    """The split that the top folder names, else test. A name that is nearly one is an error: its images would be tested."""
    if parts and parts[0] not in SPLITS and parts[0].lower() in (*SPLITS, *NEARLY):
        raise SDDError(f"folder {parts[0]!r} looks like a split; call it {', '.join(SPLITS)}, or else what it holds")
    return parts[0] if parts and parts[0] in SPLITS else "test"


def is_training(parts: Parts) -> bool:
    """Whether this is layout univfd's train/progan or val/progan, or lies in it."""
    return parts[0] in ("train", "val") and parts[1:2] == ("progan",)


def _univfd(parts: Parts, at: int, label: int) -> Facts | None:
    if parts[0] in ("train", "val"):
        return (label, "progan", OWN["progan"].family, parts[0]) if is_training(parts) else None
    inside = parts[1:] if parts[0] == "test" else parts
    if inside[0] == "diffusion_datasets":
        sets = [s for s in UNIVFD if s.reals and s.name == inside[1]] if label else SHARING.get(inside[1], [])
    else:
        sets = [OWN[inside[0]]] if parts[0] == "test" and inside[0] in OWN else []
    return (label, "+".join(s.name for s in sets), sets[0].family, "test") if sets else None


def _generator(parts: Parts, at: int) -> Parts:
    """The folders between split and class."""
    return parts[:at][parts[0] in SPLITS :]


def _synris(parts: Parts, at: int, label: int) -> Facts | None:
    below, split = _generator(parts, at), split_of(parts)
    name = below[0] if below else SYNRIS_TRAINING.name if split in ("train", "val") else ""
    return (label, name, FAMILIES.get(name, name), split) if name else None


def _folder(parts: Parts, at: int, label: int) -> Facts:
    name = "/".join(_generator(parts, at)) or ("fake" if label else "camera")
    return label, name, name, split_of(parts)


RULES = {"univfd": _univfd, "synris": _synris, "folder": _folder}


def walk(root: Path, skip: Callable[[Parts], bool]) -> Iterator[tuple[Parts, list[str]]]:
    """(a folder's parts, names of its files), folders and files sorted, without the folders that `skip` names.

    Links are followed, a loop of them once. A folder's own list says what in it is a folder: no file is asked for anything, so
    that a million files take seconds.
    """

    def visit(folder: str, parts: Parts, above: frozenset):
        real = os.path.realpath(folder)
        if real in above:
            return
        folders, files = [], []
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    (folders if _is_folder(entry) else files).append(entry.name)
        except OSError as e:
            raise SDDError(f"folder {folder} cannot be opened ({e.strerror}); mend it, or move it away") from None
        yield parts, sorted(files)
        for name in sorted(folders):
            if not skip((*parts, name)):
                yield from visit(os.path.join(folder, name), (*parts, name), above | {real})

    return visit(str(root), (), frozenset())


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself: a file that cannot be read, and is said to be one
        return False
