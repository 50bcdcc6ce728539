"""The scores of a long `score` on disk while it runs, a line a batch: a killed one goes on from its last whole batch."""

import hashlib
import json
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from . import SDDError, __version__
from .disk import held_alone, remove_parts, replaced
from .limits import TENSORS, check_size

NAME = "sddlib score"  # by which a journal is known
FIELDS = ("score", "width", "height", "format", "error")  # of a row; its path is known by its number
OTHER = {  # what scores depend on -> what a journal of other ones is said to be of
    "checkpoint": "another checkpoint",
    "batch": "another --batch",  # other images in a forward pass may move a float's last digits
    "files": "other files, or files that have changed since",
    "version": "another version of sddlib",
}


def head_of(checkpoint: str, batch: int, files: list[Path], machine: str) -> dict:
    """The first line of a journal. checkpoint: `about_hash`; machine: what may move last digits only, so it is
    said, no more.

    The threshold is not in it: verdicts are made of the scores when all are there.
    """
    facts = {"journal": NAME, "checkpoint": checkpoint, "batch": batch, "files": files_hash(files)}
    return facts | {"version": __version__, "count": len(files), "machine": machine}


def about_hash(about: dict) -> str:
    """sha256 over what a checkpoint's JSON says, that of its tensors among it, but for the threshold."""
    facts = {k: v for k, v in about.items() if k != "threshold"}
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def files_hash(files: list[Path]) -> str:
    """sha256 over name, size and time of change of each file; one that cannot be looked at counts by its name."""
    digest = hashlib.sha256()
    for path in files:
        try:
            found = os.stat(path)
            facts = [found.st_size, found.st_mtime_ns]
        except (OSError, ValueError):  # the latter of a name that no system takes
            facts = []
        digest.update(json.dumps([str(path), *facts]).encode())
    return digest.hexdigest()


@dataclass
class Left:
    """What lies in a journal. done: rows of whole batches, which end at byte `end`; torn: whether a broken line follows."""

    head: dict
    done: int
    end: int
    torn: bool = False


class Journal:
    """The journal of a scoring under way. done: rows that are in it; left: what an earlier process left there."""

    def __init__(self, path: Path, files: list[Path], left: Left):
        self.path, self.files, self.left, self.done = path, files, left, left.done
        self.file = path.open("rb+", buffering=0)
        self.file.truncate(left.end)
        self.file.seek(left.end)

    def add(self, rows: list[dict]) -> None:
        """Append a batch. When this returns the system has it, and whatever ends this process leaves it there."""
        line = sealed(json.dumps([[row[field] for field in FIELDS] for row in rows]))
        try:
            while line:  # a disk that is nearly full takes a part first
                line = line[self.file.write(line) :]
        except OSError as e:
            cure = f"free space and go on with --resume ({self.done} rows are kept)"
            raise SDDError(f"{self.path} cannot be written ({e.strerror}); {cure}") from None
        self.done += len(rows)

    def rows(self) -> Iterator[dict]:
        """What is in it, read from the disk, so that no row lies in memory; also after somebody has removed the file."""
        self.file.seek(0)
        with os.fdopen(os.dup(self.file.fileno()), "rb") as file:
            file.readline()
            found = (values for line in file for values in json.loads(line[9:]))
            for path, values in zip(islice(self.files, self.done), found, strict=False):  # a write that was cut short is left
                yield {"path": str(path), **dict(zip(FIELDS, values, strict=True))}

    def delete(self) -> None:
        """The scoring has ended and its rows are elsewhere."""
        self.file.close()
        self.path.unlink(missing_ok=True)


def sealed(text: str) -> bytes:
    """A line that shows whether it is whole: CRC-32 and text."""
    return f"{zlib.crc32(text.encode()):08x} {text}\n".encode()


def unsealed(line: bytes):
    """What `sealed` was given as JSON, or None where something of the line is missing or changed."""
    text = line[9:-1].decode(errors="replace")
    try:
        return json.loads(text) if line == sealed(text) else None
    except (ValueError, RecursionError):
        return None


def is_head(head) -> bool:
    """Whether a line is what `head_of` gives."""
    if not isinstance(head, dict) or head.get("journal") != NAME:
        return False
    numbers = [head.get(k) for k in ("batch", "count")]
    words = [head.get(k) for k in ("checkpoint", "files", "version", "machine")]
    return all(type(n) is int and n >= 1 for n in numbers) and all(isinstance(w, str) for w in words)


def is_row(row) -> bool:
    """Whether a line holds rows: FIELDS, a score from 0 to 1 or a reason."""
    if not isinstance(row, list) or len(row) != len(FIELDS):
        return False
    score, *facts, error = row
    scored = type(score) is float and 0 <= score <= 1 and error == ""
    return (scored or score == "" and isinstance(error, str) and error != "") and all(isinstance(f, int | str) for f in facts)


def read_journal(path: Path) -> Left:
    """What an earlier process left in a journal; another kind of file is refused."""
    check_size(path, TENSORS)
    with path.open("rb") as file:
        first = file.readline()
        head = unsealed(first)
        if not is_head(head):
            raise SDDError(f"{path} is no journal of `score`; move it away, or name another --out")
        left = Left(head, 0, len(first))
        for line in file:
            size, rows = min(head["batch"], head["count"] - left.done), unsealed(line)
            if not isinstance(rows, list) or len(rows) != size or not all(map(is_row, rows)):
                left.torn = True
                break
            left.done, left.end = left.done + size, left.end + len(line)
    return left


@contextmanager
def journal_of(out: Path, files: list[Path], head: dict, resume: bool) -> Iterator[Journal]:
    """The journal OUT.journal, new or gone on with by `resume`; it stays on leaving, unless it was deleted or holds nothing.

    Rows of an earlier scoring are never thrown away unasked: those of this very one are an error unless `resume`, those of
    another one in any case. A second process with the same OUT is refused.
    """
    path, lock = (out.with_name(out.name + suffix) for suffix in (".journal", ".journal.lock"))
    with held_alone(lock, f"another process is scoring to {out}; wait for it, or name another --out"):
        for file in (out, path):
            remove_parts(file)
        left = read_journal(path) if path.exists() else None
        if left and left.done:
            check_going_on(path, head, left, resume)
        else:
            with replaced(path) as part:
                part.write_bytes(sealed(json.dumps(head)))
            left = read_journal(path)
        journal = Journal(path, files, left)
        try:
            yield journal
        finally:
            journal.file.close()
            if not journal.done:
                path.unlink(missing_ok=True)


def check_going_on(path: Path, head: dict, left: Left, resume: bool) -> None:
    """Refuse rows of another scoring, and those of this one unless `resume`."""
    holds = f"{path} holds {left.done} of {left.head['count']} rows of"
    if differ := [said for key, said in OTHER.items() if left.head.get(key) != head[key]]:
        cure = "finish that one as it was begun, with --resume, or delete the file, or name another --out"
        raise SDDError(f"{holds} a scoring that was stopped, of {' and '.join(differ)}; {cure}")
    if not resume:
        raise SDDError(f"{holds} this very scoring, which was stopped; go on with --resume, or delete the file to start afresh")
