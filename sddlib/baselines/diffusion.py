"""A frozen diffusion model under DDIM: how a picture is inverted to noise and made again from it, once a picture.

Inversion runs the deterministic sampler of Song et al. (ICLR 2021) backwards: from a clean picture, level by level, with the
noise that the model sees at the present level. Both ways take the same few levels. DIRE and FakeInversion read what comes
out.
"""

import hashlib
import json
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .. import SDDError
from ..disk import expanded, replaced
from ..embedded import sha256
from ..profiles import ROOT, read_json
from .networks import PARTS, Networks, library, read_file, read_folder

MINI = "data/checkpoints/diffusion-mini.safetensors"  # unconditional, of training photographs; data/make_diffusion.py
LEVELS = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas", "rescale_betas_zero_snr")
LEVELS += ("set_alpha_to_one", "steps_offset", "timestep_spacing", "prediction_type")  # of a scheduler: what inversion needs
TIMES = 10_000  # of a scheduler, the most: a file claims them


def to_signed(crop: Image.Image) -> Tensor:
    """An RGB picture as (3, H, W) in -1..1."""
    return torch.from_numpy(np.array(crop)).permute(2, 0, 1).float() / 127.5 - 1


class Diffusion:
    """A frozen diffusion model, read when it is first asked for a map. No module of the detector that holds it: its weights
    are neither trained nor stored.

    source: a file of data/make_diffusion.py or the folder of a `diffusers` pipeline; relative ones start at the repository.
    steps: levels of inversion and of reconstruction. cache: folder for maps; "" keeps none.
    """

    def __init__(self, source: str, steps: int, cache: str = ""):
        self.source = ROOT / expanded(source)
        self.made = 0  # maps, by this object
        self.steps, self.cache = steps, ROOT / expanded(cache) / f"maps-{self.digest[:12]}-{steps}" if cache else None
        if type(steps) is not int or not 1 <= steps <= 1000:
            raise SDDError(f"{steps!r} DDIM steps are impossible; choose 1 to 1000")

    @cached_property
    def digest(self) -> str:
        """sha256 over all files that determine the networks; a missing model is an error that says what belongs there."""
        index = self.source / "model_index.json" if self.source.is_dir() else self.source.with_suffix(".json")
        if not self.source.exists() or not index.is_file():
            raise SDDError(
                f"there is no diffusion model {self.source}; give the folder of a diffusers pipeline (with model_index.json), "
                f"or {MINI}, which `python data/make_diffusion.py` makes"
            )
        files = [f for part in (*PARTS, "scheduler") for f in sorted((self.source / part).glob("*")) if f.is_file()]
        files = [index, *files] if self.source.is_dir() else [index, self.source]
        known = json.dumps([[f.name, sha256(f)] for f in files])
        return hashlib.sha256(known.encode()).hexdigest()

    @property
    def reads_text(self) -> bool:
        """Whether the model was trained with captions."""
        index = read_json(self.source / "model_index.json") if self.source.is_dir() else {}
        return (index.get("text_encoder") or [None])[0] is not None

    @cached_property
    def networks(self) -> Networks:
        return read_folder(self.source) if self.source.is_dir() else read_file(self.source)

    @cached_property
    def schedulers(self):
        """(DDIM backwards, DDIM forwards) on the levels the model was trained on. Nothing is clipped: that has no inverse."""
        known = {k: v for k, v in self.networks.scheduler.items() if k in LEVELS} | {"clip_sample": False}
        if not self.steps <= known.get("num_train_timesteps", 1000) <= TIMES:
            raise SDDError(f"the scheduler of {self.source} has no number of times from {self.steps} to {TIMES}; mend its JSON")
        try:
            both = [getattr(library("diffusers"), name)(**known) for name in ("DDIMInverseScheduler", "DDIMScheduler")]
            for scheduler in both:
                scheduler.set_timesteps(self.steps)
        except (ValueError, NotImplementedError, TypeError) as e:
            said = " ".join(str(e).split())[:200]
            raise SDDError(
                f"DDIM cannot follow the scheduler of {self.source} ({said}); give a pipeline with another"
            ) from None
        return both

    def check_size(self, side: int) -> None:
        """Refuse a picture that the networks cannot halve as often as they do."""
        nets = [net for net in (self.networks.unet, self.networks.vae) if net is not None]
        multiple = 2 ** sum(len(net.config.block_out_channels) - 1 for net in nets)
        if side % multiple:
            raise SDDError(
                f"the diffusion model needs sides that are multiples of {multiple} px, not {side}; choose an image_size"
            )

    def noise_of(self, z: Tensor, t: int, text: Tensor | None) -> Tensor:
        """What the U-Net predicts of z (B, C, h, w) at time t."""
        told = {} if text is None else {"encoder_hidden_states": text.expand(len(z), -1, -1)}
        return self.networks.unet(z, torch.tensor(t, device=z.device), **told).sample[:, : z.shape[1]]

    def invert(self, z: Tensor, text: Tensor | None = None) -> Tensor:
        """z_0 -> z_T, (B, C, h, w). The model is asked about the level that z has, not the one it goes to."""
        backwards, _ = self.schedulers
        stride = backwards.config.num_train_timesteps // self.steps
        for t in backwards.timesteps.tolist():
            z = backwards.step(self.noise_of(z, max(t - stride, 0), text), t, z).prev_sample
        return z

    def generate(self, z: Tensor, text: Tensor | None = None) -> Tensor:
        """z_T -> z_0, (B, C, h, w), deterministic."""
        _, forwards = self.schedulers
        for t in forwards.timesteps.tolist():
            z = forwards.step(self.noise_of(z, t, text), t, z, eta=0.0).prev_sample
        return z

    def text(self, caption: str) -> Tensor | None:
        """What the U-Net reads of a caption (1, tokens, width), or None if it reads none."""
        _, _, _, encoder, tokenizer = self.networks
        if encoder is None:
            return None
        asked = {"padding": "max_length", "max_length": tokenizer.model_max_length, "truncation": True}
        return encoder(tokenizer([caption], return_tensors="pt", **asked).input_ids.to(encoder.device))[0]

    @torch.no_grad()
    def maps(self, x: Tensor, caption: str = "") -> tuple[Tensor, Tensor]:
        """(noise, reconstruction) of pictures x (B, 3, H, W) in -1..1, both (B, 3, H, W). In a latent diffusion model both
        are decoded by its VAE; the picture is encoded as the mean of its posterior."""
        unet, _, vae, encoder, _ = self.networks
        for net in (unet, vae, encoder):
            if net is not None:
                net.to(x.device)
        self.check_size(x.shape[-1])
        text = self.text(caption)
        z = x if vae is None else vae.encode(x).latent_dist.mean * vae.config.scaling_factor
        noise = self.invert(z, text)
        again = self.generate(noise, text)
        return (
            (noise, again) if vae is None else tuple(vae.decode(m / vae.config.scaling_factor).sample for m in (noise, again))
        )

    def maps_of(self, crop: Image.Image, device, caption: str = "") -> tuple[Tensor, Tensor, Tensor]:
        """(picture in -1..1, noise, reconstruction) of one picture, each (3, H, W), on the CPU. The last two are rounded to
        half precision, as they are kept on the disk, so that a map read and a map made are the same."""
        x = to_signed(crop)
        seen = hashlib.sha256(f"{crop.size} {caption}\n".encode() + crop.tobytes()).hexdigest()[:32]
        file = self.cache / f"{seen}.npy" if self.cache else None
        if file and file.is_file():
            return x, *load_maps(file)
        made = torch.cat(self.maps(x[None].to(device), caption)).cpu().half()
        self.made += 1
        if file:
            self.cache.mkdir(parents=True, exist_ok=True)
            with replaced(file) as part, part.open("wb") as f:
                np.save(f, made.numpy())
        return x, *made.float()


def load_maps(file: Path) -> Tensor:
    """Kept maps (2, 3, H, W) in single precision."""
    try:
        return torch.from_numpy(np.load(file, allow_pickle=False)).float()
    except (OSError, ValueError, EOFError) as e:
        raise SDDError(f"the map {file} is broken ({e}); delete it, and it is made again") from None
