"""From a file to an RGB picture, or one sentence that says why not. Light: worker processes import it without torch.

What happens to which file (whatever is refused is a row with its reason, and the rest goes on):

JPEG, PNG, WebP, BMP, TIFF, GIF   decoded, whatever the name says, by those decoders alone
turned by EXIF                    turned upright, once
animated, of several pages        the first picture
CMYK, grey, palette, 1 bit        as the file says, in RGB
16 bits                           the high byte; more bits or floating point are refused
transparent                       on white
with a colour profile             the profile is not read (CLIP's own preprocessing does not either): numbers stay numbers
cut short, broken, empty          refused
other formats, text               refused
more than MAX_PIXELS              refused before a pixel is decoded, whatever Pillow's own limit is set to
files of more than MAX_BYTES      refused before they are read
longer than MAX_ASPECT times      refused
JPEG of more than MAX_SCANS scans refused before a pixel is decoded
pipes, devices, broken links      refused, and not waited for
"""

import io
import logging
import os
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from . import SDDError
from .columns import printable

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"}
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")  # no other decoder is asked: that of EPS would start a program
MAX_PIXELS = 120_000_000  # more than any phone but the largest has; up to 16 bytes are held for each, 2 GB
MAX_SCANS = 100  # of a progressive JPEG; encoders write about ten
MAX_BYTES = 2**30  # some decoders read a file whole
MAX_ASPECT = 100  # of a picture's sides: a longer strip is no picture, and enlarging its short side would fill the memory
LONGEST = 200  # characters of a sentence that others wrote
TURNS = dict(zip(range(2, 9), (0, 3, 1, 5, 4, 6, 2), strict=True))  # EXIF orientation -> Image.Transpose that undoes it
logging.getLogger("PIL").addHandler(logging.NullHandler())  # else it writes some of its reasons to stderr too


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
    except Image.DecompressionBombError as e:  # Pillow's own limit comes first for what is far above ours
        raise SDDError(f"too many pixels: {plain(e)}") from None
    except Exception as e:  # Pillow's plugins raise whatever a broken header leads them to
        if isinstance(e, OSError) and e.strerror:  # of the system: its text alone holds no path
            raise SDDError(f"cannot be opened: {e.strerror}") from None
        raise SDDError(f"cannot be decoded: {plain(e)}") from None


def plain(error: Exception) -> str:
    """What an error says, on one line that does nothing to a terminal."""
    said = " ".join(str(error).split()) or type(error).__name__
    return printable(said)[:LONGEST]


def check_regular(path: str | Path) -> None:
    """Refuse a pipe or a device, which would be waited for, and a file that is too large to be read whole."""
    found = os.stat(path)
    if not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
        raise SDDError("no regular file")
    if found.st_size > MAX_BYTES:
        raise SDDError(f"a file of {found.st_size / 2**20:.0f} MiB is too large, at most {MAX_BYTES // 2**20} are read")


def check_sides(size: tuple[int, int]) -> None:
    """Refuse a picture by its width and height alone."""
    w, h = size
    if min(size) < 1 or max(size) > MAX_ASPECT * min(size):
        raise SDDError(f"{w}x{h} pixels are a strip and no picture; cut it first")
    if w * h > MAX_PIXELS:
        raise SDDError(f"too many pixels: {w}x{h} are more than {MAX_PIXELS // 10**6} million; make it smaller first")


@contextmanager
def opened(file: str | Path | io.BytesIO) -> Iterator[Image.Image]:
    """An image file of one of FORMATS, its header read and its pixels not. Pillow's warnings, of a large picture or an odd
    tag, are not heard."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(file, formats=FORMATS) as raw:
            yield raw


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
    with opened(file) as raw:
        form, size = raw.format, raw.size
        check_scans(raw, file)
        return to_rgb(raw), form, size


def check_scans(raw: Image.Image, file: str | Path | io.BytesIO) -> None:
    """Refuse a progressive JPEG of more scans than any encoder writes: each is decoded over the whole picture, and ten bytes
    are enough for one. Inside coded data their marker cannot occur."""
    if raw.format in ("JPEG", "MPO") and raw.info.get("progressive"):
        content = file.getvalue() if isinstance(file, io.BytesIO) else Path(file).read_bytes()
        if (scans := content.count(b"\xff\xda")) > MAX_SCANS:
            raise SDDError(f"{scans} scans are more than the {MAX_SCANS} of any picture; save it again")


def to_rgb(picture: Image.Image) -> Image.Image:
    """An 8-bit RGB copy of any picture, upright, on white. 16-bit greys keep their high byte: PIL alone would clip them."""
    check_sides(picture.size)
    if picture.mode == "I" and max(getattr(picture, "tag_v2", {}).get(ExifTags.Base.BitsPerSample, (16,))) > 16:
        raise SDDError("pixels of more than 16 bits have no known range, save it with 8 or 16")
    picture.load()
    # by its number alone: Pillow's own exif_transpose writes all other tags anew, and fails at an odd one
    if (turn := TURNS.get(picture.getexif().get(ExifTags.Base.Orientation))) is not None:
        picture = picture.transpose(turn)
        for told in ("exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp"):  # nobody shall turn it a second time
            picture.info.pop(told, None)
    if picture.mode == "F":
        raise SDDError("floating-point pixels have no known range, save it with 8 or 16 bits")
    if picture.mode.startswith("I"):
        grey = np.asarray(picture)
        if grey.min() < 0 or grey.max() > 65535:
            raise SDDError("pixels are negative or need more than 16 bits, save it with 8 or 16")
        picture = Image.fromarray((grey >> 8).astype(np.uint8))
    if picture.mode in ("RGBA", "LA", "PA", "RGBa") or "transparency" in picture.info:
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture.convert("RGBA"))
    return picture.convert("RGB")


def decode(path: str | Path) -> Image.Image:
    """The picture in RGB; errors as `open_image`, with the file's name."""
    try:
        return open_image(path)[0]
    except SDDError as e:
        raise SDDError(f"image {path}: {e}") from None
