"""Figures of the baselines, as in `figures`: each returns (figure, data)."""

import matplotlib.pyplot as plt
import numpy as np

from .baselines.cooccurrence import cooccurrence
from .baselines.freqspec import spectrum
from .baselines.npr import relations
from .data import Sample, cut, decode, normalised
from .effects import BASE
from .figures import FAKE, NEUTRAL, REAL


def inputs(pairs: list[tuple[Sample, Sample]], size: int, patchfor=None):
    """What four baselines make of real crops and their regenerations, a row an image. pairs: (real, fake); size: px of a
    crop; patchfor: a trained PatchFor, whose map is drawn too. Data: one dict an image, name -> array as drawn."""
    names = [
        "crop",
        "NPR, size",
        "co-occurrence (green)",
        "log spectrum (green)",
        *(["PatchFor: P(generated)"] if patchfor else []),
    ]
    shown = [s for pair in pairs for s in pair]
    fig, axes = plt.subplots(len(shown), len(names), figsize=(1.75 * len(names), 1.65 * len(shown) + 0.5), squeeze=False)
    data = []
    for s, line in zip(shown, axes, strict=True):
        crop = cut(decode(s.path), size)
        pixels, x = np.asarray(crop), normalised(crop)[None]
        maps = [pixels, relations(x)[0].abs().mean(0).numpy(), np.log1p(cooccurrence(pixels)[1]), spectrum(pixels / 255)[1]]
        maps += [patchfor.heat_map(patchfor.prepare(crop)[None])[0].cpu().numpy()] if patchfor else []
        data.append(dict(zip(names, maps, strict=True)))
        limits = [(None, None), (0, 0.6), (0, 3), (-2, 6), (0, 1)]
        for (low, high), image, ax in zip(limits, maps, line, strict=False):
            ax.imshow(image, vmin=low, vmax=high, cmap="magma")
            ax.set(xticks=[], yticks=[])
        line[0].set_ylabel(s.generator.replace("_", "\n", 1), color=FAKE if s.label else REAL, fontsize=7)
    for name, ax in zip(names, axes[0], strict=True):
        ax.set_title(name, fontsize=8)
    fig.suptitle(f"{len(pairs)} real crops of {size} px, each above its regeneration; one colour scale a column", fontsize=9)
    return fig, data


def ranking(found: dict[str, dict], names: dict[str, str], title: str):
    """Mean AP of every method with its 95 % interval, best first. found: of `standing`; names: kind -> text.
    Data: {kind: (estimate, low, high)}."""
    data = {kind: f["ap"] for kind, f in found.items()}
    fig, ax = plt.subplots(figsize=(7, 0.32 * len(data) + 1.1))
    for at, (kind, (mid, low, high)) in enumerate(data.items()):
        colour = "k" if kind == BASE else NEUTRAL if kind in ("lora", "probe") else "#0072B2"
        ax.plot([low, high], [at, at], color=colour, lw=2, solid_capstyle="butt")
        ax.plot(mid, at, "o", color=colour, ms=5)
    if BASE in data:
        ax.axvline(data[BASE][0], color="k", lw=0.8, ls=":")
    ax.set_yticks(range(len(data)), [f"{names[k]}  ({f['seeds']} seed{'s' * (f['seeds'] > 1)})" for k, f in found.items()])
    ax.invert_yaxis()
    ax.set(xlabel="mean AP over unseen generators\n(95 % interval over photographs and seeds)")
    ax.set_title(title)
    return fig, data


def ap_matrix(tables: dict[str, list[dict]], names: dict[str, str]):
    """AP of every method (a row) on every generator (a column), the seen one first. tables: kind -> lines of `evaluate.table`,
    AP as a mean over seeds. Data: (generators, (methods, generators) array)."""
    lines = sorted(next(iter(tables.values())), key=lambda line: not line["seen"])
    generators = [line["generator"] for line in lines]
    values = np.array([[{x["generator"]: x["ap"] for x in found}[g] for g in generators] for found in tables.values()])
    fig, ax = plt.subplots(figsize=(0.72 * len(generators) + 2.2, 0.34 * len(tables) + 1.6))
    image = ax.imshow(values, vmin=0.3, vmax=1, cmap="cividis", aspect="auto")
    for (i, j), v in np.ndenumerate(values):
        ax.text(j, i, f"{v:.2f}", ha="center", va="center", fontsize=7, color="k" if v > 0.7 else "w")
    labels = [g.replace("_", "\n", 1) + ("\n(seen)" if line["seen"] else "") for g, line in zip(generators, lines, strict=True)]
    ax.set_xticks(range(len(generators)), labels, fontsize=6.5, rotation=45, ha="right")
    ax.set_yticks(range(len(tables)), [names[k] for k in tables])
    ax.spines[:].set_visible(False)
    n = f"N = {lines[0]['n_real']} real + {lines[0]['n_fake']} fake a generator"
    ax.set_title(f"AP, {n}")
    fig.colorbar(image, ax=ax, label="AP", shrink=0.8)
    return fig, (generators, values)
