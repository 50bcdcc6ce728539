"""`python -m sddlib plan`: hours and GPU memory of the paper's scale on 1, 8 and 64 GPUs.

Operations and bytes are counted from the model; speeds are assumptions, each printed under the table beside what one card was
measured to reach.
"""

import argparse
from dataclasses import dataclass, replace

import torch

from . import SDDError
from .backbone import Backbone
from .baselines.lora import LoraLinear
from .counting import flops
from .detector import Detector
from .optim import TRAINING
from .plan import GB, PRECISIONS, memory_plan, scoring_memory
from .presets import Preset, get_preset
from .report import columns
from .weights import load_backbone

GPUS = (1, 8, 64)
# UnivFD trains on CNNSpot's ProGAN images: 720,000 in print (Wang et al., CVPR 2020), 18,000 real and as many fake in each of
# 20 classes; four of these in the 4-class setting. Not counted here. The SDD paper does not say which of the two it uses.
TRAINING_SETS = {"UnivFD, 4 classes": 144_000, "UnivFD, 20 classes": 720_000}
SCORED = 1_000_000
# `python -m sddlib bench --backbone ViT-L-14-quickgelu --batch 32 --precision bfloat16` on an NVIDIA H200, whose datasheet
# says 989 and 67 TFLOP/s (dense): LoRA + linear trained at 3.0 ms an image, the bare encoder scored at 3.7.
MEASURED = "on an H200 (989 and 67 TFLOP/s) ViT-L/14 at 224 px, 32 images a step, was measured to reach 0.11 and 0.65"


@dataclass(frozen=True)
class Assumptions:
    """What hours rest on beside counted operations. The peaks are those of an A100: bfloat16, and float32 without TF32, which
    torch leaves off. utilisation: share of each peak that is reached. efficiency: of each of 1, 8 or 64 GPUs. loader: images
    a second and CPU core, decoded and cropped."""

    bfloat16: float = 312e12
    float32: float = 19.5e12
    utilisation_bfloat16: float = 0.35
    utilisation_float32: float = 0.6
    efficiency: tuple[float, ...] = (1.0, 0.95, 0.9)
    loader: float = 150.0

    def seconds(self, low: int, full: int) -> float:
        """Of one GPU, for so many operations in bfloat16 and in float32."""
        return low / (self.bfloat16 * self.utilisation_bfloat16) + full / (self.float32 * self.utilisation_float32)


@dataclass(frozen=True)
class Costs:
    """Operations an image: of the bare encoder and of LoRA + linear head and SDD, forward (scoring) and in a training step."""

    encoder: int
    lora_step: int
    sdd: int
    sdd_step: int


def shapes(name: str, size: int, preset: Preset) -> tuple[Detector, LoraLinear, Backbone]:
    """SDD, LoRA + linear head and the bare encoder, of which only the shapes are made."""
    with torch.device("meta"):
        encoders = [Backbone(load_backbone(name, "random"), size, preset.norm) for _ in range(3)]
        f_s = torch.empty(0 if preset.bank == "none" else preset.M, encoders[0].D)
        return Detector(encoders[0], f_s, preset), LoraLinear(encoders[1], preset), encoders[2]


def count(name: str, size: int, preset: Preset, checkpointing: bool) -> Costs:
    """Operations an image of a preset on an encoder."""
    sdd, lora, bare = shapes(name, size, preset)
    return Costs(
        encoder=flops(bare, size, training=False),
        lora_step=flops(lora, size, True, checkpointing),
        sdd=flops(sdd, size, training=False),
        sdd_step=flops(sdd, size, True, checkpointing),
    )


def rows(costs: Costs, epochs: int, precision: str, memory: dict[str, dict[int, float]], a: Assumptions) -> list[list]:
    """The table: job, GPUs, hours of SDD, of LoRA + linear and of one pass of frozen CLIP, GB a GPU, images/s of SDD, CPU cores
    that feed it.

    memory: job ("train", "score") -> GPUs -> bytes a GPU.
    """
    low = costs.lora_step if precision == "bfloat16" else 0  # autocast is the encoder's alone
    step = a.seconds(low, costs.sdd_step - low)
    lora_step = a.seconds(low, costs.lora_step - low)
    jobs = [(f"train {name}", n, epochs, "train", step, lora_step) for name, n in TRAINING_SETS.items()]
    forward = a.seconds(0, costs.encoder)  # scores are always computed in float32
    jobs.append((f"score {SCORED:,} images", SCORED, 1, "score", a.seconds(0, costs.sdd), forward))
    table = [["job", "GPUs", "SDD h", "LoRA + linear h", "frozen CLIP h", "SDD GB/GPU", "images/s", "loader cores"]]
    for name, images, passes, kind, sdd, lora in jobs:
        for gpus, efficiency in zip(GPUS, a.efficiency, strict=True):
            speed = gpus * efficiency  # in single GPUs
            hours = [f"{images * seconds / speed / 3600:.2f}" for seconds in (passes * sdd, passes * lora, forward)]
            gb = f"{memory[kind][gpus] / GB:.1f}"
            table.append([name, gpus, *hours, gb, f"{speed / sdd:,.0f}", f"{speed / sdd / a.loader:.1f}"])
    return table


