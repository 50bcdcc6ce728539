"""What photographs show: clusters of frozen CLIP embeddings, or labels that come with them. A photograph has one concept."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from sklearn.cluster import KMeans
from torch import Tensor
from torch.utils.data import DataLoader

from . import SDDError
from .data import Crops, Sample, read_csv


@torch.inference_mode()
def embed(features: Callable[[Tensor], Tensor], crops: Crops, device, batch: int = 32) -> np.ndarray:
    """(n, D) float64 features of crops; features: images (B, 3, H, W) -> (B, D)."""
    return torch.cat([features(x.to(device)).double().cpu() for x, _, _ in DataLoader(crops, batch)]).numpy()


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
    return {r["photo"]: r[column] for r in rows}


def label_photographs(labels: dict[str, str], least: int = 5) -> dict[str, int]:
    """photo -> concept for given labels (photo -> text), without those that fewer than `least` photographs share."""
    names = list(labels.values())
    kept = sorted({name for name in names if name and names.count(name) >= least})
    return {photo: kept.index(name) for photo, name in labels.items() if name in kept}
