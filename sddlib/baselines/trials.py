"""Every baseline trained and scored on one benchmark with several seeds: resumable, a small CSV and a JSON a training."""

import hashlib
import json
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch

from .. import SDDError
from ..data import Sample, data_hash, read_manifest
from ..disk import alone_at, expanded
from ..evaluate import read_scores, score_samples
from ..fitting import PRACTICAL
from ..limits import is_name
from ..profiles import ROOT, all_parameters, check_overrides, read_json
from ..randomness import seed_everything
from ..recipes import load_scorer, subset, trained, validation_facts
from ..report import NAMES
from ..resume import States
from ..runs import RUNS, shown, versions
from ..stored import Stored
from . import BASELINES, baseline
from .kept import SCORED, check_images, read_rows, write_scores

NOTEBOOK = "07_baselines"  # whose parameters are those of a call
STORE = ROOT / "data" / "baselines"
TIMED = 64  # images that a model whose scores are at hand is timed on


@dataclass(frozen=True)
class Trials:
    """What trainings share. folder: of scores; work: of checkpoints; changes: of every TrainConfig; options: kind -> options of
    its constructor that are not the defaults; source: {"backbone", "weights"} of those baselines that stand on a CLIP."""

    manifest: Path
    profile: str = "mini"
    limit: int = 0
    image_size: int = 112
    folder: Path = STORE
    work: Path = RUNS / "baselines-mini"
    changes: dict = field(default_factory=dict)
    options: dict = field(default_factory=dict)
    source: dict = field(default_factory=dict)

    def __post_init__(self):
        if not is_name(self.profile):  # it begins the names of files
            raise SDDError(f"profile {self.profile!r} is no name of a profile; give its name without a folder")

    def samples(self) -> list[Sample]:
        return subset(read_manifest(self.manifest), self.limit)

    def file(self, kind: str, seed: int) -> Path:
        """The CSV of a training; its JSON lies beside it."""
        return self.folder / f"{self.profile}_seed{seed}_{kind}.csv"

    def seeds(self, kind: str) -> list[int]:
        """Those whose scores are kept."""
        found = [p.stem.split("_seed")[1].split("_")[0] for p in self.folder.glob(f"{self.profile}_seed*_{kind}.csv")]
        return sorted(int(s) for s in found if self.file(kind, int(s)).with_suffix(".json").is_file())

    def new(self, kind: str, seed: int) -> Stored:
        """A fresh model, the same for the same seed."""
        seed_everything(seed)
        options = self.options.get(kind, {})
        cls = baseline(kind)
        return cls(self.image_size, **(self.source if getattr(cls, "on_clip", False) else {}), **options)

    def settings(self, kind: str, seed: int) -> dict:
        """All that scores depend on but the code; `new` is asked for the options, which a class may complete."""
        config = {k: v for k, v in asdict(baseline(kind).config(seed, **self.changes)).items() if k not in PRACTICAL}
        samples = [s for s in self.samples() if s.split in ("train", *SCORED)]
        facts = {"kind": kind, "options": self.new(kind, seed).options, "image_size": self.image_size, "config": config}
        return facts | {"images": data_hash(samples)}


def profile_trials(profile: str, overrides: dict, folder: Path) -> Trials:
    """The trials that notebook 07's parameters describe under a profile; their checkpoints go to runs/."""
    check_overrides(overrides, [NOTEBOOK])
    values = all_parameters(profile, NOTEBOOK, overrides)
    sizes = {name: values[name] for name in ("limit", "image_size", "changes", "options")}
    source = {"backbone": values["backbone"], "weights": values["weights"]}
    name, work = Path(profile).stem, RUNS / f"baselines-{Path(profile).stem}"
    return Trials(ROOT / expanded(values["manifest"]), name, folder=folder, work=work, source=source, **sizes)


def check_kinds(kinds: Iterable[str]) -> list[str]:
    """The kinds in the order of BASELINES, all if none is named; an unknown one is refused."""
    for kind in kinds:
        baseline(kind)
    return [kind for kind in BASELINES if not kinds or kind in kinds]


def sweep(
    kinds: Iterable[str], seeds: list[int], trials: Trials, force: bool = False, say: Callable[[str], None] = print
) -> int:
    """Train and score every kind with every seed; what is there with the same settings is skipped, a training that was stopped
    goes on. Returns how many were made."""
    made = 0
    for seed in seeds:
        for kind in check_kinds(kinds):
            file, settings = trials.file(kind, seed), trials.settings(kind, seed)
            record = file.with_suffix(".json")
            if not force and file.is_file() and record.is_file() and read_json(record).get("settings") == settings:
                say(f"{kind}, seed {seed}: is there")
                continue
            with alone_at(trials.work, f"{kind}-seed{seed}"):
                say(f"{kind}, seed {seed}: training")
                model, facts = train_one(kind, seed, trials, settings, force, say)
                keep(model, {"settings": settings, **facts}, file, trials)
            ap, seconds = model.about["val"]["ap"], facts["train_seconds"]
            say(f"{kind}, seed {seed}: validation AP {ap:.3f}, {seconds:.0f} s, {shown(file)}")
            made += 1
    return made


