"""What a change to SDD does to its scores: differences from saved scores, with the chance of photographs and of training."""

import numpy as np
from scipy.special import logit
from sklearn.metrics import roc_auc_score

from . import SDDError
from .chance import half_width, pooled_spread
from .evaluate import headline, table
from .intervals import WEIGHTED, Interval, mean_draws
from .metrics import fit_threshold
from .report import columns

BASE = "sdd"


def effects(runs: list[dict[str, list[dict]]], draws: int = 1000, seed: int = 0, base: str = BASE) -> dict[str, dict]:
    """Column -> its level and its difference to `base`, over unseen generators of the test split (all of them where training
    held every one).

    runs: one dict a seed and machine, column -> rows of scores, of the same images; what is compared are the means over all
    trainings of a column. {"over": "unseen" or "seen", "trainings", "photographs" of the test split, "chance": AP of a
    constant score; "ap", "ap_sd" (over trainings, nan for one), "ap_each" (run -> AP); "ap_difference": (estimate, low, high),
    95 %; "ap_among": (low, high), wide enough to hold the truth in all changes at once, None for `base` and for a path; and the
    same as "acc...", accuracy at each run's own validation threshold; "one_training": True where the chance of training is in
    no interval}.

    The error of a difference has two parts: photographs, drawn again and the same on both sides, and training, with one spread
    for all columns (degrees of freedom by Satterthwaite, Biometrics Bulletin 2, 1946). Generators are not drawn, nor validation
    photographs, of which the threshold comes. A path cut in a trained detector ("sdd:PATH") is compared with the same trainings
    uncut, each with itself. {} without `base`.
    """
    if draws < 20:
        raise SDDError(f"{draws} draws of photographs say nothing of their chance; give 20 or more, better 1000")
    files = {(name, k): rows for k, run in enumerate(runs) for name, rows in run.items()}
    if not any(name == base for name, _ in files):
        return {}
    if alone := [name for name, k in files if ":" in name and (name.split(":")[0], k) not in files]:
        raise SDDError(f"{alone[0]} is there without the scores of its detector uncut; sweep it again")
    lines = table(next(iter(files.values())))[0]
    over, chosen = headline(lines)
    photos = len({r["photo"] for r in next(iter(files.values())) if r["split"] == "test"})
    level = float(np.mean([r["n_fake"] / (r["n_fake"] + r["n_real"]) for r in chosen]))
    found = {name: {"over": over, "photographs": photos, "chance": level} for name, _ in files}
    called = {key: decided(rows) for key, rows in files.items()}
    for metric, scored in (("ap", files), ("acc", called)):
        drawn = mean_draws(scored, draws, np.random.default_rng(seed), metric=WEIGHTED[metric])
        for name, facts in compared(drawn, base).items():
            found[name] |= {
                "trainings": len(facts["each"]),
                "one_training": facts.pop("one_training"),
                metric: facts.pop("mean"),
            }
            found[name] |= {f"{metric}_{key}": value for key, value in facts.items()}
    return found


def compared(drawn: dict[tuple[str, int], np.ndarray], base: str) -> dict[str, dict]:
    """Of every column the mean over its trainings and its difference to `base`. drawn: (column, run) -> of `mean_draws`."""
    each = {name: {k: v for (n, k), v in drawn.items() if n == name} for name, _ in drawn}
    trainings = {name: {k: float(v[0]) for k, v in by_run.items()} for name, by_run in each.items()}
    spread, free = pooled_spread(by_run.values() for name, by_run in trainings.items() if ":" not in name)
    changes, found = sum(":" not in name for name in each if name != base), {}
    for name, by_run in trainings.items():
        own = list(by_run.values())
        sd = float(np.std(own, ddof=1)) if len(own) > 1 else float("nan")
        found[name] = {"mean": float(np.mean(own)), "sd": sd, "each": by_run}
        shift, trained, freedom = against(name, each, base, spread if free else 0.0, free)
        mid, error = float(shift[0]), float(np.hypot(shift[1:].std(), trained))
        free_of_all = freedom * (error / trained) ** 4 if trained else np.inf
        alone, among = (half_width(error, free_of_all, n) if name != base else 0.0 for n in (1, max(changes, 1)))
        no_change = name == base or ":" in name or not freedom
        found[name] |= {"one_training": not freedom, "difference": (mid, mid - alone, mid + alone)}
        found[name]["among"] = None if no_change else (mid - among, mid + among)
    return found


