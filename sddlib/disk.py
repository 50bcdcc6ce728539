"""Paths that users give, files that are there whole or not at all, and files that only one process works on."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path

from . import SDDError
from .columns import printable


def expanded(path: str | Path) -> Path:
    """A path with a leading ~ or ~user in full."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise SDDError(f"{printable(path)}: no home directory is known for this; write the path in full") from None


@contextmanager
def replaced_together(*paths: Path) -> Iterator[list[Path]]:
    """As `replaced`, for files that mean nothing without each other, the record that describes the others last.

    Nothing changes until all are written. The record goes first and comes back last: killed in between, new contents never
    meet old facts.
    """
    parts = [path.with_name(f"{path.name}.{os.getpid()}.part") for path in paths]
    try:
        yield parts
        for part in parts:
            with part.open("rb+") as f:
                os.fsync(f.fileno())
        if len(paths) > 1:
            paths[-1].unlink(missing_ok=True)
        for part, path in zip(parts, paths, strict=True):
            part.replace(path)
    finally:
        for part in parts:
            part.unlink(missing_ok=True)


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to; on leaving it takes its place; after an error it is gone and `path` as before.

    What was written is on the disk before the name changes, so that a loss of power leaves one of the two.
    """
    with replaced_together(path) as (part,):
        yield part


@contextmanager
def alone(lock: Path) -> Iterator[bool]:
    """True while no other process gets in here with the same `lock`, a file that is gone afterwards; False if one is in. A lock
    of the operating system, which frees it when its process ends in whatever way."""
    from filelock import FileLock, Timeout

    held = FileLock(lock)
    try:
        held.acquire(timeout=0)
    except Timeout:
        yield False
        return
    except NotImplementedError:
        raise SDDError(f"{lock.parent} lies on a file system without locks; name a folder on another disk") from None
    try:
        yield True
    finally:
        with suppress(OSError):  # Windows keeps a file that is open, and takes this one away itself
            lock.unlink()
        held.release()


@contextmanager
def held_alone(lock: Path, said: str) -> Iterator[None]:
    """`alone`, or SDDError(said) while another process is."""
    with alone(lock) as mine:
        if not mine:
            raise SDDError(said)
        yield


@contextmanager
def alone_at(folder: Path, name: str) -> Iterator[None]:
    """`held_alone` for a piece of work with a name, whose lock lies in a folder, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    with held_alone(folder / f"{name}.lock", f"another process is at {name} in {folder}; wait for it, or name other ones"):
        yield


def remove_parts(path: Path) -> None:
    """Delete what processes that were killed while they wrote `path` have left beside it. Call it where no other one can be at
    that now."""
    for part in path.parent.glob(f"{escape(path.name)}.*.part"):
        if part.name[len(path.name) + 1 : -len(".part")].isdigit():
            part.unlink()
