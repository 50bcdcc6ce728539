"""One model from its settings to its checkpoint: what `03_train` shows and what many processes do without a notebook."""

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace

from torch import nn

from . import SDDError
from .backbone import Backbone
from .bank import TokenBank
from .baselines.lora import LoraLinear
from .baselines.probe import LinearProbe
from .crops import low_data
from .data import Sample, data_hash
from .detector import Detector
from .layouts import benchmark_root, read_benchmark
from .optim import TrainConfig
from .origins import DRAWN, written
from .parallel import alone, pick_device, rank, wait, world
from .plan import MemoryPlan, memory_plan
from .presets import Preset, get_preset
from .randomness import seed_everything
from .recipes import bank_files, bank_settings, encoder, load_bank, sample_bank, save_bank, subset, trained, validation_facts
from .resume import States
from .scorer import Scorer
from .train import train

PRACTICAL = ("workers", "keep", "checkpointing")  # of a TrainConfig: what changes time and memory and no result


@dataclass(frozen=True)
class Job:
    """What is trained, on what and how. samples: the whole benchmark; chosen: train and val images that training sees;
    source: of the backbone, as for `recipes.encoder`; facts: what a checkpoint says of its training; folder: of the run."""

    samples: list[Sample]
    chosen: list[Sample]
    root: Path
    source: dict
    preset: Preset
    config: TrainConfig
    facts: dict
    folder: Path
    save_minutes: float
    force: bool

    @property
    def train_set(self) -> list[Sample]:
        return [s for s in self.chosen if s.split == "train"]

    @property
    def val_set(self) -> list[Sample]:
        return [s for s in self.chosen if s.split == "val"]

    @property
    def settings(self) -> dict:
        """All that a checkpoint depends on."""
        config = {k: v for k, v in asdict(self.config).items() if k not in PRACTICAL}
        config["precision"] = str(self.config.dtype(pick_device()))  # what "auto" means here
        chosen = {"classes": self.facts["classes"], "images": data_hash(self.chosen)}
        return {**self.source, "preset": self.preset.as_dict(), "data": self.facts["data"], **chosen, "config": config}


def choose(samples: list[Sample], p: SimpleNamespace, manifest: Path) -> list[Sample]:
    """The train and val images that training sees, by a notebook's parameters: those of `classes`, the class folders of layout
    univfd, and of train as many as `train_images` says (0: all)."""
    chosen = read_benchmark(manifest, p.layout, p.classes, ("train", "val")) if p.classes else samples
    kept = low_data([s for s in chosen if s.split == "train"], p.train_images, p.seed)
    kept += [s for s in chosen if s.split == "val"]
    for split in ("train", "val"):
        for label, name in enumerate(("real", "fake")):
            if not any((s.split, s.label) == (split, label) for s in kept):
                raise SDDError(f"{manifest}: split {split} has no {name} images; training needs both classes there")
    return kept


def read_job(p: SimpleNamespace, manifest: Path, weights: str, folder: Path) -> Job:
    """The job that 03_train's parameters describe. manifest, weights: with their places resolved; folder: of the run."""
    samples = subset(read_benchmark(manifest, p.layout), p.limit)
    chosen = choose(samples, p, manifest)
    source = {"backbone": p.backbone, "weights": weights, "image_size": p.image_size}
    steps = {"epochs": p.epochs, "batch": p.batch, "accumulate": p.accumulate, "seed": p.seed}
    rates = {"lr": p.lr, "scratch": p.scratch, "schedule": p.schedule, "patience": p.patience, "decay_all": p.decay_all}
    looks = {"resize": p.resize, "augment": p.augment}
    means = {"precision": p.precision, "checkpointing": p.checkpointing, "workers": p.workers}
    config = TrainConfig(
        **steps, **rates, **looks, **means, keep=p.workers == 0
    )  # workers would each hold pictures of their own
    facts = {**source, "seed": p.seed, "manifest": p.manifest, "classes": sorted(p.classes), "train_images": p.train_images}
    facts["data"] = data_hash([s for split in ("train", "val") for s in samples if s.split == split])
    facts["generators"] = sorted({s.generator for s in chosen if s.label == 1 and s.split == "train"})
    labels = [s.label for s in chosen if s.split == "train"]
    facts["train"] = {"n_real": labels.count(0), "n_fake": labels.count(1)}
    preset = get_preset(p.preset, **p.preset_fields)
    places = {"folder": folder, "save_minutes": p.save_minutes, "force": p.force}
    return Job(samples, chosen, benchmark_root(manifest), source, preset, config, facts, **places)


