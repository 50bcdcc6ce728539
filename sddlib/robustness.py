"""Scores of pictures that were blurred, resized and compressed: which changes, on which part of the test set, scored once.

A picture is changed as it was decoded, before the centre crop, and then goes the way of every picture. One that resizing has
made smaller than the crop is therefore enlarged to it again (`data.to_input`), as any small picture is: halved and enlarged it
has lost detail, while one that grew shows the crop a smaller part of the scene.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from . import SDDError
from .benchmarks import stand_against
from .data import Sample
from .perturb import Perturbation
from .protocols import EQUALISED, PROTOCOLS
from .recipes import load_scorer
from .report import NAMES
from .saved import scored_once, settings_of

NATIVE, REAL, UNSEEN = "native", "real", "unseen"  # column of untouched pictures; groups of images
PROTOCOL = PROTOCOLS["full-native"]
LADDERS = {"jpeg": (EQUALISED, 95, 80, 50, 30), "webp": (80, 30), "blur": (1, 2, 4), "resize": (0.5, 0.75, 1.5)}
CHAINS = {
    "mild": (("blur", 1), ("resize", 0.75), ("webp", 80), ("jpeg", 80)),
    "strong": (("blur", 2), ("resize", 0.5), ("webp", 30), ("jpeg", 30)),
}
GRID = {
    p.name: p
    for p in (
        *(Perturbation(f"{what}{strength:g}", ((what, strength),)) for what, steps in LADDERS.items() for strength in steps),
        *(Perturbation(name, steps) for name, steps in CHAINS.items()),
    )
}
EQUAL = f"jpeg{EQUALISED}"  # the equalised column
TITLES = {"jpeg": "JPEG quality", "webp": "WebP quality", "blur": "blur, sigma in pixels", "resize": "resize, factor"}

Grid = dict[str, dict[str, list[dict]]]  # method -> perturbation -> rows, as `evaluate.read_scores` gives them


def evenly(items: list, count: int) -> list:
    """At most `count` items, evenly spaced from the first to the last; 0: all."""
    if not count or count >= len(items):
        return items
    return [items[i] for i in np.linspace(0, len(items) - 1, count).round().astype(int)]


def fixed_subset(samples: list[Sample], photographs: int, reals: int = 2) -> list[Sample]:
    """A part of the test split without any chance in it, in the order of `samples`.

    From each family of unseen generators, and from the seen ones, one fake of each of `photographs` photographs; generators and
    crops take turns. Of as many photographs with reals the first `reals` crops. Photographs are evenly spaced in file order, so
    that families which show the same ones are given the same ones. photographs: 0: the whole test split.
    """
    test = [s for s in samples if s.split == "test"]
    if not photographs:
        return test
    seen = {s.generator for s in samples if s.split == "val" and s.label}
    groups: dict[tuple, dict[str, list[Sample]]] = {}
    for s in test:
        group = (s.family, s.generator in seen) if s.label else ()
        groups.setdefault(group, {}).setdefault(s.photo, []).append(s)
    chosen = set()
    for group, photos in groups.items():
        for turn, members in enumerate(evenly(list(photos.values()), photographs)):
            chosen.update(s.path for s in ([members[turn % len(members)]] if group else members[:reals]))
    return [s for s in test if s.path in chosen]


def score_grid(
    run_dir: Path,
    samples: list[Sample],
    root: Path,
    force: bool = False,
    batch: int = 32,
    workers: int = 0,
    say: Callable[[str], None] = print,
) -> Grid:
    """Every perturbation of GRID scored by every checkpoint of a run, in RUN/robustness/METHOD/PERTURBATION.csv.

    What is saved for these checkpoints, images and perturbations is read. samples: of `fixed_subset`; root: what the paths of
    the rows start at.
    """
    grid: Grid = {}
    for method in NAMES:
        model = load_scorer(run_dir / "checkpoints" / f"{method}.safetensors")
        folder = run_dir / "robustness" / method
        folder.mkdir(parents=True, exist_ok=True)
        settings = settings_of(model, samples, root, PROTOCOL, 0)
        grid[method] = {}
        for name, change in GRID.items():
            own = settings | {"perturbation": [list(step) for step in change.steps]}
            file = folder / f"{name}.csv"
            grid[method][name] = scored_once(model, samples, root, file, own, change, force, batch, workers, say)
    return grid


def with_native(grid: Grid, native: dict[str, list[dict]]) -> Grid:
    """The grid with the native scores of the same images in front. native: method -> rows that hold these images and perhaps
    others."""
    found: Grid = {}
    for method, columns in grid.items():
        at = {r["path"]: r for r in native[method]}
        paths = [r["path"] for r in next(iter(columns.values()))]
        if absent := [path for path in paths if path not in at]:
            raise SDDError(f"the native scores of {method} lack {absent[0]}; run 04_evaluate on the same benchmark again")
        found[method] = {NATIVE: [at[path] for path in paths], **columns}
    return found


def families(rows: list[dict], seen: set[str]) -> dict[str, list[dict]]:
    """Family -> the reals of `rows` that its generators stand against, then its fakes; the seen generators apart, with "(seen)"
    behind their family, and first."""
    fakes: dict[str, list[dict]] = {}
    for r in sorted((r for r in rows if r["label"]), key=lambda r: r["generator"] not in seen):
        fakes.setdefault(r["family"] + (" (seen)" if r["generator"] in seen else ""), []).append(r)
    reals = [r for r in rows if not r["label"]]
    against = stand_against((r["generator"] for r in reals), (r["generator"] for part in fakes.values() for r in part))
    found = {}
    for name, part in fakes.items():
        opposite = {g for r in part for g in against[r["generator"]]}
        found[name] = [r for r in reals if r["generator"] in opposite] + part
    return found


def unseen_families(found: dict[str, list[dict]]) -> list[str]:
    """The families of `families` that hold no seen generator; without one there is nothing to say here."""
    unseen = [name for name in found if not name.endswith(" (seen)")]
    if not unseen:
        raise SDDError("the scores hold no fakes of an unseen generator; check the manifest's split and generator")
    return unseen
