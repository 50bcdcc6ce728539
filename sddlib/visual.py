"""What can be seen of a trained SDD: classifier features (Fig. 6), CAM (Fig. 7), maps of D_s and of the enhancer."""

from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import BinaryClassifierOutputTarget
from torch import Tensor, nn
from torch.utils.data import DataLoader

from . import SDDError
from .crops import Crops
from .data import Sample
from .detector import Detector
from .enhancement import Enhancement
from .evaluate import read_scores
from .progress import progress
from .release import ReleaseEnhancement

BRANCHES = ("tokens", "pixels")


class Readings(NamedTuple):
    """Of n images: logit (n,); features (n, F_low + D), F_low then T_CLS, what the head reads (Eq. 15); D_s (n, g, g), Eq. 10
    averaged over channels, in units of a token's values; V_H (n,), mean size of those values, to compare D_s with; Re (n, D),
    what was rebuilt, averaged over patches, and Re_spread (n,), its standard deviation over patches, averaged over channels: 0
    where every patch is rebuilt as the same token."""

    logit: np.ndarray
    features: np.ndarray
    D_s: np.ndarray
    V_H: np.ndarray
    Re: np.ndarray
    Re_spread: np.ndarray


class Cam(NamedTuple):
    """Of n images: map (n, H, W) in 0..1 as grad-cam gives it, each image by its own range; raw (n, s, s) before clipping and
    scaling, in logits a position, above 0 towards fake; peak (n,) the largest value of raw, 0 where none is above 0 (then
    map is empty)."""

    map: np.ndarray
    raw: np.ndarray
    peak: np.ndarray


def open_run(folder: Path) -> tuple[Detector, list[dict]]:
    """The SDD of a run folder and the rows of its scores, as 03_train and 04_evaluate left them."""
    checkpoint, scores = folder / "checkpoints" / "sdd.safetensors", folder / "scores" / "sdd.csv"
    for path, notebook in ((checkpoint, "03_train"), (scores, "04_evaluate")):
        if not path.is_file():
            raise SDDError(f"{folder} has no {path.parent.name}/{path.name}; run notebook {notebook} in it first")
    model = Detector.load(checkpoint)
    need_discrepancy(model)
    return model, read_scores(scores)


def need_discrepancy(model: Detector) -> None:
    """Refuse a detector that has no D_s to look at."""
    if model.reconstruction is None:
        raise SDDError("this SDD has no reconstruction, so there is no D_s to show; take one with reconstruction")


def samples_of(rows: list[dict], root: Path) -> list[Sample]:
    """The images behind rows of a scores file, whose paths start at `root`."""
    names = ("label", "generator", "family", "split", "photo")
    return [Sample(root / r["path"], *(r[name] for name in names)) for r in rows]


@torch.inference_mode()
def readings(model: Detector, samples: list[Sample], batch: int = 32) -> Readings:
    """One pass over centre crops, in eval mode; the rows are those of `samples`."""
    need_discrepancy(model)
    device, found = next(model.parameters()).device, []
    for x, _, _ in progress(DataLoader(Crops(samples, model.backbone.image_size, train=False), batch), desc="reading"):
        out = model.eval()(x.to(device))
        features = torch.cat([out.F_low, out.T_CLS], 1)  # (B, F_low + D)
        patches = out.Re[:, out.Re.shape[1] - model.backbone.N :]  # CLS in front is left out
        numbers = out.logit, features, out.D_s.mean(1), out.V_H.abs().mean((1, 2)), patches.mean(1), patches.std(1).mean(1)
        found.append([t.float().cpu() for t in numbers])
    return Readings(*(torch.cat(part).numpy() for part in zip(*found, strict=True)))


def check_scores(rows: list[dict], logit: np.ndarray, slack: float = 1e-3) -> float:
    """Refuse scores that this model did not give; returns the largest difference. rows and logit (n,): the same images."""
    scores = np.array([r["score"] for r in rows])
    largest = float(np.abs(1 / (1 + np.exp(-logit.astype(float))) - scores).max())
    if not largest < slack:
        raise SDDError(f"the saved scores differ by {largest:.2g} from this checkpoint's; run notebook 04_evaluate again")
    return largest


