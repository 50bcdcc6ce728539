"""Figures of the ablations, as in `figures`: each returns (figure, data)."""

import matplotlib.pyplot as plt
import numpy as np

from .figures import NEUTRAL

COLOURS = {"better": "#009E73", "worse": "#D55E00", "undecided": NEUTRAL, "one seed": NEUTRAL}


def effect_bars(found: dict[str, dict], groups: dict[str, str], verdict, title: str):
    """AP minus SDD's of every variant with its 95 % interval, by group. found: of `effects`; groups: variant -> group.
    Data: {variant: (estimate, low, high)}."""
    order = [n for g in dict.fromkeys(groups.values()) for n in found if groups.get(n) == g]
    data = {n: found[n]["difference"] for n in order}
    fig, ax = plt.subplots(figsize=(7, 0.3 * len(order) + 1.2))
    for at, (name, (mid, low, high)) in enumerate(data.items()):
        colour = COLOURS[verdict(found[name])]
        ax.plot([low, high], [at, at], color=colour, lw=2, solid_capstyle="butt")
        ax.plot(mid, at, "o", color=colour, ms=5)
        if at and groups[order[at - 1]] != groups[name]:
            ax.axhline(at - 0.5, color=NEUTRAL, lw=0.5, ls=":")
    ax.axvline(0, color="k", lw=0.8)
    ax.set_yticks(np.arange(len(order)), [f"{n}  ({groups[n]}, {seeds(found[n]['seeds'])})" for n in order])
    ax.invert_yaxis()
    axis = "mean AP over {over} generators, minus SDD's\n(95 % interval over N = {n} photographs and the seeds)"
    name_axes(fig, found, axis, title)
    return fig, data


def seeds(n: int) -> str:
    return f"{n} seed{'s' * (n > 1)}"


def name_axes(fig, found: dict[str, dict], axis: str, title: str) -> None:
    """Title over the whole width and the x label leftwards from its right end, since long names leave the axes little of it."""
    e = next(iter(found.values()))
    fig.axes[0].set_xlabel(axis.format(over=e["over"], n=e["photographs"]), loc="right")
    fig.suptitle(title, fontsize=10)


def path_bars(found: dict[str, dict], what: dict[str, str], title: str):
    """AP of the trained detector whole and with one path cut or misled. found: of `effects`; what: column -> label, in order.
    Data: {label: (AP, sd over seeds)}."""
    kept = {what[n]: (found[n]["ap"], found[n]["ap_sd"]) for n in what if n in found}
    fig, ax = plt.subplots(figsize=(7, 0.35 * len(kept) + 1.1))
    at = np.arange(len(kept))
    spread = [0 if np.isnan(sd) else sd for _, sd in kept.values()]
    ax.barh(at, [ap for ap, _ in kept.values()], 0.6, xerr=spread, color=["k", *[NEUTRAL] * (len(kept) - 1)], ecolor="#E69F00")
    for y, (ap, _) in zip(at, kept.values(), strict=True):
        ax.text(0.01, y, f"{ap:.3f}", va="center", color="w", fontsize=8)
    ax.set_yticks(at, list(kept))
    ax.invert_yaxis()
    ax.set_xlim(0, 1)
    most = max((found[n]["seeds"] for n in what if n in found), default=0)
    bars = f"{seeds(most)}, orange: sd over them" if most > 1 else seeds(most)
    name_axes(fig, found, f"mean AP over {{over}} generators\n(N = {{n}} photographs, {bars})", title)
    return fig, kept
