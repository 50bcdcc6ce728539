"""Figures of the ablations, as in `figures`: each returns (figure, data)."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.lines import Line2D

from .figures import NEUTRAL

COLOURS = {"better": "#009E73", "perhaps better": "#8FCFBB", "worse": "#CC79A7", "perhaps worse": "#E6BCD3"}
KINDS, MARKS = ("#0072B2", "#E69F00"), "os^Dv"


def effect_bars(found: dict[str, dict], groups: dict[str, str], verdict, title: str):
    """AP minus SDD's of every variant with its 95 % interval, by group, and thin the interval among all of them at once.
    found: of `effects`; groups: variant -> group, in order. Data: {variant: (estimate, low, high, low, high)}."""
    order = [n for g in dict.fromkeys(groups.values()) for n in groups if n in found and groups[n] == g]
    data = {n: (*found[n]["ap_difference"], *(found[n]["ap_among"] or found[n]["ap_difference"][1:])) for n in order}
    fig, ax = plt.subplots(figsize=(7, 0.3 * len(order) + 1.6))
    for at, (name, (mid, low, high, least, most)) in enumerate(data.items()):
        colour = COLOURS.get(verdict(found[name]), NEUTRAL)
        ax.plot([least, most], [at, at], color=colour, lw=0.7)
        ax.plot([low, high], [at, at], color=colour, lw=2.5, solid_capstyle="butt")
        ax.plot(mid, at, "o", color=colour, ms=5)
        if at and groups[order[at - 1]] != groups[name]:
            ax.axhline(at - 0.5, color=NEUTRAL, lw=0.5, ls=":")
    ax.axvline(0, color="k", lw=0.8)
    ax.set_yticks(np.arange(len(order)), [f"{n}  ({groups[n]}, {trainings(found[n]['trainings'])})" for n in order])
    ax.invert_yaxis()
    told = {word: COLOURS.get(word, NEUTRAL) for word in dict.fromkeys(verdict(found[n]) for n in order)}
    marks = [Line2D([], [], color=colour, lw=2.5, label=word) for word, colour in told.items()]
    ax.legend(handles=marks, fontsize=8, loc="lower left", bbox_to_anchor=(0, 1), ncols=3, frameon=False)
    axis = "mean AP over {over} generators, minus SDD's (95 % intervals over N = {n}\n"
    axis += "photographs and over trainings; thin: for all changes at once)"
    name_axes(fig, found, axis, title)
    return fig, data


def trainings(n: int) -> str:
    return f"{n} training{'s' * (n > 1)}"


def name_axes(fig, found: dict[str, dict], axis: str, title: str) -> None:
    """Title over the whole width and the x label leftwards from its right end, since long names leave the axes little of it."""
    e = next(iter(found.values()))
    fig.axes[0].set_xlabel(axis.format(over=e["over"], n=e["photographs"]), loc="right")
    fig.suptitle(title, fontsize=10)


def path_bars(found: dict[str, dict], what: dict[str, str], title: str):
    """AP of the trained detector whole and with one path cut or misled: the mean, and a dot a training. found: of `effects`;
    what: column -> label, in order. Data: {label: AP of each training}."""
    kept = {what[n]: list(found[n]["ap_each"].values()) for n in what if n in found}
    fig, ax = plt.subplots(figsize=(7, 0.35 * len(kept) + 1.1))
    at = np.arange(len(kept))
    ax.barh(at, [np.mean(each) for each in kept.values()], 0.6, color=["k", *[NEUTRAL] * (len(kept) - 1)])
    for y, each in zip(at, kept.values(), strict=True):
        ax.plot(each, y + np.linspace(-0.2, 0.2, len(each) + 2)[1:-1], "o", color="#E69F00", ms=3)
        ax.text(0.01, y, f"{np.mean(each):.3f}", va="center", color="w", fontsize=8)
    ax.set_yticks(at, list(kept))
    ax.invert_yaxis()
    ax.set_xlim(0, 1)
    e = next(iter(found.values()))
    ax.axvline(e["chance"], color="k", lw=0.8, ls=":")
    most = trainings(max((len(each) for each in kept.values()), default=0))
    name_axes(
        fig, found, f"mean AP over {{over}} generators, dotted: chance\n(N = {{n}} photographs, {most}, a dot each)", title
    )
    return fig, kept


def repeat_points(kinds: dict[str, list[tuple[str, int, float, float]]], over: str, photographs: int, title: str):
    """AP of trainings made twice with the same variant and seed, one against the other. kinds: what was repeated -> of
    `repeats.twice`. Data: {kind: (n, 2) AP}."""
    data = {kind: np.array([row[2:] for row in found]).reshape(-1, 2) for kind, found in kinds.items()}
    every = np.concatenate(list(data.values()))
    fig, ax = plt.subplots(figsize=(5, 5.4))
    colours = [*KINDS, *[NEUTRAL] * len(data)]
    for (kind, points), colour, mark in zip(data.items(), colours, MARKS * len(data), strict=False):
        ax.plot(*points.T, mark, color=colour, ms=5, label=f"{kind}: {len(points)} pairs")
    ax.plot([every.min(), every.max()], [every.min(), every.max()], color="k", lw=0.8)
    ax.set_xlabel(f"mean AP over {over} generators, first training\n(N = {photographs} photographs)")
    ax.set_ylabel("mean AP, same variant and seed trained again")
    ax.set_aspect("equal", "datalim")
    ax.legend(fontsize=8, loc="lower left", bbox_to_anchor=(0, 1), frameon=False)
    fig.suptitle(title, fontsize=10)
    return fig, data
