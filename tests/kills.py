"""Kills and long work, as functions of how much: test_nothing_lost.py asks for a little of each, soak.py for a lot."""

import io
import json
import os
import signal
import sys
import time
from pathlib import Path

import easy
import numpy as np
import psutil
import torch
from elsewhere import Elsewhere
from PIL import Image

from sddlib import __main__ as cli
from sddlib.data import scan_paths

KINDS = (("PNG", "RGB"), ("JPEG", "RGB"), ("WEBP", "RGB"), ("BMP", "RGB"), ("GIF", "L"), ("TIFF", "RGB"), ("PNG", "RGBA"))
BROKEN = 20  # one picture of so many
DONE = 1  # exit code of a `score` that came to its end: some of the pictures could not be read
PAUSE = 0.05  # seconds: the longest that a kill waits for after the row it is drawn for, so that it falls anywhere in a batch


def pictures(folder: Path, count: int, seed: int) -> Path:
    """`count` small pictures of mixed formats and sizes in folders of 1,000; one of BROKEN is cut off, empty or a text."""
    rng = np.random.default_rng(seed)
    for i in range(count):
        kind, mode = KINDS[i % len(KINDS)]
        shape = (*rng.integers(16, 97, 2), *{"L": (), "RGB": (3,), "RGBA": (4,)}[mode])
        file = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(file, kind)
        content = file.getvalue()
        if i % BROKEN == 7:
            content = (content[: len(content) // 3], b"", b"no picture")[i // BROKEN % 3]
        path = folder / f"{i // 1000:03d}" / f"{i:06d}.{kind.lower()}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def checkpoint(folder: Path) -> Path:
    """A small SDD on the backbone of profile smoke, random."""
    path = folder / "tiny.safetensors"
    easy.new_model().save(path, {"backbone": "tiny", "weights": "random", "threshold": 0.5})
    return path


# --- scoring


def score(arguments: list[str]) -> None:
    """`python -m sddlib score` in a process of its own, on one thread; Ctrl-C as a terminal sends it."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.exit(cli.main(["score", *map(str, arguments)]))


def journal_of(out: Path) -> Path:
    return out.with_name(f"{out.name}.journal")


def journalled(out: Path, batch: int) -> int:
    """Rows in whole batches of the journal beside OUT; 0 where there is none."""
    try:
        return max(0, journal_of(out).read_bytes().count(b"\n") - 1) * batch
    except FileNotFoundError:
        return 0


def when_journalled(rows: int, out: Path, batch: int, process: Elsewhere) -> bool:
    """Wait until so many rows are in the journal; False if the process has ended before."""
    while process.running():
        if journalled(out, batch) >= rows:
            return True
        time.sleep(0.01)
    return False


def score_through_kills(call: list, out: Path, count: int, batch: int, kills: int, rng: np.random.Generator) -> list[int]:
    """Score `count` files to OUT with --resume, killed by SIGKILL at so many random points, then to the end. Returns the rows
    that the journal held after each kill."""
    call, found, tries = [*call, "--out", out, "--batch", batch, "--resume"], [], 0
    while len(found) < kills:
        tries += 1
        assert tries <= 3 * kills, "the scoring ends before it can be killed; give it more files"
        there = journalled(out, batch)
        goal = min(there + int(rng.uniform(0, 2 * (0.9 * count - there) / (kills - len(found) + 1))), int(0.9 * count))
        process = Elsewhere(out.with_name(f"kill{tries}"), score, call)
        if when_journalled(goal, out, batch, process):
            time.sleep(rng.uniform(0, PAUSE))
            process.send(signal.SIGKILL)
        code = process.wait()
        assert code in (DONE, -signal.SIGKILL), process.err.read_text()
        if out.exists():  # it was killed too late and had come to its end: once more from the start
            out.unlink()
            journal_of(out).unlink(missing_ok=True)
        else:
            found.append(min(journalled(out, batch), count))
    last = Elsewhere(out.with_name("last"), score, call)
    assert last.wait() == DONE, last.err.read_text()
    assert f"{found[-1]} of {count} rows taken" in last.out.read_text() or not found[-1]
    return found


def rss_while_scoring(call: list, out: Path, batch: int) -> list[tuple[int, float]]:
    """(rows in the journal, resident MiB) along one scoring in one process."""
    process, found = Elsewhere(out.with_name("memory"), score, [*call, "--out", out, "--batch", batch]), []
    watched = psutil.Process(process.process.pid)
    while process.running():
        try:
            found.append((journalled(out, batch), watched.memory_info().rss / 2**20))
        except psutil.Error:  # it has just ended
            break
        time.sleep(0.1)
    assert process.wait() == DONE, process.err.read_text()
    return found


def growth(series: list[tuple[int, float]], count: int, warm: float = 0.2) -> float:
    """How far the memory of the rest rises above that of the first share `warm` of the rows, as a share of it."""
    first = [mib for rows, mib in series if 0 < rows <= warm * count]
    rest = [mib for rows, mib in series if rows > warm * count]
    assert first and rest, "too few samples: give it more images"
    return max(rest) / max(first) - 1


# --- training


def reached(states: Path) -> int:
    """The newest step whose state is kept."""
    return max((int(p.stem[-9:]) for p in states.glob("state-*.pt")), default=0)


def when_reached(step: int, states: Path, process: Elsewhere) -> None:
    """Wait until a training has kept the state of a step."""
    while reached(states) < step:
        assert process.running(), process.err.read_text()
        time.sleep(0.01)


def train_through_kills(folder: Path, epochs: int, kills: int, rng: np.random.Generator) -> tuple[list[int], dict, dict]:
    """A training of SDD (three steps an epoch, its state kept at every step), killed by SIGKILL at so many random points, and
    one undisturbed. Returns (newest state after each kill, the final weights of the one, and of the other)."""
    easy.easy_set(folder)
    states, config = folder / "states", {"epochs": epochs, "patience": epochs}
    job = {"out": str(folder / "resumed.pt"), "states": str(states), "config": config}
    found = []
    for number, step in enumerate(sorted(rng.integers(0, int(0.9 * 3 * epochs), kills))):
        process = Elsewhere(folder / f"kill{number}", easy.work, folder, [job])
        when_reached(max(step, reached(states)), states, process)
        time.sleep(rng.uniform(0, PAUSE))
        process.send(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, "the training has ended before it could be killed"
        found.append(reached(states))
    last = Elsewhere(folder / "last", easy.work, folder, [job, {"out": str(folder / "whole.pt"), "config": config}])
    assert last.wait() == 0, last.err.read_text()
    resumed, whole = (torch.load(folder / f"{name}.pt") for name in ("resumed", "whole"))
    return found, resumed, whole


def same_weights(one: dict, other: dict) -> bool:
    """Bit for bit, and the same history but for the seconds."""
    histories = [[{k: v for k, v in row.items() if k != "seconds"} for row in run["history"]] for run in (one, other)]
    equal = all(torch.equal(one["state"][k], other["state"][k]) for k in one["state"] | other["state"])
    return equal and histories[0] == histories[1]


# --- names


def names(folder: Path, count: int) -> Path:
    """`count` empty files in folders of 1,000, every fifth of them no picture by its name."""
    for i in range(count):
        if i % 1000 == 0:
            (folder / f"{i // 1000:04d}").mkdir(parents=True)
        os.close(os.open(folder / f"{i // 1000:04d}" / f"picture-{i:07d}.{'txt' if i % 5 == 4 else 'jpg'}", os.O_CREAT))
    return folder


def scan(folder: Path) -> None:
    """Scan a folder in a process of its own; prints what that found and took."""
    before, begin, others = psutil.Process().memory_info().rss, time.perf_counter(), []
    found = scan_paths([folder], others)
    facts = {"seconds": time.perf_counter() - begin, "MiB": (psutil.Process().memory_info().rss - before) / 2**20}
    print(json.dumps(facts | {"pictures": len(found), "others": len(others)}))


def scanned(folder: Path, said: Path) -> dict:
    """What `scan` prints: pictures, others, seconds, MiB."""
    process = Elsewhere(said, scan, folder)
    assert process.wait() == 0, process.err.read_text()
    return json.loads(process.out.read_text())
