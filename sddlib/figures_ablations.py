"""Figures of the ablations, as in `figures`: each returns (figure, data)."""

import matplotlib.pyplot as plt
import numpy as np

from .figures import NEUTRAL

COLOURS = {"better": "#009E73", "perhaps better": "#8FCFBB", "worse": "#D55E00", "perhaps worse": "#F2B58C"}


def effect_bars(found: dict[str, dict], groups: dict[str, str], verdict, title: str):
    """AP minus SDD's of every variant with its 95 % interval, by group, and thin the interval among all of them at once.
    found: of `effects`; groups: variant -> group, in order. Data: {variant: (estimate, low, high)}."""
    order = [n for g in dict.fromkeys(groups.values()) for n in groups if n in found and groups[n] == g]
    data = {n: found[n]["difference"] for n in order}
    fig, ax = plt.subplots(figsize=(7, 0.3 * len(order) + 1.2))
    for at, (name, (mid, low, high)) in enumerate(data.items()):
        colour = COLOURS.get(verdict(found[name]), NEUTRAL)
        if found[name]["at_once"]:
            ax.plot(found[name]["at_once"], [at, at], color=colour, lw=0.7)
        ax.plot([low, high], [at, at], color=colour, lw=2.5, solid_capstyle="butt")
        ax.plot(mid, at, "o", color=colour, ms=5)
        if at and groups[order[at - 1]] != groups[name]:
            ax.axhline(at - 0.5, color=NEUTRAL, lw=0.5, ls=":")
    ax.axvline(0, color="k", lw=0.8)
    ax.set_yticks(np.arange(len(order)), [f"{n}  ({groups[n]}, {seeds(found[n]['seeds'])})" for n in order])
    ax.invert_yaxis()
    axis = "mean AP over {over} generators, minus SDD's (95 % intervals: thick over N = {n}\n"
    axis += "photographs and the seeds, thin over trainings for all changes at once)"
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


def repeat_points(kinds: dict[str, list[tuple[str, int, float, float]]], over: str):
    """AP of trainings made twice with the same variant and seed, one against the other. kinds: what was repeated -> of
    `effects.twice`. Data: {kind: (n, 2) AP}."""
    data = {kind: np.array([row[2:] for row in found]) for kind, found in kinds.items()}
    fig, ax = plt.subplots(figsize=(5, 5))
    for kind, points in data.items():
        ax.plot(*points.T, "o", ms=5, label=f"{kind}, N = {len(points)}")
    low, high = (f([f(points) for points in data.values()]) for f in (np.min, np.max))
    ax.plot([low, high], [low, high], color="k", lw=0.8)
    ax.set_xlabel(f"mean AP over {over} generators, first training")
    ax.set_ylabel("mean AP, same variant and seed again")
    ax.set_aspect("equal", "datalim")
    ax.legend(fontsize=8, loc="lower left", bbox_to_anchor=(0, 1))
    return fig, data
