"""Which notebooks there are, which parameters each accepts, and the values that a profile or a command line gives them."""

import ast
import copy
import difflib
import json
import re
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from yaml import YAMLError

from . import SDDError
from .limits import JSON, SIDE, check_size, parse_yaml, read_yaml
from .presets import get_preset

ROOT = Path(__file__).resolve().parent.parent  # of the repository: relative paths among the parameters start here
NOTEBOOKS = ROOT / "notebooks"
PROFILES = NOTEBOOKS / "profiles"
MANY = 2**31 - 1
LARGE = 100_000  # of what arrays are made of: a profile may come from anybody
RANGES = {name: (1, MANY) for name in ("epochs", "reduced_epochs", "patience", "accumulate", "images")}
RANGES |= {name: (1, LARGE) for name in ("batch", "draws", "repeats", "bins", "photos", "patches", "tokens")}
RANGES |= {name: (0, MANY) for name in ("train_images", "photographs")} | {"image_size": (1, SIDE), "resize": (0, SIDE)}
RANGES |= {"workers": (0, 256), "augment": (0.0, 1.0), "save_minutes": (0.0, 1e6)}
RANGES |= {"seed": (0, MANY), "limit": (0, MANY), "reduced_limit": (0, MANY), "lr": (0.0, 1.0), "scratch": (0.0, 1e6)}
TRAINS_AS = {"variant": "03_train"}  # a template without a section of its own takes that of the notebook it stands in for
MAIN_JOB = ("00", "01", "02", "03", "04", "05", "06")  # what `run all` runs, as far as it is there; `run full`: every one


def near(name: str, known: Iterable[str]) -> str:
    """The names that look like a misspelt one, or all of them, as text for an error message."""
    known = list(map(str, known))
    return ", ".join(difflib.get_close_matches(str(name), known, 3, 0.6) or known)


def notebook_names() -> list[str]:
    """Stems of the numbered notebooks in the order in which they run."""
    if not NOTEBOOKS.is_dir():
        raise SDDError(f"{NOTEBOOKS} is missing: run from a clone installed with `pip install -e .`")
    return sorted(p.stem for p in NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))


def resolve(names: Iterable[str]) -> list[str]:
    """Notebook stems for what a user types, in running order: a stem, a number, a file name, "all" or "full"."""
    every, found = notebook_names(), set()
    for name in names:
        stem = Path(name).name.removesuffix(".ipynb")
        if name == "full":
            found.update(every)
        elif name == "all":
            found.update(n for n in every if n[:2] in MAIN_JOB)
        elif hits := [n for n in every if stem in (n, n[:2])]:
            found.update(hits)
        else:
            raise SDDError(f"there is no notebook {name!r}; there are {near(name, every)} (or all, or full)")
    return sorted(found)


def parameters(notebook: str) -> dict:
    """Name -> default value of a notebook's parameters cell, in order. The cell may hold literals only."""
    path = NOTEBOOKS / f"{notebook}.ipynb"
    if not path.is_file():
        raise SDDError(f"there is no notebook {notebook!r}; there are {near(notebook, notebook_names())}")
    stat = path.stat()
    return copy.deepcopy(_literals(path, stat.st_mtime_ns, stat.st_size))


@lru_cache(maxsize=256)
def _literals(path: Path, mtime_ns: int, size: int) -> dict:
    """What `parameters` returns for a notebook as it is on disk. A grid of runs asks for it thousands of times."""
    try:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]  # nbformat would take a second to import, in every kernel
    except (ValueError, KeyError, TypeError, RecursionError) as e:
        raise SDDError(f"{path.name} is no notebook ({type(e).__name__}: {e}); restore it") from None
    cells = [c for c in cells if "parameters" in c.get("metadata", {}).get("tags", [])]
    if len(cells) != 1:
        raise SDDError(f"{path.stem} has {len(cells)} cells tagged 'parameters'; it needs exactly one")
    source, values = "".join(cells[0]["source"]), {}  # one text, or a list of lines
    for node in ast.parse(source).body:
        try:
            (target,) = node.targets
            values[target.id] = ast.literal_eval(node.value)
        except (AttributeError, ValueError):
            line = ast.get_source_segment(source, node)
            raise SDDError(f"{path.stem}: {line!r} in the parameters cell is no `name = literal`; move it below") from None
    return values


def fit_value(name: str, value, default):
    """The value in the type of the default, or an error: a notebook must not die of a text where a number belongs."""
    kind = type(default)
    misfit = (
        f"parameter {name} = {value!r} is not of type {kind.__name__}, as its default {default!r} is; give a {kind.__name__}"
    )
    if kind is float and type(value) in (int, str):  # YAML reads 5e-4 as text
        try:
            value = float(value)
        except (ValueError, OverflowError):
            raise SDDError(misfit) from None
    if type(value) is not kind:
        raise SDDError(misfit)
    if name in RANGES and not RANGES[name][0] <= value <= RANGES[name][1]:
        raise SDDError(f"parameter {name} = {value!r} lies outside {RANGES[name][0]} to {RANGES[name][1]}; give a value inside")
    return value


