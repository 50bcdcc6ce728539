"""What SDD costs beside its own encoder, as ratios measured in one run: interleaved, pair by pair, median of the pairs."""

import argparse
import copy
from collections.abc import Callable
from typing import NamedTuple

import torch

from . import SDDError, bench_bank, bench_growth, bench_loader, bench_memory
from .backbone import Backbone
from .baselines.lora import LoraLinear
from .bench_growth import scoring
from .detector import Detector
from .optim import trainable
from .parallel import pick_device
from .plan import PRECISIONS
from .presets import get_preset
from .randomness import seed_everything
from .timing import ratio
from .weights import load_backbone


class Section(NamedTuple):
    """A backbone with random weights and the sizes it is timed at: crop side in pixels, images a step, interleaved pairs."""

    backbone: str
    size: int
    batch: int
    pairs: int


MINI, FULL = Section("ViT-B-16-quickgelu", 112, 16, 9), Section("ViT-L-14-quickgelu", 224, 2, 5)


def training_step(model: torch.nn.Module, x: torch.Tensor, y: torch.Tensor) -> Callable[[], None]:
    """One AdamW step of a model on images x (B, 3, H, W) and labels y (B,)."""
    optimizer = torch.optim.AdamW(trainable(model).values(), lr=1e-5)

    def step() -> None:
        model.train()  # here and not once: what is scored in between would leave it merged and in eval mode
        optimizer.zero_grad(set_to_none=True)
        model.loss(x, y)["total"].backward()
        optimizer.step()

    return step


def pictures(count: int, size: int, device: torch.device) -> torch.Tensor:
    """(count, 3, size, size) of noise."""
    return torch.randn(count, 3, size, size, device=device)


def against_baselines(encoder: Callable[[str], Backbone], section: Section, device: torch.device) -> float:
    """Print both ratios for both presets, for the release's large bank on few images; returns the bare encoder's images/s."""
    rates = {}
    for name, images, pairs in (("paper", section.batch, section.pairs), ("release", 2, min(section.pairs, 3))):
        x, y = pictures(images, section.size, device), torch.arange(images, device=device) % 2
        preset = get_preset(name)
        backbone = encoder(preset.norm)
        sdd = Detector(backbone, torch.randn(preset.M, backbone.D), preset).to(device)
        lora, bare = LoraLinear(encoder(preset.norm), preset).to(device), encoder(preset.norm).to(device)
        for what, base, ours, theirs in (
            ("training step", "LoRA-CLIP + linear head", training_step(sdd, x, y), training_step(lora, x, y)),
            ("scoring", "bare encoder", scoring(sdd, x), scoring(bare, x)),
        ):
            mid, low, high, seconds = ratio(ours, theirs, pairs)
            rates[name, what] = images / seconds
            each = f"{pairs} pairs, {images} images, the base: {1000 * seconds / images:.1f} ms/image"
            print(f"{name}: SDD {what} / {base}: {mid:.2f} [{low:.2f}, {high:.2f}]; {each}", flush=True)
    return rates["paper", "scoring"]


def measure(section: Section, device: torch.device, precision: str) -> None:
    """Print everything that is timed on one backbone. precision: of the encoder while training."""
    where = torch.cuda.get_device_name() if device.type == "cuda" else f"cpu, {torch.get_num_threads()} threads"
    print(
        f"\n{section.backbone} at {section.size} px, random weights, torch {torch.__version__}, {where}; trained in {precision}"
    )
    print("median of interleaved pairs [lowest, highest]")
    tower = load_backbone(section.backbone, "random")

    def encoder(norm: str = "ln_post") -> Backbone:
        made = Backbone(copy.deepcopy(tower), section.size, norm)
        made.precision = PRECISIONS[precision]
        return made

    rate = against_baselines(encoder, section, device)
    pairs, x = (section.pairs + 1) // 2, pictures(max(1, section.batch // 4), section.size, device)
    preset, backbone = get_preset("paper"), encoder()
    bench_growth.with_images(Detector(backbone, torch.randn(preset.M, backbone.D), preset).to(device), x, pairs)
    bench_growth.with_bank(encoder, preset, x, pairs)
    bench_loader.report(section.size, section.batch, rate)


def main(argv: list[str]) -> int:
    """Print what SDD costs: a training step against LoRA + linear head, scoring against the bare encoder, how scoring grows
    with images and bank, whether loading keeps ahead, memory against its plan, and the token bank. On mini's backbone and on
    the full-size one, or on one that is named."""
    parser = argparse.ArgumentParser(prog="python -m sddlib bench", description=main.__doc__)
    parser.add_argument("--backbone", help=f"only this open_clip model (default: {MINI.backbone}, then {FULL.backbone})")
    parser.add_argument("--image-size", type=int, help=f"crop side in pixels (default: {MINI.size}; {FULL.size})")
    parser.add_argument("--batch", type=int, help=f"images a step (default: {MINI.batch}; {FULL.batch})")
    parser.add_argument("--pairs", type=int, help=f"interleaved pairs to time (default: {MINI.pairs}; {FULL.pairs})")
    parser.add_argument("--precision", default="float32", choices=PRECISIONS, help="of the encoder while training")
    parser.add_argument("--tokens", type=int, default=10_000_000, help="stream whose memory is measured")
    args = parser.parse_args(argv)
    given = {k: v for k, v in (("size", args.image_size), ("batch", args.batch), ("pairs", args.pairs)) if v is not None}
    if any(v < 1 for v in given.values()) or args.tokens < 256:
        raise SDDError("--batch, --pairs and --image-size are whole numbers above 0, --tokens one above 255")
    if given.get("batch", 2) < 2:
        raise SDDError("--batch is 2 at least: the release's batch norms cannot train on a single image")
    chosen = [MINI, FULL]
    if args.backbone:
        chosen = [(FULL if args.backbone == FULL.backbone else MINI)._replace(backbone=args.backbone)]
    seed_everything(0)
    for section in chosen:
        section = section._replace(**given)
        measure(section, pick_device(), args.precision)
        if section.backbone == FULL.backbone:
            bench_memory.report(section.backbone, section.size, section.batch, args.precision)
    print()
    bench_bank.report(1024, 256, args.tokens)
    return 0
