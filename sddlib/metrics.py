"""Numbers from labels (1 = fake) and scores: AP, AUROC, accuracies, and the threshold, which only validation may set."""

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score

from . import SDDError


def arrays(rows: list[dict]) -> tuple[np.ndarray, np.ndarray]:
    """(labels, scores) of the rows that have a score."""
    kept = [(r["label"], r["score"]) for r in rows if r["score"] not in (None, "")]
    return np.array([k[0] for k in kept], dtype=int), np.array([k[1] for k in kept], dtype=float)


def check_validation(rows: list[dict], what: str) -> None:
    """Refuse to fit something on rows of another split than val: whatever is fitted on test images flatters them."""
    if foreign := [r for r in rows if r["split"] != "val"]:
        name = f"{foreign[0]['path']} is of split {foreign[0]['split']}"
        raise SDDError(f"{what} is fitted on validation alone, and {name}; give the rows of split val")


def fit_threshold(rows: list[dict]) -> float:
    """The `best_threshold` of validation rows; rows of another split are an error."""
    check_validation(rows, "a threshold")
    return best_threshold(*arrays(rows))


def best_threshold(y: np.ndarray, s: np.ndarray) -> float:
    """The score threshold with the highest balanced accuracy on these labels and scores; fake if score > threshold.

    Candidates lie midway between neighbouring scores; of equally good ones the middle is taken. What is told to a user comes
    from `fit_threshold`; of test images it is a bound.
    """
    if len(set(y.tolist())) < 2:
        raise SDDError("a threshold needs validation scores of both classes; check the val split")
    values = np.unique(s)
    cuts = np.concatenate([[values[0] - 1e-6], (values[1:] + values[:-1]) / 2, [values[-1]]])
    real, fake = np.sort(s[y == 0]), np.sort(s[y == 1])
    balanced = np.searchsorted(real, cuts, "right") / len(real) + 1 - np.searchsorted(fake, cuts, "right") / len(fake)
    best = np.flatnonzero(balanced >= balanced.max() - 1e-12)
    return float(cuts[best[(len(best) - 1) // 2]])


def oracle_accuracy(y: np.ndarray, s: np.ndarray) -> float:
    """The accuracy at the threshold that is best for these very images: it needs their labels, so it is a bound, no result."""
    cuts = np.append(-np.inf, np.unique(s))
    real, fake = np.sort(s[y == 0]), np.sort(s[y == 1])
    right = np.searchsorted(real, cuts, "right") + len(fake) - np.searchsorted(fake, cuts, "right")
    return float(right.max() / len(y))


def metrics(y: np.ndarray, s: np.ndarray, threshold: float) -> dict[str, float]:
    """AP and AUROC with fake positive, accuracies at 0.5, at the validation threshold and at the oracle's, per class, and N."""
    if len(set(y.tolist())) < 2:
        raise SDDError("metrics need scored images of both classes; a set with one class has no AP or AUROC")
    at, half = s > threshold, s > 0.5
    return {
        "ap": float(average_precision_score(y, s)),
        "auroc": float(roc_auc_score(y, s)),
        "acc": float((half == y).mean()),
        "acc_val": float((at == y).mean()),
        "acc_oracle": oracle_accuracy(y, s),
        "real_acc_val": float((~at[y == 0]).mean()),
        "fake_acc_val": float(at[y == 1].mean()),
        "real_acc": float((~half[y == 0]).mean()),
        "fake_acc": float(half[y == 1].mean()),
        "n_real": int((y == 0).sum()),
        "n_fake": int((y == 1).sum()),
    }
