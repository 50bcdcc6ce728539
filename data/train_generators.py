"""Train the generators made here: `python data/train_generators.py vae_f4 diffusion_x4 --work DIR`.

They see the downscaled training photographs and nothing else. Seeded, resumable (a checkpoint every 500 steps), one
thread; about 10 minutes a network on one core. Weights land in `generators/` in half precision.
"""

import argparse
import copy
import math
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import crops  # noqa: E402
import sources  # noqa: E402
import trained  # noqa: E402

STEPS = {"vae_f4": 3000, "diffusion_x4": 2500}
PATCH, BATCH, RATE, SEED = 64, 12, 4e-4, 7
KL, GRADIENT, ADVERSARIAL = 1e-6, 1.0, 0.02


def load_photographs(debs, work):
    """Training photographs, downscaled, as (H,W,3) uint8 arrays; no other split is opened."""
    rows = crops.read_photos()
    splits = crops.split_photos(rows)
    photographs = sources.Photographs(debs, work)
    return [crops.downscale(photographs.open(row)) for row in rows if splits[row["photo"]] == "train"]


def batch(arrays, rng, size=PATCH, count=BATCH):
    """(count,3,size,size) random patches in -1..1, flipped at random."""
    patches = []
    for _ in range(count):
        array = arrays[rng.integers(len(arrays))]
        y, x = rng.integers(array.shape[0] - size + 1), rng.integers(array.shape[1] - size + 1)
        patch = array[y : y + size, x : x + size]
        patches.append(patch[:, ::-1] if rng.random() < 0.5 else patch)
    return torch.from_numpy(np.stack(patches)).permute(0, 3, 1, 2).float() / 127.5 - 1


def patch_critic(width=32):
    """A small patch discriminator: (B,3,H,W) -> (B,1,H/4,W/4)."""
    return nn.Sequential(
        nn.Conv2d(3, width, 4, 2, 1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(width, 2 * width, 4, 2, 1),
        nn.GroupNorm(8, 2 * width),
        nn.LeakyReLU(0.2),
        nn.Conv2d(2 * width, 2 * width, 3, 1, 1),
        nn.GroupNorm(8, 2 * width),
        nn.LeakyReLU(0.2),
        nn.Conv2d(2 * width, 1, 3, 1, 1),
    )


def steps_of(x):
    """Horizontal and vertical neighbour differences."""
    return x[..., 1:] - x[..., :-1], x[..., 1:, :] - x[..., :-1, :]


class VAETask:
    """L1 + gradients + a little KL, and a patch critic (hinge) in the second half, so that the result is not just blur."""

    def __init__(self, model, total):
        self.model, self.total, self.critic = model, total, patch_critic()
        self.critic_opt = torch.optim.Adam(self.critic.parameters(), lr=RATE, betas=(0.5, 0.9))

    def loss(self, x, step):
        out, mean, logvar = self.model(x, torch.randn_like(self.model.encode(x)[0]))
        kl = 0.5 * (mean**2 + logvar.exp() - 1 - logvar).mean()
        edges = sum(F.l1_loss(a, b) for a, b in zip(steps_of(out), steps_of(x), strict=True))
        loss = F.l1_loss(out, x) + GRADIENT * edges + KL * kl
        if step > self.total // 3:
            critic_loss = F.relu(1 - self.critic(x)).mean() + F.relu(1 + self.critic(out.detach())).mean()
            self.critic_opt.zero_grad()
            critic_loss.backward()
            self.critic_opt.step()
            if step > self.total // 2:
                loss = loss - ADVERSARIAL * self.critic(out).mean()
        return loss

    def state(self):
        return {"critic": self.critic.state_dict(), "critic_opt": self.critic_opt.state_dict()}

    def restore(self, state):
        self.critic.load_state_dict(state["critic"])
        self.critic_opt.load_state_dict(state["critic_opt"])


class DiffusionTask:
    """v-prediction of the noisy residual between a patch and the bicubic upsampling of its quarter-size version."""

    def __init__(self, model, total):
        self.model = model

    def loss(self, x, step):
        low = F.interpolate(x, scale_factor=0.25, mode="bicubic", antialias=True, align_corners=False)
        condition = trained.upsample(low)
        x0 = (x - condition) / trained.RESIDUAL
        t = torch.rand(len(x))
        alpha, sigma = (s[:, None, None, None] for s in trained.signal(t))
        noise = torch.randn_like(x0)
        v = self.model(alpha * x0 + sigma * noise, condition, t)
        return F.mse_loss(v, alpha * noise - sigma * x0)

    def state(self):
        return {}

    def restore(self, state):
        pass


def train(name, arrays, folder, steps):
    """Train one network, keep a running average of its weights, save it; resumes from `folder`/name.pt."""
    torch.manual_seed(SEED)
    model = trained.build(name)
    task = (VAETask if name in trained.VAES else DiffusionTask)(model, steps)
    average, optimiser = copy.deepcopy(model), torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=1e-4)
    checkpoint, start = folder / f"{name}.pt", 0
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        start = saved["step"]
        for part, key in ((model, "model"), (average, "average"), (optimiser, "optimiser"), (task, "task")):
            (part.restore if part is task else part.load_state_dict)(saved[key])
    began, shown = time.time(), 0.0
    for step in range(start, steps):
        rng = np.random.default_rng((SEED, step))
        torch.manual_seed(SEED * 1_000_003 + step)
        for group in optimiser.param_groups:
            group["lr"] = RATE * min(1.0, (step + 1) / 200) * max(0.05, 0.5 * (1 + math.cos(math.pi * step / steps)))
        loss = task.loss(batch(arrays, rng), step)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        with torch.no_grad():
            keep = min(0.998, (step + 1) / (step + 10))
            for slow, fast in zip(average.parameters(), model.parameters(), strict=True):
                slow.lerp_(fast, 1 - keep)
        shown = 0.98 * shown + 0.02 * loss.item() if step > start else loss.item()
        if (step + 1) % 100 == 0:
            pace = (time.time() - began) / (step + 1 - start)
            print(f"{name} step {step + 1}/{steps} loss {shown:.4f} {pace:.2f} s/step", flush=True)
        if (step + 1) % 500 == 0 or step + 1 == steps:
            torch.save(
                {
                    "step": step + 1,
                    "model": model.state_dict(),
                    "average": average.state_dict(),
                    "optimiser": optimiser.state_dict(),
                    "task": task.state(),
                },
                checkpoint,
            )
    return average


def main(argv=None):
    """Command line."""
    from safetensors.torch import save_file

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="+", choices=sorted(STEPS))
    parser.add_argument("--work", type=Path, required=True, help="scratch folder (packages, checkpoints)")
    parser.add_argument("--debs", type=Path, help="folder with the Debian packages (default: WORK/debs, fetched)")
    parser.add_argument("--out", type=Path, default=trained.WEIGHTS)
    parser.add_argument("--steps", type=int, help="instead of the shipped number of steps")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    args.work.mkdir(parents=True, exist_ok=True)
    args.out.mkdir(parents=True, exist_ok=True)
    arrays = load_photographs(args.debs or args.work / "debs", args.work)
    for name in args.networks:
        model = train(name, arrays, args.work, args.steps or STEPS[name])
        weights = {key: value.half().contiguous() for key, value in model.state_dict().items()}
        save_file(weights, args.out / f"{name}.safetensors")
        print(f"{args.out / name}.safetensors written", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
