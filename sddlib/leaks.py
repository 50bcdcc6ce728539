"""What the containers of a set give away: AUROC of format, size and JPEG quality, without a look at the picture.

Unlike `audit`, which fits on train and reads test, each set is taken by itself, as one who wants to tell its classes apart
would: what a detector may have learned from the file instead of the image.
"""

from collections import Counter

import numpy as np
from sklearn.feature_extraction import DictVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

NAMES = ("format", "size", "width", "height", "pixels", "bytes/pixel", "quality", "combined")
WARN = 0.6  # an AUROC above this is worth a warning
LEAST = 10  # images of each class below which no AUROC is given
FOLDS = StratifiedKFold(5, shuffle=True, random_state=0)


def leaks(rows: list[dict]) -> dict[str, float | None]:
    """NAMES -> AUROC within one set. rows: its reals and fakes that can be decoded, with label and the facts of `file_facts`.

    Numbers (width, height, pixels, bytes a pixel, JPEG quality): max(a, 1 - a), whichever way they point; quality among the
    JPEG files alone. Names (format; size, which is WIDTHxHEIGHT): the share of fakes among the images of the same name, and
    combined: a logistic regression on all of them; both learned on four fifths and read on the other, the mean of five, so that
    no image is guessed from its own label. None where a class has too few images.
    """
    y = np.array([r["label"] for r in rows], dtype=int)
    width, height, size = (np.array([r[k] for r in rows], dtype=float) for k in ("width", "height", "bytes"))
    sizes = [f"{r['width']}x{r['height']}" for r in rows]
    jpeg = np.array([r["quality"] is not None for r in rows], dtype=bool)
    quality = np.array([r["quality"] for r in rows if r["quality"] is not None], dtype=float)
    pixels = width * height
    found = {"format": by_name(y, [r["format"] for r in rows]), "size": by_name(y, sizes)}
    found |= {"width": by_number(y, width), "height": by_number(y, height), "pixels": by_number(y, pixels)}
    found |= {"bytes/pixel": by_number(y, size / pixels), "quality": by_number(y[jpeg], quality)}
    return found | {"combined": combined(y, rows, sizes)}


def enough(y: np.ndarray) -> bool:
    """Whether both classes have LEAST images."""
    return min((y == 0).sum(), (y == 1).sum()) >= LEAST


def by_number(y: np.ndarray, v: np.ndarray) -> float | None:
    """AUROC of a number, whichever way it points."""
    if not enough(y):
        return None
    a = float(roc_auc_score(y, v))
    return max(a, 1 - a)


def by_name(y: np.ndarray, names: list[str]) -> float | None:
    """AUROC of the share of fakes among the training images of the same name, over FOLDS."""
    if not enough(y):
        return None
    _, codes = np.unique(names, return_inverse=True)
    found = []
    for train, test in FOLDS.split(codes, y):
        n = np.bincount(codes[train], minlength=codes.max() + 1)
        fakes = np.bincount(codes[train], weights=y[train], minlength=codes.max() + 1)
        share = (fakes + y[train].mean()) / (n + 1)  # a name that was not seen gets the set's own share
        found.append(roc_auc_score(y[test], share[codes[test]]))
    return float(np.mean(found))


def combined(y: np.ndarray, rows: list[dict], sizes: list[str]) -> float | None:
    """AUROC of a logistic regression on everything, over FOLDS; a size as a name where at least 1 % of the images share it."""
    if not enough(y):
        return None
    common = {s for s, n in Counter(sizes).items() if n >= 0.01 * len(rows)}
    features = []
    for r, size in zip(rows, sizes, strict=True):
        pixels = r["width"] * r["height"]
        logs = {"width": r["width"], "height": r["height"], "pixels": pixels, "bytes/pixel": r["bytes"] / pixels}
        row = {k: float(np.log(v)) for k, v in logs.items()} | {"format": r["format"], "mode": r["mode"]}
        row |= {"size": size if size in common else "other", "quality": r["quality"] or 0}
        features.append(row)
    model = make_pipeline(StandardScaler(with_mean=False), LogisticRegression(max_iter=1000))
    return float(cross_val_score(model, DictVectorizer().fit_transform(features), y, cv=FOLDS, scoring="roc_auc").mean())


def warn_above(n_real: int, n_fake: int) -> float:
    """The AUROC that is worth a warning: above WARN, and more than three standard errors above chance (the variance of the
    Mann-Whitney statistic where the classes do not differ is (m + n + 1) / 12mn)."""
    return max(WARN, 0.5 + 3 * ((n_real + n_fake + 1) / (12 * n_real * n_fake)) ** 0.5)


def telling(found: dict) -> tuple[dict[str, float], bool]:
    """(the AUROCs of `leaks` that are worth a warning, whether they are owed to the compressed size alone, which belongs to the
    picture as well: smooth ones take fewer bytes). found: of `leaks`, with n_real and n_fake."""
    known = {k: found[k] for k in NAMES if found[k] is not None}  # nothing, where a class has too few images
    names = {k: auroc for k, auroc in known.items() if auroc > warn_above(found["n_real"], found["n_fake"])}
    return names, "bytes/pixel" in names and names.keys() <= {"bytes/pixel", "combined"}
