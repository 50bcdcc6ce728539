"""Every figure as a named function that returns (figure, data): the data are what a reader would need to draw it again.

Real is one colour and fake another, the same everywhere; both, and those of the methods, are told apart by colour-blind
readers (Okabe and Ito). Nothing here chooses a matplotlib backend.
"""

import matplotlib.pyplot as plt
import numpy as np

from .data import MEAN, STD, decode, to_input
from .evaluate import headline

REAL, FAKE, NEUTRAL = "#0072B2", "#D55E00", "#777777"
METHODS = {"sdd": ("SDD", "#000000"), "lora": ("LoRA + linear", "#009E73"), "probe": ("linear probe", "#CC79A7")}


def style() -> None:
    """One look for all figures: text stays text in SVG and PDF, and the same data give the same file."""
    plt.rcParams.update({"svg.fonttype": "none", "pdf.fonttype": 42, "svg.hashsalt": "sddlib", "figure.dpi": 100})
    plt.rcParams.update({"font.size": 9, "axes.titlesize": 10, "axes.spines.top": False, "axes.spines.right": False})
    plt.rcParams.update({"legend.frameon": False, "figure.constrained_layout.use": True})


def gallery(samples, photos: int = 3, split: str = "test"):
    """The same crops of some photographs from the camera and from every generator. Data: the samples shown, row by row."""
    kept = [s for s in samples if s.split == split]
    names = list(dict.fromkeys(s.generator for s in kept))
    by_photo = {}
    for s in kept:
        by_photo.setdefault(s.photo, {}).setdefault(s.path.stem, {})[s.generator] = s
    rows, shown = [], set()
    for i in np.unique(np.linspace(0, len(by_photo) - 1, photos).round().astype(int)):
        crops = list(by_photo.values())[i].values()
        rows.append(max(crops, key=lambda crop: (len(crop.keys() - shown), len(crop))))  # what no row has shown yet comes first
        shown |= rows[-1].keys()
    fig, axes = plt.subplots(len(rows), len(names), figsize=(1.25 * len(names), 1.3 * len(rows) + 0.5), squeeze=False)
    for row, line in zip(rows, axes, strict=True):
        for name, ax in zip(names, line, strict=True):
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_visible(False)
            if name in row:
                ax.imshow(decode(row[name].path))
            else:
                ax.text(0.5, 0.5, "not in\nthe set", ha="center", va="center", transform=ax.transAxes, color=NEUTRAL)
    for name, ax in zip(names, axes[0], strict=True):
        label = next(s.label for s in kept if s.generator == name)
        ax.set_title(name.replace("_", "\n", 1), fontsize=7, color=FAKE if label else REAL)
    total = sum(map(len, by_photo.values()))
    fig.suptitle(f"split {split}: {len(rows)} of {total} crops, camera and {len(names) - 1} generators", fontsize=9)
    return fig, rows


def similarity(same: np.ndarray, different: np.ndarray):
    """Cosine similarities of crops of one photograph and of different ones. Data: both arrays."""
    fig, ax = plt.subplots(figsize=(5, 2.6))
    bins = np.linspace(min(same.min(), different.min()), 1, 41)
    for values, label, colour in ((same, "one photograph", REAL), (different, "different photographs", NEUTRAL)):
        ax.hist(
            values,
            bins,
            density=True,
            histtype="stepfilled",
            alpha=0.6,
            color=colour,
            label=f"{label}, N = {len(values)} pairs",
        )
    ax.set(xlabel="cosine similarity of CLIP embeddings", ylabel="density", title="camera crops only")
    ax.set_ylim(0, 1.3 * ax.get_ylim()[1])  # room for the legend
    ax.legend(loc="upper left")
    return fig, {"same": same, "different": different}


