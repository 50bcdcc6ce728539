"""Numbers beside the pictures of a trained SDD: how far two classes lie apart, with intervals, and which examples are shown."""

from collections.abc import Sequence

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.manifold import TSNE
from sklearn.metrics import silhouette_score
from sklearn.model_selection import GroupKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from . import SDDError
from .evaluate import by_generator, seen_generators
from .intervals import interval, photograph_draws, photographs, weighted_auroc

VERDICTS = {(0, False): "passed", (0, True): "FALSE ALARM", (1, False): "MISSED", (1, True): "found"}  # (label, called fake)


def draw(rows: list[dict], images: int, seed: int) -> list[dict]:
    """At most `images` rows of each class, as many of one as of the other, drawn with the seed; reals first."""
    classes = [[r for r in rows if r["label"] == label] for label in (0, 1)]
    count = min(images, *map(len, classes))
    if count < 2:
        raise SDDError(f"{count} images of each class are too few to compare; raise images, or score more of them")
    kept = []
    for part in classes:
        order = np.random.default_rng(seed).permutation(len(part))[:count]
        kept += [part[i] for i in sorted(order)]
    return kept


def plane(features: np.ndarray, perplexity: float, iterations: int, seed: int) -> np.ndarray:
    """t-SNE of standardised features (n, K) -> (n, 2), started from their principal components."""
    if not 0 < perplexity < len(features):
        raise SDDError(f"perplexity {perplexity} does not suit {len(features)} images; take one from above 0 to below that")
    if iterations < 250:
        raise SDDError(f"t-SNE needs at least 250 iterations, not {iterations}; raise them")
    tool = TSNE(perplexity=perplexity, max_iter=iterations, init="pca", random_state=seed)
    return tool.fit_transform(StandardScaler().fit_transform(features))


def separation(features: np.ndarray, points: np.ndarray, labels: np.ndarray, photos: Sequence[str]) -> dict[str, float]:
    """How far real and fake lie apart: silhouette in the space of the standardised features (n, K), silhouette in the t-SNE
    plane (n, 2), and probe, the cross-validated accuracy of a linear classifier on the features, in which no photograph
    stands on both sides of a fold, with probe_sd, its standard deviation over the folds."""
    folds = min(5, len(set(photos)))
    if folds < 2:
        raise SDDError("a linear probe needs images of at least two photographs to be tested on; take more of them")
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    accuracy = cross_val_score(probe, features, labels, groups=list(photos), cv=GroupKFold(folds), error_score="raise")
    space = StandardScaler().fit_transform(features)
    found = {"silhouette": silhouette_score(space, labels), "silhouette_plane": silhouette_score(points, labels)}
    return {name: float(v) for name, v in (found | {"probe": accuracy.mean(), "probe_sd": accuracy.std(ddof=1)}).items()}


def likeness(maps: np.ndarray) -> float:
    """Mean correlation of the maps (n, s, s) of two different images: 1 if all images get one and the same map, up to
    its strength; 0 if maps have nothing in common. Maps without any contrast are left out."""
    flat = maps.reshape(len(maps), -1)
    flat = flat[flat.std(1) > 0]
    if len(flat) < 2:
        raise SDDError("fewer than two maps have any contrast, so they cannot be compared; take more images")
    pairs = np.corrcoef(flat)
    return float(pairs[~np.eye(len(pairs), dtype=bool)].mean())


def auroc_intervals(rows: list[dict], values: dict[str, float], draws: int, seed: int) -> dict[str, tuple]:
    """AUROC of one number an image, of every test generator and of the mean over the unseen ones, with 95 % intervals.

    rows: a scores file; values: path -> number, rows without one are left out. A draw takes photographs with replacement, each
    with its real crops and all their fakes. Returns {generator or "mean of unseen": (estimate, low, high)}.
    """
    groups = {g: [r for r in part if r["path"] in values] for g, part in by_generator(rows).items()}
    where, strata = photographs(groups)
    weights = photograph_draws(strata, draws, np.random.default_rng(seed))
    found = {}
    for g, part in groups.items():
        y, v = np.array([r["label"] for r in part]), np.array([values[r["path"]] for r in part])
        found[g] = weighted_auroc(y, v, weights[:, [where[r["photo"]] for r in part]])
    if unseen := [found[g] for g in found if g not in seen_generators(rows)]:
        found["mean of unseen"] = np.mean(unseen, 0)
    if not all(np.isfinite(v).all() for v in found.values()):
        raise SDDError("a draw held no real or no fake of some generator: too few photographs for an interval; score more")
    return {g: interval(v) for g, v in found.items()}


def choose_examples(rows: list[dict], threshold: float, each: int = 4, failures: int = 2) -> list[dict]:
    """`each` reals, then `each` fakes of a scores file's test split, the same for the same file, with a "verdict" added.

    In each class up to `failures` errors at the threshold, the surest first; then right verdicts, in turn the surest and the
    middle one. Where there is a choice, a generator and a photograph that the class does not show yet.
    """
    chosen = []
    for label in (0, 1):
        towards = 1 if label else -1  # rising: from surely wrong to surely right
        part = [r for r in rows if r["split"] == "test" and r["label"] == label and r["score"] is not None]
        part.sort(key=lambda r: (towards * r["score"], r["path"]))
        if len(part) < each:
            raise SDDError(f"{len(part)} scored test images of label {label} are fewer than the {each} examples; score more")
        wrong = [r for r in part if (r["score"] > threshold) != bool(label)]
        right = part[len(wrong) :]
        turns = [wrong] * min(failures, len(wrong)) + [right[::-1], right[len(right) // 2 :]] * each + [part] * each
        taken: list[dict] = []
        for pool in turns:
            left = [r for r in pool if r not in taken]
            if left and len(taken) < each:
                shown = {r["generator"] for r in taken}, {r["photo"] for r in taken}
                taken.append(min(left, key=lambda r: (r["generator"] in shown[0], r["photo"] in shown[1])))
        chosen += [r | {"verdict": VERDICTS[label, r["score"] > threshold]} for r in taken]
    return chosen
