"""Broken image files by the thousand through scoring, from the folder to the CSV: each is scored or refused with a reason.

    python tests/fuzz.py --files 20000 --seed 0

A file is its seed, its number and what was done to it, so that any can be made again: python tests/fuzz.py --only 17 --seed 0
"""

import argparse
import csv
import faulthandler
import math
import os
import random
import re
import resource
import signal
import struct
import sys
import tempfile
import time
import warnings
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path

from files import content, corpus, noise, with_size
from models import tiny_checkpoint

from sddlib import evaluate
from sddlib.verdicts import score_to_csv

LIMIT = 10.0  # seconds of computing that a file may take
ROUND = 1000  # files of a call of the command
SIDES = (0, 1, 2, 255, 256, 4095, 10_000, 11_999, 16_383, 30_000, 65_535, 2**24, 2**31 - 1, 2**32 - 1)
EXTREMES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
WHOLE = list(corpus())
STDERR = os.dup(2)  # as it is before anything else is put in its place


class Fault(BaseException):
    """A promise is broken. No Exception, so that nothing takes it for a broken picture."""


def parts(data: bytes) -> list[bytes]:
    """The file in pieces: the chunks or segments of its format, or 12 bytes each, as in a TIFF; joined they are it."""
    at, cuts = 0, []
    if data[:4] == b"\x89PNG":
        at = 8
        while at + 12 <= len(data):
            cuts.append(at)
            at += 12 + int.from_bytes(data[at : at + 4], "big")
    elif data[:2] == b"\xff\xd8":
        at = 2
        while at + 4 <= len(data) and data[at] == 0xFF:
            cuts.append(at)
            at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    elif data[:4] == b"RIFF":
        at = 12
        while at + 8 <= len(data):
            cuts.append(at)
            at += 8 + (size := int.from_bytes(data[at + 4 : at + 8], "little")) + size % 2
    else:
        cuts = list(range(8, len(data), 12))
    edges = [0, *(c for c in cuts if 0 < c < len(data)), len(data)]
    return [data[a:b] for a, b in zip(edges, edges[1:], strict=False)]


def truncate(rng: random.Random, data: bytes) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def flip_head(rng: random.Random, data: bytes) -> bytes:
    return flip(rng, data, min(len(data), 96), 4)


def flip_body(rng: random.Random, data: bytes) -> bytes:
    return flip(rng, data, len(data), 24)


def flip(rng: random.Random, data: bytes, room: int, most: int) -> bytes:
    found = bytearray(data)
    for _ in range(rng.randint(1, most) if room else 0):
        found[rng.randrange(room)] ^= 1 << rng.randrange(8)
    return bytes(found)


def drop(rng: random.Random, data: bytes) -> bytes:
    found = parts(data)
    del found[rng.randrange(len(found))]
    return b"".join(found)


def double(rng: random.Random, data: bytes) -> bytes:
    found = parts(data)
    found.insert(rng.randrange(len(found)), rng.choice(found) * rng.choice((1, 1, 40)))
    return b"".join(found)


def swap(rng: random.Random, data: bytes) -> bytes:
    found = parts(data)
    a, b = rng.randrange(len(found)), rng.randrange(len(found))
    found[a], found[b] = found[b], found[a]
    return b"".join(found)


def lengths(rng: random.Random, data: bytes) -> bytes:
    """An extreme number where a piece begins, where its length most likely is, or anywhere among the first bytes."""
    found, starts = bytearray(data), [0]
    for part in parts(data):
        starts.append(starts[-1] + len(part))
    at = rng.choice(starts) + rng.choice((0, 2, 4, 8)) if rng.random() < 0.6 else rng.randrange(min(400, len(data) + 1))
    form = rng.choice("<>") + rng.choice("HI")
    value = struct.pack(form, rng.choice(EXTREMES) & (0xFFFF if form[1] == "H" else 0xFFFFFFFF))
    found[at : at + len(value)] = value
    return bytes(found)


def splice(rng: random.Random, data: bytes) -> bytes:
    other = rng.choice(WHOLE)[2]
    return data[: rng.randrange(len(data) + 1)] + other[rng.randrange(len(other)) :]


def insert(rng: random.Random, data: bytes) -> bytes:
    at = rng.randrange(len(data) + 1)
    more = rng.choice((rng.randbytes(rng.randint(1, 300)), b"\0" * 200, b"\xff" * 200))
    return data[:at] + more + data[at + rng.choice((0, len(more))) :]


def sides(rng: random.Random, data: bytes) -> bytes:
    return with_size(data, rng.choice(SIDES), rng.choice(SIDES))


MUTATORS = (truncate, flip_head, flip_body, drop, double, swap, lengths, splice, insert, sides)


def mended(data: bytes) -> bytes:
    """A PNG with the right checksums, so that what is broken reaches the decoder; others as they are."""
    if data[:4] != b"\x89PNG":
        return data
    found = [p[:-4] + struct.pack(">I", zlib.crc32(p[4:-4])) if len(p) >= 12 else p for p in parts(data)[1:]]
    return data[:8] + b"".join(found)


def made(number: int, seed: int) -> tuple[str, bytes]:
    """(name, content) of a broken file, the same for the same number and seed."""
    rng = random.Random(f"{seed}/{number}")
    what, suffix, data = rng.choice(WHOLE)
    chosen = rng.choices(MUTATORS, k=rng.choice((1, 1, 1, 2, 3)))
    for mutator in chosen:
        data = mutator(rng, data)
    data = mended(data) if rng.random() < 0.6 else data
    return f"{number:06d}-{what}-{'-'.join(m.__name__ for m in chosen)}{suffix}", data


