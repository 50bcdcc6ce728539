"""What the paper's nine baselines share: options, one input an image, training in the common loop, saving, loading, scoring."""

from collections.abc import Callable
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

from .. import SDDError
from ..checkpoints import read_tensors
from ..data import Sample
from ..disk import expanded
from ..limits import SIDE
from ..optim import TrainConfig
from ..resume import States
from ..stored import Stored
from ..train import train


class Output(NamedTuple):
    """logit (B,), features (B, D): what the last linear layer reads."""

    logit: Tensor
    features: Tensor


class Baseline(Stored):
    """A detector of the literature. A subclass gives its names and settings, its network, and `forward(x).logit`.

    Options are what its constructor takes besides image_size (px): literals that JSON can hold, handed on to `Baseline`. With
    the state they make the model again. Where `prepare` is costly, `views` limits training to that many crops an image,
    prepared once. `prepare` may run networks of its own, without gradients and not in inference mode, on `device`.
    """

    title = ""  # as tables here name it
    paper = ""  # row of the SDD paper's tables; "": none
    reference = ""  # who, where
    here = ""  # what is smaller or otherwise than in its paper, at the scale of `mini`
    settings: dict = {}  # TrainConfig at the scale of `mini`: some minutes of one core; the best epoch is chosen on validation
    views = 0
    on_clip = False  # whether options name a `backbone` and its `weights`
    needs = frozenset({"options"})

    def __init__(self, image_size: int, **options):
        super().__init__()
        if type(image_size) is not int or not 8 <= image_size <= SIDE:
            raise SDDError(f"image_size {image_size!r} is no number of pixels from 8 to {SIDE}; give one")
        self.image_size, self.options = image_size, options

    @property
    def device(self):
        return next(self.parameters()).device

    def loss(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        """BCE of inputs x (B, ...) and labels y (B,)."""
        return {"total": F.binary_cross_entropy_with_logits(self(x).logit, y.float())}

    @classmethod
    def config(cls, seed: int, **changes) -> TrainConfig:
        """How this baseline is trained: its own settings, changed by name."""
        return TrainConfig(**{**cls.settings, **changes, "seed": seed})

    def fit(
        self,
        train_set: list[Sample],
        val_set: list[Sample],
        config: TrainConfig,
        log: Callable[[str], None] = print,
        states: States | None = None,
    ) -> dict:
        """Train in place, choosing on validation only; returns facts that JSON can hold. Eval mode afterwards."""
        return {"history": train(self, train_set, val_set, config, self.image_size, log, states)}

    def facts(self) -> dict:
        known = {"options": self.options}
        return known | ({"fingerprint": self.backbone.fingerprint} if hasattr(self, "backbone") else {})

    def expect(self, state: dict[str, Tensor]) -> None:
        """Make room for what a stored state holds and whose shape only training knows."""

    @classmethod
    def restore(cls, about: dict, state: dict[str, Tensor], fetched: str | None) -> "Baseline":
        """fetched: weights of the frozen network, if they now lie elsewhere."""
        options = about["options"] | ({"weights": fetched} if fetched and about["options"].get("weights") else {})
        model = cls(about["image_size"], **options)
        if about.get("fingerprint") != model.facts().get("fingerprint"):
            raise SDDError(f"it was trained on other weights than {options['weights']!r}, name those")
        model.expect(state)
        return model


def read_weights(path: str, what: str) -> dict[str, Tensor]:
    """Tensors by name from a file that a baseline was told to use; a missing one is an error that says what belongs there."""
    file = expanded(path)
    if not file.is_file():
        raise SDDError(f"{what} needs the weights file {path!r}, which is missing; put it there or name another")
    return read_tensors(file)