def js_histogram(bank):
    """Divergences of all real tokens (counts, log scale) and those of the chosen ones below. Data: both arrays."""
    fig, (top, low) = plt.subplots(2, 1, figsize=(6, 3), sharex=True, height_ratios=(4, 1))
    top.hist(bank.js_all, 80, color=REAL, alpha=0.6)
    top.set(
        yscale="log",
        ylabel="real tokens",
        title=f"{len(bank.js_all)} tokens, {len(bank.js)} chosen, {bank.empty} empty segments",
    )
    low.eventplot(bank.js, colors="k", linewidths=0.5)
    low.set(yticks=[], ylabel="chosen", xlabel="Jensen-Shannon divergence to the reference token (bits)")
    return fig, {"all": bank.js_all, "chosen": bank.js}


def surroundings(pixels: np.ndarray, at: int, g: int) -> tuple[np.ndarray, int]:
    """(patch `at` of a g*g grid with one and a half patches around it, how far it lies from the sides). pixels: (H, H, 3) in
    0..1; light grey lies outside the image."""
    patch = len(pixels) // g
    reach = patch + patch // 2
    wide = np.pad(pixels, ((reach, reach), (reach, reach), (0, 0)), constant_values=0.93)
    row, column = (i * patch for i in divmod(at, g))
    return wide[row : row + patch + 2 * reach, column : column + patch + 2 * reach], reach


