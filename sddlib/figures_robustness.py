"""Figures of perturbed pictures and of calibration, as in `figures`: each returns (figure, data)."""

import matplotlib.pyplot as plt
import numpy as np

from .calibration import logits
from .figures import FAKE, METHODS, NEUTRAL, REAL
from .robustness import CHAINS, GRID, LADDERS, NATIVE, TITLES

TICKS = (1e-4, 1e-3, 0.01, 0.1, 0.5, 0.9, 0.99, 0.999, 0.9999)  # of thresholds
SHOWN = 5  # images that an interval of a reliability diagram needs to be drawn; its error counts all
MARKS = {"sdd": "o", "lora": "s", "probe": "^"}  # methods are told apart by shape too
SIDES = {"both": ("both classes", "k", "o"), "reals": ("only the reals", REAL, "s"), "fakes": ("only the fakes", FAKE, "^")}


def ladders() -> dict[str, list[str]]:
    """Panel title -> the perturbations along its axis, by strength, the native picture among them."""
    found = {}
    for what, steps in LADDERS.items():
        names = [f"{what}{strength:g}" for strength in steps]
        found[TITLES[what]] = [*names[: sum(s < 1 for s in steps)], NATIVE, *names[sum(s < 1 for s in steps) :]]
    found["all, chained"] = [NATIVE, *CHAINS]
    return found


def tick(name: str) -> str:
    """What stands below an axis for a perturbation: its number, or its name."""
    steps = GRID[name].steps if name in GRID else ()
    return f"{steps[0][1]:g}" if len(steps) == 1 else name


def verdict_heat(shares: dict, groups: list[str], counts: dict[str, int], methods: list[str]):
    """Share judged right, a panel a method: a row a group of images, a column a perturbation. shares: of
    `robustness_stats.shares_right`; counts: group -> N. Data: {method: (groups, perturbations)}."""
    names = [NATIVE, *GRID]
    data = {m: np.array([[shares[m, n, g][0] for n in names] for g in groups]) for m in methods}
    size = (0.5 * len(names) + 2.4, (0.26 * len(groups) + 0.35) * len(methods) + 0.9)
    fig, axes = plt.subplots(len(methods), 1, figsize=size, sharex=True, squeeze=False)
    for (method, values), ax in zip(data.items(), axes[:, 0], strict=True):
        shown = ax.imshow(values, vmin=0, vmax=1, cmap="cividis", aspect="auto")
        for (y, x), v in np.ndenumerate(values):
            ax.text(x, y, f"{v:.2f}", ha="center", va="center", fontsize=7.5, color="k" if v > 0.55 else "w")
        ax.set_yticks(range(len(groups)), [f"{g}, N = {counts[g]}" for g in groups], fontsize=8)
        ax.set_title(METHODS[method][0], loc="left")
        ax.axhline(0.5, color="w", lw=2.5)
    axes[-1, 0].set_xticks(range(len(names)), names, rotation=45, ha="right")
    bar = fig.colorbar(shown, ax=axes.ravel().tolist(), fraction=0.02, pad=0.01)
    bar.set_label("share judged right at the threshold of validation")
    return fig, data


def strength_curves(rows: dict[str, dict], title: str):
    """Against strength, a column of panels a kind of change, a row of panels a quantity: every method with 95 % intervals.
    rows: label of the axis -> (method, perturbation) -> interval, in 0..1; dotted: 0.5. Data: rows."""
    columns = ladders()
    wide = [len(names) for names in columns.values()]
    size = (0.42 * sum(wide) + 2.2, 1.9 * len(rows) + 0.8)
    fig, axes = plt.subplots(len(rows), len(columns), figsize=size, sharey="row", squeeze=False, width_ratios=wide)
    for (label, values), line in zip(rows.items(), axes, strict=True):
        line[0].set_ylabel(label)
        for names, ax in zip(columns.values(), line, strict=True):
            ax.axhline(0.5, color=NEUTRAL, lw=0.8, ls=":")
            draw_methods(ax, values, names)
            ax.set_ylim(-0.03, 1.03)
    for name, ax in zip(columns, axes[-1], strict=True):
        ax.set_xlabel(name, fontsize=8.5)
    handles = [plt.Line2D([], [], color=c, marker=MARKS[m], ms=4, label=name) for m, (name, c) in METHODS.items()]
    fig.legend(handles=handles, loc="outside upper center", ncols=3, title=title, title_fontsize=9)
    return fig, rows


def draw_methods(ax, values: dict, names: list[str]) -> None:
    """One panel: the methods side by side at every perturbation."""
    methods = list(dict.fromkeys(m for m, _ in values))
    for k, method in enumerate(methods):
        at = np.arange(len(names)) + (k - (len(methods) - 1) / 2) * 0.16
        mid, low, high = np.array([values[method, n] for n in names]).T
        ax.errorbar(at, mid, [mid - low, high - mid], color=METHODS[method][1], marker=MARKS[method], ms=3.5, lw=0.9)
    ax.set_xticks(range(len(names)), [tick(n) for n in names], rotation=45, ha="right", fontsize=8)


