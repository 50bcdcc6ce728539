"""What a change to SDD does to its scores: paired differences from saved scores, over photographs and training seeds."""

import numpy as np

from .evaluate import headline, table
from .intervals import bootstrap
from .report import columns

BASE = "sdd"


def effects(runs: list[dict[str, list[dict]]], draws: int = 1000, seed: int = 0) -> dict[str, dict]:
    """Column -> its mean over seeds and its paired difference to SDD, unseen generators of the test split (all of them where
    training held every one).

    runs: one dict a training seed, column -> rows of scores. A column is compared over the seeds that it and SDD both have:
    {"over": "unseen" or "seen", as of `evaluate.headline`, "seeds", "ap", "ap_sd" (nan for one seed), "acc" (at the validation
    threshold), "difference": (estimate, low, high) of the mean AP, 95 %, and "base": SDD's AP over the same seeds}. Columns
    that no seed shares with SDD are left out.
    """
    found = {}
    for name in dict.fromkeys(column for run in runs for column in run):
        shared = [run for run in runs if name in run and BASE in run]
        if not shared:
            continue
        over, ap, acc = zip(*(means(run[name]) for run in shared), strict=True)
        difference = (0.0, 0.0, 0.0)
        if name != BASE:
            difference = bootstrap([{name: run[name], BASE: run[BASE]} for run in shared], draws, seed)[name, BASE]
        found[name] = {
            "over": over[0],
            "seeds": len(shared),
            "ap": float(np.mean(ap)),
            "ap_sd": float(np.std(ap, ddof=1)) if len(ap) > 1 else float("nan"),
            "acc": float(np.mean(acc)),
            "base": float(np.mean([means(run[BASE])[1] for run in shared])),
            "difference": difference,
        }
    return found


def means(rows: list[dict]) -> tuple[str, float, float]:
    """("unseen" or "seen", AP, accuracy at the validation threshold) of a scores file, means as `evaluate.headline` says."""
    lines, summary = table(rows)
    over, _ = headline(lines)
    return over, summary[f"mean_ap_{over}"], summary[f"mean_acc_{over}"]


def verdict(effect: dict) -> str:
    """One word for the 95 % interval of an effect: "better", "worse", "undecided" where it holds 0, and "one seed" where the
    chance of training is not in it."""
    _, low, high = effect["difference"]
    if effect["seeds"] == 1:
        return "one seed"
    return "better" if low > 0 else "worse" if high < 0 else "undecided"


def effects_table(found: dict[str, dict], what: dict[str, str]) -> str:
    """A line a column. what: column -> what was changed."""
    body = [["variant", "what is changed", "seeds", "AP", "sd", "ACC", "AP - SDD", "95 % low", "high", ""]]
    for name, e in found.items():
        spread = "" if np.isnan(e["ap_sd"]) else e["ap_sd"]
        shift = ["", "", "", ""] if name == BASE else [*(f"{v:+.3f}" for v in e["difference"]), verdict(e)]
        body.append([name, what[name], e["seeds"], e["ap"], spread, e["acc"], *shift])
    return columns(body, 2)
