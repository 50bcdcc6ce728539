"""What photographs show (clusters of frozen CLIP embeddings, or labels that come with them), and how they are drawn.

A photograph has one concept, and is drawn and split whole: its crops are not independent. P: photographs, S: draws.
"""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from sklearn.cluster import KMeans
from torch import Tensor
from torch.utils.data import DataLoader

from . import SDDError
from .benchmarks import stand_against
from .crops import Crops
from .data import Sample, read_csv
from .places import class_folders
from .progress import progress


@torch.inference_mode()
def embed(features: Callable[[Tensor], Tensor], crops: Crops, device, batch: int = 32) -> np.ndarray:
    """(n, D) float64 features of crops; features: images (B, 3, H, W) -> (B, D)."""
    return torch.cat([features(x.to(device)).double().cpu() for x, _, _ in progress(DataLoader(crops, batch))]).numpy()


def cluster_photographs(F: np.ndarray, samples: list[Sample], k: int, seed: int, least: int = 5) -> dict[str, int]:
    """photo -> concept: k-means of the photographs' mean real features; a fake without a photograph joins the nearest cluster.
    F: (n, D) features of samples.

    A cluster of fewer than `least` photographs is dissolved, the smallest first, and its photographs join the nearest of the
    others: a mean of one or two photographs says nothing of a concept.
    """
    rows: dict[str, list[int]] = {}
    alone: dict[str, list[int]] = {}
    for i, s in enumerate(samples):
        (alone if s.label else rows).setdefault(s.photo, []).append(i)
    alone = {photo: found for photo, found in alone.items() if photo not in rows}
    if len(rows) < max(2, k):
        raise SDDError(f"{len(rows)} real photographs cannot make {k} concepts; lower k or raise limit")
    E, others = (np.array([F[found].mean(0) for found in part.values()]).reshape(-1, F.shape[1]) for part in (rows, alone))
    centres = KMeans(k, n_init=20, random_state=seed).fit(E).cluster_centers_
    while True:
        nearest = np.linalg.norm(E[:, None] - centres, axis=2).argmin(1)
        sizes = np.bincount(nearest, minlength=len(centres))
        if sizes.min() >= least or len(centres) == 1:
            joined = np.linalg.norm(others[:, None] - centres, axis=2).argmin(1)
            return dict(zip([*rows, *alone], [*nearest.tolist(), *joined.tolist()], strict=True))
        centres = np.delete(centres, sizes.argmin(), 0)


def column_labels(manifest: Path, column: str) -> dict[str, str]:
    """photo -> label: what an extra column of the manifest, such as the name of an object's class, says of each photograph."""
    rows = read_csv(manifest)
    if column not in rows[0]:
        raise SDDError(f"manifest {manifest} has no column {column!r}; name one that it has, or 'clusters'")
    return {r.get("photo", r["path"]): r[column] for r in rows}


def folder_labels(samples: list[Sample], layout: str) -> dict[str, str]:
    """photo -> the folder that says what it shows: the one inside the folder of reals or fakes, such as fake/car, or the one
    around it where that is not the generator's, such as progan/car/1_fake; "" where there is none. samples: of
    `layouts.read_benchmark`, whose photographs are paths."""
    if layout == "manifest":
        raise SDDError("concepts 'folder' are read from the folders of a benchmark; set layout, or name a manifest column")
    found = {}
    for s in samples:
        parts = tuple(s.photo.split("/")[:-1])
        at = class_folders(layout, parts)[0][0]
        around = "" if layout == "folder" or not at or parts[at - 1] == s.generator else parts[at - 1]
        found[s.photo] = parts[at + 1] if parts[at + 1 :] else around
    return found


def complete(concepts: dict[str, int], samples: list[Sample]) -> tuple[dict[str, int], list[str]]:
    """(photo -> concept, generators): the generators of which every concept has two photographs with fakes, and two with reals
    that stand against them, and the photographs that serve these. Of other generators some concept has no difference."""
    reals, fakes = ([s for s in samples if s.label == label and s.photo in concepts] for label in (0, 1))
    names = list(dict.fromkeys(s.generator for s in fakes))
    against = stand_against((s.generator for s in reals), names)

    def enough(part: list[Sample]) -> bool:
        shown = Counter(concepts[photo] for photo in {s.photo for s in part})
        return all(shown[c] > 1 for c in set(concepts.values()))

    def serving(g: str) -> list[list[Sample]]:
        return [[s for s in fakes if s.generator == g], [s for s in reals if s.generator in against[g]]]

    kept = [g for g in names if all(enough(part) for part in serving(g))]
    photos = {s.photo for g in kept for part in serving(g) for s in part}
    return {photo: c for photo, c in concepts.items() if photo in photos}, kept


def label_photographs(labels: dict[str, str], least: int = 5) -> dict[str, int]:
    """photo -> concept for given labels (photo -> text), without those that fewer than `least` photographs share."""
    count = Counter(labels.values())
    number = {name: k for k, name in enumerate(sorted(name for name, n in count.items() if name and n >= least))}
    return {photo: number[name] for photo, name in labels.items() if name in number}


def sides(concepts: dict[str, int], samples: list[Sample]) -> np.ndarray:
    """(P,) what there is of each photograph, as numbers from 0 on: where it has real and fake images, always the same; else one
    for reals and one for fakes of each generator, since these are drawn, halved and dealt out apart."""
    found: dict[str, set] = {photo: set() for photo in concepts}
    for s in samples:
        if s.photo in found:
            found[s.photo].add((s.label, s.generator))
    kinds = ["both" if len({label for label, _ in made}) > 1 else tuple(sorted(made)) for made in found.values()]
    return np.unique([str(kind) for kind in kinds], return_inverse=True)[1]


def draw_photographs(concepts: dict[str, int], samples: list[Sample], draws: int, seed: int) -> np.ndarray:
    """(1 + draws, P) weights: row 0 takes every photograph once, the others draw within each concept with replacement, at
    least two different ones. Where reals and fakes are no twins, each side is drawn for itself."""
    side = sides(concepts, samples)
    strata = (side.max() + 1) * np.array(list(concepts.values())) + side
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
    side: (P,), of `sides`, each of which is halved apart."""
    rng = np.random.default_rng(seed)
    keys = np.where(weights > 0, (side.max() + 1) * concept + side + rng.random(weights.shape), np.inf)
    places = np.arange(weights.shape[1]) + rng.integers(2, size=(len(weights), 1))  # every second of a shuffled stratum
    first = np.empty(weights.shape, bool)
    np.put_along_axis(first, keys.argsort(1), places % 2 == 0, 1)
    return first


def shuffled(concept: np.ndarray, side: np.ndarray, draws: int, seed: int) -> np.ndarray:
    """(draws, P) concepts dealt out anew to the photographs, as many to each as before. side: (P,), of `sides`, each
    of which is dealt out apart."""
    rng, dealt = np.random.default_rng(seed), np.tile(concept, (draws, 1))
    for mine in (side == kind for kind in np.unique(side)):
        dealt[:, mine] = rng.permuted(dealt[:, mine], axis=1)
    return dealt
