"""What the decision of a trained SDD rests on: one path of it cut or misled at a time, nothing trained again."""

import numpy as np
import torch
from torch.utils.data import DataLoader

from . import SDDError
from .crops import Crops
from .data import Sample
from .detector import Detector
from .progress import progress

PATHS = {
    "F_low_only": "T_CLS replaced by its mean over the reals",
    "T_CLS_only": "F_low replaced by its mean over the reals",
    "D_s_swapped": "the enhancer guided by the D_s of an image of the other class",
    "pixels_flat": "the enhancer shown a flat picture",
}


def partners(samples: list[Sample], seed: int = 0) -> list[Sample]:
    """For every image one of the other class that shows another photograph, drawn by `seed`."""
    rng, found = np.random.default_rng(seed), []
    for s in samples:
        others = [o for o in samples if o.label != s.label and o.photo != s.photo]
        if not others:
            raise SDDError("interventions need two photographs of each class; score more images")
        found.append(others[rng.integers(len(others))])
    return found


@torch.inference_mode()
def interventions(model: Detector, samples: list[Sample], batch: int = 32, seed: int = 0) -> dict[str, np.ndarray]:
    """P(fake) of every image (n,) as it is ("whole") and under each of PATHS (Eq. 15).

    Replacing a feature by its mean takes what it says of the image and leaves its level. A swapped D_s comes from an image of
    the other class and another photograph: what it says is wrong. Needs a detector with reconstruction and enhancer.
    """
    model.eval()
    device, size, kept = next(model.parameters()).device, model.backbone.image_size, []
    # a partner is encoded for itself: keeping the maps of all images would take memory that grows with their number
    others = DataLoader(Crops(partners(samples, seed), size, train=False), batch)
    loader = progress(DataLoader(Crops(samples, size, train=False), batch), desc="interventions")
    for (x, y, _), (other, _, _) in zip(loader, others, strict=True):
        x = x.to(device)
        out, misleading = model(x), model(other.to(device)).D_s
        swapped, flat = model.enhancement(x, misleading), model.enhancement(torch.zeros_like(x), out.D_s)
        kept.append([t.float().cpu() for t in (out.F_low, out.T_CLS, swapped, flat, y)])
    F_low, T_CLS, swapped, flat, y = (torch.cat(part) for part in zip(*kept, strict=True))
    mean_F, mean_T = (t[y == 0].mean(0).expand_as(t) for t in (F_low, T_CLS))
    inputs = {"whole": (F_low, T_CLS), "F_low_only": (F_low, mean_T), "T_CLS_only": (mean_F, T_CLS)}
    inputs |= {"D_s_swapped": (swapped, T_CLS), "pixels_flat": (flat, T_CLS)}
    head = model.head.to("cpu")
    found = {name: torch.sigmoid(head(torch.cat(pair, 1)).squeeze(1).double()).numpy() for name, pair in inputs.items()}
    model.head.to(device)
    return found