def assumed(a: Assumptions, costs: Costs, args: argparse.Namespace) -> str:
    """Every assumption, a line each."""
    giga = {k: f"{v / GB:,.1f}" for k, v in vars(costs).items()}
    sets = ", ".join(f"{n:,} images in {name}" for name, n in TRAINING_SETS.items())
    efficiency = zip(GPUS, a.efficiency, strict=True)
    return "\n".join(
        (
            "Counted: bytes, and operations of matrix products, attention and convolutions. In 10^9 an image:",
            f"- scoring: SDD {giga['sdd']}, bare encoder {giga['encoder']}, ratio {costs.sdd / costs.encoder:.2f};",
            f"- training: SDD {giga['sdd_step']}, LoRA + linear {giga['lora_step']}, "
            f"ratio {costs.sdd_step / costs.lora_step:.2f}.",
            "Assumed, not measured:",
            f"- a GPU's peak: {a.bfloat16 / 1e12:g} TFLOP/s in bfloat16, {a.float32 / 1e12:g} in float32 (A100; TF32 is off);",
            f"- of these are reached {a.utilisation_bfloat16:g} and {a.utilisation_float32:g}, what waits for memory included;",
            f"  {MEASURED};",
            f"- the encoder trains in {args.precision}, all else and all scoring runs in float32;",
            f"- of the speed of so many single GPUs: {', '.join(f'{e:g} on {g}' for g, e in efficiency)};",
            f"- {sets}, as published, not counted here;",
            f"- {args.epochs} epochs, no early stopping, validation not included;",
            f"- {args.batch} images a step on each GPU, so that the batch grows with the GPUs: the paper's 32 are one GPU's,",
            "  and learning rates for larger batches are not known;",
            f"- loaders deliver {a.loader:g} images/s a core; with fewer cores than in the last column, loading is the limit;",
            "- frozen CLIP: one pass over the images in float32, as for a linear probe whose features are stored.",
        )
    )


def parser() -> argparse.ArgumentParser:
    default = Assumptions()
    made = argparse.ArgumentParser(prog="python -m sddlib plan", description=main.__doc__)
    made.add_argument("--preset", default="paper", help="paper or release")
    made.add_argument("--backbone", default="ViT-L-14-quickgelu", help="open_clip model name; only its shapes are made")
    made.add_argument("--image-size", type=int, default=224, help="crop side in pixels")
    made.add_argument("--batch", type=int, default=32, help="images a step on each GPU")
    made.add_argument("--epochs", type=int, default=TRAINING["paper"].epochs, help="passes over the training set")
    made.add_argument("--precision", default="bfloat16", choices=PRECISIONS, help="of the encoder while training")
    made.add_argument("--checkpointing", action="store_true", help="with gradient checkpointing")
    made.add_argument("--tflops-bfloat16", type=float, default=default.bfloat16 / 1e12, help="a GPU's peak")
    made.add_argument("--tflops-float32", type=float, default=default.float32 / 1e12, help="a GPU's peak")
    made.add_argument("--utilisation", type=float, default=default.utilisation_bfloat16, help="share reached in bfloat16")
    made.add_argument("--utilisation-float32", type=float, default=default.utilisation_float32, help="and in float32")
    made.add_argument("--loader", type=float, default=default.loader, help="images/s that a CPU core decodes and crops")
    return made


def main(argv: list[str]) -> int:
    """Print the memory plan of training, and hours and GPU memory for training and a million scores on 1, 8 and 64 GPUs."""
    args = parser().parse_args(argv)
    speeds = (args.tflops_bfloat16 * 1e12, args.tflops_float32 * 1e12, args.utilisation, args.utilisation_float32)
    if min(args.batch, args.epochs, args.loader, *speeds) <= 0:
        raise SDDError("--batch, --epochs, --tflops-*, --utilisation* and --loader are numbers above 0")
    preset, a = get_preset(args.preset), Assumptions(*speeds, loader=args.loader)
    model = shapes(args.backbone, args.image_size, preset)[0]
    print(f"{args.backbone} at {args.image_size} px, preset {args.preset} (M {preset.M}, width {preset.width})\n")
    plans = {
        (precision, on): memory_plan(model, args.batch, args.image_size, precision, on)
        for precision in PRECISIONS
        for on in (False, True)
    }
    table = [["precision", "checkpointing", "GB a GPU", "fits 24 GB"]]
    for (precision, on), plan in plans.items():
        table.append([precision, "on" if on else "off", f"{plan.total / GB:.1f}", "yes" if plan.spare(24) >= 0 else "no"])
    print(columns(table, 2), plans[args.precision, args.checkpointing].text(), sep="\n\n", end="\n\n")
    one = plans[args.precision, args.checkpointing]
    train = {g: replace(one, buckets=one.gradients if g > 1 else 0).total for g in GPUS}
    score = dict.fromkeys(GPUS, scoring_memory(model, args.batch, args.image_size))
    costs = count(args.backbone, args.image_size, preset, args.checkpointing)
    print(
        columns(rows(costs, args.epochs, args.precision, {"train": train, "score": score}, a)),
        assumed(a, costs, args),
        sep="\n\n",
    )
    return 0