def one_sided_curves(found: dict[str, dict], native: dict[str, tuple], steps: list[str], title: str):
    """AUROC when one class alone, or both, were compressed, a panel a method. found: of `robustness_stats.one_sided`; native:
    method -> interval of the untouched pictures. Data: found."""
    fig, axes = plt.subplots(1, len(native), figsize=(2.7 * len(native) + 0.6, 2.9), sharey=True, squeeze=False)
    for (method, untouched), ax in zip(native.items(), axes[0], strict=True):
        ax.axhline(0.5, color=NEUTRAL, lw=0.8, ls=":")
        for k, (who, (label, colour, marker)) in enumerate(SIDES.items()):
            mid, low, high = np.array([untouched, *(found[who][method, n] for n in steps)]).T
            at = np.arange(len(mid)) + (k - 1) * 0.14
            ax.errorbar(at, mid, [mid - low, high - mid], color=colour, marker=marker, ms=4, lw=1, label=label)
        ax.set_xticks(range(len(steps) + 1), [NATIVE, *map(tick, steps)], rotation=45, ha="right")
        ax.set(title=METHODS[method][0], xlabel=TITLES[GRID[steps[0]].steps[0][0]], ylim=(-0.03, 1.03))
    axes[0, 0].set_ylabel("AUROC, mean of unseen families")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside upper center", ncols=3, title=title, title_fontsize=9)
    return fig, found


def reliability_panels(found: dict[tuple[str, str], dict[str, dict]], temperatures: dict[str, float]):
    """Reliability diagrams, a row a method, a column a set. found: (method, set) -> {"as it is", "with temperature"} ->
    `calibration.reliability`, and "N" -> (reals, fakes). Intervals with fewer than SHOWN images are not drawn. Data: found."""
    methods, sets = (list(dict.fromkeys(key[i] for key in found)) for i in (0, 1))
    size = (2.5 * len(sets) + 0.6, 2.35 * len(methods) + 0.7)
    fig, axes = plt.subplots(len(methods), len(sets), figsize=size, sharex=True, sharey=True, squeeze=False)
    looks = {"as it is": (NEUTRAL, "o", "--"), "with temperature": ("k", "s", "-")}
    for (method, name), diagram in found.items():
        ax = axes[methods.index(method), sets.index(name)]
        ax.plot([0, 1], [0, 1], color=NEUTRAL, lw=0.8, ls=":")
        for which, (colour, marker, line) in looks.items():
            d = diagram[which]
            kept = d["n"] >= SHOWN
            x, y, low, high = (d[key][kept] for key in ("p", "fake", "low", "high"))
            reach = np.clip([y - low, high - y], 0, None)
            ax.errorbar(x, y, reach, color=colour, marker=marker, ls=line, ms=3.5, lw=1, elinewidth=0.7, label=which)
        real, fake = diagram["N"]
        errors = " → ".join("{:.2f} [{:.2f}, {:.2f}]".format(*diagram[which]["ece"]) for which in looks)
        ax.set_title(f"{name}, N = {real} + {fake}\nECE {errors}", fontsize=8)
        if sets.index(name) == 0:
            ax.set_ylabel(f"{METHODS[method][0]} (T = {temperatures[method]:.2f})\nshare of fakes")
    for ax in axes[-1]:
        ax.set_xlabel("score = P(fake), mean of an interval")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    title = f"classes count alike; bars: 95 % over photographs; intervals with fewer than {SHOWN} images are not drawn"
    fig.legend(handles, labels, loc="outside upper center", ncols=2, title=title, title_fontsize=9)
    return fig, found


def threshold_curves(scores: dict[str, dict[str, np.ndarray]], lines: dict[str, dict[str, float]]):
    """Share called fake against the threshold, a panel a method. scores: method -> group -> logits, "real" first; lines: method
    -> name -> threshold as a logit. Data: {method: {group: (thresholds, shares)}}."""
    fig, axes = plt.subplots(1, len(scores), figsize=(2.6 * len(scores) + 2.6, 3.3), sharey=True, squeeze=False)
    looks, data = ["-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 3)), (0, (8, 3))], {}
    for (method, groups), ax in zip(scores.items(), axes[0], strict=True):
        every = np.concatenate(list(groups.values()))
        cuts = np.linspace(every.min() - 0.1, every.max() + 0.1, 300)
        data[method] = {g: (cuts, (z[:, None] > cuts).mean(0)) for g, z in groups.items()}
        for k, (group, (x, y)) in enumerate(data[method].items()):
            colour, style, width = (REAL, "-", 2) if k == 0 else (FAKE, looks[(k - 1) % len(looks)], 1)
            ax.plot(x, y, color=colour, ls=style, lw=width, label=f"{group}, N = {len(groups[group])}")
        for k, (name, z) in enumerate(lines[method].items()):
            ax.axvline(z, color="k", lw=0.8, ls=("-", "--", ":")[k % 3], label=name)
        marks = [p for p in TICKS if cuts[0] <= logits(np.array(p)) <= cuts[-1]]
        ax.set_xticks(logits(np.array(marks)), [f"{p:g}" for p in marks], fontsize=7.5, rotation=45, ha="right")
        ax.set_title(METHODS[method][0])
    axes[0, 0].set_ylabel("share called fake")
    fig.supxlabel("threshold on the score, P(fake), spaced by logits", fontsize=9)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside right center", fontsize=8)
    return fig, data
