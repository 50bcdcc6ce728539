"""The tables of a scores file once more, in plain Python from the definitions, sharing no line with the library: no NumPy, no
scikit-learn, no sddlib. Label 1 is fake; fake if score > threshold; a row without a score counts nowhere."""

import csv
from bisect import bisect_left, bisect_right
from fractions import Fraction

Pairs = list[tuple[int, float]]  # (label, score)


def read(path) -> list[dict]:
    """The rows of a scores.csv, label as int and score as float, None where the file could not be read."""
    with open(path, newline="", encoding="utf-8", errors="surrogateescape") as f:
        return [r | {"label": int(r["label"]), "score": float(r["score"]) if r["score"] else None} for r in csv.DictReader(f)]


def pairs(rows) -> Pairs:
    return [(r["label"], r["score"]) for r in rows if r["score"] is not None]


def classes(found: Pairs) -> tuple[list[float], list[float]]:
    """(scores of reals, scores of fakes), each sorted; both must be there."""
    reals, fakes = (sorted(s for label, s in found if label == wanted) for wanted in (0, 1))
    if not reals or not fakes:
        raise ValueError("one class has no scores")
    return reals, fakes


def average_precision(found: Pairs) -> float:
    """Sum over descending thresholds of the share of fakes gained times the precision there; equal scores come in together."""
    _, fakes = classes(found)
    total, hits, taken = Fraction(0), 0, 0
    by_score: dict[float, list[int]] = {}
    for label, score in found:
        by_score.setdefault(score, []).append(label)
    for score in sorted(by_score, reverse=True):
        gained = sum(by_score[score])
        hits, taken = hits + gained, taken + len(by_score[score])
        total += Fraction(gained, len(fakes)) * Fraction(hits, taken)
    return float(total)


def auroc(found: Pairs) -> float:
    """The share of (real, fake) pairs in which the fake scores higher; equal scores count half."""
    reals, fakes = classes(found)
    won = sum(Fraction(bisect_left(reals, s) + bisect_right(reals, s), 2) for s in fakes)
    return float(won / (len(reals) * len(fakes)))


def accuracy(found: Pairs, threshold: float) -> float:
    return float(Fraction(sum((score > threshold) == (label == 1) for label, score in found), len(found)))


def cuts(found: Pairs) -> list[float]:
    """Every threshold that makes a difference: below the lowest score, midway between neighbours, at the highest."""
    values = sorted({score for _, score in found})
    return [values[0] - 1e-6, *((a + b) / 2 for a, b in zip(values, values[1:], strict=False)), values[-1]]


def threshold(found: Pairs) -> float:
    """The highest balanced accuracy; of equally good thresholds the middle one, of an even number the lower of the two."""
    reals, fakes = classes(found)

    def balanced(t: float) -> Fraction:
        right, missed = bisect_right(reals, t), bisect_right(fakes, t)
        return Fraction(right, len(reals)) + Fraction(len(fakes) - missed, len(fakes))

    rated = [(balanced(t), t) for t in cuts(found)]
    highest = max(b for b, _ in rated)
    best = [t for b, t in rated if b == highest]
    return best[(len(best) - 1) // 2]


def oracle(found: Pairs) -> float:
    """The accuracy at the threshold that is best for these very labels."""
    reals, fakes = classes(found)
    right = (bisect_right(reals, t) + len(fakes) - bisect_right(fakes, t) for t in cuts(found))
    return float(Fraction(max(right), len(found)))


def against(real: str, generators: list[str]) -> list[str]:
    """The generators that a real stands against: those its generator value names, joined by +, or all if it names none."""
    named = [g for g in generators if g in real.split("+")]
    return named or generators


def table(rows: list[dict], split: str = "test") -> tuple[dict[str, dict[str, float]], dict[str, float]]:
    """(generator -> numbers, means over the generators that are unseen: without fakes in validation)."""
    at = threshold(pairs([r for r in rows if r["split"] == "val"]))
    seen = {r["generator"] for r in rows if r["split"] == "val" and r["label"]}
    fakes = [r for r in rows if r["split"] == split and r["label"]]
    names = list(dict.fromkeys(r["generator"] for r in fakes))
    reals = [r for r in rows if r["split"] == ("val" if split == "dev" else split) and not r["label"]]
    lines = {}
    for name in names:
        mine = [r for r in reals if name in against(r["generator"], names)] + [r for r in fakes if r["generator"] == name]
        found = pairs(mine)
        lines[name] = {"ap": average_precision(found), "auroc": auroc(found), "acc": accuracy(found, 0.5)}
        lines[name] |= {"acc_val": accuracy(found, at), "acc_oracle": oracle(found)}
    unseen = [g for g in names if g not in seen] or names
    means = {key: sum(lines[g][key] for g in unseen) / len(unseen) for key in ("ap", "auroc", "acc", "acc_val")}
    trained = [lines[g]["ap"] for g in names if g in seen]
    return lines, {"threshold": at, **means, "min_ap": min(lines[g]["ap"] for g in unseen)} | (
        {"ap_seen": sum(trained) / len(trained)} if trained else {}
    )
