"""A picture looked at by a detector, as `09_explore` shows it: score, maps, nearest bank tokens, expected errors."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from scipy.stats import binomtest
from torch import Tensor
from torch.utils.data import DataLoader

from . import SDDError, visual
from .crops import Crops
from .data import Sample, read_manifest, to_input
from .detector import Detector, Output
from .edits import Box, Edits, edit
from .enhancement import MeanDifference
from .layouts import benchmark_root
from .origins import Origin, read_origins
from .profiles import ROOT
from .recipes import load_scorer
from .scorer import Scorer
from .verdicts import is_share, own_threshold, verdict

SHIPPED = ROOT / "data" / "checkpoints"
VALIDATION = (("false alarms", "reals", "real_acc_val", "n_real"), ("misses", "fakes", "fake_acc_val", "n_fake"))


class Near(NamedTuple):
    """A patch and the bank tokens nearest to it. patch: position in the grid, row by row; D_s: there, over channels; index:
    positions in the bank, nearest first; distance: to V_H, in spreads of the bank."""

    patch: int
    D_s: float
    index: list[int]
    distance: list[float]


@dataclass(frozen=True)
class Look:
    """What a detector says of a picture. x: (1, 3, size, size) what it saw; picture: the whole, cut and resized, window: in it;
    D_s: (g, g) over channels, or None, and near empty, where the method has no such part; seconds: it took."""

    x: Tensor
    picture: Image.Image
    window: Box
    score: float
    logit: float
    D_s: np.ndarray | None
    near: list[Near]
    seconds: float


@dataclass(frozen=True)
class Subject:
    """A checkpoint to look with. threshold: fitted on its validation; examples: bundled pictures and what it says of them:
    {"sample", "score", "D_s" (mean, or None)}; bright: the D_s that maps show brightest, the largest of the examples; origins:
    of its bank's tokens, or None; root: where their file names start."""

    model: Scorer
    path: Path
    threshold: float
    examples: list[dict]
    bright: float
    origins: list[Origin] | None
    root: Path


def bundled(manifest: Path, photos: int) -> list[Sample]:
    """Pictures to start with, from the test split: of each of `photos` photographs one crop, from the camera and from every
    generator that has it; photographs that most generators have, evenly from all of those."""
    crops: dict[str, dict[str, list[Sample]]] = {}
    for s in read_manifest(manifest, ("test",)):
        crops.setdefault(s.photo, {}).setdefault(s.path.stem, []).append(s)
    if not crops:
        raise SDDError(f"{manifest} has no test images; name a manifest that has some as examples")
    fullest = [max(found.values(), key=len) for found in crops.values()]
    whole = [crop for crop in fullest if len(crop) == max(map(len, fullest))]
    return [s for i in np.unique(np.linspace(0, len(whole) - 1, photos).round().astype(int)) for s in whole[i]]


def find_checkpoints(first: Path, folder: Path) -> dict[str, Path]:
    """Name -> checkpoint: the first one, those of a run folder, those that are shipped."""
    own, shipped = (sorted(where.glob("*.safetensors")) for where in (folder / "checkpoints", SHIPPED))
    names: dict[str, Path] = {}
    for path in dict.fromkeys(p.resolve() for p in (first, *own, *shipped)):
        name = path.stem if path.parent == SHIPPED.resolve() else f"{path.parent.parent.name}/{path.stem}"
        names[str(path) if name in names else name] = path
    return names


def open_subject(path: Path, samples: list[Sample], device="cpu", batch: int = 16) -> Subject:
    """A checkpoint of any kind, ready to look with, once it has looked at the bundled samples."""
    model = load_scorer(path).to(device)
    threshold = own_threshold(model.about)
    if threshold is None:
        raise SDDError(
            f"{path.with_suffix('.json')} names no threshold in 0..1, so there is no verdict; use another checkpoint"
        )
    examples, bright = survey(model, samples, device, batch)
    origins = read_origins(model, path) if isinstance(model, Detector) else None
    root = benchmark_root(ROOT / str(model.about.get("manifest", "")))
    return Subject(model, path, threshold, examples, bright, origins, root)


@torch.inference_mode()
def survey(model: Scorer, samples: list[Sample], device, batch: int) -> tuple[list[dict], float]:
    """(`Subject.examples`, the largest D_s of a patch among them, 0 without D_s)."""
    rows, bright = [], 0.0
    for x, _, index in DataLoader(Crops(samples, model.backbone.image_size, train=False), batch):
        out = model(x.to(device))
        maps = discrepancy(out)
        means = [None] * len(x) if maps is None else maps.mean((1, 2)).tolist()
        bright = max(bright, 0.0 if maps is None else maps.max().item())
        for i, score, mean in zip(index.tolist(), torch.sigmoid(out.logit.double()).tolist(), means, strict=True):
            rows.append({"sample": samples[i], "score": score, "D_s": mean})
    return rows, bright


