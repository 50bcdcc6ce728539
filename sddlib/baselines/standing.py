"""Where each method stands: means over unseen generators with intervals, what it costs, and the paper's means beside them."""

from collections.abc import Iterable

import numpy as np

from .. import SDDError
from ..columns import columns
from ..effects import BASE
from ..evaluate import table
from ..intervals import bootstrap
from ..paper import read_tables
from ..report import NAMES
from . import BASELINES, baseline

SPENT = ("train_seconds", "train_wall", "maps_made")  # of a training that was stopped, its last part alone is known
KEYS = ("mean_ap_unseen", "mean_auroc_unseen", "mean_acc_unseen", "min_ap_unseen", "ap_seen")


def title(kind: str) -> str:
    """A method as tables name it."""
    return NAMES[kind] if kind in NAMES else baseline(kind).title


def standing(runs: list[dict[str, list[dict]]], draws: int = 1000, seed: int = 0) -> dict[str, dict]:
    """Kind -> its means over seeds (KEYS, "ap_sd": nan for one seed), "seeds", "ap": (estimate, low, high) of the mean AP over
    unseen generators, 95 %, "difference": the same minus SDD's, paired over the seeds that both have, or None; best first.

    runs: one dict a seed, kind -> rows of scores; photographs are drawn with replacement, and seeds where there are several.
    Error: a benchmark whose every generator was in training.
    """
    found = {}
    for kind in dict.fromkeys(kind for run in runs for kind in run):
        mine = [run for run in runs if kind in run]
        summaries = [table(run[kind])[1] for run in mine]
        if any("mean_ap_unseen" not in s for s in summaries):
            raise SDDError(
                "no unseen generator: training held every generator of the test split, and methods are ranked on others; "
                "add fakes of another generator to that split"
            )
        means = {k: float(np.mean([s.get(k, np.nan) for s in summaries])) for k in KEYS}
        ap = [s["mean_ap_unseen"] for s in summaries]
        means |= {"seeds": len(mine), "ap_sd": float(np.std(ap, ddof=1)) if len(ap) > 1 else float("nan")}
        means["ap"] = bootstrap([{kind: run[kind]} for run in mine], draws, seed)[kind]
        shared = [{kind: run[kind], BASE: run[BASE]} for run in mine if BASE in run and kind != BASE]
        means["difference"] = bootstrap(shared, draws, seed)[kind, BASE] if shared else None
        found[kind] = means
    return dict(sorted(found.items(), key=lambda item: -item[1]["ap"][0]))


def ranking_table(found: dict[str, dict]) -> str:
    """`standing` as text, a line a method."""
    body = [
        ["method", "seeds", "AP", "95 % low", "high", "sd", "AUROC", "ACC", "lowest AP", "seen AP", "AP - SDD", "low", "high"]
    ]
    for kind, f in found.items():
        spread = "" if np.isnan(f["ap_sd"]) else f["ap_sd"]
        shift = [f"{v:+.3f}" for v in f["difference"]] if f["difference"] else ["", "", ""]
        body.append([title(kind), f["seeds"], *f["ap"], spread, *(f[k] for k in KEYS[1:]), *shift])
    return columns(body)


def cost_table(facts: dict[tuple[str, int], dict]) -> str:
    """What each method costs. facts: of `trials.read_trials`, means over seeds; seconds of one thread's work, or, where only
    that was noted, of a clock on the wall of a shared machine. maps: made while training, by
    those that look through a diffusion model; others had been kept. Of a training that was stopped nothing of it is known."""
    body = [["method", "parameters", "learned", "ms an image", "training s", "wall s", "images", "epochs", "maps"]]
    for kind in dict.fromkeys(kind for kind, _ in facts):
        mine = [f for (k, _), f in facts.items() if k == kind]

        def mean(name: str, form: str, mine=mine) -> str:
            values = [f[name] for f in mine if name in f and not (f.get("resumed") and name in SPENT)]
            return form.format(np.mean(values)) if values else "-"

        row = [title(kind), *(f"{mine[0][k]:,}" for k in ("parameters", "learned")), mean("ms_image", "{:.1f}")]
        row += [mean(name, "{:.0f}") for name in ("train_seconds", "train_wall", "train_images")]
        body.append([*row, mean("epochs", "{:.1f}"), mean("maps_made", "{:.0f}")])
    return columns(body)


def paper_means(kinds: Iterable[str]) -> dict[str, dict[int, float]]:
    """Kind -> table of the paper (1: AP, 2: ACC, 3: AUROC) -> the mean it prints, in percent."""
    rows = {kind: baseline(kind).paper for kind in kinds if kind in BASELINES and baseline(kind).paper} | {BASE: "Ours"}
    printed = {(c.method, c.table): c.value for c in read_tables() if c.set == "mean"}
    return {kind: {n: printed[row, n] for n in (1, 2, 3) if (row, n) in printed} for kind, row in rows.items()}


def beside_paper(found: dict[str, dict]) -> str:
    """The means of Tables 1-3 as the paper reports them, and the same metrics as run here, in percent."""
    here = ("mean_ap_unseen", "mean_acc_unseen", "mean_auroc_unseen")
    body = [["method", "T1 AP", "T2 ACC", "T3 AUROC", "run here: AP", "ACC", "AUROC"]]
    for kind, printed in sorted(paper_means(found).items(), key=lambda item: -item[1].get(1, 0)):
        ours = [f"{100 * found[kind][k]:.2f}" for k in here] if kind in found else ["-"] * 3
        body.append([title(kind), *(f"{printed[n]:.2f}" if n in printed else "-" for n in (1, 2, 3)), *ours])
    return columns(body)


def same_order(found: dict[str, dict], number: int = 1) -> tuple[int, int]:
    """(pairs of methods that a table of the paper and this benchmark put in the same order, pairs that differ in the paper)."""
    printed = {kind: p[number] for kind, p in paper_means(found).items() if number in p and kind in found}
    key = {1: "mean_ap_unseen", 2: "mean_acc_unseen", 3: "mean_auroc_unseen"}[number]
    kinds = list(printed)
    pairs = [(a, b) for i, a in enumerate(kinds) for b in kinds[i + 1 :] if printed[a] != printed[b]]
    return sum((printed[a] - printed[b]) * (found[a][key] - found[b][key]) > 0 for a, b in pairs), len(pairs)
