"""How well a bank of M tokens stands for all real tokens, beside other ways of choosing M."""

import numpy as np
import torch
from sklearn.cluster import MiniBatchKMeans
from torch import Tensor

from .intervals import Interval, interval, photograph_draws

SEGMENTS, SPARSE = 256, 0.1  # of the range of divergence; a segment with less than this part of the average is sparse
LEAST = 10  # photographs below which there is no interval
KINDS = {
    "all": "all",
    "common": "common (lower half\nof divergence)",
    "sparse": f"sparse (under {SPARSE:g} of the\naverage in 1/{SEGMENTS} of the range)",
    "furthest": "5 % furthest\nfrom the reference",
}


def nearest_distance(tokens: Tensor, bank: Tensor, chunk: int = 4096) -> np.ndarray:
    """Euclidean distance of every token (n, D) to its nearest bank token (M, D), in units of the tokens' own spread: the root
    of their summed channel variances, so that the mean token as a bank of one would score about 1. -> (n,)."""
    spread = tokens.var(0, correction=0).sum().sqrt()
    return torch.cat([torch.cdist(t, bank).amin(1) for t in tokens.split(chunk)]).div(spread).numpy()


def kinds_of(js: np.ndarray, known: np.ndarray) -> dict[str, np.ndarray]:
    """KINDS of tokens by their divergences js (n,): (n,) bool each; a kind that has no token is left out. known: divergences of
    the tokens that banks are drawn from, to the same reference; where these lie says which part of the range is sparse, as is
    all outside of it. The furthest need not be sparse: real tokens may crowd at that end too."""
    counts, edges = np.histogram(known, SEGMENTS)
    segment = np.clip(np.searchsorted(edges, js, "right") - 1, 0, SEGMENTS - 1)
    sparse = (counts[segment] < SPARSE * len(known) / SEGMENTS) | (js < edges[0]) | (js > edges[-1])
    found = {"all": np.ones(len(js), bool), "common": js <= np.median(js), "sparse": sparse}
    return {kind: which for kind, which in (found | {"furthest": js >= np.quantile(js, 0.95)}).items() if which.any()}


def coverage(tokens: Tensor, js: np.ndarray, bank: Tensor, known: np.ndarray) -> dict[str, float]:
    """What a bank leaves uncovered of tokens (n, D): the mean nearest distance of each kind. js, known: as in `kinds_of`."""
    d = nearest_distance(tokens, bank)
    return {kind: float(d[which].mean()) for kind, which in kinds_of(js, known).items()}


def difference_interval(one: np.ndarray, other: np.ndarray, photos: np.ndarray, draws: int = 1000, seed: int = 0) -> Interval:
    """(estimate, low, high), 95 %, of the mean of one - other, both (n,), a number a token; photographs are drawn, photos (n,),
    each with all its tokens; the limits are NaN where there are fewer than LEAST."""
    names, at = np.unique(photos, return_inverse=True)
    weights = photograph_draws([np.arange(len(names))], draws, np.random.default_rng(seed))
    found = interval((weights @ np.bincount(at, one - other)) / (weights @ np.bincount(at)))
    return found if len(names) >= LEAST else (found[0], np.nan, np.nan)


def random_bank(tokens: Tensor, M: int, seed: int) -> Tensor:
    """M real tokens drawn without replacement."""
    return tokens[np.random.default_rng(seed).choice(len(tokens), M, replace=False)]


def kmeans_bank(tokens: Tensor, M: int, seed: int) -> Tensor:
    """The M centres of k-means, which no image has as a token."""
    model = MiniBatchKMeans(M, random_state=seed, n_init=1, batch_size=4096).fit(tokens.numpy())
    return torch.from_numpy(model.cluster_centers_).float()
