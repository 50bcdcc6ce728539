"""The results of a run for its report: headline, differences, generator by generator, all from the score files."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from . import SDDError
from .evaluate import headline as averaged
from .evaluate import table
from .intervals import bootstrap
from .markup import Html, breakable, join, tag
from .markup import table as html_table
from .report import NAMES, read_run
from .report_facts import abouts, count, optional_json

HEADS = ("mean AP", "AUROC", "accuracy")
MEANS = {
    "above": "The whole interval is above 0: SDD ranks these generators' fakes better.",
    "below": "The whole interval is below 0: SDD ranks these generators' fakes worse.",
    "open": "The interval holds 0: these photographs do not show which of the two is better.",
}
METRICS = ("ap", "auroc", "acc")


@dataclass
class Results:
    """rows: method -> rows of its scores file; lines, summary: method -> as of `evaluate.table`; intervals: as of
    `intervals.bootstrap`; no_interval: why there are none, or ""."""

    rows: dict[str, list[dict]]
    lines: dict[str, list[dict]]
    summary: dict[str, dict]
    intervals: dict
    no_interval: str

    @property
    def means(self) -> tuple[str, list[dict]]:
        """("unseen" or "seen", the lines that means are over), of the first method, as of `evaluate.headline`."""
        return averaged(next(iter(self.lines.values())))


def read_results(run_dir: Path) -> Results:
    """The results of a run. Intervals are those of its 04_evaluate: as many draws, the same seed. SDDError without scores."""
    rows = read_run(run_dir)
    tables = {m: table(r) for m, r in rows.items()}
    parameters = (optional_json(run_dir / "run.json").get("parameters") or {}).get("04_evaluate") or {}
    intervals, why = {}, ""
    try:
        intervals = bootstrap([rows], draws=parameters.get("draws", 1000), seed=parameters.get("seed", 0))
    except SDDError as e:
        why = str(e)
    return Results(rows, {m: t[0] for m, t in tables.items()}, {m: t[1] for m, t in tables.items()}, intervals, why)


def number(value: float | None) -> str:
    return "–" if value is None or not np.isfinite(value) else f"{value:.3f}"


def signed(value: float) -> str:
    return f"{value:+.3f}".replace("-", "−")


def whisker(estimate: float, low: float, high: float, span: tuple[float, float], colour: str, label: str, zero=None) -> Html:
    """An estimate with its interval as a dot on a line, on an axis from span[0] to span[1]."""

    def at(value: float) -> float:
        return round(100 * min(1, max(0, (value - span[0]) / (span[1] - span[0]))), 2)

    line = tag("i", class_="line", style=f"left:{at(low)}%;width:{at(high) - at(low):.2f}%;background:var(--{colour})")
    dot = tag("i", class_="dot", style=f"left:{at(estimate)}%;background:var(--{colour})")
    mark = tag("i", class_="zero", style=f"left:{at(zero)}%") if zero is not None else None
    return tag("span", mark, line, dot, class_="whisker", role="img", aria_label=label)


def name_of(method: str) -> Html:
    """A method's name behind a square of its colour."""
    name = tag("span", NAMES[method].replace(" +", "\u00a0+"))  # not broken before the sign
    return tag("span", tag("i", class_="key", style=f"background:var(--{method})"), name, class_="method")


def headline(results: Results) -> Html:
    """Mean AP with its interval, AUROC and accuracy over the unseen generators, AP of the seen ones, for each method; over all
    where training held every generator."""
    over, chosen = results.means
    keys, texts = tuple(f"mean_{metric}_{over}" for metric in METRICS), HEADS
    made = count(len(chosen), "generator")
    caption = f"Over {made}, all seen in training: this says nothing about generators that were not"
    if over == "unseen":
        keys, texts = (*keys, "ap_seen"), (*texts, "AP, seen")
        caption = f"Over {made} that training never saw; the last column is the generator that it did see"
    lows = [results.intervals[m][1] for m in results.rows if m in results.intervals]
    span = (min(0.9, max(0.0, np.floor(min(lows) * 10) / 10)), 1.0) if lows else (0.0, 1.0)
    best = {k: number(max((s[k] for s in results.summary.values() if k in s), default=None)) for k in keys}
    body = []
    for m, summary in results.summary.items():
        cells = [tag("th", name_of(m), scope="row")]
        for key in keys:
            value = summary.get(key)
            shown = tag("strong" if number(value) == best[key] else "span", number(value), class_="number")
            if key == keys[0] and m in results.intervals:
                _, low, high = results.intervals[m]
                shown = join(shown, tag("small", f"{low:.3f} to {high:.3f}"))
                label = f"{NAMES[m]}: {value:.3f}, 95 % interval {low:.3f} to {high:.3f}"
                cells += [tag("td", shown), tag("td", whisker(value, low, high, span, m, label), class_="wide")]
            else:
                cells.append(tag("td", shown))
        body.append(tag("tr", cells))
    heads = [tag("th", text, scope="col") for text in texts]
    if lows:
        axis = tag("span", tag("b", f"{span[0]:.1f}"), tag("b", "95 % interval"), tag("b", f"{span[1]:.1f}"), class_="axis")
        heads.insert(1, tag("th", axis, scope="col", class_="wide"))
    head = [tag("tr", tag("td"), heads)]
    return html_table(head, body, caption, class_="headline")


