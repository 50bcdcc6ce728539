"""Figures of the token bank, as in `figures`: each returns (figure, data)."""

import matplotlib.pyplot as plt
import numpy as np
import torch

from .coverage import KINDS
from .figures import FAKE, NEUTRAL, REAL


def token_plane(tokens, index, js):
    """Chosen tokens among all, on the two leading principal axes of all. tokens: (n, D); index: (M,) chosen; js: (n,).
    Data: {"all": (n, 2), "chosen": (M, 2), "explained": share of variance of each axis}."""
    centred = tokens - tokens.mean(0)
    _, s, axes = torch.pca_lowrank(centred, q=2, center=False, niter=4)
    explained = (s.square() / centred.square().sum()).tolist()
    plane = (centred @ axes).numpy()
    fig, (left, right) = plt.subplots(1, 2, figsize=(8, 3.4), sharex=True, sharey=True)
    shades = left.scatter(*plane.T, c=js, s=2, cmap="viridis", rasterized=True)
    fig.colorbar(shades, ax=left, label="divergence to the reference (bits)")
    right.scatter(*plane.T, s=2, color=NEUTRAL, alpha=0.3, rasterized=True, label=f"all, N = {len(plane)}")
    right.scatter(*plane[index].T, s=8, color=FAKE, label=f"chosen, M = {len(index)}")
    left.set(title="all real tokens", ylabel=f"axis 2 ({explained[1]:.0%} of variance)")
    right.set(title="what the bank keeps")
    right.legend(loc="best", markerscale=2)
    for ax in (left, right):
        ax.set_xlabel(f"axis 1 ({explained[0]:.0%} of variance)")
    return fig, {"all": plane, "chosen": plane[index], "explained": explained}


def coverage_bars(found: dict[str, dict[str, list[float]]], M: int, count: int):
    """Nearest distance left by each way of choosing M tokens, for each kind of token. found: way -> kind of `coverage.KINDS`
    -> values, one a seed. Data: the same."""
    fig, ax = plt.subplots(figsize=(8, 2.8))
    kinds = [*next(iter(found.values()))]
    for k, (way, colour) in enumerate(zip(found, (FAKE, REAL, NEUTRAL, "#009E73"), strict=False)):
        values = [np.mean(found[way][kind]) for kind in kinds]
        spread = [np.std(found[way][kind]) for kind in kinds]
        at = np.arange(len(kinds)) + (k - (len(found) - 1) / 2) * 0.8 / len(found)
        ax.bar(at, values, 0.8 / len(found), yerr=spread, color=colour, ecolor="k", label=way)
    ax.set_xticks(range(len(kinds)), [KINDS[kind] for kind in kinds], fontsize=8)
    ax.set(
        ylabel="distance to nearest bank token\n(spreads of the tokens)", title=f"{count} tokens of validation reals, M = {M}"
    )
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return fig, found