def crops(model: Detector, samples: list[Sample]) -> Tensor:
    """The images as the model sees them, on its device: (n, 3, H, W)."""
    shown = Crops(samples, model.backbone.image_size, train=False)
    return torch.stack([x for x, _, _ in shown]).to(next(model.parameters()).device)


class _Logit(nn.Module):
    """The detector as grad-cam wants it: images in, one number an image out."""

    def __init__(self, model: Detector):
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x).logit  # (B,)


@contextmanager
def _no_parameter_gradients(model: nn.Module):
    """No gradient is computed for a parameter, and none is left behind in one."""
    learned = [p for p in model.parameters() if p.requires_grad]
    for p in learned:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in learned:
            p.requires_grad_(True)


def cam(model: Detector, x: Tensor, branch: str, batch: int = 16) -> Cam:
    """Grad-CAM towards "fake" of the logit, at one of the two places where it is decided. x: (n, 3, H, W).

    tokens: the last block's `ln_1`, the last place whose patch tokens T_CLS still reads. At the block's output CLS is done
    reading: a map there shows the path through D_s alone, and without that path it is zero everywhere.
    pixels: the enhancer's last stage. With a linear head on averaged positions (preset `paper`) this is the CAM of Fig. 7's
    reference exactly: raw sums to what F_low adds to the logit, but for a constant. Source: pytorch_grad_cam.
    """
    if branch not in BRANCHES:
        raise SDDError(f"CAM branch {branch!r} is unknown; use {' or '.join(map(repr, BRANCHES))}")
    layer = model.backbone.blocks[-1].ln_1 if branch == "tokens" else _stages(model)[-1][1]
    g, found = model.backbone.g, []

    def to_map(tokens: Tensor) -> Tensor:
        return tokens[:, 1:].transpose(1, 2).unflatten(2, (g, g))  # (B, 1+N, D) -> (B, D, g, g)

    with _no_parameter_gradients(model.eval()):
        for part in x.split(batch):
            tool = GradCAM(_Logit(model), [layer], to_map if branch == "tokens" else None)
            # gradients start at the layer: what lies before it would only cost time
            cut = layer.register_forward_hook(lambda _module, _inputs, out: out.detach().requires_grad_(True), prepend=True)
            try:
                scaled = tool(part, [BinaryClassifierOutputTarget(1)] * len(part))
                seen = tool.activations_and_grads
                raw = tool.get_cam_image(part, layer, None, seen.activations[0].numpy(), seen.gradients[0].numpy())
            finally:  # not its context manager, which swallows an IndexError
                tool.activations_and_grads.release()
                cut.remove()
            found.append(Cam(scaled, raw, raw.max((1, 2)).clip(0)))
    return Cam(*(np.concatenate(parts) for parts in zip(*found, strict=True)))


def _stages(model: Detector) -> list[tuple[str, nn.Module]]:
    """Where the enhancer's stages can be read, in order: ("output" or "input", module)."""
    if isinstance(model.enhancement, Enhancement):
        return [("output", stage) for stage in model.enhancement.stages]
    if isinstance(model.enhancement, ReleaseEnhancement):  # a fused stage has no module: the next convolution reads it
        convs = model.enhancement.convs
        return [("input", conv) for conv in convs[1:]] + [("output", convs[-1])]
    raise SDDError("this SDD has no enhancer, so there are no pixel maps to show; take one with enhancement")


@torch.inference_mode()
def stage_maps(model: Detector, x: Tensor) -> list[np.ndarray]:
    """F_low(n) of every stage n (Eq. 13) averaged over channels: [(B, s_n, s_n)] for images x (B, 3, H, W)."""
    kept, hooks = [], []
    for side, module in _stages(model):
        if side == "output":
            hooks.append(module.register_forward_hook(lambda _module, _inputs, out: kept.append(out)))
        else:
            hooks.append(module.register_forward_pre_hook(lambda _module, inputs: kept.append(inputs[0])))
    try:
        model.eval()(x)
    finally:
        for hook in hooks:
            hook.remove()
    return [t.mean(1).float().cpu().numpy() for t in kept]
