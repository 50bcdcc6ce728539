"""Tables of a run beyond one line a generator: thresholds, families, equalised pictures, and the paper's Tables 1-3 with rows
and columns marked `reported` or `run here`. Everything is computed from score files."""

import numpy as np

from . import SDDError
from .benchmarks import SYNRIS, UNIVFD, TestSet
from .evaluate import by_generator, headline, table
from .intervals import WEIGHTED, interval, set_draws
from .paper import read_tables
from .report import NAMES, columns

MAIN = "sdd"
PAPER = {1: ("ap", "AP", UNIVFD), 2: ("acc", "ACC at 0.5", UNIVFD), 3: ("auroc", "AUROC", SYNRIS)}
# Rows of Tables 1-2 that were copied from the UnivFD paper, whose code draws at most 1000 images a class
COPIED = ("CNN-Spot", "PatchFor", "Co-occurrence", "Freq-spec", "UnivFD")


def mean(lines: list[dict], key: str) -> float:
    return float(np.mean([line[key] for line in lines]))


def size(line: dict) -> str:
    return f"{line['n_real']}+{line['n_fake']}"


def accuracy_table(runs: dict[str, list[dict]], split: str = "test") -> str:
    """Accuracy of every method on every set at three thresholds: 0.5, the validation split's, and the oracle's, which is the
    best for the set's own labels and so a bound and no result."""
    tables = {m: table(rows, split)[0] for m, rows in runs.items()}
    keys = {"acc": "0.5", "acc_val": "val", "acc_oracle": "oracle"}
    body = [["ACC at threshold", "N real+fake", *(f"{NAMES[m]} {what}" for m in tables for what in keys.values())]]
    for lines in zip(*tables.values(), strict=True):
        name = lines[0]["generator"] + (" (seen)" if lines[0]["seen"] else "")
        body.append([name, size(lines[0]), *(line[key] for line in lines for key in keys)])
    over = headline(next(iter(tables.values())))[0]
    body.append([f"mean of {over}", "", *(mean(headline(lines)[1], key) for lines in tables.values() for key in keys)])
    return columns(body)


def family_table(runs: dict[str, list[dict]], split: str = "test") -> str:
    """Means over the sets of a family, and mean and minimum over all sets, the seen one too, as the paper's means have it."""
    tables = {m: table(rows, split)[0] for m, rows in runs.items()}
    body = [["family", "sets", *(f"{NAMES[m]} {what}" for what in ("AP", "ACC at 0.5") for m in tables)]]
    for family in dict.fromkeys(line["family"] for line in next(iter(tables.values()))):
        groups = [[line for line in lines if line["family"] == family] for lines in tables.values()]
        body.append([family, len(groups[0]), *(mean(group, key) for key in ("ap", "acc") for group in groups)])
    every = list(tables.values())
    body.append(["mean of all sets", len(every[0]), *(mean(lines, key) for key in ("ap", "acc") for lines in every)])
    body.append(["minimum", "", *(min(line[key] for line in lines) for key in ("ap", "acc") for lines in every)])
    return columns(body)


def equalised_table(runs: dict[str, list[dict]], equalised: dict[str, list[dict]], split: str = "test") -> str:
    """AP and accuracy at 0.5 of pictures as they are and with every one written as JPEG of the same quality."""
    for m, rows in equalised.items():
        if [r["path"] for r in rows] != [r["path"] for r in runs[m]]:
            raise SDDError(f"the equalised scores of {m} are of other images; run 04_evaluate with force = True")
    pairs = [table(rows, split)[0] for m in equalised for rows in (runs[m], equalised[m])]
    shown = [f"{NAMES[m]} {what} {how}" for m in equalised for what in ("AP", "ACC") for how in ("native", "JPEG")]
    body = [["ACC at 0.5", *shown]]
    order = [(k + j, key) for k in range(0, len(pairs), 2) for key in ("ap", "acc") for j in (0, 1)]
    for i, line in enumerate(pairs[0]):
        body.append([line["generator"] + (" (seen)" if line["seen"] else ""), *(pairs[k][i][key] for k, key in order)])
    body.append([f"mean of {headline(pairs[0])[0]}", *(mean(headline(pairs[k])[1], key) for k, key in order)])
    return columns(body)


def common_sets(number: int, names) -> list[TestSet]:
    """The sets of a table of the paper that are among the names, in the paper's order."""
    return [t for t in PAPER[number][2] if t.name in names]


