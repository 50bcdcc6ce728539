"""What the notebooks hand to each other: a smaller benchmark, the token bank as a file, a model that is trained only once."""

import hashlib
import json
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch.utils.data import DataLoader

from . import SDDError, __version__
from .backbone import Backbone
from .bank import TokenBank, build_bank
from .baselines import BASELINES, baseline
from .baselines.lora import LoraLinear
from .baselines.probe import LinearProbe
from .crops import Crops
from .data import Sample, data_hash
from .detector import Detector, real_tokens
from .disk import replaced_together
from .evaluate import score_samples
from .limits import TENSORS, check_size
from .metrics import arrays, fit_threshold, metrics
from .parallel import from_first, rank, wait
from .presets import Preset
from .profiles import read_json
from .progress import progress
from .scorer import Scorer
from .stored import Stored, read_about
from .weights import load_backbone

HELD = 2**30  # bytes of tokens that bank sampling may keep in memory
SCORERS: dict[str, type[Scorer]] = {"sdd": Detector, "lora": LoraLinear, "probe": LinearProbe}


def subset(samples: list[Sample], limit: int) -> list[Sample]:
    """The samples of the first `limit` photographs of every split that have a fake of every generator there; 0: all.

    Whole photographs, so that both classes show the same content; `dev` takes the photographs of `val`, which it shares.
    """
    if not limit:
        return samples
    side = {s: "val" if s.split == "dev" else s.split for s in samples}
    makers: dict[str, set] = {}
    seen: dict[tuple, set] = {}
    for s in samples:
        makers.setdefault(side[s], set()).add(s.generator)
        seen.setdefault((side[s], s.photo), set()).add(s.generator)
    kept = set()
    for part, names in makers.items():
        full = [key for key, found in seen.items() if key[0] == part and found == names]
        if not full:
            raise SDDError(f"limit {limit}: no photograph of split {part} has a fake of every generator; use limit = 0")
        kept.update(full[:limit])
    return [s for s in samples if (side[s], s.photo) in kept]


def encoder(source: dict, norm: str) -> Backbone:
    """A fresh frozen backbone on the CPU. source: {"backbone", "weights", "image_size"}."""
    return Backbone(load_backbone(source["backbone"], source["weights"]), source["image_size"], norm)


def training_reals(samples: list[Sample]) -> list[Sample]:
    """The only images a bank may be drawn from, in manifest order."""
    return [s for s in samples if s.split == "train" and s.label == 0]


def sample_bank(
    backbone: Backbone, samples: list[Sample], preset: Preset, seed: int, chunk: int = 32, workers: int = 0
) -> TokenBank:
    """The preset's bank from the training reals among `samples`, Eq. 1-2.

    Tokens that fit HELD bytes are computed once and kept; more are computed again in each pass.
    """
    reals = training_reals(samples)
    if preset.bank == "none":
        none = np.empty(0, np.float32)
        return TokenBank(torch.empty(0, backbone.D), none.astype(int), none, 0, none, torch.zeros(backbone.D))
    share = partial(real_tokens, backbone, reals, chunk, workers)
    if len(reals) * backbone.N * backbone.D * 4 <= HELD:
        tokens = list(share())
        share = partial(iter, tokens)
    return build_bank([share], preset.M, preset.reference, preset.interval, seed, preset.bank)


def bank_settings(samples: list[Sample], preset: Preset, seed: int, source: dict) -> dict:
    """All that a bank depends on. source: {"backbone", "weights", "image_size"}."""
    reals = training_reals(samples)
    facts = {name: getattr(preset, name) for name in ("bank", "M", "reference", "interval", "norm")}
    photos = hashlib.sha256("\n".join(s.photo for s in reals).encode(errors="surrogateescape")).hexdigest()
    return {**source, **facts, "seed": seed, "images": len(reals), "data": data_hash(reals), "photos": photos}


def bank_files(samples: list[Sample], root: Path) -> list[str]:
    """The images whose tokens a bank's positions count, in their order; names are relative to root."""
    return [os.path.relpath(s.path, root) for s in training_reals(samples)]


def save_bank(bank: TokenBank, path: Path, settings: dict, samples: list[Sample], root: Path) -> None:
    """PATH (safetensors) and PATH.json: which images, backbone, reference and seed made it. Names are relative to root."""
    tensors = {"f_s": bank.f_s, "reference": bank.reference, "js_all": torch.from_numpy(bank.js_all)}
    tensors |= {"index": torch.from_numpy(np.asarray(bank.index)), "js": torch.from_numpy(bank.js)}
    facts = {"settings": settings, "empty": bank.empty, "version": __version__, "files": bank_files(samples, root)}
    try:
        with replaced_together(path, path.with_suffix(".json")) as (part, record):
            save_file({k: v.contiguous() for k, v in tensors.items()}, part)
            part.chmod(0o644)  # the writer leaves 0600
            record.write_text(json.dumps(facts, indent=1) + "\n")
    except (OSError, SafetensorError) as e:
        raise SDDError(f"bank {path} cannot be written ({e}); free space or choose another run folder") from None


