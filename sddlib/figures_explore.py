"""The figure of one look at a picture, for `09_explore` without widgets; colours and style are those of `figures`."""

import matplotlib.pyplot as plt

from .data import decode, to_input
from .explore import Look, Subject
from .figures import FAKE, REAL, surroundings
from .panels import shown
from .tiles import framed, pixels_of
from .verdicts import verdict
from .visual import Cam


def explored(name: str, look: Look, cams: dict[str, Cam], subject: Subject):
    """A picture with what the detector saw, D_s and a CAM a branch (first row); below, each of the most discrepant patches and
    the photographs' patches of its nearest bank tokens. cams: branch -> `visual.Cam` of this look. Data: look and CAMs."""
    g, lines = subject.model.backbone.g, max(1, len(look.near))
    fig = plt.figure(figsize=(9.5, 2.7 + 1.05 * lines), layout="constrained")
    above, below = fig.subfigures(2, 1, height_ratios=(2.6, 1.05 * lines))
    axes = _empty(above.subplots(1, 3 + len(cams), squeeze=False)[0])
    seen = pixels_of(look.x[0])
    axes[0].imshow(framed(look.picture, look.window))
    axes[0].set_title("picture, {}x{} px".format(*look.picture.size))
    axes[1].imshow(seen)
    axes[1].set_title(f"what is scored, {len(seen)} px")
    if look.D_s is None:
        axes[2].text(0.5, 0.5, "no $D_s$", ha="center", transform=axes[2].transAxes)
    else:
        drawn = axes[2].imshow(look.D_s, vmin=0, vmax=subject.bright, cmap="viridis")
        axes[2].set_title(f"$D_s$, mean {look.D_s.mean():.2f}")
        above.colorbar(drawn, ax=axes[2], location="bottom", fraction=0.06, pad=0.02, label="token value")
    for ax, (branch, cam) in zip(axes[3:], cams.items(), strict=True):
        ax.imshow(seen.mean(2), cmap="gray", vmin=0, vmax=1)
        drawn = ax.imshow(cam.map[0], cmap="inferno", vmin=0, vmax=1, alpha=0.6)
        ax.set_title(f"CAM, {branch}: " + (f"peak {cam.peak[0]:.2g}" if cam.peak[0] > 0 else "empty"))
    above.colorbar(
        drawn, ax=axes[3:], location="bottom", fraction=0.06, pad=0.02, label="none to the map's peak (logits a position)"
    )
    _patches(below, look, subject, seen, g)
    found = verdict(look.score, subject.threshold)
    said = f"{name}: {found.upper()}, P(fake) {shown(look.score)}, threshold {subject.threshold:.3g}"
    fig.suptitle(said, color=FAKE if found == "fake" else REAL, fontweight="bold")
    return fig, {"look": look, "cams": cams}


def _empty(axes):
    for ax in axes:
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
        ax.title.set_fontsize(8.5)
    return axes


def _patches(fig, look: Look, subject: Subject, seen, g: int) -> None:
    """A row a discrepant patch: itself, then its nearest bank tokens; grey lies outside an image."""
    grid = fig.subplots(max(1, len(look.near)), 1 + max((len(row.index) for row in look.near), default=0), squeeze=False)
    _empty(grid.ravel())
    size = subject.model.backbone.image_size
    for axes, row in zip(grid, look.near, strict=False):
        _framed_patch(axes[0], seen, row.patch, g)
        axes[0].set_title(f"$D_s$ {row.D_s:.2f}", fontsize=8)
        for ax, j, distance in zip(axes[1:], row.index, row.distance, strict=True):
            origin = subject.origins[j] if subject.origins else None
            ax.set_title(f"#{j + 1}, {distance:.2f}", fontsize=8)
            if origin and (subject.root / origin.file).is_file():
                _framed_patch(ax, pixels_of(to_input(decode(subject.root / origin.file), size)), origin.patch, g)
            else:
                ax.text(0.5, 0.5, "not\nhere", ha="center", va="center", transform=ax.transAxes, fontsize=8)
    if look.near:
        fig.supxlabel(
            "most discrepant patches, and the bank tokens nearest to each: number, distance in spreads of the bank",
            fontsize=8.5,
        )
    else:
        grid[0, 0].text(0, 0.5, "this method has no bank", transform=grid[0, 0].transAxes)


def _framed_patch(ax, pixels, patch: int, g: int) -> None:
    around, reach = surroundings(pixels, patch, g)
    side = len(pixels) // g
    ax.imshow(around)
    ax.add_patch(plt.Rectangle((reach - 0.5, reach - 0.5), side, side, fill=False, color="yellow", lw=1.2))