def train_one(kind: str, seed: int, trials: Trials, settings: dict, force: bool, say: Callable) -> tuple[Stored, dict]:
    """(the model out of its checkpoint, what training cost): loaded where a checkpoint with these settings lies."""
    path = trials.work / f"{kind}-seed{seed}.safetensors"
    samples = trials.samples()
    parts = {split: [s for s in samples if s.split == split] for split in ("train", "val")}
    key = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
    states = States(path.with_suffix(".states"), key, say=say)
    if force:
        states.clear()

    def make() -> tuple[Stored, dict]:
        stopped = bool(states.files())
        model, config = trials.new(kind, seed), baseline(kind).config(seed, **trials.changes)
        begin = time.process_time(), time.perf_counter()
        facts = model.fit(parts["train"], parts["val"], config, say, states)
        history = facts.get("history", [])
        cost = {"train_images": len(parts["train"]), **({"epochs": len(history)} if history else {})}
        cost |= {"train_seconds": time.process_time() - begin[0], "train_wall": time.perf_counter() - begin[1]}
        facts |= {"cost": facts.get("cost", {}) | cost | {"resumed": stopped, "threads": torch.get_num_threads()}}
        facts |= {"seed": seed, "manifest": shown(trials.manifest), "data": data_hash(parts["train"] + parts["val"])}
        facts["generators"] = sorted({s.generator for s in parts["train"] if s.label})
        return model, facts | validation_facts(model, parts["val"], trials.manifest.parent)

    model = trained(kind, path, settings, make, force)
    states.clear()
    return model, model.about["cost"]


def keep(model: Stored, facts: dict, file: Path, trials: Trials) -> None:
    """Score and write FILE and its JSON: facts, how large the model is, how long an image takes, what made it."""
    samples = [s for s in trials.samples() if s.split in SCORED]
    rows, ms = timed_scores(model, samples, trials.manifest.parent)
    if diffusion := getattr(model, "diffusion", None):
        diffusion.cache = None  # a map that was kept costs nothing
        ms = timed_scores(model, samples[:TIMED], trials.manifest.parent)[1]
    write_scores(rows, file, facts | model_facts(model) | {"ms_image": ms, "versions": versions()})


def timed_scores(model: Stored, samples: list[Sample], root: Path) -> tuple[list[dict], float]:
    """(rows, milliseconds of this process's work an image, decoding included)."""
    begin = time.process_time()
    rows = score_samples(model, samples, root)
    return rows, 1000 * (time.process_time() - begin) / len(rows)


def model_facts(model: Stored) -> dict:
    """What a checkpoint says of itself, and its size: parameters, and those of them that training could change."""
    own = {n for n, p in model.named_parameters()} & model.own_names()
    sizes = {"parameters": sum(p.numel() for p in model.parameters())}
    sizes["learned"] = sum(p.numel() for n, p in model.named_parameters() if n in own)
    return sizes | {k: model.about[k] for k in ("threshold", "val", "sha256", "seed")}


def read_trials(trials: Trials, kinds: Iterable[str]) -> tuple[list[dict], dict]:
    """(one dict a seed, kind -> rows as `evaluate.read_scores` gives them; (kind, seed) -> facts) of what is kept. Label,
    generator and photograph come from the manifest, which must be the one that was scored."""
    samples, found, facts = trials.samples(), {}, {}
    for kind in kinds:
        for seed in trials.seeds(kind):
            file = trials.file(kind, seed)
            facts[kind, seed] = read_json(file.with_suffix(".json"))
            found.setdefault(seed, {})[kind] = read_rows(file, facts[kind, seed], samples, trials.manifest.parent)
    return [found[seed] for seed in sorted(found)], facts


def keep_run(run_dir: Path, trials: Trials) -> None:
    """Put the scores of SDD, LoRA and the probe of a run folder beside the baselines', with what made them; nothing is written
    if one of them is of other images."""
    samples, root, found = trials.samples(), trials.manifest.parent, {}
    for method in NAMES:
        model, file = load_scorer(run_dir / "checkpoints" / f"{method}.safetensors"), run_dir / "scores" / f"{method}.csv"
        rows = [r for r in read_scores(file) if r["split"] in SCORED]
        check_images(shown(file), [r["path"] for r in rows], model.about["settings"], samples, root)
        found[method] = model, rows
    for method, (model, rows) in found.items():
        history = model.about.get("history", [])
        facts = {"settings": model.about["settings"], "train_images": sum(s.split == "train" for s in samples)}
        facts["ms_image"] = timed_scores(model, samples[:TIMED], root)[1]
        facts |= {"train_wall": sum(h["seconds"] for h in history), "epochs": len(history)} if history else {}
        write_scores(rows, trials.file(method, model.about["seed"]), facts | model_facts(model) | {"versions": versions()})
