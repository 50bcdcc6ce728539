"""The generators trained here, on the training photographs only: a small VAE and a small diffusion model, two settings each.

Weights are half-precision safetensors in `generators/`; `train_generators.py` makes them. All values are in -1..1.
"""

import hashlib
import math
from pathlib import Path

import numpy as np
from crops import MARGIN
from generators import centre, shrink

WEIGHTS = Path(__file__).parent / "generators"
FILES = {"vae_f4": "vae_f4", "vae_f4_twice": "vae_f4", "diffusion_ddim20": "diffusion_x4", "diffusion_ddpm50": "diffusion_x4"}
SAMPLERS = {"diffusion_ddim20": (20, 0.0), "diffusion_ddpm50": (50, 1.0)}  # steps, eta (0: DDIM, 1: ancestral)
RESIDUAL = 0.18  # spread of (picture - bicubic upsampling); the diffusion model works on the residual over this
TRIPS = {"vae_f4": 1, "vae_f4_twice": 2}  # times the picture goes through encoder and decoder (posterior mean)
VAES = {"vae_f4": (4, 4)}  # weight file: downscaling factor, latent channels

try:
    import torch
    from torch import nn
    from torch.nn import functional as F
except ImportError as error:
    raise ImportError("the generators trained here need torch and safetensors: install the project first") from error


class Block(nn.Module):
    """Residual block GroupNorm-SiLU-conv twice; with `time` channels it is shifted by a time embedding in between."""

    def __init__(self, width, time=0):
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(8, width), nn.GroupNorm(8, width)
        self.conv1, self.conv2 = nn.Conv2d(width, width, 3, padding=1), nn.Conv2d(width, width, 3, padding=1)
        self.time = nn.Linear(time, width) if time else None

    def forward(self, x, t=None):
        h = self.conv1(F.silu(self.norm1(x)))
        if self.time is not None:
            h = h + self.time(t)[:, :, None, None]
        return x + self.conv2(F.silu(self.norm2(h)))


class VAE(nn.Module):
    """Convolutional VAE: picture (B,3,H,W) -> posterior mean and log variance (B,C,H/f,W/f) -> picture."""

    def __init__(self, factor, latent, width=48):
        super().__init__()
        down, up = [nn.PixelUnshuffle(2), nn.Conv2d(12, width, 3, padding=1), Block(width)], []
        channels = width
        for _ in range(int(math.log2(factor)) - 1):
            down += [nn.Conv2d(channels, 2 * width, 4, stride=2, padding=1), Block(2 * width)]
            up = [nn.Upsample(scale_factor=2), nn.Conv2d(2 * width, channels, 3, padding=1), Block(channels), *up]
            channels = 2 * width
        self.encoder = nn.Sequential(*down, nn.GroupNorm(8, channels), nn.SiLU(), nn.Conv2d(channels, 2 * latent, 3, padding=1))
        self.decoder = nn.Sequential(
            nn.Conv2d(latent, channels, 3, padding=1),
            Block(channels),
            *up,
            Block(width),
            nn.GroupNorm(8, width),
            nn.SiLU(),
            nn.Conv2d(width, 12, 3, padding=1),
            nn.PixelShuffle(2),
        )

    def encode(self, x):
        """Posterior mean and log variance."""
        mean, logvar = self.encoder(x).chunk(2, dim=1)
        return mean, logvar.clamp(-12, 4)

    def forward(self, x, noise=None):
        """Reconstruction from the posterior mean, or from mean + std * noise."""
        mean, logvar = self.encode(x)
        z = mean if noise is None else mean + noise * torch.exp(0.5 * logvar)
        return self.decoder(z), mean, logvar


