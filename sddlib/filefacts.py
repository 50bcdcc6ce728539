"""What one file is, without its neighbours: bytes, container, size, JPEG quality, can it be decoded? Over all cores.

Light: worker processes that are spawned import it without torch.
"""

import hashlib
import io
import os
import signal
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from . import SDDError
from .near_duplicates import perceptual_hash
from .pictures import check_regular, one_sentence, opened, to_rgb
from .progress import progress

CHUNK = 64  # files that a worker takes at a time; fewer than that are done without workers
CONTAINERS = {".jpg": ("JPEG", "MPO"), ".png": ("PNG",), ".webp": ("WEBP",), ".bmp": ("BMP",), ".tif": ("TIFF",)}
CONTAINERS |= {".jpeg": CONTAINERS[".jpg"], ".tiff": CONTAINERS[".tif"], ".gif": ("GIF",)}

# ITU-T T.81 (JPEG), Annex K, Table K.1, in rows: luminance, the IJG library's table of quality 50.
LUMINANCE = """
16 11 10 16 24 40 51 61  12 12 14 19 26 58 60 55  14 13 16 24 40 57 69 56  14 17 22 29 51 87 80 62
18 22 37 56 68 109 103 77  24 35 55 64 81 104 113 92  49 64 78 87 103 121 120 101  72 92 95 98 112 100 103 99"""


def quantisation_tables() -> np.ndarray:
    """(100, 64) luminance tables, in rows, of the IJG library's qualities 1 to 100: Table K.1 times 5000/q percent below 50
    and 200 - 2q percent from there on, rounded, kept in 1..255 (`jpeg_quality_scaling` and `jpeg_add_quant_table`)."""
    quality = np.arange(1, 101)
    percent = np.where(quality < 50, 5000 // quality, 200 - 2 * quality)
    base = np.array(LUMINANCE.split(), dtype=int)
    return np.clip((base * percent[:, None] + 50) // 100, 1, 255)


TABLES = quantisation_tables()


def jpeg_quality(table) -> int:
    """The IJG quality, 1 to 100, whose luminance table is nearest (mean absolute difference) to this one of 64 steps in rows.

    Exact for what the IJG library wrote, as PIL, OpenCV and most tools do; an estimate for cameras and programs with tables of
    their own. It says nothing of compressions before the last one.
    """
    return int(np.abs(TABLES - np.asarray(table)).mean(1).argmin()) + 1


def file_facts(path: str) -> dict:
    """bytes, sha256 of the bytes, phash (what it looks like, `perceptual_hash`), format, mode, width, height (as stored),
    quality (of JPEG), error ("" if it can be decoded).

    What is not known is None or "". Decoding is what `data.decode` does, so that a file without an error is one that training
    and scoring can read.
    """
    facts = {"bytes": None, "sha256": "", "phash": "", "format": "", "mode": "", "width": None, "height": None}
    facts |= {"quality": None, "error": ""}
    try:
        with one_sentence():
            check_regular(path)
            data = Path(path).read_bytes()
            facts |= {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
            if not data:
                raise SDDError("zero bytes")
            with opened(io.BytesIO(data)) as raw:
                facts |= {"format": raw.format, "mode": raw.mode, "width": raw.width, "height": raw.height}
                if table := getattr(raw, "quantization", {}).get(0):
                    facts["quality"] = jpeg_quality(table)
                facts["phash"] = perceptual_hash(to_rgb(raw))
    except SDDError as e:
        facts["error"] = str(e)
    return facts


def misnamed(path: str, form: str) -> bool:
    """Whether the name's suffix says another container than the one found."""
    known = CONTAINERS.get(os.path.splitext(path)[1].lower())
    return bool(form and known) and form not in known


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _leave_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent process answers Ctrl-C for all


def inspect_files(paths: list[str], workers: int) -> list[dict]:
    """`file_facts` of every path, in order, over `workers` processes; a bar where there is somebody to look at it."""
    bar = {"total": len(paths), "desc": "decoding"}
    if workers == 1 or len(paths) < CHUNK:
        return list(progress(map(file_facts, paths), **bar))
    # spawned, not forked: a fork of a process with torch's threads may hang
    workers = min(workers, -(-len(paths) // CHUNK))
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_leave_interrupts)
    try:
        return list(progress(pool.map(file_facts, paths, chunksize=CHUNK), **bar))
    except BrokenProcessPool:
        raise SDDError("a worker process died, most likely for want of memory; use fewer with --workers") from None
    finally:
        pool.shutdown(cancel_futures=True)
