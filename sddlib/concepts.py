"""What photographs show (clusters of frozen CLIP embeddings, or labels that come with them), and how they are drawn.

A photograph has one concept, and is drawn and split whole: its crops are not independent. P: photographs, S: draws.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from sklearn.cluster import KMeans
from torch import Tensor
from torch.utils.data import DataLoader

from . import SDDError
from .crops import Crops
from .data import Sample, read_csv
from .progress import progress


@torch.inference_mode()
def embed(features: Callable[[Tensor], Tensor], crops: Crops, device, batch: int = 32) -> np.ndarray:
    """(n, D) float64 features of crops; features: images (B, 3, H, W) -> (B, D)."""
    return torch.cat([features(x.to(device)).double().cpu() for x, _, _ in progress(DataLoader(crops, batch))]).numpy()


def cluster_photographs(F: np.ndarray, samples: list[Sample], k: int, seed: int, least: int = 5) -> dict[str, int]:
    """photo -> concept: k-means of the photographs' mean real features. F: (n, D) features of samples.

    A cluster of fewer than `least` photographs is dissolved, the smallest first, and its photographs join the nearest of the
    others: a mean of one or two photographs says nothing of a concept.
    """
    rows: dict[str, list[int]] = {}
    for i, s in enumerate(samples):
        if s.label == 0:
            rows.setdefault(s.photo, []).append(i)
    if len(rows) < max(2, k):
        raise SDDError(f"{len(rows)} real photographs cannot make {k} concepts; lower k or raise limit")
    E = np.stack([F[found].mean(0) for found in rows.values()])  # (P, D)
    centres = KMeans(k, n_init=20, random_state=seed).fit(E).cluster_centers_
    while True:
        nearest = np.linalg.norm(E[:, None] - centres, axis=2).argmin(1)
        sizes = np.bincount(nearest, minlength=len(centres))
        if sizes.min() >= least or len(centres) == 1:
            return dict(zip(rows, nearest.tolist(), strict=True))
        centres = np.delete(centres, sizes.argmin(), 0)


def column_labels(manifest: Path, column: str) -> dict[str, str]:
    """photo -> label: what an extra column of the manifest, such as the name of an object's class, says of each photograph."""
    rows = read_csv(manifest)
    if column not in rows[0]:
        raise SDDError(f"manifest {manifest} has no column {column!r}; name one that it has, or 'clusters'")
    return {r.get("photo", r["path"]): r[column] for r in rows}


def label_photographs(labels: dict[str, str], least: int = 5) -> dict[str, int]:
    """photo -> concept for given labels (photo -> text), without those that fewer than `least` photographs share."""
    names = list(labels.values())
    kept = sorted({name for name in names if name and names.count(name) >= least})
    return {photo: kept.index(name) for photo, name in labels.items() if name in kept}


def sides(concepts: dict[str, int], samples: list[Sample]) -> np.ndarray:
    """(P,) what there is of each photograph: 1 a real image, 2 a fake one, 3 both."""
    found = dict.fromkeys(concepts, 0)
    for s in samples:
        if s.photo in found:
            found[s.photo] |= 2 if s.label else 1
    return np.array(list(found.values()))


def draw_photographs(concepts: dict[str, int], samples: list[Sample], draws: int, seed: int) -> np.ndarray:
    """(1 + draws, P) weights: row 0 takes every photograph once, the others draw within each concept with replacement, at
    least two different ones. Where reals and fakes are no twins, both are drawn for themselves."""
    strata = 4 * np.array(list(concepts.values())) + sides(concepts, samples)
    rng, weights = np.random.default_rng(seed), np.ones((1 + draws, len(concepts)))
    for stratum in np.unique(strata):
        mine = np.flatnonzero(strata == stratum)
        n = len(mine)
        if n < 2:
            raise SDDError("a concept has a single photograph to draw from; lower k, raise limit or label more of them")
        for row in weights[1:]:
            while np.count_nonzero(drawn := np.bincount(rng.integers(n, size=n), minlength=n)) < 2:
                pass
            row[mine] = drawn
    return weights


def split_photographs(weights: np.ndarray, concept: np.ndarray, side: np.ndarray, seed: int) -> np.ndarray:
    """(S, P) booleans: a random half of the drawn photographs of every concept, those with weight. concept: (P,) or (S, P);
    side: (P,), of `sides`; reals and fakes are halved apart where they are no twins."""
    rng = np.random.default_rng(seed)
    keys = np.where(weights > 0, 4 * concept + side + rng.random(weights.shape), np.inf)
    places = np.arange(weights.shape[1]) + rng.integers(2, size=(len(weights), 1))  # every second of a shuffled stratum
    first = np.empty(weights.shape, bool)
    np.put_along_axis(first, keys.argsort(1), places % 2 == 0, 1)
    return first


def shuffled(concept: np.ndarray, draws: int, seed: int) -> np.ndarray:
    """(draws, P) concepts dealt out anew to the photographs, as many to each as before."""
    return np.random.default_rng(seed).permuted(np.tile(concept, (draws, 1)), axis=1)
