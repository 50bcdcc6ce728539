"""A grid of runs as a YAML file: which notebooks, which profile, what varies. Every name and value is checked on reading."""

import hashlib
import itertools
import json
import math
import re
from dataclasses import dataclass
from pathlib import Path

from yaml import YAMLError

from . import SDDError
from .disk import expanded
from .limits import read_yaml
from .presets import get_preset
from .profiles import ROOT, all_parameters, check_overrides, near, resolve

KEYS = ("notebooks", "profile", "fixed", "grid", "runs")
TAKEN = ("latest", "lab")  # names in runs/ that mean something else
MOST = 10_000  # runs of a grid: each is a folder


@dataclass(frozen=True)
class GridRun:
    """One run. name: of its folder; id: of its settings; varied: its values of what varies; overrides: those and the fixed."""

    name: str
    id: str
    varied: dict
    overrides: dict


@dataclass(frozen=True)
class Grid:
    """Runs of the same notebooks with the same profile. name: the file's stem."""

    name: str
    notebooks: list[str]
    profile: str
    runs: list[GridRun]


def read_grid(path: Path) -> Grid:
    """Read a grid file. A mistake in it, or in any value of any run, is an SDDError; nothing has been made by then."""
    sections = _sections(path)
    said = f"grid {path.name}"
    name = path.stem
    if name in TAKEN or not re.fullmatch(r"\w[\w.+-]*", name):
        raise SDDError(f"{said}: its name is that of the folder in runs/, and {name!r} cannot be one; rename the file")
    notebooks, profile = _notebooks(sections, said), str(sections.get("profile") or "mini")
    if profile.endswith((".yaml", ".yml")):
        profile = str((path.parent / expanded(profile)).resolve())  # a path starts at the grid file
    fixed, combinations = _mapping(sections, "fixed", said), _combinations(sections, said)
    for combination in combinations:
        if twice := [n for n in combination if n in fixed]:
            raise SDDError(f"{said}: {twice[0]!r} is fixed and varied; leave one out")
        if "run_dir" in combination | fixed:
            raise SDDError(f"{said}: every run has a folder of its own; leave run_dir out")
        check_overrides(combination | fixed, notebooks)
    runs = [_run(notebooks, profile, fixed, c) for c in combinations]
    first: dict[str, GridRun] = {}
    for run in runs:
        if first.setdefault(run.id, run) is not run:
            raise SDDError(f"{said}: the runs {first[run.id].name} and {run.name} have the same settings; leave one out")
    return Grid(name, notebooks, profile, runs)


def settings(notebooks: list[str], profile: str, overrides: dict) -> dict[str, dict]:
    """Notebook -> every parameter but the run folder."""
    return {n: {k: v for k, v in all_parameters(profile, n, overrides).items() if k != "run_dir"} for n in notebooks}


def identity(found: dict[str, dict]) -> str:
    """12 hex digits over `settings`, every field of the presets and the manifests' bytes; the code and its libraries are not
    in it, nor what else a parameter names by its path."""
    known = []
    for name, values in sorted(found.items()):
        values = dict(values)
        if "preset" in values:
            values["preset"] = get_preset(values["preset"], **values["preset_fields"]).as_dict()
        if "manifest" in values:
            values["data"] = _digest(ROOT / expanded(values["manifest"]))
        known.append([name, values])
    try:
        return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:12]
    except TypeError as e:
        raise SDDError(f"a parameter holds what JSON cannot ({e}); use texts, numbers, lists and names") from None


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""


def _sections(path: Path) -> dict:
    if not path.is_file():
        raise SDDError(f"grid {path} is missing; give a YAML file such as notebooks/grids/seeds.yaml")
    try:
        sections = read_yaml(path)
    except SDDError:
        raise
    except (YAMLError, ValueError, RecursionError) as e:
        raise SDDError(f"grid {path.name} is not valid YAML: {' '.join(str(e).split())}") from None
    if not isinstance(sections, dict):
        raise SDDError(f"grid {path.name} must hold `name: value` lines; it has {', '.join(KEYS)}")
    for name in sections:
        if name not in KEYS:
            raise SDDError(f"grid {path.name}: {name!r} is unknown; near it are {near(name, KEYS)}")
    return sections


def _notebooks(sections: dict, said: str) -> list[str]:
    names = sections.get("notebooks")
    names = names if isinstance(names, list) else [names]
    if not names or not all(isinstance(n, str) for n in names):  # YAML reads 010 as 8
        raise SDDError(f'{said}: notebooks must be a list of names in quotes, such as ["02", "03", "04"]')
    return resolve(names)


def _mapping(sections: dict, name: str, said: str) -> dict:
    values = sections.get(name) or {}
    if not isinstance(values, dict):
        raise SDDError(f"{said}: {name} must hold `parameter: value` lines")
    return values


def _combinations(sections: dict, said: str) -> list[dict]:
    """The product of the lists in `grid`, then what `runs` lists."""
    lists, listed = _mapping(sections, "grid", said), sections.get("runs") or []
    for name, values in lists.items():
        if not isinstance(values, list) or not values:
            raise SDDError(f"{said}: grid has {name}: {values!r}; give a list of values, or put it under fixed")
    if not isinstance(listed, list) or not all(isinstance(values, dict) for values in listed):
        raise SDDError(f"{said}: runs must be a list of combinations, such as - {{seed: 1, lr: 1.0e-4}}")
    if not lists and not listed:
        raise SDDError(f"{said} has no run; give lists under grid, or combinations under runs")
    if (count := math.prod(map(len, lists.values())) + len(listed)) > MOST:
        raise SDDError(f"{said} has {count} runs, and {MOST} are the most; give shorter lists, or several grids")
    product = [dict(zip(lists, values, strict=True)) for values in itertools.product(*lists.values())] if lists else []
    return product + listed


def _run(notebooks: list[str], profile: str, fixed: dict, varied: dict) -> GridRun:
    overrides = fixed | varied
    found = settings(notebooks, profile, overrides)
    fitted = {k: v for values in found.values() for k, v in values.items() if k in varied}  # 5e-4 is a text in YAML
    varied, id = {name: fitted[name] for name in varied}, identity(found)
    words = [f"{name}-{re.sub(r'[^A-Za-z0-9.+]+', '-', str(value)).strip('-')}" for name, value in varied.items()]
    return GridRun(f"{'_'.join(words)[:80]}_{id}".lstrip("_"), id, varied, overrides)
