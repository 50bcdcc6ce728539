"""What the decision of a trained SDD rests on: one path of it cut or misled at a time, nothing trained again."""

import numpy as np
import torch
from torch.utils.data import DataLoader

from .data import Crops, Sample
from .detector import Detector

PATHS = {
    "F_low_only": "T_CLS replaced by its mean over the reals",
    "T_CLS_only": "F_low replaced by its mean over the reals",
    "D_s_swapped": "the enhancer guided by another image's D_s",
    "pixels_flat": "the enhancer shown a flat picture",
}


@torch.inference_mode()
def interventions(model: Detector, samples: list[Sample], batch: int = 32) -> dict[str, np.ndarray]:
    """P(fake) of every image (n,) as it is ("whole") and under each of PATHS, from one pass of the encoder (Eq. 15).

    Replacing a feature by its mean takes what it says of the image and leaves its level. Swapped maps come from the image
    before in the list (for the first, after it). Needs a detector with reconstruction and enhancer.
    """
    model.eval()
    device, kept = next(model.parameters()).device, []
    crops = Crops(samples, model.backbone.image_size, train=False)
    before = model(crops[min(1, len(samples) - 1)][0][None].to(device)).D_s  # the first image has none before it
    for x, y, _ in DataLoader(crops, batch):
        x = x.to(device)
        out = model(x)
        others = torch.cat([before, out.D_s[:-1]])
        before = out.D_s[-1:]
        swapped, flat = model.enhancement(x, others), model.enhancement(torch.zeros_like(x), out.D_s)
        kept.append([t.float().cpu() for t in (out.F_low, out.T_CLS, swapped, flat, y)])
    F_low, T_CLS, swapped, flat, y = (torch.cat(part) for part in zip(*kept, strict=True))
    mean_F, mean_T = (t[y == 0].mean(0).expand_as(t) for t in (F_low, T_CLS))
    inputs = {"whole": (F_low, T_CLS), "F_low_only": (F_low, mean_T), "T_CLS_only": (mean_F, T_CLS)}
    inputs |= {"D_s_swapped": (swapped, T_CLS), "pixels_flat": (flat, T_CLS)}
    head = model.head.to("cpu")
    found = {name: torch.sigmoid(head(torch.cat(pair, 1)).squeeze(1).double()).numpy() for name, pair in inputs.items()}
    model.head.to(device)
    return found