def differences(results: Results) -> Html:
    """SDD against each other method, with the paired interval and what it means in words."""
    pairs = [(a, b) for a, b in (k for k in results.intervals if isinstance(k, tuple)) if a == "sdd"]
    if not pairs:
        return tag("p", f"No intervals: {results.no_interval or 'SDD was scored alone'}.", class_="note")
    reach = max(abs(v) for k in pairs for v in results.intervals[k]) * 1.05 or 1.0
    items = []
    for a, b in pairs:
        value, low, high = results.intervals[a, b]
        words = MEANS[verdict(low, high)]
        label = f"{signed(value)}, 95 % interval {signed(low)} to {signed(high)}"
        what = tag("span", f"{NAMES[a]} minus {NAMES[b]}", class_="what")
        drawn = whisker(value, low, high, (-reach, reach), "sdd", label, zero=0.0)
        numbers = tag("span", tag("strong", signed(value)), f" [{signed(low)}, {signed(high)}]", class_="number")
        items.append(tag("li", what, drawn, numbers, tag("span", words, class_="words")))
    return tag("ul", items, class_="differences")


def shade(value: float) -> str:
    """The background of a cell: nothing at 0.5 and below, the full tint at 1."""
    return f"--t:{round(100 * max(0.0, min(1.0, 2 * value - 1)))}%"


def generators(results: Results) -> Html:
    """AP and accuracy at the validation threshold of each method for each generator, and the means as in `headline`."""
    heads = [tag("th", "Generator", tag("small", "family, real + fake images"), scope="col", rowspan=2)]
    methods = [tag("th", name_of(m), scope="col", class_=None if i else "group") for i, m in enumerate(results.lines)]
    heads += [
        tag("th", text, scope="colgroup", class_="group", colspan=len(methods)) for text in ("AP", "accuracy at the threshold")
    ]
    head = [tag("tr", heads), tag("tr", [methods, methods])]
    body = []
    for lines in zip(*results.lines.values(), strict=True):
        facts = lines[0]
        name = join(breakable(facts["generator"]), tag("em", "seen", class_="seen") if facts["seen"] else None)
        about = tag("small", breakable(facts["family"]), f", {facts['n_real']} + {facts['n_fake']}")
        body.append(tag("tr", tag("th", name, about, scope="row"), [values(lines, key) for key in ("ap", "acc_val")]))
    over, _ = results.means
    means = [[{"v": s[key]} for s in results.summary.values()] for key in (f"mean_ap_{over}", f"mean_acc_{over}")]
    last = tag("tr", tag("th", f"mean of {over}", scope="row"), [values(m, "v") for m in means], class_="mean")
    caption = "Generator by generator: bold is the best of the methods, a deeper tint is nearer to 1"
    return html_table(head, [*body, last], caption, class_="generators")


def values(lines: list[dict] | tuple, key: str) -> list[Html]:
    """Cells of one metric for all methods, tinted by height, the best in bold."""
    best = f"{max(line[key] for line in lines):.2f}"
    shown = [(f"{line[key]:.2f}", shade(line[key])) for line in lines]
    cells = [tag("strong" if text == best else "span", text) for text, _ in shown]
    return [
        tag("td", cell, style=tint, class_="heat" if i else "heat group")
        for i, (cell, (_, tint)) in enumerate(zip(cells, shown, strict=True))
    ]


def lead(run_dir: Path, results: Results) -> Html:
    """What was asked and measured, in a sentence or two."""
    about = next(iter(abouts(run_dir).values()), {})
    trained = about.get("generators") or []
    made = trained[0] if len(trained) == 1 else f"{len(trained)} generators" if trained else "its training generators"
    over, chosen = results.means
    tested, means = count(len(chosen), "generator"), {m: s[f"mean_ap_{over}"] for m, s in results.summary.items()}
    text = f"Detectors that learned real from fake on the output of {made} were tested on "
    text += f"{tested} they had never seen. " if over == "unseen" else f"other images of {tested} seen in training. "
    text += "Mean average precision: " + ", ".join(f"{NAMES[m]} {value:.3f}" for m, value in means.items()) + "."
    found = {verdict(*v[1:]): [] for k, v in results.intervals.items() if k[0] == "sdd"}
    for pair, (_, low, high) in results.intervals.items():
        if pair[0] == "sdd":
            found[verdict(low, high)].append("the linear probe" if pair[1] == "probe" else NAMES[pair[1]])
    words = {"above": "SDD is ahead of {}.", "below": "SDD is behind {}.", "open": "Whether it beats {}, this run cannot tell."}
    said = [words[key].format(" and ".join(found[key])) for key in words if key in found]
    return tag("p", " ".join([text, *said]), class_="lead")


def verdict(low: float, high: float) -> str:
    """Where an interval of a difference lies: above 0, below it, or around it."""
    return "above" if low > 0 else "below" if high < 0 else "open"
