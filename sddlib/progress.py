"""Bars with the time left for what takes long, where somebody looks at them. Light: workers import it without torch."""

import os
import sys
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path

from tqdm.auto import tqdm

HEADLESS = "TQDM_DISABLE"  # set for kernels of `python -m sddlib run` and of the tests
BATCH_TOOLS = ("papermill", "nbconvert", "jupyter-nbconvert")  # that start kernels nobody looks at
DELAY = 2.0  # seconds: what is done sooner needs no bar


def progress(iterable: Iterable, total: int | None = None, **options) -> Iterator:
    """A tqdm bar that appears after DELAY and is quiet when there is no terminal or notebook page to look at it, and in all but
    the first of many processes. total: of what has no length; options: of tqdm, such as desc."""
    # An iterator of our own: tqdm.auto calls iter() once more on anything else, which starts a loader's workers twice and
    # draws from its generator, so that the order of batches would depend on the number of workers.
    hidden = True if os.environ.get("RANK", "0") != "0" or headless() else None
    length = len(iterable) if total is None else total
    return tqdm(iter(iterable), total=length, leave=False, disable=hidden, mininterval=1.0, delay=DELAY, **options)


@lru_cache
def headless() -> bool:
    """Whether this is a kernel that runs without a page: tqdm would draw its widgets for nobody."""
    if os.environ.get(HEADLESS):
        return True
    if "ipykernel" not in sys.modules:
        return False  # tqdm itself sees whether there is a terminal
    import psutil

    try:
        parent = psutil.Process().parent()
        words = parent.cmdline() if parent else []
    except psutil.Error:  # a parent that has ended, or is somebody else's
        return False
    return any(Path(word).stem in BATCH_TOOLS for word in words)