def job_bank(job: Job, device) -> TokenBank:
    """The token bank of RUN/bank.safetensors if it has these settings, else a new one, put there. With several processes the
    first samples it and the others read it."""
    seed, workers, path = job.config.seed, job.config.workers, job.folder / "bank.safetensors"
    settings = bank_settings(job.chosen, job.preset, seed, job.source)
    if rank() == 0 and load_bank(path, settings) is None:
        begin = time.perf_counter()
        bank = sample_bank(encoder(job.source, job.preset.norm).to(device), job.chosen, job.preset, seed, workers=workers)
        save_bank(bank, path, settings, job.chosen, job.root)
        print(f"{path.name}: sampled in {time.perf_counter() - begin:.0f} s")
    wait()
    bank = load_bank(path, settings)
    if bank is None:
        raise SDDError(f"{path} is not what the first process has just written; put the run folder where all processes see it")
    return bank


def new_model(job: Job, kind: str, bank: TokenBank | None = None) -> Scorer:
    """A fresh model, the same for the same seed. kind: "sdd" (needs the bank), "lora" or "probe"."""
    seed_everything(job.config.seed)
    backbone: Backbone = encoder(job.source, job.preset.norm)
    if kind == "sdd":
        return Detector(backbone, bank.f_s, job.preset)
    return {"lora": LoraLinear, "probe": LinearProbe}[kind](backbone, job.preset)


def step_memory(job: Job, model: Scorer) -> MemoryPlan:
    """What a step of this job takes on each device, counted."""
    device, config, processes = pick_device(), job.config, world()
    precision = str(config.dtype(device)).removeprefix("torch.")
    options = {"checkpointing": config.checkpointing, "gpus": processes, "device": device.type}
    with alone():  # it is counted by one process
        return memory_plan(model, config.part(processes), job.source["image_size"], precision, **options)


def fit(job: Job, kind: str, bank: TokenBank | None = None, log: Callable[[str], None] = print) -> Scorer:
    """The checkpoint RUN/checkpoints/KIND.safetensors of this job: loaded if it is there, else trained, from where a training
    that was stopped had come to."""
    path = job.folder / "checkpoints" / f"{kind}.safetensors"
    key = hashlib.sha256(json.dumps({"kind": kind, **job.settings}, sort_keys=True).encode()).hexdigest()
    states = States(path.with_suffix(".states"), key, job.save_minutes, log)
    if job.force and rank() == 0:
        states.clear()

    def make() -> tuple[nn.Module, dict]:
        model, config = new_model(job, kind, bank), job.config
        if kind == "probe" and rank():
            found = {}  # the first process fits it, the others load it
        elif kind == "probe":
            looks = {"size": job.source["image_size"], "resize": config.resize, "augment": config.augment}
            means = {"seed": config.seed, "workers": config.workers, "keep": config.keep}
            found = {"chosen": model.fit(job.train_set, job.val_set, **looks, **means)}
        else:
            if rank() == 0:
                log(step_memory(job, model).text())
            found = {"history": train(model, job.train_set, job.val_set, config, job.source["image_size"], log, states)}
        if kind == "sdd" and job.preset.bank in DRAWN:
            found["bank"] = written(bank.index, bank_files(job.chosen, job.root), model.backbone.N)
        return model, {
            **job.facts,
            **found,
            **(validation_facts(model, job.val_set, job.root, config.workers) if rank() == 0 else {}),
        }

    model = trained(kind, path, job.settings, make, job.force)
    if rank() == 0:
        states.clear()
    return model
