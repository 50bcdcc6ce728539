"""DIRE (Wang et al., ICCV 2023): what a diffusion model cannot make again of a picture gives the picture away as a
photograph.

The paper inverts x with DDIM to noise, generates x' from it, and trains a ResNet-50 on |x - x'|: pictures of diffusion models
lie where such a model can make them, photographs do not. Its model is trained on the training set's content at 256 px; on the
mini benchmark it is a small one of training photographs, at 64 px, with a few levels and a narrow network. The diffusion
model behind a test set is another one there too, so that the paper's idea holds for its fakes no more than for others'.
Measured there, on 150 centres of 32 px: pictures that the model made have a smaller DIRE than photographs on average only
(AUROC 0.56). The diffusion model was trained on the training photographs, as in the paper, and makes them again better than
others: `07_baselines` prints by how much.
"""

from torch import Tensor

from .maps import MapReader


def dire(x: Tensor, again: Tensor) -> Tensor:
    """|x - x'|, the paper's map: pictures in -1..1 -> 0..2, same shape."""
    return (x - again).abs()


class DIRE(MapReader):
    """A residual network on the DIRE of a picture. Options: see MapReader."""

    kind, title, paper = "dire", "DIRE", "Dire"
    reference = "Wang et al., ICCV 2023"
    here = "an unconditional model of 64 px trained here for ADM's of 256 px, 8 levels for 20; a small ResNet for ResNet-50"
    settings = {"epochs": 40, "batch": 16, "lr": 2e-3, "patience": 40}

    def read(self, x: Tensor, noise: Tensor, again: Tensor) -> Tensor:
        return dire(x, again)
