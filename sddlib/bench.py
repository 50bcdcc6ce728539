"""What SDD costs beside its own encoder, as ratios measured in one run: interleaved, pair by pair, median of the pairs."""

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from . import SDDError, bench_bank
from .backbone import Backbone
from .baselines.lora import LoraLinear
from .detector import Detector
from .optim import trainable
from .parallel import pick_device
from .presets import get_preset
from .train import seed_everything
from .weights import load_backbone


def ratio(a: Callable[[], None], b: Callable[[], None], pairs: int) -> tuple[float, float, float, float]:
    """(median of time a / time b, lowest, highest, median seconds of b) over interleaved pairs, after one warm-up of each.

    Pairs stand next to each other in time, so that a machine whose speed drifts moves both.
    """
    a(), b()
    seconds = [(_timed(a), _timed(b)) for _ in range(pairs)]
    ratios = [x / y for x, y in seconds]
    return statistics.median(ratios), min(ratios), max(ratios), statistics.median(y for _, y in seconds)


def _timed(f: Callable[[], None]) -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    start = time.perf_counter()
    f()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def training_step(model: torch.nn.Module, x: torch.Tensor, y: torch.Tensor) -> Callable[[], None]:
    """One AdamW step of a model on images x (B, 3, H, W) and labels y (B,)."""
    optimizer = torch.optim.AdamW(trainable(model).values(), lr=1e-5)

    def step() -> None:
        model.train()  # here and not once: what is scored in between would leave it merged and in eval mode
        optimizer.zero_grad(set_to_none=True)
        model.loss(x, y)["total"].backward()
        optimizer.step()

    return step


def scoring(model: torch.nn.Module, x: torch.Tensor, _y: torch.Tensor) -> Callable[[], None]:
    """One forward pass in eval mode without a graph, LoRA folded into the weights where there is any."""
    encoder = getattr(model, "backbone", model)

    @torch.inference_mode()
    def forward() -> None:
        encoder.merge_lora()  # at once when it is merged already
        model.eval()(x)

    return forward


def main(argv: list[str]) -> int:
    """Print what SDD costs: a training step against LoRA + linear head, scoring against bare CLIP, and the token bank."""
    parser = argparse.ArgumentParser(prog="python -m sddlib bench", description=main.__doc__)
    parser.add_argument("--backbone", default="ViT-B-16-quickgelu", help="open_clip model name; weights are random")
    parser.add_argument("--image-size", type=int, default=112, help="crop side in pixels")
    parser.add_argument("--batch", type=int, default=16, help="images a step")
    parser.add_argument("--pairs", type=int, default=9, help="interleaved pairs to time")
    parser.add_argument("--tokens", type=int, default=10_000_000, help="stream whose memory is measured")
    args = parser.parse_args(argv)
    if min(args.batch, args.pairs, args.image_size) < 1 or args.tokens < 256:
        raise SDDError("--batch, --pairs and --image-size are whole numbers above 0, --tokens one above 255")
    device, preset = pick_device(), get_preset("paper")
    seed_everything(0)

    def encoder() -> Backbone:
        return Backbone(load_backbone(args.backbone, "random"), args.image_size, preset.norm)

    x = torch.randn(args.batch, 3, args.image_size, args.image_size, device=device)
    y = torch.arange(args.batch, device=device) % 2
    sdd = Detector(encoder(), torch.randn(preset.M, encoder().D), preset).to(device)
    lora, bare = LoraLinear(encoder(), preset).to(device), encoder().to(device)
    threads = f", {torch.get_num_threads()} threads" if device.type == "cpu" else ""
    print(f"{args.backbone} at {args.image_size} px, batch {args.batch}, preset paper (M {preset.M}, width {preset.width})")
    print(f"{device}{threads}, torch {torch.__version__}, median of {args.pairs} interleaved pairs [lowest, highest]")
    for name, base, job, other in (
        ("training step", "LoRA-CLIP + linear head", training_step, lora),
        ("scoring", "bare encoder", scoring, bare),
    ):
        mid, low, high, seconds = ratio(job(sdd, x, y), job(other, x, y), args.pairs)
        print(f"SDD {name} / {base}: {mid:.2f} [{low:.2f}, {high:.2f}]; the base: {1000 * seconds / args.batch:.1f} ms/image")
    bench_bank.report(1024, 256, args.tokens)
    return 0
