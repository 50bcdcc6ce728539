"""What happens to pictures on their way: blur and JPEG as training augmentation (CNNSpot, UnivFD), and with WebP and resizing
for robustness. Every change is a function of the picture and one number, without chance."""

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

from . import SDDError


def blur(picture: Image.Image, sigma: float) -> Image.Image:
    """Gaussian blur with a standard deviation of sigma pixels; 0 leaves the picture as it is."""
    return picture.filter(ImageFilter.GaussianBlur(sigma)) if sigma > 0 else picture


def jpeg(picture: Image.Image, quality: int) -> Image.Image:
    """The picture after one JPEG round trip at `quality` (1 to 100, 4:2:0 as most writers do)."""
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality)
    return Image.open(file).convert("RGB")


def webp(picture: Image.Image, quality: int) -> Image.Image:
    """The picture after one lossy WebP round trip at `quality` (0 to 100)."""
    file = io.BytesIO()
    picture.save(file, "WEBP", quality=quality)
    return Image.open(file).convert("RGB")


def resize(picture: Image.Image, factor: float) -> Image.Image:
    """Both sides times `factor`, bicubic, and averaged over the pixels that fall together where it shrinks."""
    return picture.resize(tuple(max(1, round(side * factor)) for side in picture.size), Image.BICUBIC)


CHANGES = {"jpeg": jpeg, "webp": webp, "blur": blur, "resize": resize}


@dataclass(frozen=True)
class Perturbation:
    """A named chain of changes, made one after the other: steps are (one of CHANGES, its number). It can be pickled."""

    name: str
    steps: tuple[tuple[str, float], ...]

    def __post_init__(self):
        if unknown := [what for what, _ in self.steps if what not in CHANGES]:
            raise SDDError(f"perturbation {self.name}: there is no {unknown[0]!r}; there are {', '.join(CHANGES)}")

    def __call__(self, picture: Image.Image) -> Image.Image:
        for what, strength in self.steps:
            try:
                picture = CHANGES[what](picture, strength)
            except (OSError, ValueError) as e:  # a side above what the format can hold, for one
                raise SDDError(f"{what} {strength:g} cannot be done to {picture.width}x{picture.height} pixels: {e}") from None
        return picture


@dataclass(frozen=True)
class Augment:
    """Random blur, then random JPEG, on both classes alike (Wang 2020, Ojha 2023). Probabilities of zero: none.

    blur_prob, jpeg_prob: share of pictures; blur_sigma: sigma is uniform in [0, blur_sigma] pixels; jpeg_low: quality is
    uniform in [jpeg_low, 100].
    """

    blur_prob: float = 0.0
    blur_sigma: float = 3.0
    jpeg_prob: float = 0.0
    jpeg_low: int = 30

    def __post_init__(self):
        if not (0 <= self.blur_prob <= 1 and 0 <= self.jpeg_prob <= 1 and self.blur_sigma >= 0 and 1 <= self.jpeg_low <= 100):
            raise SDDError(f"{self} is impossible; probabilities lie in 0..1, sigma is not negative, quality lies in 1..100")

    def __call__(self, picture: Image.Image, rng: np.random.Generator) -> Image.Image:
        """Four draws whatever is applied, so that one setting does not shift the randomness of another. A picture that is
        spared comes back as the same object."""
        blurred, sigma, compressed, quality = rng.random(4).tolist()
        if blurred < self.blur_prob:
            picture = blur(picture, sigma * self.blur_sigma)
        if compressed < self.jpeg_prob:
            picture = jpeg(picture, round(self.jpeg_low + quality * (100 - self.jpeg_low)))
        return picture
