"""The tables of a run, from its score files alone."""

from pathlib import Path

import numpy as np

from . import SDDError
from .evaluate import read_scores, table
from .intervals import bootstrap

NAMES = {"sdd": "SDD", "lora": "LoRA + linear", "probe": "linear probe"}


def read_run(run_dir: Path) -> dict[str, list[dict]]:
    """Method -> rows of RUN/scores/METHOD.csv, for the methods that the run has scored."""
    found = {m: read_scores(run_dir / "scores" / f"{m}.csv") for m in NAMES if (run_dir / "scores" / f"{m}.csv").is_file()}
    if not found:
        raise SDDError(f"{run_dir} has no scores; run notebook 04_evaluate in it")
    return found


def columns(rows: list[list], right_from: int = 1) -> str:
    """Rows of values as aligned text, the first row being the header."""
    texts = [[f"{v:.3f}" if isinstance(v, float) else str(v) for v in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    aligned = [
        [t.ljust(w) if i < right_from else t.rjust(w) for i, (t, w) in enumerate(zip(row, widths, strict=True))]
        for row in texts
    ]
    return "\n".join("  ".join(row).rstrip() for row in aligned)


def generator_table(runs: dict[str, list[dict]], split: str = "test") -> str:
    """AP and accuracy at the validation threshold of every method for every generator, N, and means over the unseen ones."""
    tables = {m: table(rows, split) for m, rows in runs.items()}
    header = ["generator", "family", "N real+fake"]
    header += [f"{NAMES[m]} {what}" for what in ("AP", "ACC") for m in tables]
    body = []
    for lines in zip(*(lines for lines, _ in tables.values()), strict=True):
        first = lines[0]
        name = first["generator"] + (" (seen)" if first["seen"] else "")
        body.append([name, first["family"], f"{first['n_real']}+{first['n_fake']}"])
        body[-1] += [line[key] for key in ("ap", "acc_val") for line in lines]
    means = [s[key] for key in ("mean_ap_unseen", "mean_acc_unseen") for _, s in tables.values()]
    return columns([header, *body, ["mean of unseen", "", "", *means]], 2)


def threshold_table(runs: dict[str, list[dict]], split: str = "test") -> str:
    """Accuracy over the unseen generators at 0.5 and at the validation threshold, of reals and of fakes apart."""
    header = ["method", "threshold", "ACC", "real ACC", "fake ACC", "ACC at 0.5", "real at 0.5", "fake at 0.5"]
    body = []
    for m, rows in runs.items():
        lines, summary = table(rows, split)
        unseen = [line for line in lines if not line["seen"]]
        keys = ("acc_val", "real_acc_val", "fake_acc_val", "acc", "real_acc", "fake_acc")
        body.append([NAMES[m], f"{summary['threshold']:.4g}", *(sum(line[k] for line in unseen) / len(unseen) for k in keys)])
    return columns([header, *body])


def seeds_table(run_dirs: list[Path], draws: int = 1000) -> str:
    """Runs that differ in their seed, side by side: mean and spread of every summary value, and 95 % intervals of the AP."""
    runs = [read_run(folder) for folder in run_dirs]
    methods = [m for m in NAMES if all(m in run for run in runs)]
    runs = [{m: run[m] for m in methods} for run in runs]
    images = [[(r["path"], r["label"]) for r in rows] for run in runs for rows in run.values()]
    if any(other != images[0] for other in images[1:]):
        raise SDDError("these runs did not score the same images in the same order; compare runs of one manifest and profile")
    keys = ("mean_ap_unseen", "min_ap_unseen", "mean_auroc_unseen", "mean_acc_unseen", "mean_acc05_unseen", "ap_seen")
    body = []
    for key in keys:
        found = {m: [table(run[m])[1][key] for run in runs] for m in methods}
        body.append([key, *(f"{np.mean(v):.3f} ± {np.std(v, ddof=1) if len(v) > 1 else 0:.3f}" for v in found.values())])
    lines = [["mean ± sd over runs", *(NAMES[m] for m in methods)], *body]
    spans = [["mean_ap_unseen", "estimate", "95 % low", "high"]]
    for name, values in bootstrap(runs, draws).items():
        spans.append([" - ".join(NAMES[m] for m in ([name] if isinstance(name, str) else name)), *values])
    count = f"{len(runs)} runs; intervals draw runs and photographs, {draws} draws, differences paired"
    return f"{columns(lines)}\n\n{columns(spans)}\n{count}"
