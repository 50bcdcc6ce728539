"""Figures of what a trained SDD sees, each returning (figure, data); colours and style are those of `figures`."""

import matplotlib.pyplot as plt
import numpy as np

from .data import MEAN, STD
from .figures import FAKE, NEUTRAL, REAL

CLASSES = (("real", REAL, "o"), ("fake", FAKE, "^"))  # by label; told apart by shape too


def feature_planes(panels: dict[str, dict], perplexity: float, iterations: int, seed: int):
    """t-SNE of classifier features, a panel a generator. panels: generator -> {"points" (n, 2), "labels" (n,), "silhouette",
    "probe", "seen"}. Data: the panels."""
    columns = min(4, len(panels))
    lines = -(-len(panels) // columns)
    fig, axes = plt.subplots(lines, columns, figsize=(2.3 * columns, 2.2 * lines + 0.7), squeeze=False)
    for ax in axes.flat[len(panels) :]:
        ax.axis("off")
    for (name, panel), ax in zip(panels.items(), axes.flat, strict=False):
        for label, (_, colour, marker) in enumerate(CLASSES):
            part = panel["points"][panel["labels"] == label]
            ax.scatter(*part.T, s=9, c=colour, marker=marker, alpha=0.65, linewidths=0)
        ax.set_title(f"{name}{' (seen)' if panel['seen'] else ''}", fontsize=8.5)
        ax.set_xlabel(f"silhouette {panel['silhouette']:.2f}, probe {panel['probe']:.2f}", fontsize=8.5)
        ax.set(xticks=[], yticks=[])
    handles = [plt.Line2D([], [], ls="", marker=m, color=c, label=name) for name, c, m in CLASSES]
    fig.legend(handles=handles, loc="outside lower right", ncols=2)
    sizes = sorted({int((panel["labels"] == 1).sum()) for panel in panels.values()})
    each = f"N = {' or '.join(map(str, sizes))} of each class a panel"
    fig.suptitle(
        f"t-SNE of [F_low, T_CLS], standardised; {each}; perplexity {perplexity:g}, {iterations} iterations, seed {seed}; "
        "axes without unit",
        fontsize=9,
    )
    return fig, panels


def discrepancy_boxes(real: np.ndarray, fakes: dict[str, np.ndarray], aurocs: dict[str, tuple], seen: set[str], level: float):
    """Mean D_s of the reals (first row, and their middle 90 % as a band) and of every generator's fakes, with the AUROC of that
    one number. aurocs: generator -> (estimate, low, high); level: from where on an image counts as discrepant. Data: {"real"
    or generator: values}."""
    data = {"real": real, **fakes}
    fig, ax = plt.subplots(figsize=(8.5, 0.36 * len(data) + 1.1))
    ax.axvline(level, color=NEUTRAL, lw=1, ls=":")
    ax.axvspan(*np.percentile(real, (5, 95)), color=REAL, alpha=0.12, lw=0)
    rng = np.random.default_rng(0)  # jitter says nothing
    for at, (name, values) in enumerate(data.items()):
        colour = FAKE if at else REAL
        ax.scatter(values, at + rng.uniform(-0.22, 0.22, len(values)), s=5, color=colour, alpha=0.45, lw=0)
        low, first, median, third, high = np.percentile(values, (5, 25, 50, 75, 95))
        ax.hlines(at, low, high, color="k", lw=0.9)
        ax.barh(at, third - first, 0.6, first, fill=False, edgecolor="k", lw=0.9)
        ax.vlines(median, at - 0.3, at + 0.3, color="k", lw=1.8)
        if at:
            label = "{:.2f} [{:.2f}, {:.2f}]".format(*aurocs[name])
        else:
            label = "AUROC against reals\n[95 % over photographs]"
        ax.text(1.01, at, label, transform=ax.get_yaxis_transform(), va="center", fontsize=8.5)
    names = [f"{name}{' (seen)' if name in seen else ''}, N = {len(values)}" for name, values in data.items()]
    ax.set_yticks(range(len(data)), names)
    ax.invert_yaxis()
    ax.set_xlabel("mean of $D_s$ over channels and patches (units of token values)")
    ax.set_title("box: middle half and median; line: middle 90 %; band: that of the reals; dotted: the level", fontsize=9)
    return fig, data


def discrepancy_maps(examples: list[dict], images: np.ndarray, maps: np.ndarray):
    """Crops of the examples above their D_s, one colour scale for all. images: (n, 3, H, W) as the model sees them,
    maps: (n, g, g). Data: {path: map}."""
    return _on_one_scale(examples, images, maps, ("$D_s$", "token value"), float(maps.max()))


def patchfor_maps(examples: list[dict], images: np.ndarray, maps: np.ndarray):
    """Crops of the examples above PatchFor's P(generated) of every patch, (n, h, w). Data: {path: map}."""
    return _on_one_scale(examples, images, maps, ("PatchFor", "P(generated) of a patch"), 1.0)


def _on_one_scale(examples: list[dict], images: np.ndarray, maps: np.ndarray, names: tuple[str, str], most: float):
    """names: of the row, and of the colour scale, which goes from 0 to `most`."""
    fig, axes = _frame(examples, images, [names[0]])
    scale = {"vmin": 0, "vmax": most, "cmap": "viridis"}
    for ax, m in zip(axes[1], maps, strict=True):
        shown = ax.imshow(m, **scale)
        ax.set_xlabel(f"mean {m.mean():.3f}\nmax {m.max():.3f}", fontsize=8.5)
    bar = fig.colorbar(shown, ax=axes.ravel().tolist(), fraction=0.02, pad=0.01)
    bar.set_label(names[1], fontsize=8.5)
    return fig, _by_path(examples, maps)


def cam_overlays(examples: list[dict], images: np.ndarray, cams: dict):
    """CAM towards "fake" over the crops, a row a branch, each map by its own range, whose upper end stands below it.
    cams: branch -> `visual.Cam` of the examples. Data: {branch: {path: (map, peak)}}."""
    fig, axes = _frame(examples, images, [f"CAM\n{branch}" for branch in cams])
    for line, found in zip(axes[1:], cams.values(), strict=True):
        for ax, image, m, peak in zip(line, images, found.map, found.peak, strict=True):
            ax.imshow(_picture(image).mean(2), cmap="gray", vmin=0, vmax=1)
            ax.imshow(m, cmap="inferno", vmin=0, vmax=1, alpha=0.6)
            ax.set_xlabel(f"peak {peak:.2g}" if peak > 0 else "empty", fontsize=8.5)
    bar = fig.colorbar(plt.cm.ScalarMappable(cmap="inferno"), ax=axes.ravel().tolist(), fraction=0.02, pad=0.01)
    bar.set_label("each map from its own minimum to its peak", fontsize=8.5)
    return fig, {b: _by_path(examples, list(zip(found.map, found.peak, strict=True))) for b, found in cams.items()}


def stage_panels(examples: list[dict], images: np.ndarray, stages: list[np.ndarray]):
    """The enhancer's stages, averaged over channels, a row a stage with a colour scale of its own for all images.
    stages: [(n, s, s)]. Data: [{path: map}]."""
    fig, axes = _frame(examples, images, [f"stage {n}\n{len(m[0])}x{len(m[0])}" for n, m in enumerate(stages, 1)])
    for line, maps in zip(axes[1:], stages, strict=True):
        for ax, m in zip(line, maps, strict=True):
            shown = ax.imshow(m, vmin=0, vmax=float(maps.max()), cmap="viridis")
        bar = fig.colorbar(shown, ax=line.tolist(), fraction=0.02, pad=0.01)
        bar.set_label("activation", fontsize=8.5)
    return fig, [_by_path(examples, maps) for maps in stages]


def _by_path(examples: list[dict], values) -> dict:
    return dict(zip((r["path"] for r in examples), values, strict=True))


def _two_lines(name: str, most: int = 13) -> str:
    """A long name broken after the underscore that is nearest to its middle."""
    breaks = [i + 1 for i, letter in enumerate(name) if letter == "_"]
    if len(name) <= most or not breaks:
        return name
    at = min(breaks, key=lambda i: abs(i - len(name) / 2))
    return f"{name[:at]}\n{name[at:]}"


def _picture(image: np.ndarray) -> np.ndarray:
    """(3, H, W) as the model sees it -> (H, W, 3) as people do."""
    return (image * STD.numpy() + MEAN.numpy()).clip(0, 1).transpose(1, 2, 0)


def _frame(examples: list[dict], images: np.ndarray, rows: list[str]):
    """A column an example: its crop, headed by generator, score and verdict; below it an empty row for each of `rows`."""
    size = (1.18 * len(examples) + 1, 1.25 * (len(rows) + 1) + 0.75)
    fig, axes = plt.subplots(len(rows) + 1, len(examples), figsize=size, squeeze=False)
    for ax in axes.flat:
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
    for r, image, ax in zip(examples, images, axes[0], strict=True):
        ax.imshow(_picture(image))
        score = f"{r['score']:.3f}" if r["score"] >= 0.001 else "< 0.001"
        title = f"{_two_lines(r['generator'])}\nP(fake) {score}\n{r['verdict']}"
        weight = "bold" if r["verdict"].isupper() else "normal"
        ax.set_title(title, fontsize=8, fontweight=weight, color=FAKE if r["label"] else REAL)
    for ax, name in zip(axes[1:, 0], rows, strict=True):
        ax.set_ylabel(name, fontsize=8.5)
    fig.suptitle(
        f"N = {len(examples)} centre crops of {images.shape[-1]} px; real blue, fake orange; bold: wrong at the threshold",
        fontsize=9,
    )
    return fig, axes