def sized(t: TestSet, line: dict) -> str:
    """N, with a star where the published set has another size."""
    known = t.real is not None and t.fake is not None
    return size(line) + ("*" if known and (t.real, t.fake) != (line["n_real"], line["n_fake"]) else "")


def paper_table(
    number: int,
    runs: dict[str, list[dict]],
    equalised: dict[str, list[dict]],
    protocol: str,
    draws: int = 1000,
    seed: int = 0,
) -> str:
    """Table 1, 2 or 3, in percent, a line a set: SDD as the paper reports it and as run here, with the 95 % interval over
    photographs and the difference; the other methods run here; then family means, mean and minimum. "" if the run and the
    paper share no set. equalised: as in `equalised_table`, a column a method."""
    key, label, _ = PAPER[number]
    groups = by_generator(runs[MAIN])
    common = common_sets(number, groups)
    if not common:
        return ""
    texts = {c.set: c.text for c in read_tables() if (c.table, c.method) == (number, "Ours")}
    others = {NAMES[m]: rows for m, rows in runs.items() if m != MAIN}
    others |= {f"{NAMES[m]}, JPEG": rows for m, rows in equalised.items()}
    lines = {who: {x["generator"]: x for x in table(rows)[0]} for who, rows in {MAIN: runs[MAIN], **others}.items()}
    drawn = set_draws({t.name: groups[t.name] for t in common}, WEIGHTED[key], draws, np.random.default_rng(seed))

    def row(name: str, family: str, n: str, sets: list[str]) -> list[str]:
        paper = float(np.mean([float(texts[s]) for s in sets]))
        here = interval(100 * np.mean([drawn[s] for s in sets], axis=0))
        rest = [100 * mean([lines[who][s] for s in sets], key) for who in others]
        printed = texts[sets[0]] if len(sets) == 1 else f"{paper:.2f}"
        return [name, family, n, printed, *(f"{v:.2f}" for v in here), f"{here[0] - paper:+.2f}", *(f"{v:.2f}" for v in rest)]

    body = [["set", "family", "N real+fake", "SDD reported", "SDD run here", "low", "high", "difference"]]
    body[0] += [f"{who} run here" for who in others]
    body += [row(t.name, t.family, sized(t, lines[MAIN][t.name]), [t.name]) for t in common]
    for family in dict.fromkeys(t.family for t in common):
        members = [t.name for t in common if t.family == family]
        if 1 < len(members) < len(common):
            body.append(row(f"mean of {len(members)}", family, "", members))
    names = [t.name for t in common]
    body.append(row(f"mean of {len(names)}", "all", "", names))
    lowest = min(names, key=lambda s: float(texts[s])), min(names, key=lambda s: lines[MAIN][s][key])
    least = [f"{100 * min(lines[who][s][key] for s in names):.2f}" for who in (MAIN, *others)]
    body.append(["minimum", " / ".join(dict.fromkeys(lowest)), "", texts[lowest[0]], least[0], "", "", "", *least[1:]])
    title = f"Table {number}: {label} in percent, run here under {protocol}; * another number of images than the full set has"
    return f"{title}\n{columns(body, 2)}"


def methods_table(number: int, runs: dict[str, list[dict]], protocol: str) -> str:
    """Every method of a table of the paper, `reported`, and every method `run here`: mean and minimum over the sets that both
    have, in percent. "" if there are none."""
    key, label, sets = PAPER[number]
    lines = {m: {x["generator"]: x for x in table(rows)[0]} for m, rows in runs.items()}
    names = [t.name for t in common_sets(number, lines[MAIN])]
    if not names:
        return ""
    body = [["method", "source", "protocol", f"mean {label} of {len(names)}", "minimum"]]
    cells = [c for c in read_tables() if c.table == number]
    for method in dict.fromkeys(c.method for c in cells):
        found = {c.set: c.text for c in cells if c.method == method}
        values = [float(found[s]) for s in names]
        printed = found["mean"] if len(names) == len(sets) else f"{np.mean(values):.2f}"
        copied = "ojha1k (copied)" if number < 3 and method in COPIED else "as printed"
        body.append(["SDD" if method == "Ours" else method, "reported", copied, printed, f"{min(values):.2f}"])
    for m in runs:
        values = [100 * lines[m][s][key] for s in names]
        body.append([NAMES[m], "run here", protocol, f"{np.mean(values):.2f}", f"{min(values):.2f}"])
    return columns(body, 3)
