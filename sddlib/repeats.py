"""Trainings of a sweep that were made a second time: which, how far they moved, and when they count as more of the same."""

from pathlib import Path

import numpy as np

from . import SDDError
from .ablations import Store, find_stores
from .chance import spread_of_one
from .effects import mean_ap
from .report import columns
from .runs import shown


def find_repeats(folder: Path, profile: str) -> dict[str, list[Store]]:
    """Folders below that of a sweep's stores which hold stores of the same profile: name -> stores."""
    found = {sub.name: find_stores(sub, profile) for sub in sorted(folder.glob("*/"))}
    return {name: stores for name, stores in found.items() if stores}


def counted(stores: list[Store], folder: Path, names: list[str], profile: str) -> list[Store]:
    """The stores, and those of a profile in the named folders below `folder`, whose trainings count as more of the same; a
    folder that is not there has none. All were trained with the same settings, or it is an error."""
    repeats = find_repeats(folder, profile) if stores else {}
    every = [*stores, *(store for name in names for store in repeats.get(name, []))]
    if len({str(sorted(facts["common"].items())) for store in every for facts in store.facts().values()}) > 1:
        raise SDDError(f"{shown(folder)} and {', '.join(names)} were trained differently; sweep all with the same settings")
    return every


def twice(first: list[Store], again: list[Store], manifest: Path) -> list[tuple[str, int, float, float]]:
    """(variant, seed, mean AP, mean AP of the second training) of all that was trained in both with the same settings."""
    known, found = {store.seed: store for store in first}, []
    for store in again:
        if store.seed not in known:
            continue
        before, after = known[store.seed].facts(), store.facts()
        same = [n for n in after if n in before and after[n]["settings"] == before[n]["settings"]]
        one, other = (s.runs(manifest, 0) if same else {} for s in (known[store.seed], store))
        found += [(name, store.seed, mean_ap(one[name]), mean_ap(other[name])) for name in same]
    return found


def twice_table(kinds: dict[str, list[tuple[str, int, float, float]]]) -> str:
    """A line a kind of repetition; pairs that are the same to the last digit are counted, and are in no other number. kinds:
    what was repeated -> of `twice`."""
    body = [["trained again", "the same to the last digit", "others", "again - first", "largest change", "sd of one training"]]
    for kind, rows in kinds.items():
        names = sorted({name for name, _, a, b in rows if a == b})
        change = np.array([b - a for *_, a, b in rows if a != b])
        numbers = [change.mean(), np.abs(change).max(), spread_of_one(change)] if len(change) else ["", "", ""]
        body.append([kind, f"{len(rows) - len(change)} {', '.join(names)}".strip(), len(change), *numbers])
    return columns(body)
