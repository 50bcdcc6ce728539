"""What the token bank costs: speed against one scipy call a token, and memory over a stream too long to hold."""

import statistics
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context

import torch
from scipy.spatial.distance import jensenshannon
from torch import Tensor

from .bank import build_bank, js_divergence, sample_by_js
from .timing import Memory

CHUNK = 4096  # tokens a chunk of the stream


def speeds(D: int, M: int, tokens: int, by_scipy: int, repeats: int = 5) -> tuple[float, float]:
    """(tokens a second of JS + sampling, of a loop that calls scipy once a token), medians of alternating runs."""
    t, r = torch.randn(tokens, D, generator=torch.Generator().manual_seed(0)), torch.zeros(D)
    ours, theirs = [], []
    for _ in range(repeats):
        start = time.perf_counter()
        sample_by_js(js_divergence(t, r).numpy(), M)
        middle = time.perf_counter()
        p, q = torch.softmax(t[:by_scipy], -1).numpy(), torch.softmax(r, -1).numpy()
        for row in p:
            jensenshannon(row, q, base=2) ** 2
        theirs.append(by_scipy / (time.perf_counter() - middle))
        ours.append(tokens / (middle - start))
    return statistics.median(ours), statistics.median(theirs)


def made_up(tokens: int, D: int) -> Iterator[Tensor]:
    """A stream of `tokens` tokens, no two chunks alike, that needs the memory of two."""
    block = torch.randn(CHUNK, D, generator=torch.Generator().manual_seed(0))
    for start in range(0, tokens, CHUNK):
        yield block[: tokens - start] * (1 + start / tokens)


def stream_memory(tokens: int, D: int, M: int) -> float:
    """MiB that sampling a bank from a stream adds to the interpreter and its libraries. For a process of its own."""
    with Memory() as memory:
        build_bank([partial(made_up, tokens, D)], M)
    return memory.growth / 2**20


def report(D: int, M: int, tokens: int) -> None:
    """Print both. tokens: length of the stream whose memory is measured."""
    ours, theirs = speeds(D, M, 20_000, 1_000)
    print(f"token bank, D = {D}, M = {M}, {torch.get_num_threads()} threads")
    print(f"JS + sampling {ours:,.0f} tokens/s / scipy, a call a token, {theirs:,.0f}: {ours / theirs:.1f}")
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        start = time.perf_counter()
        memory = pool.submit(stream_memory, tokens, D, M).result()
    print(f"{tokens:,} tokens streamed: {memory:.0f} MiB above the interpreter, {time.perf_counter() - start:.0f} s")