def load_bank(path: Path, settings: dict) -> TokenBank | None:
    """The bank of a file, or None where there is none made with these settings; which of the two is said in print."""
    if not path.is_file() or not path.with_suffix(".json").is_file():
        print(f"{path.name}: not in this run yet")
        return None
    try:
        facts = read_json(path.with_suffix(".json"))
        if differ := [k for k in settings if facts["settings"].get(k) != settings[k]]:
            print(f"{path.name}: was made with another {differ[0]}")
            return None
        check_size(path, TENSORS)
        t = load_file(path)
        return TokenBank(t["f_s"], t["index"].numpy(), t["js"].numpy(), facts["empty"], t["js_all"].numpy(), t["reference"])
    except (SDDError, LookupError, AttributeError, SafetensorError) as e:
        print(f"{path.name}: is broken ({e}), made again")
        return None


def shared_bank(
    folder: Path, backbone: Backbone, samples: list[Sample], preset: Preset, seed: int, source: dict, root: Path
) -> TokenBank:
    """The bank of these settings from a folder that many trainings share; sampled and put there if it is the first."""
    settings = bank_settings(samples, preset, seed, source)
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]
    path = folder / f"bank-{digest}.safetensors"
    bank = load_bank(path, settings)
    if bank is None:
        bank = sample_bank(backbone, samples, preset, seed)
        folder.mkdir(parents=True, exist_ok=True)
        save_bank(bank, path, settings, samples, root)
    return bank


def trained(kind: str, path: Path, settings: dict, make: Callable[[], tuple[Scorer, dict]], force: bool = False) -> Scorer:
    """The model of PATH if it was trained with the same settings, else a newly made one, saved there.

    make() returns (trained model in eval mode, facts for its JSON). A file of other settings is replaced, and said so.
    The model comes back from its file in either case: what is evaluated later is what is used here. With several processes all
    train and the first one saves.
    """
    wait()  # so that no process still looks for what another has already written
    if from_first(path.is_file() and path.with_suffix(".json").is_file()) and not force:
        about = read_json(path.with_suffix(".json"))
        differ = [k for k in settings if about.get("settings", {}).get(k) != settings[k]]
        if not differ:
            print(f"{path.name}: already trained with these settings, loaded")
            return load_scorer(path)
        print(f"{path.name}: was trained with another {differ[0]}, training again")
    begin = time.perf_counter()
    model, facts = make()
    if rank() == 0:
        print(f"{path.name}: trained in {time.perf_counter() - begin:.0f} s")
        path.parent.mkdir(parents=True, exist_ok=True)
        model.save(path, {**facts, "settings": settings})
    wait()
    return load_scorer(path)


def check_trained_on(model: Stored, samples: list[Sample]) -> None:
    """Refuse to test a model on a benchmark whose train and val images are not those it was trained on: test images may be
    among the latter. samples: the whole benchmark."""
    own = data_hash([s for split in ("train", "val") for s in samples if s.split == split])
    if model.about.get("data") != own:
        raise SDDError(f"the {model.kind} checkpoint was trained on other images than this manifest and limit hold; use those")


def load_scorer(path: Path) -> Stored:
    """Whatever kind of model a checkpoint holds, as its JSON says."""
    kind = read_about(path)["kind"]
    if kind not in [*SCORERS, *BASELINES]:
        known = ", ".join([*SCORERS, *BASELINES])
        raise SDDError(f"{path} is of no kind that is known here ({known}); name another checkpoint")
    return (SCORERS[kind] if kind in SCORERS else baseline(kind)).load(path)


@torch.inference_mode()
def part_readings(model: Detector, samples: list[Sample], batch: int = 32) -> dict[str, np.ndarray]:
    """What SDD's parts say of each image, in eval mode: label, logit, D_s (mean over channels and positions, Eq. 10),
    L_r (squared error of the reconstruction, Eq. 9) and F_low (n, width)."""
    model.eval()
    device, found = next(model.parameters()).device, []
    for x, y, _ in progress(DataLoader(Crops(samples, model.backbone.image_size, train=False), batch), desc="reading"):
        out = model(x.to(device))
        error = (out.Re - out.V_H).square().mean((1, 2))
        found.append([t.float().cpu() for t in (y, out.logit, out.D_s.mean((1, 2, 3)), error, out.F_low)])
    return {
        k: torch.cat(v).numpy()
        for k, v in zip(("label", "logit", "D_s", "L_r", "F_low"), zip(*found, strict=True), strict=True)
    }


def validation_facts(model: Stored, samples: list[Sample], root: Path, workers: int = 0) -> dict:
    """For a checkpoint's JSON: the threshold fitted on the val split, and the metrics there, with LoRA merged as in scoring."""
    model.ready()
    val = [s for s in samples if s.split == "val"]
    rows = score_samples(model, val, root, workers=workers)
    threshold = fit_threshold(rows)
    return {"threshold": threshold, "val": metrics(*arrays(rows), threshold)}