@dataclass
class Found:
    """What became of the files. reasons: refusals by their first words; slowest: (seconds of computing, name); peak: (MiB of
    the process, the file at which it was reached), before: MiB without any file; lines: that libtiff wrote on stderr."""

    files: int = 0
    decoded: int = 0
    reasons: Counter = field(default_factory=Counter)
    slowest: tuple[float, str] = (0.0, "")
    before: float = 0.0
    lines: int = 0
    peak: tuple[float, str] = (0.0, "")


def memory() -> float:
    """The most that this process has held, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


@contextmanager
def watched(found: Found, last: Path) -> Iterator[None]:
    """Time and memory of every file that scoring opens; one that takes too long is a Fault that names it. last: gets the name
    of each."""
    opened = evaluate.open_image

    def timed(path):
        def late(*_):
            raise Fault(f"{Path(path).name} takes more than {LIMIT:g} s")

        signal.signal(signal.SIGPROF, late)
        signal.setitimer(signal.ITIMER_PROF, LIMIT)
        last.write_text(Path(path).name)  # for a decoder that never comes back to Python: it is ended, and this stays
        faulthandler.dump_traceback_later(6 * LIMIT, exit=True, file=STDERR)
        begin = time.process_time()
        try:
            return opened(path)
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
            faulthandler.cancel_dump_traceback_later()
            found.slowest = max(found.slowest, (time.process_time() - begin, Path(path).name))
            found.peak = max(found.peak, (memory(), Path(path).name), key=lambda p: p[0])

    before = signal.getsignal(signal.SIGPROF)
    evaluate.open_image = timed
    try:
        yield
    finally:
        evaluate.open_image = opened
        signal.signal(signal.SIGPROF, before)


@contextmanager
def silent(where: Path, found: Found) -> Iterator[None]:
    """A Fault for a Python warning and for whatever Python writes to stderr. What libtiff says there itself is counted."""
    kept, said = os.dup(2), StringIO()
    with where.open("wb") as file, warnings.catch_warnings(record=True) as heard, redirect_stderr(said):
        warnings.simplefilter("always")
        os.dup2(file.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
    found.lines += len(where.read_bytes().splitlines())
    if text := said.getvalue() or "; ".join(str(w.message) for w in heard):
        raise Fault(f"something was said on stderr: {text[:500]}")


def check(names: list[str], rows: list[dict], folder: Path, found: Found) -> None:
    """A Fault unless every file has its row, with a finite score or a reason of one plain sentence."""
    if [Path(r["path"]).name for r in rows] != names:
        raise Fault(f"{len(names)} files gave {len(rows)} rows, or rows of others")
    for r in rows:
        name, error = Path(r["path"]).name, r["error"]
        if error:
            plain = error.isprintable() and len(error) <= 300 and str(folder) not in error and not r["score"]
            found.reasons[re.sub(r"\d+", "N", error)[:60]] += 1
        else:
            plain = math.isfinite(float(r["score"])) and r["verdict"] in ("real", "fake")
            found.decoded += 1
        if not plain:
            raise Fault(f"{name}: score {r['score']!r}, verdict {r['verdict']!r}, reason {error!r}")


def run(numbers: range, seed: int, folder: Path) -> Found:
    """Make the files in `folder` and score them, ROUND at a time; the first broken promise is a Fault."""
    checkpoint, found = tiny_checkpoint(folder / "sdd.safetensors"), Found()
    pictures, out = folder / "pictures", folder / "verdicts.csv"
    with watched(found, folder / "last.txt"):
        for start in range(numbers.start, numbers.stop, ROUND):
            pictures.mkdir()
            (pictures / "whole.png").write_bytes(content(noise(), "PNG"))  # one at least can be read
            for number in range(start, min(start + ROUND, numbers.stop)):
                name, data = made(number, seed)
                (pictures / name).write_bytes(data)
            names = sorted(p.name for p in pictures.iterdir())
            if not found.files:
                found.before = memory()
            with silent(folder / "stderr.txt", found), redirect_stdout(StringIO()):
                score_to_csv([str(pictures)], out, checkpoint, None, 32)
            with out.open(newline="", encoding="utf-8") as file:
                check(names, list(csv.DictReader(file)), folder, found)
            found.files += len(names)
            for path in pictures.iterdir():
                path.unlink()
            pictures.rmdir()
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="number of one file, which is kept here")
    args = parser.parse_args()
    if args.only is not None:
        name, data = made(args.only, args.seed)
        Path(name).write_bytes(data)
        print(name)
        return 0
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        try:
            found = run(range(args.files), args.seed, Path(folder))
        except Fault as e:
            print(f"FAULT (seed {args.seed}): {e}")
            return 1
    refused = sum(found.reasons.values())
    seconds = time.perf_counter() - begin
    print(f"{found.files} files in {seconds:.0f} s, seed {args.seed}: {found.decoded} decoded, {refused} refused")
    for reason, count in found.reasons.most_common():
        print(f"{count:7d}  {reason}")
    print(f"slowest {found.slowest[0]:.2f} s, {found.slowest[1]}")
    print(f"{found.lines} lines of libtiff on stderr")
    print(f"peak memory {found.peak[0]:.0f} MiB ({found.before:.0f} before the first file), at {found.peak[1]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
