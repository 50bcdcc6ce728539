"""Semantic tokens sampling (STS): M tokens of real images, spread evenly by Jensen-Shannon divergence (Eq. 1-2)."""

import math
from array import array
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from . import SDDError

NO_TOKENS = "a token bank is sampled from training reals and there are none; check the manifest's train split"
ROWS = 256  # tokens worked on at a time: two buffers of 256 x 1024 floats stay in a core's cache
FIXED = 2**24  # steps a unit in which reference sums are exact integers, so that no order of adding changes them

# A share of the real tokens: called once a pass, yields (n, D) tokens, always the same in the same order.
Share = Callable[[], Iterable[Tensor]]


def js_divergence(tokens: Tensor, reference: Tensor) -> Tensor:
    """Jensen-Shannon divergence between softmax(token) and softmax(reference), base-2 logarithms.

    Eq. 2. tokens: (n, D), reference: (D,) -> (n,) in [0, 1], 0 where both softmaxes agree, symmetric in its arguments.
    JS = H((p+q)/2) - (H(p)+H(q))/2: one exp and one log an element, in float32 at least. Logarithms are taken relative to
    H(q), which cancels, so that the sums are as small as their difference and keep its digits.
    """
    dtype = torch.float64 if tokens.dtype == torch.float64 else torch.float32
    log_q = torch.log_softmax(reference.double(), -1)
    level = -torch.dot(log_q.exp(), log_q).item()  # H(q); below p and q stand for e^H(q) times themselves
    scale = math.exp(level)
    q = (log_q + level).exp().to(dtype)
    js = torch.empty(len(tokens), dtype=dtype, device=tokens.device)
    p_rows, log_rows = (torch.empty(ROWS, tokens.shape[1], dtype=dtype, device=tokens.device) for _ in range(2))
    for start in range(0, len(tokens), ROWS):
        t = tokens[start : start + ROWS].to(dtype)
        p, log_p = p_rows[: len(t)], log_rows[: len(t)]
        torch.sub(t, t.amax(1, keepdim=True), out=log_p)
        z = torch.exp(log_p, out=p).sum(1, keepdim=True) / scale
        p_log_p = torch.linalg.vecdot(p.div_(z), log_p.sub_(z.log()))  # relative to the level q log q sums to 0
        # A softmax may underflow to 0 in float32, and 0 log 0 = 0: the floor keeps the product finite and changes nothing.
        both = p.add_(q).clamp_min_(torch.finfo(dtype).tiny)  # p + q = 2m
        both_log = torch.linalg.vecdot(both, torch.log(both, out=log_p))
        js[start : start + ROWS] = ((p_log_p - both_log) / (2 * scale) + math.log(2)) / math.log(2)
    return js.clamp_(0, 1)


