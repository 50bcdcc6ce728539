"""Semantic tokens sampling (STS): M tokens of real images, spread evenly by Jensen-Shannon divergence (Eq. 1-2)."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from . import SDDError

NO_TOKENS = "a token bank is sampled from training reals and there are none; check the manifest's train split"
Chunks = Callable[[], Iterable[Tensor]]  # called once per pass; yields (n, D) tokens, always in the same order


def js_divergence(tokens: Tensor, reference: Tensor) -> Tensor:
    """Jensen-Shannon divergence between softmax(token) and softmax(reference), base-2 logarithms.

    Eq. 2. tokens: (n, D), reference: (D,) -> (n,) in [0, 1], 0 where both softmaxes agree, symmetric in its arguments.
    JS = H((p+q)/2) - (H(p)+H(q))/2: one exp and one log an element, in float32 at least.
    """
    t = tokens if tokens.dtype == torch.float64 else tokens.float()
    log_q = torch.log_softmax(reference.to(t.dtype), -1)
    q = log_q.exp()
    shifted = t - t.amax(-1, keepdim=True)
    p = shifted.exp()
    z = p.sum(-1, keepdim=True)
    p /= z
    entropy_p = z.log().squeeze(-1) - torch.linalg.vecdot(p, shifted)
    entropy_q = -torch.dot(q, log_q)
    m = p.add_(q).mul_(0.5)
    # A softmax may underflow to 0 in float32, and 0 log 0 = 0: the floor keeps the product finite and changes nothing.
    entropy_m = -torch.linalg.vecdot(m, m.clamp_min(torch.finfo(m.dtype).tiny).log())
    return ((entropy_m - (entropy_p + entropy_q) / 2) / math.log(2)).clamp_(0, 1)


def sample_by_js(js: np.ndarray, M: int, interval: str = "observed") -> tuple[np.ndarray, np.ndarray]:
    """Choose M tokens whose divergences sit at i/M of the interval, i = 1..M (the constraint of Eq. 2).

    js: (Na,) divergences in [0, 1]. interval: "observed" cuts [min, max] of js into M segments, "unit" the printed
    [0, 1]. Each segment gives its token nearest the target, its right edge; an empty one takes the nearest token not yet
    used (the lower one on a tie). Among equal tokens the first index is taken; a token that fills an empty segment from
    below is the last of its equals. Returns (indices (M,), empty (M,) bool: which segments held no token).
    """
    js = np.asarray(js, dtype=np.float64)
    if interval not in ("observed", "unit"):
        raise SDDError(f"bank interval {interval!r} is unknown; use 'observed' or 'unit'")
    if not 1 <= M <= len(js):
        raise SDDError(f"a bank of M = {M} tokens needs 1 <= M <= {len(js)}, the number of real tokens; lower M")
    if not np.isfinite(js).all():
        raise SDDError("a token's divergence is not a number; check the backbone's weights and the training reals")
    low, high = (js.min(), js.max()) if interval == "observed" else (0.0, 1.0)
    order = np.argsort(js, kind="stable")
    ranked = js[order]
    edges = low + (high - low) * np.arange(1, M + 1) / M
    edges[-1] = max(high, ranked[-1])  # rounding must not push the largest token out of the last segment
    ends = np.searchsorted(ranked, edges, side="right")  # tokens of segment j: ranked[ends[j-1]:ends[j]]
    starts = np.concatenate([[0], ends[:-1]])
    empty = starts == ends
    chosen = np.full(M, -1)
    # the nearest to the right edge is the last of the segment; among equals the first in order has the lowest index
    last = ranked[ends[~empty] - 1]
    chosen[~empty] = np.maximum(np.searchsorted(ranked, last, side="left"), starts[~empty])
    used = np.zeros(len(js) + 2, dtype=bool)
    used[[0, -1]] = True  # sentinels: positions are shifted by one
    used[chosen[~empty] + 1] = True
    for j in np.flatnonzero(empty):
        chosen[j] = _nearest_unused(ranked, used, ends[j], edges[j])
        used[chosen[j] + 1] = True
    return order[chosen], empty


def _nearest_unused(ranked: np.ndarray, used: np.ndarray, at: int, target: float) -> int:
    """Rank of the unused token nearest `target`, searching outwards from rank `at`; the lower one on a tie."""
    left, right = at, at + 1  # in shifted positions: rank at-1 and rank at
    while left > 0 and used[left]:
        left -= 1
    while right < len(used) - 1 and used[right]:
        right += 1
    if left == 0:
        return right - 1
    if right == len(used) - 1:
        return left - 1
    return left - 1 if target - ranked[left - 1] <= ranked[right - 1] - target else right - 1


@dataclass(frozen=True)
class TokenBank:
    """f_s of Eq. 2 with all that is needed to say where it came from.

    f_s: (M, D) tokens; index: (M,) positions in the stream (image * N + patch); js: (M,) their divergences;
    empty: how many of the M segments held no token; js_all: (Na,) the whole distribution; reference: (D,).
    """

    f_s: Tensor
    index: np.ndarray
    js: np.ndarray
    empty: int
    js_all: np.ndarray
    reference: Tensor


def reference_token(chunks: Chunks, kind: str, seed: int) -> Tensor:
    """The initial token r~ of Eq. 2, which the paper leaves open.

    kind: "mean", the average real token, or "random", one real token drawn by `seed`. The mean is summed in
    float64, so that chunking changes at most its last bits.
    """
    if kind == "mean":
        total, count = 0, 0
        for chunk in chunks():
            total, count = total + chunk.double().sum(0), count + len(chunk)
        if not count:
            raise SDDError(NO_TOKENS)
        return (total / count).float()
    if kind == "random":
        count = sum(len(c) for c in chunks())
        if not count:
            raise SDDError(NO_TOKENS)
        wanted = int(np.random.default_rng(seed).integers(count))
        for chunk in chunks():
            if wanted < len(chunk):
                return chunk[wanted].float()
            wanted -= len(chunk)
    raise SDDError(f"reference token {kind!r} is unknown; use 'mean' or 'random'")


def build_bank(chunks: Chunks, M: int, reference: str = "mean", interval: str = "observed", seed: int = 0) -> TokenBank:
    """Sample the bank from a stream of real tokens, Eq. 1-2: one float a token is kept, then the M chosen are gathered.

    chunks() yields (n, D) tokens in a fixed order; it is called once per pass. The bank does not depend on n.
    """
    r = reference_token(chunks, reference, seed)
    js_all = np.concatenate([js_divergence(c, r).cpu().numpy() for c in chunks()])
    index, empty = sample_by_js(js_all, M, interval)
    order = np.argsort(index)
    f_s, start, at = torch.empty(M, len(r)), 0, 0
    for chunk in chunks():
        stop = start + len(chunk)
        while at < M and index[order[at]] < stop:
            f_s[order[at]] = chunk[index[order[at]] - start].float()
            at += 1
        start = stop
    return TokenBank(f_s, index, js_all[index], int(empty.sum()), js_all, r)
