"""The diffusion model that DIRE and FakeInversion look through: what it has seen, and that its training goes on."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from sddlib.data import data_hash, read_manifest
from sddlib.embedded import sha256

DATA = Path(__file__).resolve().parents[1] / "data"
sys.path.insert(0, str(DATA))

import make_diffusion  # noqa: E402

SHIPPED = DATA / "checkpoints" / "diffusion-mini.safetensors"


@pytest.fixture
def pictures() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (100, 128, 3), np.uint8)) for _ in range(2)]


@pytest.fixture
def small(monkeypatch):
    """The script with a network of two narrow levels, a state every two steps and little to validate on."""
    blocks = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2}
    network = {**make_diffusion.UNET, **blocks, "block_out_channels": (8, 16), "norm_num_groups": 4}
    for name, value in {"UNET": network, "SAVE": 2, "LOOKS": ((32, 2), (64, 1))}.items():
        monkeypatch.setattr(make_diffusion, name, value)
    monkeypatch.setattr(make_diffusion, "validation_loss", lambda *_: 0.5)
    return monkeypatch


def folder(tmp_path: Path, name: str) -> Path:
    (tmp_path / name).mkdir(exist_ok=True)
    return tmp_path / name


def test_squares_are_flipped_or_not_parts_of_a_picture_and_the_same_for_a_seed():
    columns = Image.fromarray(np.tile(np.arange(128, dtype=np.uint8)[None, :, None] * 2, (128, 1, 3)))
    found = make_diffusion.squares([columns], 32, 64, (1, 2))
    assert found.shape == (64, 3, 32, 32) and found.min() >= -1 and found.max() <= 1
    assert torch.equal(found, make_diffusion.squares([columns], 32, 64, (1, 2)))
    assert not torch.equal(found, make_diffusion.squares([columns], 32, 64, (1, 3)))
    rise = (found[..., 16] - found[..., 15]).mean((1, 2)) * 127.5  # grey levels a pixel: 2 at full size, 6 at a third
    assert {float(s) for s in rise.sign()} == {-1.0, 1.0}
    assert 1.9 <= rise.abs().min() < 3 and 4 < rise.abs().max() <= 6.2


def test_a_training_that_was_stopped_goes_on_to_the_same_weights(small, pictures, tmp_path):
    whole, history = make_diffusion.train(pictures, pictures, folder(tmp_path, "a"), 4)
    seen, loss = [], make_diffusion.loss

    def stops(unet, scheduler, x, seed):
        seen.append(seed)
        if len(seen) == 4:
            raise KeyboardInterrupt
        return loss(unet, scheduler, x, seed)

    small.setattr(make_diffusion, "loss", stops)
    with pytest.raises(KeyboardInterrupt):
        make_diffusion.train(pictures, pictures, folder(tmp_path, "b"), 4)
    again, told = make_diffusion.train(pictures, pictures, folder(tmp_path, "b"), 4)
    assert seen[4:] == seen[2:3] + [seen[3]]  # from the state after two steps
    assert told == history
    assert all(torch.equal(a, b) for a, b in zip(whole.state_dict().values(), again.state_dict().values(), strict=True))


def test_the_loss_is_that_of_v():
    """A model that knows picture and noise has none."""
    from diffusers import DDIMScheduler

    scheduler, x = DDIMScheduler(**make_diffusion.SCHEDULER), torch.randn(2, 3, 8, 8)

    def knows(noisy, t):
        level = scheduler.alphas_cumprod[t].view(-1, 1, 1, 1)
        noise = (noisy - level.sqrt() * x) / (1 - level).sqrt()
        return type("Answer", (), {"sample": level.sqrt() * noise - (1 - level).sqrt() * x})

    assert make_diffusion.loss(knows, scheduler, x, 1) < 1e-6
    assert make_diffusion.loss(lambda *_: type("Answer", (), {"sample": torch.zeros_like(x)}), scheduler, x, 1) > 0.5


def test_the_shipped_model_says_what_it_saw_training_photographs_alone():
    about = json.loads(SHIPPED.with_suffix(".json").read_text())
    seen = [s for s in read_manifest(DATA / "manifest.csv", ("train",)) if not s.label]
    assert about["data"] == data_hash(seen) and about["images"] == len(seen) == 306
    assert about["sha256"] == sha256(SHIPPED) and SHIPPED.stat().st_size < 8e6
    assert about["history"][-1]["step"] == about["steps"]


def test_the_shipped_model_is_not_the_one_that_made_test_images():
    ours, theirs = (set(load_file(f).values()) for f in (SHIPPED, DATA / "generators" / "diffusion_x4.safetensors"))
    sizes = [sum(v.numel() for v in found) for found in (ours, theirs)]
    assert 2e6 < sizes[0] < 6e6 and sizes[0] != sizes[1]
    begins = [{tuple(v.flatten()[:8].tolist()) for v in found if v.ndim == 4} for found in (ours, theirs)]
    assert not begins[0] & begins[1]
