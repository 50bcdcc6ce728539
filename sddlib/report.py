"""The tables of a run, from its score files alone."""

from pathlib import Path

import numpy as np

from . import SDDError
from .columns import columns
from .evaluate import headline, read_scores, table
from .intervals import bootstrap
from .profiles import read_json

NAMES = {"sdd": "SDD", "lora": "LoRA + linear", "probe": "linear probe"}


def read_run(run_dir: Path) -> dict[str, list[dict]]:
    """Method -> rows of RUN/scores/METHOD.csv, for the methods that the run has scored."""
    found = {m: read_scores(run_dir / "scores" / f"{m}.csv") for m in NAMES if (run_dir / "scores" / f"{m}.csv").is_file()}
    if not found:
        raise SDDError(f"{run_dir} has no scores; run notebook 04_evaluate in it")
    return found


def generator_table(runs: dict[str, list[dict]], split: str = "test") -> str:
    """AP and accuracy at the validation threshold of every method for every generator, N, and means over the unseen ones (over
    all where training held every generator)."""
    tables = {m: table(rows, split) for m, rows in runs.items()}
    header = ["generator", "family", "N real+fake"]
    header += [f"{NAMES[m]} {what}" for what in ("AP", "ACC") for m in tables]
    body = []
    for lines in zip(*(lines for lines, _ in tables.values()), strict=True):
        first = lines[0]
        name = first["generator"] + (" (seen)" if first["seen"] else "")
        body.append([name, first["family"], f"{first['n_real']}+{first['n_fake']}"])
        body[-1] += [line[key] for key in ("ap", "acc_val") for line in lines]
    over = headline(next(iter(tables.values()))[0])[0]
    means = [s[f"{key}_{over}"] for key in ("mean_ap", "mean_acc") for _, s in tables.values()]
    return columns([header, *body, [f"mean of {over}", "", "", *means]], 2)


def threshold_table(runs: dict[str, list[dict]], split: str = "test") -> str:
    """Accuracy over the unseen generators at the validation threshold and at 0.5, of reals and of fakes apart, and at the
    oracle's threshold of each generator, which needs its labels and is a bound."""
    header = ["method", "threshold", "ACC", "real ACC", "fake ACC", "ACC at 0.5", "real at 0.5", "fake at 0.5", "oracle ACC"]
    body = []
    for m, rows in runs.items():
        lines, summary = table(rows, split)
        _, chosen = headline(lines)
        keys = ("acc_val", "real_acc_val", "fake_acc_val", "acc", "real_acc", "fake_acc", "acc_oracle")
        body.append([NAMES[m], f"{summary['threshold']:.4g}", *(sum(line[k] for line in chosen) / len(chosen) for k in keys)])
    return columns([header, *body])


def check_seeds(run_dirs: list[Path]) -> None:
    """Refuse runs that differ in anything but their seed, or not even in that, as their run.json says."""
    records = []
    for folder in run_dirs:
        if not (folder / "run.json").is_file():
            raise SDDError(f"{folder} has no run.json; name run folders that `python -m sddlib run` made")
        parameters = read_json(folder / "run.json").get("parameters")
        if not isinstance(parameters, dict) or not all(
            isinstance(parameters.get(n), dict) for n in ("03_train", "04_evaluate")
        ):
            raise SDDError(f"{folder} has not run 03_train and 04_evaluate; name run folders that are whole")
        records.append(parameters)
    free = ("seed", "run_dir", "force")
    seeds = [r["03_train"].get("seed") for r in records]
    if len(set(seeds)) < len(seeds):
        raise SDDError(f"the seeds of these runs are {seeds}; name runs of different seeds")
    for folder, record in zip(run_dirs, records, strict=True):
        for name in ("03_train", "04_evaluate"):
            one, other = record[name], records[0][name]
            differ = [k for k in one.keys() | other.keys() if one.get(k) != other.get(k) and k not in free]
            if differ:
                raise SDDError(
                    f"{folder} and {run_dirs[0]} differ in {differ[0]} of {name}; name runs that differ in the seed only"
                )


def seeds_table(run_dirs: list[Path], draws: int = 1000) -> str:
    """Runs that differ in their seed, side by side: mean and spread of every summary value, and 95 % intervals of the AP."""
    check_seeds(run_dirs)
    runs = [read_run(folder) for folder in run_dirs]
    methods = [m for m in NAMES if all(m in run for run in runs)]
    if not methods:
        raise SDDError("these runs share no method that all have scored; run notebook 04_evaluate in each")
    runs = [{m: run[m] for m in methods} for run in runs]
    images = [[(r["path"], r["label"]) for r in rows] for run in runs for rows in run.values()]
    if any(other != images[0] for other in images[1:]):
        raise SDDError("these runs did not score the same images in the same order; compare runs of one manifest and profile")
    lines, summary = table(runs[0][methods[0]])
    over, _ = headline(lines)
    names = [f"{name}_{over}" for name in ("mean_ap", "min_ap", "mean_auroc", "mean_acc", "mean_acc05")]
    keys = [*names, *(["ap_seen"] if "ap_seen" in summary else [])]  # there is none without a seen generator
    body = []
    for key in keys:
        found = {m: [table(run[m])[1][key] for run in runs] for m in methods}
        body.append([key, *(f"{np.mean(v):.3f} ± {np.std(v, ddof=1) if len(v) > 1 else 0:.3f}" for v in found.values())])
    lines = [["mean ± sd over runs", *(NAMES[m] for m in methods)], *body]
    spans = [[keys[0], "estimate", "95 % low", "high"]]
    for name, values in bootstrap(runs, draws).items():
        spans.append([" - ".join(NAMES[m] for m in ([name] if isinstance(name, str) else name)), *values])
    count = f"{len(runs)} runs; intervals draw runs and photographs, {draws} draws, differences paired"
    return f"{columns(lines)}\n\n{columns(spans)}\n{count}"
