"""From a file to an RGB picture, or one sentence that says why not. Light: worker processes import it without torch."""

import io
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from . import SDDError

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"}
MAX_ASPECT = 100  # of a picture's sides: a longer strip is no picture, and enlarging its short side would fill the memory


@contextmanager
def one_sentence() -> Iterator[None]:
    """Whatever the system or Pillow raises inside becomes an SDDError of one sentence, without the file's name."""
    try:
        yield
    except FileNotFoundError:
        raise SDDError("no such file") from None
    except SDDError:
        raise
    except UnidentifiedImageError:
        raise SDDError("not an image file that can be read") from None
    except Exception as e:  # Pillow's plugins raise whatever a broken header leads them to
        raise SDDError(f"cannot be decoded: {' '.join(str(e).split()) or type(e).__name__}") from None


def check_regular(path: str | Path) -> None:
    """Refuse a pipe or a device, which would be waited for."""
    if not (stat.S_ISREG(mode := os.stat(path).st_mode) or stat.S_ISDIR(mode)):
        raise SDDError("no regular file")


def open_image(path: str | Path) -> tuple[Image.Image, str, tuple[int, int]]:
    """(RGB picture, container format, (width, height) as stored). EXIF rotation is applied once; alpha lies on white.

    (Of a turned TIFF, PIL gives width and height as shown.) Raises SDDError with one sentence for anything that is not a
    readable image.
    """
    with one_sentence():
        check_regular(path)
        return _read(path)


def open_content(content: bytes) -> tuple[Image.Image, str, tuple[int, int]]:
    """As `open_image`, of a file's content that lies in memory."""
    with one_sentence():
        return _read(io.BytesIO(content))


def _read(file: str | Path | io.BytesIO) -> tuple[Image.Image, str, tuple[int, int]]:
    with Image.open(file) as raw:
        form, size = raw.format, raw.size
        return to_rgb(raw), form, size


def to_rgb(picture: Image.Image) -> Image.Image:
    """An 8-bit RGB copy of any picture, upright, on white. 16-bit greys keep their high byte: PIL alone would clip them."""
    if min(picture.size) < 1 or max(picture.size) > MAX_ASPECT * min(picture.size):
        raise SDDError(f"{picture.width}x{picture.height} pixels are a strip and no picture; cut it first")
    picture = ImageOps.exif_transpose(picture)
    if picture.mode == "F":
        raise SDDError("floating-point pixels have no known range, save it with 8 or 16 bits")
    if picture.mode.startswith("I"):
        grey = np.asarray(picture)
        if grey.min() < 0 or grey.max() > 65535:
            raise SDDError("pixels need more than 16 bits, save it with 8 or 16")
        picture = Image.fromarray((grey >> 8).astype(np.uint8))
    if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture.convert("RGBA"))
    return picture.convert("RGB")


def decode(path: str | Path) -> Image.Image:
    """The picture in RGB; errors as `open_image`, with the file's name."""
    try:
        return open_image(path)[0]
    except SDDError as e:
        raise SDDError(f"image {path}: {e}") from None
