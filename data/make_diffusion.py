"""The diffusion model of the baselines DIRE and FakeInversion: `python data/make_diffusion.py --work DIR`.

An unconditional `diffusers` UNet2DModel that sees random squares of the training photographs, and nothing else: it is none of
the generators, and another network than the diffusion model behind the test sets. Seeded, one thread, about 25 minutes; goes
on where it was stopped. Writes checkpoints/diffusion-mini.safetensors (half precision) and .json.
"""

import argparse
import copy
import math
import sys
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from sddlib import SDDError, __version__  # noqa: E402
from sddlib.data import data_hash, decode, read_manifest  # noqa: E402
from sddlib.disk import replaced  # noqa: E402
from sddlib.embedded import sha256  # noqa: E402
from sddlib.runs import write_json  # noqa: E402

WIDTHS = (32, 64, 96, 128)
UNET = {
    "sample_size": 64,
    "block_out_channels": WIDTHS,
    "down_block_types": ("DownBlock2D",) * len(WIDTHS),
    "up_block_types": ("UpBlock2D",) * len(WIDTHS),
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "add_attention": False,
}
SCHEDULER = {"beta_schedule": "squaredcos_cap_v2", "prediction_type": "v_prediction", "clip_sample": False}
SIDES = (32, 96)  # of the squares in the photographs, in pixels; they are brought to one of:
LOOKS = ((32, 16), (32, 16), (32, 16), (64, 4))  # (side, pictures) of a step, in turn
STEPS, RATE, WARM, KEEP, SEED = 3000, 5e-4, 100, 0.997, 31
SAVE = 250  # steps between states


def squares(pictures: list[Image.Image], side: int, count: int, seed: tuple[int, ...]) -> Tensor:
    """(count, 3, side, side) random squares in -1..1, flipped at random, the same for a seed."""
    rng, found = np.random.default_rng(seed), []
    for _ in range(count):
        picture = pictures[rng.integers(len(pictures))]
        cut = int(rng.integers(max(side, SIDES[0]), SIDES[1] + 1))
        x, y = (int(rng.integers(room - cut + 1)) for room in picture.size)
        pixels = np.asarray(picture.crop((x, y, x + cut, y + cut)).resize((side, side), Image.LANCZOS))
        found.append(pixels[:, ::-1] if rng.random() < 0.5 else pixels)
    return torch.from_numpy(np.stack(found)).permute(0, 3, 1, 2).float() / 127.5 - 1


def loss(unet: nn.Module, scheduler, x: Tensor, seed: int) -> Tensor:
    """Mean squared error of v at random times; times and noise come from the seed."""
    g = torch.Generator().manual_seed(seed)
    t = torch.randint(scheduler.config.num_train_timesteps, (len(x),), generator=g)
    noise = torch.randn(x.shape, generator=g)
    v = unet(scheduler.add_noise(x, noise, t), t).sample
    return F.mse_loss(v, scheduler.get_velocity(x, noise, t))


@torch.no_grad()
def validation_loss(unet: nn.Module, scheduler, pictures: list[Image.Image]) -> float:
    """The loss on 256 squares of 32 px of other photographs, always the same ones."""
    batches = [squares(pictures, 32, 64, (SEED, 1, k)) for k in range(4)]
    return float(np.mean([loss(unet, scheduler, x, k).item() for k, x in enumerate(batches)]))


def train(pictures: list[Image.Image], val: list[Image.Image], folder: Path, steps: int) -> tuple[nn.Module, list[dict]]:
    """(running average of the weights, history), from where FOLDER/diffusion-mini.pt had come to."""
    from diffusers import DDIMScheduler, UNet2DModel  # slow to import

    torch.manual_seed(SEED)
    unet, scheduler = UNet2DModel(**UNET), DDIMScheduler(**SCHEDULER)
    average, optimiser = copy.deepcopy(unet), torch.optim.AdamW(unet.parameters(), lr=RATE, weight_decay=1e-4)
    parts, state, start, history = (
        {"unet": unet, "average": average, "optimiser": optimiser},
        folder / "diffusion-mini.pt",
        0,
        [],
    )
    if state.exists():
        saved = torch.load(state, weights_only=True)
        start, history = saved["step"], saved["history"]
        for name, part in parts.items():
            part.load_state_dict(saved[name])
    began, shown = time.process_time(), []
    for step in range(start, steps):
        side, count = LOOKS[step % len(LOOKS)]
        rate = RATE * min(1.0, (step + 1) / WARM) * max(0.02, 0.5 * (1 + math.cos(math.pi * step / steps)))
        for group in optimiser.param_groups:
            group["lr"] = rate
        value = loss(unet, scheduler, squares(pictures, side, count, (SEED, 0, step)), SEED * 1_000_003 + step)
        optimiser.zero_grad()
        value.backward()
        nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
        optimiser.step()
        with torch.no_grad():
            keep = min(KEEP, (step + 1) / (step + 10))
            for slow, fast in zip(average.parameters(), unet.parameters(), strict=True):
                slow.lerp_(fast, 1 - keep)
        shown.append(value.item())
        if (step + 1) % SAVE == 0 or step + 1 == steps:
            held = validation_loss(average, scheduler, val)
            history.append({"step": step + 1, "loss": float(np.mean(shown)), "val_loss": held})
            pace = (time.process_time() - began) / (step + 1 - start)
            print(f"step {step + 1}/{steps} loss {history[-1]['loss']:.4f} val {held:.4f} {pace:.2f} CPU s/step", flush=True)
            shown = []
            with replaced(state) as part:
                whole = {name: p.state_dict() for name, p in parts.items()}
                torch.save({"step": step + 1, "history": history, **whole}, part)
    return average, history


def ship(average: nn.Module, facts: dict, target: Path) -> None:
    """Write `target` in half precision and its JSON."""
    from safetensors.torch import save_file

    with replaced(target) as part:
        save_file({k: v.half().contiguous() for k, v in average.state_dict().items()}, part)
        part.chmod(0o644)
    write_json(target.with_suffix(".json"), {**facts, "sha256": sha256(target), "version": __version__})


def main(argv=None):
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="scratch folder for the state")
    parser.add_argument("--steps", type=int, default=STEPS, help=f"instead of the shipped {STEPS}")
    parser.add_argument("--to", type=Path, default=HERE / "checkpoints" / "diffusion-mini.safetensors", help="file to write")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    args.work.mkdir(parents=True, exist_ok=True)
    try:
        photographs = [s for s in read_manifest(HERE / "manifest.csv", ("train", "val")) if not s.label]
        seen = [s for s in photographs if s.split == "train"]
        val = [decode(s.path) for s in photographs if s.split == "val"]
        average, history = train([decode(s.path) for s in seen], val, args.work, args.steps)
        facts = {"kind": "diffusion", "unet": UNET, "scheduler": SCHEDULER, "seed": SEED, "steps": history[-1]["step"]}
        facts |= {"history": history, "data": data_hash(seen), "manifest": "data/manifest.csv", "squares": SIDES}
        facts |= {"seen": "train photographs (label 0)", "images": len(seen), "photos": len({s.photo for s in seen})}
        ship(average, facts, args.to)
    except (SDDError, ImportError) as error:
        print(f"make_diffusion: {error}", file=sys.stderr)
        return 2
    print(f"{args.to}: {args.to.stat().st_size / 1e6:.1f} MB, validation loss {history[-1]['val_loss']:.4f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