def bank_patches(bank, samples, image_size: int, g: int, count: int = 24):
    """The image patches behind `count` tokens evenly spaced in the bank, by rising divergence, each within its
    surroundings. samples: the images that the bank was drawn from, in its order. Data: positions in the bank."""
    rising = np.argsort(bank.js, kind="stable")
    shown = rising[np.unique(np.linspace(0, len(rising) - 1, count).round().astype(int))]
    columns, patch = 8, image_size // g
    lines = -(-len(shown) // columns)
    fig, axes = plt.subplots(lines, columns, figsize=(8, 1.15 * lines + 0.4), squeeze=False)
    for ax in axes.flat:
        ax.axis("off")
    for ax, j in zip(axes.flat, shown, strict=False):
        image, at = divmod(int(bank.index[j]), g * g)
        x = to_input(decode(samples[image].path), image_size) * STD + MEAN  # (3, H, W)
        around, reach = surroundings(x.clamp(0, 1).permute(1, 2, 0).numpy(), at, g)
        ax.imshow(around)
        ax.add_patch(plt.Rectangle((reach - 0.5, reach - 0.5), patch, patch, fill=False, color="yellow", lw=1.2))
        ax.set_title(f"{bank.js[j]:.3f}", fontsize=7)
    fig.suptitle(
        f"{len(shown)} of {len(bank.js)} bank tokens and their divergence (bits); frame: the token's {patch} px patch",
        fontsize=9,
    )
    return fig, shown


def training_curves(histories: dict[str, list[dict]], probe_bce: float, n_train: int, n_val: int):
    """Loss terms of training (left) and validation loss of every method (right) by epoch; the probe, which
    has no epochs, is a level. n_train, n_val: images of both splits. Data: the histories."""
    fig, (left, right) = plt.subplots(1, 2, figsize=(8, 2.8))
    sdd = histories["sdd"]
    epochs = [row["epoch"] for row in sdd]
    terms = (("bce", "BCE", "ok-"), ("tri", "triplet, Eq. 14", "sk--"), ("r", "reconstruction, Eq. 9", "^k:"))
    for key, label, look in terms:
        left.plot(epochs, [row[key] for row in sdd], look, ms=4, lw=1, label=label)
    left.set(
        xlabel="epoch",
        ylabel="training mean, unweighted",
        title=f"SDD: the terms of Eq. 16, N = {n_train} images",
        yscale="log",
    )
    for name, history in histories.items():
        label, colour = METHODS[name]
        right.plot([r["epoch"] for r in history], [r["val_bce"] for r in history], "o-", ms=4, color=colour, label=label)
    right.axhline(probe_bce, color=METHODS["probe"][1], ls="--", label=METHODS["probe"][0])
    right.set(xlabel="epoch", ylabel="BCE (nats)", title=f"validation, centre crops, N = {n_val}")
    for ax in (left, right):
        ax.set_xticks(range(1, max(len(h) for h in histories.values()) + 1))
        ax.legend()
    return fig, histories


def two_classes(values: np.ndarray, labels: np.ndarray, xlabel: str, title: str):
    """Histograms of one number an image for real and fake. Data: {"real", "fake"} arrays."""
    fig, ax = plt.subplots(figsize=(5, 2.6))
    data = {"real": values[labels == 0], "fake": values[labels == 1]}
    bins = np.linspace(values.min(), values.max(), 31)
    for (name, part), colour in zip(data.items(), (REAL, FAKE), strict=True):
        ax.hist(part, bins, histtype="stepfilled", alpha=0.6, color=colour, label=f"{name}, N = {len(part)}")
    ax.set(xlabel=xlabel, ylabel="images", title=title)
    ax.set_ylim(0, 1.3 * ax.get_ylim()[1])  # room for the legend
    ax.legend(loc="upper right")
    return fig, data


def generator_bars(tables: dict[str, list[dict]], metric: str = "ap", intervals: dict | None = None):
    """One metric a test generator for every method, and the mean over the unseen ones (over all, where every one
    was seen) with its interval if given.

    tables: method -> lines of `evaluate.table`; intervals: method -> (estimate, low, high). Data: {method: {name: value}}.
    """
    first = next(iter(tables.values()))
    names = [line["generator"] + (" (seen)" if line["seen"] else "") for line in first] + [f"mean of {headline(first)[0]}"]
    fig, ax = plt.subplots(figsize=(8, 0.42 * len(names) + 1.2))
    height, data = 0.8 / len(tables), {}
    for k, (method, lines) in enumerate(tables.items()):
        values = [line[metric] for line in lines]
        values.append(float(np.mean([line[metric] for line in headline(lines)[1]])))
        at = np.arange(len(names)) + (k - (len(tables) - 1) / 2) * height
        label, colour = METHODS[method]
        ax.barh(at, values, height, color=colour, label=label)
        if intervals:
            _, low, high = intervals[method]
            ax.plot([low, high], [at[-1]] * 2, color="#E69F00", lw=2, solid_capstyle="butt")
        data[method] = dict(zip(names, values, strict=True))
    ax.axvline(0.5, color=NEUTRAL, lw=0.8, ls=":")
    ax.set_yticks(np.arange(len(names)), names)
    ax.invert_yaxis()
    counts = sorted({(line["n_real"], line["n_fake"]) for line in first})
    sizes = " or ".join(f"{real} real + {fake} fake" for real, fake in counts)
    bar = "; orange: 95 % interval over photographs" if intervals else ""
    ax.set(xlim=(0, 1), xlabel=f"{metric.upper()} ({sizes} images a generator{bar})")
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return fig, data


def score_histograms(rows: list[dict], threshold: float, split: str = "test"):
    """Scores of the reals and of each generator's fakes, and the threshold. Data: {generator: scores}."""
    kept = [r for r in rows if r["split"] == split and r["score"] is not None]
    groups = {}
    for r in kept:
        groups.setdefault(r["generator"], []).append(r)
    fig, axes = plt.subplots(len(groups), 1, figsize=(6, 0.5 * len(groups) + 0.9), sharex=True, squeeze=False)
    for (name, group), ax in zip(groups.items(), axes[:, 0], strict=True):
        colour = FAKE if group[0]["label"] else REAL
        ax.hist([r["score"] for r in group], np.linspace(0, 1, 41), color=colour)
        ax.axvline(threshold, color="k", lw=0.8, ls="--")
        ax.set(yticks=[], yscale="symlog")
        ax.minorticks_off()
        ax.set_yticks([])
        ax.set_ylabel(f"{name}, N = {len(group)}", rotation=0, ha="right", va="center", fontsize=7)
    axes[-1, 0].set_xlabel("score = P(fake)")
    fig.suptitle(f"split {split}, counts on a log scale: real blue, fake orange; dashed: validation threshold", fontsize=9)
    return fig, {name: [r["score"] for r in group] for name, group in groups.items()}
