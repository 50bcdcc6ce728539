"""A training that many tests share: easy images, a small detector on a tiny backbone, and a way to run it elsewhere."""

import os
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from sddlib.backbone import Backbone
from sddlib.baselines.lora import LoraLinear
from sddlib.crops import Crops
from sddlib.data import Sample
from sddlib.detector import Detector
from sddlib.optim import TrainConfig
from sddlib.parallel import average_gradients, join, rank, world
from sddlib.presets import get_preset
from sddlib.randomness import seed_everything
from sddlib.resume import States
from sddlib.train import train
from sddlib.weights import load_backbone

SMALL = {"M": 10, "width": 32, "heads": 4, "channels": (4, 6, 8), "F_low": 12}
CONFIG = {"epochs": 3, "batch": 8, "lr": 2e-3, "patience": 9}


def easy_set(folder: Path, n: int = 24, n_val: int = 12) -> dict[str, list[Sample]]:
    """Noise, brighter and redder in the fakes."""
    rng, made = np.random.default_rng(0), {"train": [], "val": []}
    for split, count in (("train", n), ("val", n_val)):
        for i in range(count):
            label = i % 2
            pixels = rng.integers(0, 120, (72, 72, 3)) + label * np.array([130, 60, 30])
            path = folder / f"{split}{i}.png"
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)
            made[split].append(Sample(path, label, ("camera", "gan")[label], "f", split, f"{split}{i}"))
    return made


def new_model(kind: str = "sdd", seed: int = 0, **fields):
    seed_everything(seed)
    preset = get_preset(fields.pop("preset", "paper"), **{**SMALL, "lora_dropout": 0.1, **fields})
    backbone = Backbone(load_backbone("tiny", "random"), 64, preset.norm)
    return Detector(backbone, torch.randn(preset.M, 64), preset) if kind == "sdd" else LoraLinear(backbone, preset)


def work(folder: Path, jobs: list[dict]) -> None:
    """In a process of its own, which is one of many if a launcher says so: train job after job; history and weights go to the
    job's "out"."""
    torch.set_num_threads(1)
    join()
    samples = easy_set_again(folder)
    for job in jobs:
        states = job.get("states") and States(Path(job["states"]), "key", job.get("minutes", 0.0), lambda _: None)
        model = new_model(job.get("kind", "sdd"), **job.get("fields", {}))
        if job.get("spoil") == rank():
            model.loss = partial(no_number, model.loss)
        found = {"gradients": first_gradients(model, samples["train"][:8])}
        config = TrainConfig(**{**CONFIG, **job.get("config", {})})
        history = train(model, samples["train"], samples["val"], config, 64, lambda _: None, states)
        if rank() == 0:
            torch.save({**found, "history": history, "state": model.state_dict()}, job["out"])


def no_number(loss, x, y) -> dict[str, torch.Tensor]:
    return {name: value * float("nan") for name, value in loss(x, y).items()}


def first_gradients(model, samples: list[Sample]) -> dict[str, torch.Tensor]:
    """Those of one step on these samples, each process taking its share of them; the model is left as it was."""
    before = {k: v.clone() for k, v in model.state_dict().items()}
    mine = samples[rank() * len(samples) // world() :][: len(samples) // world()]
    x, y = (torch.stack([torch.as_tensor(item[i]) for item in Crops(mine, 64, train=False)]) for i in (0, 1))
    model.train().loss(x, y)["total"].backward()
    average_gradients(model.parameters())
    found = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    model.load_state_dict(before)
    return found


def easy_set_again(folder: Path) -> dict[str, list[Sample]]:
    """The samples of a folder that `easy_set` has filled."""
    made = {"train": [], "val": []}
    for split, found in made.items():
        for i in range(len(list(folder.glob(f"{split}*.png")))):
            label = i % 2
            found.append(Sample(folder / f"{split}{i}.png", label, ("camera", "gan")[label], "f", split, f"{split}{i}"))
    return made


def environment(rank_: int = 0, world: int = 1, port: int = 0) -> dict:
    """What a launcher sets for one of `world` processes on this machine."""
    facts = {"RANK": rank_, "LOCAL_RANK": rank_, "WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world, "MASTER_PORT": port}
    path = os.pathsep.join([str(Path(__file__).resolve().parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])])
    mine = {**os.environ, "PYTHONPATH": path, "ACCELERATE_USE_CPU": "true", "MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": "1"}
    return {**mine, **{k: str(v) for k, v in facts.items()}} if world > 1 else mine
