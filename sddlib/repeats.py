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
    folder that is not there has none. An error where settings differ."""
    if isinstance(names, str) or len({*names}) < len(names):
        raise SDDError(f"{names!r} is no list of different folders; give one such as ['two_cores']")
    repeats = find_repeats(folder, profile) if stores else {}
    every, settings = [*stores, *(store for name in names for store in repeats.get(name, []))], {}
    for store in every:
        for name, facts in store.facts().items():
            known = settings.setdefault((name, store.seed), facts["settings"]), settings.setdefault("", facts["common"])
            if known != (facts["settings"], facts["common"]):
                raise SDDError(f"{shown(store.csv)}: {name} was trained with other settings than elsewhere; sweep all alike")
    return every


def runs_of(stores: list[Store], manifest: Path) -> tuple[list[dict[str, list[dict]]], list[str]]:
    """(runs of the stores, of the same images; what was left out). A training that came out as an earlier one to the last digit
    is left out, with its paths: it says nothing of chance."""
    runs, left_out, seen, paths = [], [], set(), None
    for store in stores:
        run = store.runs(manifest, 0)
        for name in [n for n in run if ":" not in n]:
            scores = (name, *(r["score"] for r in run[name]))
            if (paths := paths or [r["path"] for r in run[name]]) != [r["path"] for r in run[name]]:
                raise SDDError(f"{shown(store.csv)} holds other images than the stores before it; sweep all on the same")
            if scores in seen:
                run = {column: rows for column, rows in run.items() if column.split(":")[0] != name}
                left_out.append(f"{name}, seed {store.seed}")
            seen.add(scores)
        runs.append(run)
    return runs, left_out


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