def discrepancy(out: NamedTuple) -> Tensor | None:
    """D_s (B, g, g), Eq. 10 averaged over channels, of a method's output; None for a method without it."""
    return out.D_s.mean(1) if isinstance(out, Output) and out.D_s is not None else None


def look(subject: Subject, picture: Image.Image, edits: Edits, patches: int = 3, tokens: int = 4) -> Look:
    """Score, D_s and nearest bank tokens of an RGB picture after the edits, in one pass of the detector. Without edits the
    score is that of `Scorer.score`."""
    began, model, near = time.perf_counter(), subject.model, []
    done = edit(picture, edits, model.backbone.image_size)
    x = to_input(done.seen, model.backbone.image_size, edits.left / 100, edits.top / 100)[None]
    with torch.inference_mode():  # but x is made outside, since a CAM of it follows
        out = model(x.to(next(model.parameters()).device))
        logit, D_s = out.logit.double(), discrepancy(out)
        if not logit.isfinite():
            raise SDDError("the model's score is no number; use a checkpoint whose weights are whole")
        if D_s is not None and len(model.f_s):
            flat = D_s[0].flatten()
            near = nearest(out.V_H[0, -len(flat) :], model.f_s, flat, patches, tokens)
    shown = None if D_s is None else D_s[0].cpu().numpy()
    score = torch.sigmoid(logit).item()
    return Look(x, done.picture, done.window, score, logit.item(), shown, near, time.perf_counter() - began)


def nearest(V_H: Tensor, f_s: Tensor, D_s: Tensor, patches: int, tokens: int) -> list[Near]:
    """For the `patches` with the largest D_s the `tokens` bank tokens nearest to V_H. V_H: (N, D), f_s: (M, D), D_s: (N,).

    Nearest by Euclidean distance, in the space in which bank and image meet in Eq. 5, and in units of the bank's spread, the
    root mean square distance of its tokens to their mean. `attention_spread` says why not by attention.
    """
    spread = (f_s - f_s.mean(0)).square().sum(1).mean().sqrt()
    hot = D_s.topk(min(patches, len(D_s))).indices
    distance, index = torch.cdist(V_H[hot], f_s).topk(min(tokens, len(f_s)), largest=False)  # (patches, tokens)
    found = zip(hot.tolist(), D_s[hot].tolist(), index.tolist(), (distance / spread).tolist(), strict=True)
    return [Near(*row) for row in found]


@torch.inference_mode()
def attention_spread(model: Detector, x: Tensor) -> float:
    """How many of the M rows of R1, one a bank token, a patch reads in Eq. 8: exp of the entropy of its attention, mean over
    patches and heads. M: all alike. x: (B, 3, H, W). For forms of the reconstruction in which patches query (not "printed")."""
    kept, mha = [], model.reconstruction.mha4
    hook = mha.register_forward_pre_hook(lambda _module, inputs: kept.append(inputs))
    try:
        model(x)
    finally:
        hook.remove()
    ((queries, clues),) = kept
    q, k = mha.split(mha.q(queries)), mha.split(mha.k(clues))
    weights = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1)  # (B, heads, N, M)
    return torch.special.entr(weights).sum(-1).exp().mean().item()


def cam_branches(model: Scorer) -> tuple[str, ...]:
    """Where `visual.cam` can look into this model."""
    whole = isinstance(model, Detector) and not isinstance(model.enhancement, MeanDifference)
    return visual.BRANCHES if whole else visual.BRANCHES[:1]


def error_rates(about: dict) -> list[dict]:
    """What a checkpoint's JSON says of its errors on validation at its threshold: {"error", "of", "wrong", "n", "low", "high"
    (95 % of the share, Wilson)} for false alarms and misses. Empty where it says nothing."""
    val, found = about.get("val"), []
    val = val if isinstance(val, dict) else {}
    for error, of, right, count in VALIDATION:
        n = val.get(count)
        if is_share(val.get(right)) and type(n) is int and n > 0:
            wrong = round((1 - val[right]) * n)
            low, high = binomtest(wrong, n).proportion_ci(method="wilson")
            found.append({"error": error, "of": of, "wrong": wrong, "n": n, "low": float(low), "high": float(high)})
    return found


def seen_by(about: dict) -> list:
    """The generators whose fakes a checkpoint was trained on, as its JSON names them."""
    found = about.get("generators")
    return found if isinstance(found, list) else []


def bundled_errors(subject: Subject) -> dict[str, tuple[int, int]]:
    """(wrong verdicts, pictures) among the bundled reals, fakes of a seen generator and fakes of unseen ones; a group without
    pictures is left out."""
    groups: dict[str, list[bool]] = {}
    for row in subject.examples:
        s, seen = row["sample"], seen_by(subject.model.about)
        name = (
            "reals" if not s.label else "fakes of the seen generator" if s.generator in seen else "fakes of unseen generators"
        )
        groups.setdefault(name, []).append((verdict(row["score"], subject.threshold) == "fake") != bool(s.label))
    return {name: (sum(wrong), len(wrong)) for name, wrong in groups.items()}