def against(name: str, each: dict, base: str, spread: float, free: int) -> tuple[np.ndarray, float, int]:
    """(difference to `base` under every draw, the estimate first; its standard error from training; degrees of freedom)."""
    mine = each[name]
    if ":" in name:
        pairs = np.array([v - each[name.split(":")[0]][k] for k, v in mine.items()])
        n = len(pairs)
        return pairs.mean(0), np.std(pairs[:, 0], ddof=1) / np.sqrt(n) if n > 1 else 0.0, n - 1
    ours, theirs = (np.array(list(by_run.values())) for by_run in (mine, each[base]))
    return ours.mean(0) - theirs.mean(0), spread * np.sqrt(1 / len(ours) + 1 / len(theirs)), free


def mean_ap(rows: list[dict]) -> float:
    """Mean AP of a scores file over unseen generators, or over all where training held every one."""
    lines, summary = table(rows)
    return summary[f"mean_ap_{headline(lines)[0]}"]


def part_strengths(run: dict[str, list[dict]]) -> dict[str, float]:
    """How the linear head of a trained SDD weighs its two parts (Eq. 15), from its scores with one of them held at its mean or
    the enhancer shown a flat picture, and so from logits that differ by that part alone. {"F_low", "T_CLS": AUROC on validation
    of the part alone; "louder": spread of T_CLS's part of the logit on test by that of F_low's; "alike": their correlation
    there; "without_pixels": that of F_low's part with what is left of it before a flat picture}.
    """
    names = {"F_low": f"{BASE}:F_low_only", "T_CLS": f"{BASE}:T_CLS_only", "flat": f"{BASE}:pixels_flat", "whole": BASE}
    scored = [i for i, row in enumerate(run[BASE]) if all(run[name][i]["score"] is not None for name in names.values())]
    z = {part: logit(np.clip([run[name][i]["score"] for i in scored], 1e-12, 1 - 1e-12)) for part, name in names.items()}
    val, test = (np.array([run[BASE][i]["split"] == split for i in scored]) for split in ("val", "test"))
    y = np.array([run[BASE][i]["label"] for i in scored])
    F_low, flat = (z["whole"] - z["T_CLS"])[test], (z["flat"] - z["T_CLS"])[test]
    return {
        "F_low": float(roc_auc_score(y[val], z["F_low"][val])),
        "T_CLS": float(roc_auc_score(y[val], z["T_CLS"][val])),
        "louder": float(z["T_CLS"][test].std() / F_low.std()),
        "alike": float(np.corrcoef(F_low, z["T_CLS"][test])[0, 1]),
        "without_pixels": float(np.corrcoef(F_low, flat)[0, 1]),
    }


def decided(rows: list[dict]) -> list[dict]:
    """The rows with 1.0 for a score above the threshold of their own validation rows and 0.0 for the others, so that an
    accuracy at 0.5 is the accuracy at that threshold."""
    threshold = fit_threshold([r for r in rows if r["split"] == "val"])
    return [r if r["score"] is None else r | {"score": float(r["score"] > threshold)} for r in rows]


def verdict(effect: dict, metric: str = "ap") -> str:
    """What the 95 % interval of an effect says: "better", "worse", "undecided" where it holds 0, "one training" where the
    chance of training is in no interval; "perhaps" before the first two where 0 lies within the interval among all changes."""
    if effect["one_training"]:
        return "one training"
    low, high = effect[f"{metric}_difference"][1:]
    word = "better" if low > 0 else "worse" if high < 0 else "undecided"
    among = effect[f"{metric}_among"]
    return f"perhaps {word}" if word != "undecided" and among and among[0] <= 0 <= among[1] else word


def as_text(interval: Interval) -> str:
    """+0.012 [-0.003, +0.027]"""
    return "{:+.3f} [{:+.3f}, {:+.3f}]".format(*interval)


def effects_table(found: dict[str, dict], what: dict[str, str], metric: str = "ap") -> str:
    """A line a column, of the mean "ap" or "acc". what: column -> what was changed."""
    heading = metric.upper()
    body = [["variant", "what is changed", "trainings", heading, "sd", f"{heading} - SDD", "95 % low", "high", ""]]
    for name, e in found.items():
        sd = "" if np.isnan(e[f"{metric}_sd"]) else e[f"{metric}_sd"]
        shift = ["", "", "", ""] if name == BASE else [*(f"{v:+.3f}" for v in e[f"{metric}_difference"]), verdict(e, metric)]
        body.append([name, what[name], e["trainings"], e[metric], sd, *shift])
    return columns(body, 2)
