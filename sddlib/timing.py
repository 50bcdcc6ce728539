"""Timing by interleaved pairs, and the largest memory of a stretch of code."""

import statistics
import threading
import time
from collections.abc import Callable

import psutil
import torch


def ratio(a: Callable[[], None], b: Callable[[], None], pairs: int) -> tuple[float, float, float, float]:
    """(median of time a / time b, lowest, highest, median seconds of b) over interleaved pairs, after one warm-up of each.

    Pairs stand next to each other in time, so that a machine whose speed drifts moves both.
    """
    a(), b()
    seconds = [(_timed(a), _timed(b)) for _ in range(pairs)]
    ratios = [x / y for x, y in seconds]
    return statistics.median(ratios), min(ratios), max(ratios), statistics.median(y for _, y in seconds)


def _timed(f: Callable[[], None]) -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    start = time.perf_counter()
    f()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


class Memory(threading.Thread):
    """`with Memory() as memory: ...`, then memory.growth: bytes by which the process's resident memory grew at most.

    Looked up every few milliseconds, because the system's own high-water mark of a new process starts at its parent's.
    """

    def __init__(self, every: float = 0.003):
        super().__init__(daemon=True)
        self.every, self.process, self.done = every, psutil.Process(), threading.Event()

    @property
    def growth(self) -> int:
        return self.most - self.before

    def look(self) -> None:
        self.most = max(self.most, self.process.memory_info().rss)

    def run(self) -> None:
        while not self.done.wait(self.every):
            self.look()

    def __enter__(self) -> "Memory":
        self.before = self.most = self.process.memory_info().rss
        self.start()
        return self

    def __exit__(self, *_) -> None:
        self.done.set()
        self.join()
        self.look()


class GPUMemory:
    """The same on a GPU, where torch counts every byte itself: growth of what its tensors take."""

    def __enter__(self) -> "GPUMemory":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        self.before = torch.cuda.memory_allocated()
        return self

    def __exit__(self, *_) -> None:
        torch.cuda.synchronize()
        self.growth = torch.cuda.max_memory_allocated() - self.before
