"""How the cost of scoring grows: with the images, and with the tokens of the bank beside the operations these need."""

from collections.abc import Callable

import torch

from .backbone import Backbone
from .counting import flops
from .detector import Detector
from .presets import Preset
from .timing import ratio

SIZES = (256, 1024, 5000)  # of the bank: the preset's, four times as much, the authors'
TIMES = (2, 4)  # as many images


def scoring(model: torch.nn.Module, x: torch.Tensor) -> Callable[[], None]:
    """One forward pass in eval mode without a graph, LoRA folded into the weights where there is any."""
    encoder = getattr(model, "backbone", model)

    @torch.inference_mode()
    def forward() -> None:
        if model.training:
            model.eval()
        encoder.merge_lora()  # at once when it is merged already
        model(x)

    return forward


def with_images(model: torch.nn.Module, x: torch.Tensor, pairs: int) -> None:
    """Print the time of scoring 2n and 4n images by that of n, a model and x (n, 3, H, W)."""
    for times in TIMES:
        mid, low, high, _ = ratio(scoring(model, x.repeat(times, 1, 1, 1)), scoring(model, x), pairs)
        print(
            f"scoring {times}n images / n images, n = {len(x)}: {mid:.2f} [{low:.2f}, {high:.2f}], linear is {times}",
            flush=True,
        )


def with_bank(encoder: Callable[[], Backbone], preset: Preset, x: torch.Tensor, pairs: int) -> None:
    """Print the time of scoring x (B, 3, H, W) with larger banks by that with the smallest, beside the operations' ratio."""

    def detector(M: int) -> Detector:
        backbone = encoder()
        return Detector(backbone, torch.randn(M, backbone.D), preset.with_fields(M=M)).to(x.device).eval()

    base = detector(SIZES[0])
    needed = flops(base, x.shape[-1], training=False)
    for M in SIZES[1:]:
        large, made = detector(M), []
        more = flops(large, x.shape[-1], training=False) / needed
        large.reconstruction.mha1.q.register_forward_hook(lambda *_, made=made: made.append(1))
        mid, low, high, _ = ratio(scoring(large, x), scoring(base, x), pairs)
        print(
            f"scoring with M {M} / M {SIZES[0]}: {mid:.2f} [{low:.2f}, {high:.2f}], operations {more:.2f}; "
            f"bank queries computed {len(made)} time(s) in {pairs + 1} passes",
            flush=True,
        )
