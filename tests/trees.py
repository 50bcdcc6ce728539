"""Stand-ins for the public benchmarks on disk: their real folders, two tiny pictures a class."""

from pathlib import Path

import numpy as np
from PIL import Image

from sddlib.benchmarks import PROGAN_20, SYNRIS, UNIVFD

NAMES = ("1.PNG", "0.crop.png")  # upper-case, and with two dots
INSIDE = {"progan": ("car", "cat"), "cyclegan": ("horse", "zebra"), "stylegan": ("bedroom", "car")}  # folders of classes
SIZE = {s.name: 2 * len(INSIDE.get(s.name, "1")) for s in UNIVFD}  # images of a class


def picture(path: Path, size: tuple[int, int] = (12, 10), form: str = "PNG", **options) -> Path:
    """A picture of noise, another one for every path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(list(str(path).encode())).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(noise).save(path, form, **options)
    return path


def both(folder: Path, classes: tuple[str, ...] = ("0_real", "1_fake")) -> None:
    """NAMES in each class of a set."""
    for name in classes:
        for file in NAMES:
            picture(folder / name / file)


def univfd(root: Path, diffusion: str = "test/diffusion_datasets", train: tuple[str, ...] = PROGAN_20) -> Path:
    """All 19 test sets of UnivFD, and ProGAN's train and val."""
    for s in UNIVFD:
        folder = root / diffusion / s.name if s.reals else root / "test" / {"sitd": "seeingdark"}.get(s.name, s.name)
        for inside in INSIDE.get(s.name, ("",)):
            both(folder / inside, ("1_fake",) if s.reals else ("0_real", "1_fake"))
    for reals in ("imagenet", "laion"):
        both(root / diffusion / reals, ("0_real",))
    for split in ("train", "val"):
        for name in train:
            both(root / split / "progan" / name)
    return root


def synris(root: Path) -> Path:
    """The 13 generators of SynRIS."""
    for s in SYNRIS:
        both(root / s.name)
    return root