def read_json(path: Path) -> dict:
    """A JSON file that a run has left; one that is broken, too large or holds no object is an SDDError."""
    try:
        check_size(path, JSON)
        value = json.loads(path.read_text())
        if isinstance(value, dict):
            return value
        why = "no object"
    except SDDError:
        raise
    except (OSError, ValueError, RecursionError) as e:
        why = e
    raise SDDError(f"{path} is broken ({why}); delete it and run again")


def read_profile(profile: str) -> dict[str, dict]:
    """The sections of notebooks/profiles/PROFILE.yaml (or of a YAML file named by its path), every name checked.

    A section is `common` or a notebook. A name in a notebook's section must be a parameter of that notebook; one in
    `common` must be a parameter of at least one.
    """
    path = Path(profile) if profile.endswith((".yaml", ".yml")) else PROFILES / f"{profile}.yaml"
    if not path.is_file():
        raise SDDError(
            f"there is no profile {profile!r}; there are {near(profile, sorted(p.stem for p in PROFILES.glob('*.yaml')))}"
        )
    try:
        sections = read_yaml(path) or {}
    except SDDError:
        raise
    except (YAMLError, ValueError, RecursionError) as e:
        raise SDDError(f"profile {path.name} is not valid YAML: {' '.join(str(e).split())}") from None
    if not isinstance(sections, dict) or not all(isinstance(s, dict) or s is None for s in sections.values()):
        raise SDDError(f"profile {path.name} must hold sections of `name: value` lines: common and one a notebook")
    sections = {name: values or {} for name, values in sections.items()}
    every = notebook_names()
    for section, values in sections.items():
        if section not in ("common", *every):
            raise SDDError(f"profile {path.name}: {section!r} is no notebook; near it are {near(section, ('common', *every))}")
        accepted = set().union(*(parameters(n) for n in (every if section == "common" else [section])))
        if "run_dir" in values:
            raise SDDError(f"profile {path.name}: where a run writes is not for a profile to say; name it with --run-dir")
        for name in values:
            if name not in accepted:
                whose = "any notebook" if section == "common" else section
                raise SDDError(
                    f"profile {path.name}: {name!r} is no parameter of {whose}; near it are {near(name, sorted(accepted))}"
                )
    return sections


def profile_parameters(profile: str, notebook: str) -> dict:
    """What a profile sets in one notebook: those of its common values that the notebook has, then its own section."""
    sections, defaults = read_profile(profile), parameters(notebook)
    own = sections.get(TRAINS_AS.get(notebook, notebook), {})
    values = {k: v for part in (sections.get("common", {}), own) for k, v in part.items() if k in defaults}
    return {name: fit_value(name, value, defaults[name]) for name, value in values.items()}


def all_parameters(profile: str, notebook: str, overrides: dict) -> dict:
    """Every parameter of a notebook, explicitly: its defaults, changed by the profile, changed by the command line."""
    defaults = parameters(notebook)
    given = {k: fit_value(k, v, defaults[k]) for k, v in overrides.items() if k in defaults}
    values = defaults | profile_parameters(profile, notebook) | given
    if "preset" in values:
        if not all(isinstance(k, str) for k in values["preset_fields"]):
            raise SDDError(
                f"parameter preset_fields = {values['preset_fields']!r} has a name that is no text; name fields of a preset"
            )
        get_preset(values["preset"], **values["preset_fields"])
    return values


def check_overrides(overrides: dict, notebooks: list[str]) -> None:
    """Refuse a name from the command line that no notebook of this run has, and the one that has an option of its own."""
    if "run_dir" in overrides:
        raise SDDError("the run folder is no -p parameter of a run; name it with --run-dir")
    accepted = set().union(*(parameters(n) for n in notebooks))
    for name in overrides:
        if name not in accepted:
            raise SDDError(f"{name!r} is no parameter of {', '.join(notebooks)}; near it are {near(name, sorted(accepted))}")


def parse_overrides(pairs: Iterable[str]) -> dict:
    """`name=value` texts of a command line as a dict; values are read as YAML (3, 5e-4, true, [8, 8], {M: 64})."""
    values = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name.isidentifier():
            raise SDDError(f"-p {pair!r} is not name=value")
        try:
            value = parse_yaml(text) if text.strip() else text
        except (YAMLError, ValueError, RecursionError):
            raise SDDError(f"-p {name}: {text!r} is not a valid YAML value; quote it") from None
        # YAML 1.1 takes 5e-4 for a text: it asks for a dot and a sign
        values[name] = float(value) if isinstance(value, str) and re.fullmatch(r"[+-]?\d+\.?\d*[eE][+-]?\d+", value) else value
    return values
