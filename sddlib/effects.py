"""What a change to SDD does to its scores: paired differences from saved scores, over photographs and training seeds."""

import numpy as np

from .chance import at_once, spread_of_one
from .evaluate import headline, table
from .intervals import bootstrap, weighted_acc
from .metrics import fit_threshold
from .report import columns

BASE = "sdd"


def effects(runs: list[dict[str, list[dict]]], draws: int = 1000, seed: int = 0) -> dict[str, dict]:
    """Column -> its mean over seeds and its paired difference to SDD, unseen generators of the test split (all of them where
    training held every one).

    runs: one dict a training seed, column -> rows of scores. A column is compared over the seeds that it and SDD both have:
    {"over": "unseen" or "seen", as of `evaluate.headline`, "seeds", "photographs" of the test split, "ap" and "acc" (at each
    run's own validation threshold) with "ap_sd" and "acc_sd" (nan for one seed), "difference" and "acc_difference":
    (estimate, low, high) of the mean AP and accuracy, 95 %, "base": SDD's AP over the same seeds, and "at_once" and
    "acc_at_once": (low, high) of `chance.at_once` among all changes, over trainings; None for SDD, for a path that was cut in a
    trained detector, and where one training is all there is}. Columns that no seed shares with SDD are left out.
    """
    found, each = {}, {"ap": {}, "acc": {}}
    for name in dict.fromkeys(column for run in runs for column in run):
        shared = [run for run in runs if name in run and BASE in run]
        if not shared:
            continue
        over, ap, acc = zip(*(means(run[name]) for run in shared), strict=True)
        if ":" not in name:
            each["ap"][name], each["acc"][name] = ap, acc
        difference = acc_difference = (0.0, 0.0, 0.0)
        if name != BASE:
            pairs = [{name: run[name], BASE: run[BASE]} for run in shared]
            difference = bootstrap(pairs, draws, seed)[name, BASE]
            called = [{n: decided(rows) for n, rows in pair.items()} for pair in pairs]
            acc_difference = bootstrap(called, draws, seed, metric=weighted_acc)[name, BASE]
        found[name] = {
            "over": over[0],
            "seeds": len(shared),
            "photographs": len({r["photo"] for r in shared[0][name] if r["split"] == "test"}),
            "ap": float(np.mean(ap)),
            "ap_sd": spread(ap),
            "acc": float(np.mean(acc)),
            "acc_sd": spread(acc),
            "base": float(np.mean([means(run[BASE])[1] for run in shared])),
            "difference": difference,
            "acc_difference": acc_difference,
        }
    together = {metric: at_once(trained, BASE) for metric, trained in each.items()}
    for name, e in found.items():
        e["at_once"], e["acc_at_once"] = together["ap"].get(name), together["acc"].get(name)
    return found


def spread(values: tuple[float, ...]) -> float:
    """Standard deviation over seeds; nan for one."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")


def decided(rows: list[dict]) -> list[dict]:
    """The rows with 1.0 for a score above the threshold of their own validation rows and 0.0 for the others, so that an
    accuracy at 0.5 is the accuracy at that threshold."""
    threshold = fit_threshold([r for r in rows if r["split"] == "val"])
    return [r if r["score"] is None else r | {"score": float(r["score"] > threshold)} for r in rows]


def means(rows: list[dict]) -> tuple[str, float, float]:
    """("unseen" or "seen", AP, accuracy at the validation threshold) of a scores file, means as `evaluate.headline` says."""
    lines, summary = table(rows)
    over, _ = headline(lines)
    return over, summary[f"mean_ap_{over}"], summary[f"mean_acc_{over}"]


def twice(first: list[tuple[int, dict]], again: list[tuple[int, dict]]) -> list[tuple[str, int, float, float]]:
    """(variant, seed, mean AP, mean AP of the second training) of all that was trained in both.

    first, again: (seed, column -> rows of scores); columns of a detector with a path cut are no trainings of their own.
    """
    known = dict(first)
    shared = [(name, seed) for seed, run in again for name in run if name in known.get(seed, {}) and ":" not in name]
    second = dict(again)
    return [(name, seed, means(known[seed][name])[1], means(second[seed][name])[1]) for name, seed in shared]


def twice_table(kinds: dict[str, list[tuple[str, int, float, float]]]) -> str:
    """A line a kind of repetition. kinds: what was repeated -> of `twice`."""
    body = [["trained again", "pairs", "the same to the last digit", "again - first", "largest change", "sd of one training"]]
    for kind, rows in kinds.items():
        change = np.array([b - a for *_, a, b in rows])
        body.append([kind, len(rows), int((change == 0).sum()), change.mean(), np.abs(change).max(), spread_of_one(change)])
    return columns(body)


def verdict(effect: dict, of: str = "difference") -> str:
    """What an effect's 95 % interval says: "better", "worse", "undecided" where it holds 0, and "one seed" where the chance of
    training is not in it. "perhaps" before the first two where the interval among all changes at once holds 0."""
    if effect["seeds"] == 1:
        return "one seed"
    _, low, high = effect[of]
    word = "better" if low > 0 else "worse" if high < 0 else "undecided"
    among = effect[{"difference": "at_once", "acc_difference": "acc_at_once"}[of]]
    return f"perhaps {word}" if word != "undecided" and among and among[0] <= 0 <= among[1] else word


def effects_table(found: dict[str, dict], what: dict[str, str], metric: str = "ap") -> str:
    """A line a column, of the mean "ap" or "acc". what: column -> what was changed."""
    heading, of = metric.upper(), {"ap": "difference", "acc": "acc_difference"}[metric]
    body = [["variant", "what is changed", "seeds", heading, "sd", f"{heading} - SDD", "95 % low", "high", ""]]
    for name, e in found.items():
        sd = "" if np.isnan(e[f"{metric}_sd"]) else e[f"{metric}_sd"]
        shift = ["", "", "", ""] if name == BASE else [*(f"{v:+.3f}" for v in e[of]), verdict(e, of)]
        body.append([name, what[name], e["seeds"], e[metric], sd, *shift])
    return columns(body, 2)
