"""UnivFD (Ojha et al., CVPR 2023): frozen CLIP's image embedding, and on it a linear classifier or the nearest neighbour.

Nothing of CLIP is trained. The authors' own linear head (768 weights and a bias, for ViT-L/14 at 224 px) can be loaded too.
"""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import SDDError
from ..backbone import Backbone
from ..concepts import embed
from ..crops import Crops
from ..data import check_training
from ..parallel import pick_device
from ..perturb import Augment
from ..weights import load_backbone
from .base import Baseline, Output, read_weights
from .probe import fit_head

SHARPNESS = 100.0  # logit of a cosine: CLIP's own scale; no ranking and no fitted threshold depends on it


class UnivFD(Baseline):
    """A linear head on the embedding as CLIP gives it. backbone, weights: as for `load_backbone`; crops: random ones of every
    training image that the head is fitted on."""

    kind, title, paper = "univfd", "UnivFD", "UnivFD"
    reference = "Ojha et al., CVPR 2023"
    here = "CLIP ViT-B/16 at 112 px for ViT-L/14 at 224 px"
    settings = {"augment": 0.5}  # as printed: blur and JPEG, each on half of the pictures
    on_clip = True

    def __init__(self, image_size: int = 112, backbone: str = "ViT-B-16-quickgelu", weights: str = "embedded", crops: int = 2):
        super().__init__(image_size, backbone=backbone, weights=weights, crops=crops)
        self.backbone = Backbone(load_backbone(backbone, weights), image_size)
        self.head = nn.Linear(self.width, 1)

    @property
    def width(self) -> int:
        """E: of the embedding."""
        return self.backbone.visual.proj.shape[1]

    def features(self, x: Tensor) -> Tensor:
        """x: (B, 3, H, W), CLIP-normalised -> embeddings (B, E)."""
        return self.backbone.embed(self.backbone(x)[:, 0])

    def forward(self, x: Tensor) -> Output:
        f = self.features(x)
        return Output(self.head(f).squeeze(1), f)

    def fit(self, train_set, val_set, config, log=print, states=None) -> dict:
        """The L2 penalty is chosen on validation. Of the config it reads seed, resize, augment and keep."""
        check_training(train_set, val_set)
        looks = {"resize": config.resize, "augment": Augment(blur_prob=config.augment, jpeg_prob=config.augment)}
        crops, found = Crops(train_set, self.image_size, train=True, seed=config.seed, keep=config.keep, **looks), []
        self.to(pick_device()).eval()
        for crops.epoch in range(self.options["crops"]):
            found.append(embed(self.features, crops, self.device))
        val = embed(self.features, Crops(val_set, self.image_size, train=False), self.device)
        y, y_val = (np.array([s.label for s in samples]) for samples in (train_set, val_set))
        return self.fit_features(np.concatenate(found), np.tile(y, len(found)), val, y_val)

    def fit_features(self, X: np.ndarray, y: np.ndarray, X_val: np.ndarray, y_val: np.ndarray) -> dict:
        """From embeddings (n, E) and labels (n,) to a head. Fitted on embeddings of length 1 on average, which takes far fewer
        iterations; the head then reads them as they are."""
        length = float(np.linalg.norm(X, axis=1).mean())
        chosen = fit_head(self.head, X / length, y, X_val / length, y_val)
        with torch.no_grad():
            self.head.weight /= length
        return {"chosen": chosen}

    @torch.no_grad()
    def load_head(self, path: str | Path) -> None:
        """The authors' published format: `weight` (1, E) and `bias` (1,) of a linear layer on the embedding."""
        state = read_weights(str(path), "UnivFD's linear head")
        shapes = {k: tuple(v.shape) for k, v in state.items()}
        if shapes != {"weight": (1, self.width), "bias": (1,)}:
            raise SDDError(f"{path} holds {shapes} and not a head for embeddings of {self.width}; use it with its own backbone")
        self.head.load_state_dict(state)


class UnivFDNearest(UnivFD):
    """The nearest neighbours in the embedding, by cosine, among reals and among fakes, whose pictures are augmented as the
    linear head's are; k: how many of each count."""

    kind, title, paper = "univfd_nearest", "UnivFD, nearest neighbour", ""  # the tables print the linear one
    here = UnivFD.here + "; blur and JPEG on half of the bank's crops too"

    def __init__(self, image_size: int = 112, k: int = 1, **options):
        super().__init__(image_size, **options)
        del self.head
        self.options["k"] = k
        for name in ("reals", "fakes"):
            self.register_buffer(name, torch.zeros(0, self.width))

    def forward(self, x: Tensor) -> Output:
        """logit: nearness of fakes minus nearness of reals; above 0 the nearest neighbour is a fake."""
        f = self.features(x)
        k, unit = self.options["k"], F.normalize(f, dim=1)
        real, fake = ((unit @ bank.T).topk(k).values.mean(1) for bank in (self.reals, self.fakes))
        return Output(SHARPNESS * (fake - real), f)

    def fit_features(self, X: np.ndarray, y: np.ndarray, X_val: np.ndarray, y_val: np.ndarray) -> dict:
        bank = F.normalize(torch.from_numpy(X).float(), dim=1)
        least = int(np.bincount(y, minlength=2).min())
        if not 1 <= self.options["k"] <= least:
            raise SDDError(f"k = {self.options['k']} neighbours cannot be found among {least} pictures; choose 1 to {least}")
        self.reals, self.fakes = (bank[y == label].to(self.device) for label in (0, 1))
        return {"bank": len(bank)}

    def expect(self, state: dict[str, Tensor]) -> None:
        self.reals, self.fakes = (torch.zeros_like(state[name]) for name in ("reals", "fakes"))
        k, least = self.options["k"], min(len(self.reals), len(self.fakes))
        if type(k) is not int or not 1 <= k <= least:
            raise SDDError(f"k = {k!r} neighbours cannot be found among {least} pictures")
