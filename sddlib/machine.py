"""What this machine has for sddlib: device, memory, disk, each held against what a run takes."""

import importlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
GB = 1e9
RUN_MEMORY = 3.8  # GB, peak of `make run` as measured on two CPU cores
RUN_DISK = 0.1  # GB; the folder of `make run` holds 0.05
FETCH_DISK = 0.5  # GB in the cache while the weights are fetched; 0.35 stay


class Finding(NamedTuple):
    """level: "ok", "warn" (something works less well) or "fail" (something does not work); cure: what to do, or ""."""

    level: str
    what: str
    cure: str = ""


def one_line(e: Exception) -> str:
    """An error as one line of text, cut where it is long."""
    return " ".join(f"{type(e).__name__}: {e}".split())[:300]


def device() -> Iterator[Finding]:
    """What torch computes on, and whether torchvision fits it."""
    import torch

    cure = 'make -B env TORCH="torch==X torchvision==Y" with a pair that belongs together (pytorch.org lists them)'
    try:
        importlib.import_module("torchvision")
    except Exception as e:  # a pair that does not fit dies of many errors
        yield Finding("fail", f"torchvision does not work with torch {torch.__version__} ({one_line(e)})", cure)
    if torch.cuda.is_available():
        facts = torch.cuda.get_device_properties(0)
        yield Finding("ok", f"device cuda: {facts.name}, {facts.total_memory / GB:.0f} GB; torch {torch.__version__}")
    else:
        threads = f"torch {torch.__version__} uses {torch.get_num_threads()} threads"
        yield Finding("ok", f"device cpu: {os.cpu_count()} cores, {threads}")


def memory() -> Iterator[Finding]:
    """Memory that is there, within the limit of a container, against the peak of `make run`."""
    import psutil

    facts = psutil.virtual_memory()
    total, free = facts.total, facts.available
    limit = Path("/sys/fs/cgroup/memory.max")
    if limit.is_file() and (text := limit.read_text().strip()).isdigit():
        total = min(total, int(text))
    what = f"memory: {min(free, total) / GB:.1f} of {total / GB:.1f} GB free; `make run` takes {RUN_MEMORY} GB at its peak"
    if total < RUN_MEMORY * GB:
        yield Finding("fail", what, "use a larger machine; scoring alone takes less")
    elif free < RUN_MEMORY * GB:
        yield Finding("warn", what, "end other programs first")
    else:
        yield Finding("ok", what)


def disk() -> Iterator[Finding]:
    """Room where runs and fetched weights go."""
    from .embedded import FILE, cache_dir

    fetched = (cache_dir() / FILE).is_file()
    needs = [("runs", ROOT / "runs", RUN_DISK, "a whole run of profile mini")]
    needs += [] if fetched else [("weights", cache_dir(), FETCH_DISK, "fetching the weights")]
    for name, folder, need, what in needs:
        there = next(p for p in (folder, *folder.parents) if p.is_dir())
        free, text = shutil.disk_usage(there).free / GB, f"disk for {name}: {{:.1f}} GB free in {there}; {what} takes {need} GB"
        if not os.access(there, os.W_OK):
            yield Finding("fail", f"disk for {name}: {there} cannot be written", "change its permissions or its owner")
        else:
            level = "fail" if free < need else "warn" if free < 3 * need else "ok"
            yield Finding(level, text.format(free), "" if level == "ok" else "free space there")
