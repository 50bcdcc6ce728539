"""The scores that a notebook about robustness reads: those of a run's own checkpoints, or committed ones, never a mixture."""

import csv
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from . import SDDError, __version__
from .calibration import logits, sigmoid
from .data import Sample, read_csv
from .disk import replaced_together
from .embedded import sha256
from .evaluate import write_csv
from .layouts import benchmark_root, read_benchmark
from .profiles import read_json
from .recipes import subset
from .report import NAMES
from .robustness import GRID, PROTOCOL, Grid, fixed_subset, score_grid, with_native
from .runs import write_json
from .saved import images_hash
from .score_run import score_run

FACTS = ("path", "label", "generator", "family", "split", "photo")
FILES = ("native.csv", "perturbed.csv")


@dataclass
class Evidence:
    """native: method -> rows of all validation and test images as they are; grid: method -> "native" and every perturbation ->
    rows of the fixed subset; checkpoints: method -> sha256; benchmark: every image; said: where the scores come from."""

    native: dict[str, list[dict]]
    grid: Grid
    checkpoints: dict[str, str]
    benchmark: list[Sample]
    said: str


def gather(
    run_dir: Path,
    source: Path,
    layout: str,
    limit: int,
    photographs: int,
    stored: Path,
    force: bool = False,
    batch: int = 32,
    workers: int = 0,
    say=print,
) -> Evidence:
    """The scores of the run's checkpoints, read where they are saved and made where not; of a run folder without checkpoints,
    the committed ones of the folder `stored`, which must be of this very benchmark, subset and grid.

    say: gets a sentence for every file of scores that has to be made.
    """
    root, benchmark = benchmark_root(source), subset(read_benchmark(source, layout), limit)
    if any((run_dir / "checkpoints" / f"{m}.safetensors").is_file() for m in NAMES):
        scored = score_run(run_dir, source, layout, limit, PROTOCOL.name, [], force, batch, workers)
        chosen = fixed_subset(scored.samples, photographs)
        grid = score_grid(run_dir, chosen, root, force, batch, workers, lambda t: say(t) if "scoring" in t else None)
        native = {m: [r for r in rows if r["split"] in ("val", "test")] for m, rows in scored.scores.items()}
        hashes = {m: about["sha256"] for m, about in scored.about.items()}
        said = "scores of this run's own checkpoints"
    elif force:
        raise SDDError("force = True, but the run folder has no checkpoints to score with; run 03_train in it first")
    else:
        samples = [s for s in benchmark if s.split in ("val", "test")]
        native, grid, about = read_store(stored, store_settings(samples, fixed_subset(samples, photographs), root))
        hashes = about["checkpoints"]
        said = f"this run folder has no checkpoints; COMMITTED scores of {stored.name} ({about['note']})"
    return Evidence(native, with_native(grid, native), hashes, benchmark, said)


def store_settings(samples: list[Sample], chosen: list[Sample], root: Path) -> dict:
    """What committed scores depend on beside the checkpoints. samples: of validation and test; chosen: of the fixed subset."""
    steps = {name: [list(step) for step in change.steps] for name, change in GRID.items()}
    facts = {"protocol": asdict(PROTOCOL), "perturbations": steps}
    return facts | {"images": images_hash(samples, root), "perturbed images": images_hash(chosen, root)}


def write_store(folder: Path, found: Evidence, settings: dict, note: str) -> None:
    """FOLDER/native.csv and perturbed.csv, a column of logits a method with four decimals, and about.json, all or none.
    note: seed, profile and machine, for the reader."""
    folder.mkdir(parents=True, exist_ok=True)
    methods = list(found.native)
    lines = [
        {k: rows[0][k] for k in FACTS} | {m: text_of(r["score"]) for m, r in zip(methods, rows, strict=True)}
        for rows in zip(*found.native.values(), strict=True)
    ]
    perturbed = [
        {"path": rows[0]["path"], "perturbation": name} | {m: text_of(r["score"]) for m, r in zip(methods, rows, strict=True)}
        for name in GRID
        for rows in zip(*(found.grid[m][name] for m in methods), strict=True)
    ]
    about = {"note": note, "version": __version__, "checkpoints": found.checkpoints, "settings": settings}
    with replaced_together(*(folder / name for name in (*FILES, "about.json"))) as (*parts, record):
        write_csv(lines, parts[0], (*FACTS, *methods))
        write_csv(perturbed, parts[1], ("path", "perturbation", *methods))
        write_json(record, about | {"files": {name: sha256(part) for name, part in zip(FILES, parts, strict=True)}})


def text_of(score: float | None) -> str:
    """The logit of a score with four decimals; "" where an image could not be read. A score near 1 loses nothing this way."""
    return "" if score is None else f"{float(logits(np.array(score))):.4f}"


def score_of(text: str) -> float | None:
    """The score of `text_of`."""
    return float(sigmoid(np.array(float(text)))) if text else None


def read_store(folder: Path, settings: dict) -> tuple[dict[str, list[dict]], Grid, dict]:
    """(native rows, grid without "native", about.json) of `write_store`, if they were made with these settings."""
    cure = "run 03_train in this run folder first, so that there are checkpoints to score"
    about = folder / "about.json"
    if not about.is_file():
        raise SDDError(f"the run folder has no checkpoints, and {folder} holds no committed scores; {cure}")
    facts = read_json(about)
    try:
        if differ := [k for k in settings if facts["settings"].get(k) != settings[k]]:
            raise SDDError(f"the run folder has no checkpoints, and the scores of {folder} are of other {differ[0]}; {cure}")
        if broken := [name for name in FILES if sha256(folder / name) != facts["files"][name]]:
            raise SDDError(
                f"{folder / broken[0]} is not the file that about.json describes; take both from the repository again"
            )
        methods = list(facts["checkpoints"])
        lines, perturbed = (read_csv(folder / name) for name in FILES)
        plain = [{k: r[k] for k in FACTS} | {"label": int(r["label"]), "error": ""} for r in lines]
        native = {m: [p | {"score": score_of(r[m])} for p, r in zip(plain, lines, strict=True)] for m in methods}
        at = {p["path"]: p for p in plain}
        grid: Grid = {m: {name: [] for name in GRID} for m in methods}
        for r in perturbed:
            for m in methods:
                grid[m][r["perturbation"]].append(at[r["path"]] | {"score": score_of(r[m])})
    except (LookupError, ValueError, AttributeError, TypeError, OSError, csv.Error) as e:
        raise SDDError(f"the scores of {folder} are broken ({e}); take the folder from the repository again") from None
    return native, grid, facts
