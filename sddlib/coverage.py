"""How well a bank of M tokens stands for all real tokens, beside other ways of choosing M."""

import numpy as np
import torch
from sklearn.cluster import MiniBatchKMeans
from torch import Tensor


def nearest_distance(tokens: Tensor, bank: Tensor, chunk: int = 4096) -> np.ndarray:
    """Euclidean distance of every token (n, D) to its nearest bank token (M, D), in units of the tokens' own spread: the root
    of their summed channel variances, so that the mean token as a bank of one would score about 1. -> (n,)."""
    spread = tokens.var(0, correction=0).sum().sqrt()
    return torch.cat([torch.cdist(t, bank).amin(1) for t in tokens.split(chunk)]).div(spread).numpy()


def coverage(tokens: Tensor, js: np.ndarray, bank: Tensor) -> dict[str, float]:
    """What a bank leaves uncovered of tokens (n, D) with divergences js (n,): the mean nearest distance, that of the common
    tokens (below the median divergence), and that of the rare ones (the 5 % furthest from the reference)."""
    d = nearest_distance(tokens, bank)
    return {
        "all": float(d.mean()),
        "common": float(d[js <= np.median(js)].mean()),
        "rare": float(d[js >= np.quantile(js, 0.95)].mean()),
    }


def random_bank(tokens: Tensor, M: int, seed: int) -> Tensor:
    """M real tokens drawn without replacement."""
    return tokens[np.random.default_rng(seed).choice(len(tokens), M, replace=False)]


def kmeans_bank(tokens: Tensor, M: int, seed: int) -> Tensor:
    """The M centres of k-means, which no image has as a token."""
    model = MiniBatchKMeans(M, random_state=seed, n_init=1, batch_size=4096).fit(tokens.numpy())
    return torch.from_numpy(model.cluster_centers_).float()
