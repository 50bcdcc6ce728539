"""Figures of how fakes differ from reals, concept by concept (Fig. 1), each returning (figure, data)."""

import matplotlib.pyplot as plt
import numpy as np

from .data import Sample, decode
from .features import Reading, agreement, angles, interval
from .figures import NEUTRAL, REAL

CONCEPTS = ("#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000", "#882255", "#999933", "#777777")
MARKERS = "osD^vPX*"
SPACES = ("#000000", "#009E73", "#777777")  # in the order in which spaces are given


def concept_gallery(samples: list[Sample], concepts: dict[str, int], columns: int = 8):
    """A row of crops a concept, each from another of its photographs, real where there is one. Data: concept -> all its
    photographs."""
    first: dict[str, Sample] = {}
    for s in sorted(samples, key=lambda s: s.label):
        first.setdefault(s.photo, s)
    members: dict[int, list[str]] = {c: [] for c in sorted(set(concepts.values()))}
    for photo, c in concepts.items():
        members[c].append(photo)
    fig, axes = plt.subplots(len(members), columns, figsize=(0.95 * columns + 1.4, 0.98 * len(members) + 0.4), squeeze=False)
    for (c, photos), line in zip(members.items(), axes, strict=True):
        for ax in line:
            ax.axis("off")
        shown = np.unique(np.linspace(0, len(photos) - 1, columns).round().astype(int))
        for i, ax in zip(shown, line, strict=False):
            ax.imshow(decode(first[photos[i]].path))
        label = f"concept {c + 1}\n{len(photos)} photographs"
        line[0].text(-0.12, 0.5, label, transform=line[0].transAxes, ha="right", va="center", fontsize=8)
    fig.suptitle(f"{len(concepts)} photographs of the test split in {len(members)} concepts", fontsize=9)
    return fig, members


def polar(
    readings: dict[str, dict[str, Reading]],
    chance: dict[str, dict[str, Reading]],
    rows: dict[str, list[str]],
    photographs: int,
):
    """Every concept's difference as a point: angle omega to the others' sum, radius its length in spreads of the reals.

    readings, chance: space -> generator -> Reading, with the true concepts (the estimate is drawn) and with random ones (grey:
    the angles up to which 95 % of them stay). rows: title -> generators, a row of panels each.
    Data: {(space, generator): (omega (C,), radius (C,))}, and {(space, title): angle} of the grey ones.
    """
    fig = plt.figure(figsize=(3.1 * len(readings), 2 * len(rows) + 0.9))
    data = {(s, g): (angles(r.G)[0], np.sqrt(r.lengths[0].clip(0))) for s, by in readings.items() for g, r in by.items()}
    for y, (title, generators) in enumerate(rows.items()):
        for x, space in enumerate(readings):
            ax = fig.add_subplot(len(rows), len(readings), y * len(readings) + x + 1, projection="polar")
            usual = data[space, title] = np.percentile([angles(chance[space][g].G) for g in generators], 95)
            top = 1.08 * max(data[space, g][1].max() for g in generators) or 1.0
            ax.fill_between(np.linspace(0, usual, 100), 0, top, color=NEUTRAL, alpha=0.25, lw=0)
            for g in generators:
                for c, (omega, radius) in enumerate(zip(*data[space, g], strict=True)):
                    ax.plot(omega, radius, MARKERS[c % 8], color=CONCEPTS[c % 8], ms=6 if len(generators) == 1 else 4, mew=0)
            if top > 1:
                ax.plot(np.linspace(0, np.pi, 100), np.ones(100), color=REAL, lw=1)
            ax.set(thetamin=0, thetamax=180, ylim=(0, top))
            ax.set_xlabel("length (spreads of the reals)", fontsize=7, labelpad=-12)
            ax.set_ylabel("angle ω, cos ω", fontsize=7, labelpad=30)
            ax.set_title(f"{space}: {title}", fontsize=9)
            ax.set_thetagrids(range(0, 181, 30), [f"{a}°\n{np.cos(np.radians(a)):+.2f}" for a in range(0, 181, 30)], fontsize=7)
            ax.yaxis.set_major_locator(plt.MaxNLocator(3))
            ax.tick_params("y", labelsize=7)
            ax.grid(alpha=0.4)
    count = len(data[next(iter(data))][0])
    handles = [
        plt.Line2D([], [], ls="", marker=MARKERS[c % 8], color=CONCEPTS[c % 8], label=f"concept {c + 1}") for c in range(count)
    ]
    handles += [plt.Rectangle((0, 0), 1, 1, color=NEUTRAL, alpha=0.25, lw=0, label="95 % of random concepts")]
    handles += [plt.Line2D([], [], color=REAL, lw=1, label="spread of the reals")]
    fig.legend(handles=handles, loc="outside lower center", ncols=4, fontsize=8)
    fig.suptitle(f"ω: angle to the difference of all other concepts; N = {photographs} photographs", fontsize=9)
    return fig, data


def forest(readings: dict[str, dict[str, Reading]], seen: set[str], photographs: int):
    """Left: direction agreement in every space for each generator, and for the unseen ones together, with intervals. Right:
    first space minus second. Data: {(row, space): (estimate, low, high)}; the difference under "difference"."""
    names = list(next(iter(readings.values())))
    unseen = [g for g in names if g not in seen]
    values = {(g, s): agreement(by, [g]) for s, by in readings.items() for g in by}
    values |= {("all unseen", s): agreement(by, unseen) for s, by in readings.items()}
    first, second = list(readings)[:2]
    lines = [*names, "all unseen"]
    values |= {(g, "difference"): values[g, first] - values[g, second] for g in lines}
    data = {key: interval(v) for key, v in values.items()}
    fig, (left, right) = plt.subplots(1, 2, figsize=(9, 0.36 * len(lines) + 1.5), sharey=True, width_ratios=(3, 2))
    columns = [(left, s, colour) for s, colour in zip(readings, SPACES, strict=False)] + [(right, "difference", "k")]
    for k, (ax, space, colour) in enumerate(columns):
        shift = (k - (len(readings) - 1) / 2) * 0.2 if ax is left else 0
        for y, g in enumerate(lines):
            estimate, low, high = data[g, space]
            ax.plot([low, high], [y + shift] * 2, color=colour, lw=1.2)
            ax.plot(estimate, y + shift, "osD"[k % 3], color=colour, ms=4, label=space if y == 0 else None)
    left.axvline(1, color=NEUTRAL, lw=0.8, ls=":")
    right.axvline(0, color=NEUTRAL, lw=0.8, ls=":")
    left.set_yticks(range(len(lines)), [g + (" (seen)" if g in seen else "") for g in lines])
    left.invert_yaxis()
    left.set(xlabel="direction agreement: cosine between / within concepts", title="1: the same direction in all concepts")
    right.set(xlabel="difference of agreements", title=f"{first} - {second}")
    left.legend(loc="upper center", bbox_to_anchor=(0.5, -0.11), ncols=3)
    fig.suptitle(
        f"bars: 95 % intervals over {photographs} photographs, drawn within concepts; no bar: lost in noise in too many draws",
        fontsize=9,
    )
    return fig, data