class Denoiser(nn.Module):
    """U-Net predicting v from a noisy residual (B,3,H,W), the upsampled picture (B,3,H,W) and t in 0..1 (B,)."""

    def __init__(self, width=48, time=96):
        super().__init__()
        self.time = nn.Sequential(nn.Linear(64, time), nn.SiLU(), nn.Linear(time, time), nn.SiLU())
        self.stem = nn.Conv2d(24, width, 3, padding=1)
        widths = (width, 2 * width, 2 * width)
        self.down = nn.ModuleList(Block(w, time) for w in widths)
        self.shrink = nn.ModuleList(nn.Conv2d(a, b, 4, stride=2, padding=1) for a, b in zip(widths, widths[1:], strict=False))
        self.middle = Block(widths[-1], time)
        self.merge = nn.ModuleList(nn.Conv2d(2 * w, w, 1) for w in widths)
        self.up = nn.ModuleList(Block(w, time) for w in widths)
        self.grow = nn.ModuleList(nn.Conv2d(b, a, 3, padding=1) for a, b in zip(widths, widths[1:], strict=False))
        self.head = nn.Sequential(nn.GroupNorm(8, width), nn.SiLU(), nn.Conv2d(width, 12, 3, padding=1), nn.PixelShuffle(2))

    def forward(self, x, condition, t):
        angles = t[:, None] * torch.exp(torch.linspace(0, math.log(1000.0), 32, device=t.device))[None]
        t = self.time(torch.cat([angles.sin(), angles.cos()], dim=1))
        h = self.stem(F.pixel_unshuffle(torch.cat([x, condition], dim=1), 2))
        skips = []
        for level, block in enumerate(self.down):
            h = block(h, t)
            skips.append(h)
            if level < len(self.shrink):
                h = self.shrink[level](h)
        h = self.middle(h, t)
        for level in reversed(range(len(self.up))):
            h = self.up[level](self.merge[level](torch.cat([h, skips[level]], dim=1)), t)
            if level:
                h = self.grow[level - 1](F.interpolate(h, scale_factor=2.0))
        return self.head(h)


def signal(t):
    """Cosine schedule: (alpha, sigma) at t in 0..1, alpha^2 + sigma^2 = 1."""
    angle = t * (math.pi / 2) * 0.995
    return torch.cos(angle), torch.sin(angle)


def upsample(low):
    """Bicubic x4 of a batch (B,3,h,w)."""
    return F.interpolate(low, scale_factor=4.0, mode="bicubic", align_corners=False)


@torch.no_grad()
def sample(model, low, steps, eta, generator):
    """A picture (1,3,4h,4w) drawn for a small one (1,3,h,w): `steps` DDIM steps with stochasticity `eta`."""
    condition = upsample(low)
    x = torch.randn(condition.shape, generator=generator)
    times = torch.linspace(1.0, 0.0, steps + 1)
    for now, then in zip(times[:-1], times[1:], strict=True):
        alpha, sigma = signal(now)
        alpha_next, sigma_next = signal(then)
        v = model(x, condition, now.repeat(len(x)))
        x0 = (alpha * x - sigma * v).clamp(-1.0 / RESIDUAL, 1.0 / RESIDUAL)
        noise = (x - alpha * x0) / sigma
        extra = eta * (sigma_next / sigma) * torch.sqrt((1 - (alpha / alpha_next) ** 2).clamp_min(0))
        x = alpha_next * x0 + torch.sqrt((sigma_next**2 - extra**2).clamp_min(0)) * noise
        if extra > 0:
            x = x + extra * torch.randn(x.shape, generator=generator)
    return condition + RESIDUAL * x


def build(file):
    """The untrained module behind a weight file."""
    return VAE(*VAES[file]) if file in VAES else Denoiser()


class TrainedGenerator:
    """One setting of a network trained here; call it with a (192,192,3) uint8 patch for the (128,128,3) crop."""

    def __init__(self, name, threads=1, folder=WEIGHTS):
        from safetensors.torch import load_file

        path = Path(folder) / f"{FILES[name]}.safetensors"
        if not path.exists():
            raise FileNotFoundError(f"{path} is missing; restore it from git or run train_generators.py {FILES[name]}")
        torch.set_num_threads(threads)
        self.name, self.model = name, build(FILES[name]).eval()
        self.model.load_state_dict({key: value.float() for key, value in load_file(path).items()})

    @torch.no_grad()
    def __call__(self, patch):
        if self.name in SAMPLERS:
            half = MARGIN // 2  # less context, a third fewer pixels to denoise
            patch = np.ascontiguousarray(patch[half:-half, half:-half])
            seed = int.from_bytes(hashlib.sha256(patch.tobytes()).digest()[:6], "big")  # every crop draws its own noise
            out = sample(self.model, tensor(shrink(patch, 4)), *SAMPLERS[self.name], torch.Generator().manual_seed(seed))
            margin = half
        else:
            out, margin = tensor(patch), MARGIN
            for _ in range(TRIPS[self.name]):
                out = self.model(out)[0].clamp(-1, 1)
        array = ((out[0].clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(1, 2, 0).numpy()
        return centre(array, margin)


def tensor(image):
    """(H,W,3) uint8 -> (1,3,H,W) in -1..1."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 127.5 - 1
