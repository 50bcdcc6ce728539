"""What 04_evaluate scores: every checkpoint of a run on a benchmark, under a protocol, as it is and equalised."""

from dataclasses import dataclass
from pathlib import Path

from . import SDDError
from .data import Sample
from .layouts import benchmark_root, read_benchmark
from .profiles import near
from .protocols import EQUALISED, Protocol, choose, get_protocol
from .recipes import check_trained_on, load_scorer, subset
from .report import NAMES
from .saved import saved_scores
from .stored import read_about


@dataclass
class Scored:
    """samples: what was scored, in the order of the rows; root: what their paths start at; notes: what the protocol left out;
    about: facts of each method's checkpoint; scores, equalised: rows of each method, the latter for the methods asked for."""

    protocol: Protocol
    samples: list[Sample]
    root: Path
    notes: list[str]
    about: dict[str, dict]
    scores: dict[str, list[dict]]
    equalised: dict[str, list[dict]]


def score_run(
    run_dir: Path,
    source: Path,
    layout: str,
    limit: int,
    protocol: str,
    equalise: list[str],
    force: bool = False,
    batch: int = 32,
    workers: int = 0,
) -> Scored:
    """Score validation, dev and test of the benchmark `source` by every checkpoint of a run, or read what is saved.

    equalise: the methods that are scored a second time on equalised pictures. Rows lie in RUN/scores/METHOD.csv, those of
    equalised pictures in RUN/scores/jpeg96. Which images a protocol draws does not depend on the seed of the run, so that
    runs of all seeds are tested on the same ones.
    """
    rules = get_protocol(protocol)
    if unknown := [m for m in equalise if m not in NAMES]:
        raise SDDError(f"equalise names {unknown[0]!r}, which is no method; there are {near(unknown[0], NAMES)}")
    root, benchmark = benchmark_root(source), subset(read_benchmark(source, layout), limit)
    classes = read_about(run_dir / "checkpoints" / f"{next(iter(NAMES))}.safetensors").get("classes")
    if classes:  # training saw only these class folders of validation, and the threshold is theirs
        known = {s.path for s in read_benchmark(source, layout, classes, ("val",))}
    held_out = [s for s in benchmark if s.split != "train" and not (classes and s.split == "val" and s.path not in known)]
    samples, notes = choose(held_out, rules)
    found = Scored(rules, samples, root, notes, {}, {}, {})
    places = {0: run_dir / "scores", EQUALISED: run_dir / "scores" / f"jpeg{EQUALISED}"}
    for method in NAMES:
        model = load_scorer(run_dir / "checkpoints" / f"{method}.safetensors")
        check_trained_on(model, benchmark)
        found.about[method] = model.about
        for quality, rows in ((0, found.scores), (EQUALISED, found.equalised)):
            if not quality or method in equalise:
                places[quality].mkdir(parents=True, exist_ok=True)
                file = places[quality] / f"{method}.csv"
                rows[method] = saved_scores(model, samples, root, file, rules, quality, force, batch, workers)
    return found