def sample_by_js(js: np.ndarray, M: int, interval: str = "observed") -> tuple[np.ndarray, np.ndarray]:
    """Choose M tokens whose divergences sit at i/M of the interval, i = 1..M (the constraint of Eq. 2).

    js: (Na,) divergences in [0, 1]. interval: "observed" cuts [min, max] of js into M segments, "unit" the printed
    [0, 1]. Each segment gives its token nearest the target, its right edge; an empty one takes the nearest token not yet
    used (the lower one on a tie). Among equal tokens the first in the stream is taken. Returns (indices (M,), empty (M,) bool:
    which segments held no token).
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
    if right < len(used) - 1 and target - ranked[left - 1] > ranked[right - 1] - target:
        return right - 1
    first = int(np.searchsorted(ranked, ranked[left - 1], side="left"))  # of several equal ones the first in the stream
    return first + int(np.flatnonzero(~used[first + 1 : left + 1])[0])


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


def token_sum(share: Share) -> tuple[Tensor | None, int]:
    """(sum of the tokens in steps of 1/FIXED (D,), or None where there are none, their number)."""
    total, count = None, 0
    for chunk in share():
        # whole numbers, which float64 adds without error up to 2^53
        part = (chunk.double() * FIXED).round_().sum(0).long().cpu()
        total, count = part if total is None else total + part, count + len(chunk)
    return total, count


def divergences(share: Share, reference: Tensor) -> np.ndarray:
    """JS of every token of a share to the reference: (n,) float32."""
    # One growing block: an array a chunk, kept between chunks that come and go, would leave the memory of those in pieces.
    found = array("f")
    for chunk in share():
        found.frombytes(js_divergence(chunk, reference.to(chunk.device)).float().cpu().numpy().tobytes())
    return np.frombuffer(found, np.float32)


def gather(share: Share, wanted: np.ndarray) -> np.ndarray:
    """The tokens at rising positions `wanted` of a share: (n, D)."""
    found, start = np.empty((0, 0), np.float32), 0
    for chunk in share():
        if not found.size:  # one block for all, for the same reason as above
            found = np.empty((len(wanted), chunk.shape[1]), np.float32)
        mine = np.flatnonzero((wanted >= start) & (wanted < start + len(chunk)))
        if len(mine):
            found[mine] = chunk[torch.from_numpy(wanted[mine] - start)].float().cpu().numpy()
        start += len(chunk)
    return found


def reference_token(shares: list[Share], kind: str, seed: int, run: Callable = map) -> Tensor:
    """The initial token r~ of Eq. 2, which the paper leaves open.

    kind: "mean", the average real token, or "random", one real token drawn by `seed`.
    """
    sums = list(run(token_sum, shares))
    count = sum(n for _, n in sums)
    if not count:
        raise SDDError(NO_TOKENS)
    if kind == "mean":
        return (sum(total for total, n in sums if n).double() / (FIXED * count)).float()
    if kind == "random":
        wanted = int(np.random.default_rng(seed).integers(count))
        return _gather_all(shares, [n for _, n in sums], np.array([wanted]), run)[0]
    raise SDDError(f"reference token {kind!r} is unknown; use 'mean' or 'random'")


def _gather_all(shares: list[Share], counts: list[int], index: np.ndarray, run: Callable) -> Tensor:
    """The tokens (len(index), D) at positions of the whole stream, in the order of `index`."""
    order, starts = np.argsort(index, kind="stable"), np.cumsum([0, *counts])
    rising = index[order]
    wanted = [rising[(rising >= a) & (rising < b)] - a for a, b in zip(starts, starts[1:], strict=False)]
    found = np.concatenate([part for part in run(gather, shares, wanted) if part.size])
    return torch.from_numpy(found[np.argsort(order)])


def build_bank(
    shares: list[Share],
    M: int,
    reference: str = "mean",
    interval: str = "observed",
    seed: int = 0,
    kind: str = "js",
    run: Callable = map,
) -> TokenBank:
    """Sample the bank from streams of real tokens, Eq. 1-2: one float a token is kept, then the M chosen are gathered. (Sorting
    them takes some 25 bytes a token for a moment.)

    shares: consecutive parts of one stream of tokens. The bank depends neither on how the stream is cut into shares and chunks
    nor on who works on them. run: a `map`; that of a process pool gives every share to a process, if shares can be pickled.
    kind: "js" is Eq. 2. For ablation, "random" takes M real tokens by `seed`, and "noise" draws M from a Gaussian that has the
    mean and spread of every channel of those; index and js are then those of the M tokens it was fitted to.
    """
    r = reference_token(shares, reference, seed, run)
    parts = list(run(divergences, shares, [r] * len(shares)))
    js_all = np.concatenate(parts)
    index, empty = sample_by_js(js_all, M, interval)
    if kind in ("random", "noise"):
        index, empty = np.sort(np.random.default_rng(seed).choice(len(js_all), M, replace=False)), np.zeros(M, bool)
    elif kind != "js":
        raise SDDError(f"bank {kind!r} is unknown; use 'js', 'random' or 'noise'")
    f_s = _gather_all(shares, [len(p) for p in parts], index, run)
    if kind == "noise":
        drawn = torch.randn(f_s.shape, generator=torch.Generator().manual_seed(seed))
        f_s = f_s.mean(0) + drawn * f_s.std(0)
    return TokenBank(f_s, index, js_all[index], int(empty.sum()), js_all, r)
