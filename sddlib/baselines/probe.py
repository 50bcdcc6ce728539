"""UnivFD's linear probe (Ojha 2023): a linear classifier on the frozen CLIP image embedding."""

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from torch import Tensor, nn
from torch.utils.data import DataLoader

from ..backbone import Backbone
from ..crops import Crops
from ..data import Sample, check_training
from ..parallel import pick_device
from ..perturb import Augment
from ..presets import Preset
from ..progress import progress
from ..scorer import Scorer
from .lora import LinearOutput

STRENGTHS = 10.0 ** np.arange(-3, 5)  # inverse L2 penalties tried; validation chooses


@torch.no_grad()
def fit_head(head: nn.Linear, X: np.ndarray, y: np.ndarray, X_val: np.ndarray, y_val: np.ndarray) -> dict:
    """Logistic regression of labels y (n,) on features X (n, E), put into `head`; returns what validation chose."""
    fits = [LogisticRegression(C=C, max_iter=5000).fit(X, y) for C in STRENGTHS]
    losses = [log_loss(y_val, f.predict_proba(X_val)) for f in fits]
    best = fits[int(np.argmin(losses))]
    head.weight.copy_(torch.from_numpy(best.coef_))
    head.bias.copy_(torch.from_numpy(best.intercept_))
    return {"C": float(best.C), "val_bce": float(min(losses)), "val_acc": float(best.score(X_val, y_val))}


class LinearProbe(Scorer):
    """Frozen CLIP, its projected embedding, a linear head fitted by logistic regression."""

    kind = "probe"

    def __init__(self, backbone: Backbone, preset: Preset):
        super().__init__()
        self.backbone, self.preset = backbone, preset
        self.head = nn.Linear(backbone.visual.proj.shape[1], 1)

    def features(self, x: Tensor) -> Tensor:
        """x: (B, 3, H, W) -> unit-length embeddings (B, E)."""
        return nn.functional.normalize(self.backbone.embed(self.backbone(x)[:, 0]), dim=-1)

    def forward(self, x: Tensor) -> LinearOutput:
        f = self.features(x)
        return LinearOutput(self.head(f).squeeze(1), f)

    @torch.inference_mode()
    def embed_samples(self, crops: Crops, workers: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Features (n, E) and labels (n,) of a set of crops. workers: processes that decode."""
        device = pick_device()
        self.to(device).eval()
        loader = DataLoader(crops, 32, num_workers=workers)
        batches = [(self.features(x.to(device)).cpu(), y) for x, y, _ in progress(loader, desc="probe")]
        return torch.cat([f for f, _ in batches]).numpy(), torch.cat([y for _, y in batches]).numpy()

    def fit(
        self,
        train: list[Sample],
        val: list[Sample],
        size: int,
        views: int = 2,
        seed: int = 0,
        resize: int = 0,
        augment: float = 0.0,
        workers: int = 0,
        keep: bool = True,
    ) -> dict:
        """Fit the head on `views` random crops of every training image; the L2 penalty is chosen on validation BCE.

        The crops are those a trained detector sees in its first epochs with the same seed. resize, augment, workers, keep: as
        in a TrainConfig. Returns what was chosen.
        """
        check_training(train, val)
        looks = {"resize": resize, "augment": Augment(blur_prob=augment, jpeg_prob=augment)}
        crops, sets = Crops(train, size, train=True, seed=seed, keep=keep, **looks), []
        for crops.epoch in range(views):
            sets.append(self.embed_samples(crops, workers))
        X, y = np.concatenate([s[0] for s in sets]), np.concatenate([s[1] for s in sets])
        X_val, y_val = self.embed_samples(Crops(val, size, train=False), workers)
        return fit_head(self.head, X, y, X_val, y_val)

    @classmethod
    def build(cls, backbone: Backbone, preset: Preset, state: dict[str, Tensor]) -> "LinearProbe":
        return cls(backbone, preset)
