"""What a person does to a picture before it is scored: cut, resize, blur, compress, and where the detector's window lies."""

import math
from dataclasses import dataclass

from PIL import Image

from . import SDDError
from .perturb import blur, jpeg, resize

BLOCK = 16  # pixels of a JPEG block whose colours are halved
Box = tuple[int, int, int, int]  # left, top, right, bottom in pixels


@dataclass(frozen=True)
class Edits:
    """Done in this order: cut to `crop` % of each side, `resize` to that many % of its size, `blur` with this sigma in pixels,
    one `jpeg` round trip at this quality (0: none). left, top in %: where in the free room the cut, and then the detector's
    window, lie; 50 is the centre."""

    crop: int = 100
    resize: int = 100
    blur: float = 0.0
    jpeg: int = 0
    left: int = 50
    top: int = 50

    def __post_init__(self):
        whole = 1 <= self.crop <= 100 and 0 <= self.jpeg <= 100 and 0 <= self.left <= 100 and 0 <= self.top <= 100
        if not (whole and 1 <= self.resize <= 400 and 0 <= self.blur <= 8):
            raise SDDError(
                f"{self} is impossible; crop, jpeg, left and top are percent, resize is 1 to 400, blur 0 to 8 pixels"
            )


@dataclass(frozen=True)
class Edited:
    """seen: the part that becomes the detector's input; picture: the whole, cut and resized only; window: where in it the
    detector looks."""

    seen: Image.Image
    picture: Image.Image
    window: Box


def edit(picture: Image.Image, edits: Edits, side: int) -> Edited:
    """The window of side*side pixels in the edited picture; the whole of it where that is smaller than the window, since the
    detector's input is then enlarged from it.

    Blur and JPEG are done to the window and its surroundings in whole JPEG blocks only: the pixels are those that the whole
    picture would give, in the same time whatever its size.
    """
    cut = picture
    if edits.crop != 100:
        cut = cut.crop(_box(cut.size, [max(1, round(n * edits.crop / 100)) for n in cut.size], edits))
    if edits.resize != 100:
        cut = resize(cut, edits.resize / 100)
    small = min(cut.size) < side
    window = _box(cut.size, [min(cut.size)] * 2 if small else [side] * 2, edits)
    seen = (0, 0, *cut.size) if small else window
    margin = math.ceil(4 * edits.blur) + 2 * BLOCK
    x0, y0 = (max(0, at - margin) // BLOCK * BLOCK for at in seen[:2])
    x1, y1 = (min(n, math.ceil((at + margin) / BLOCK) * BLOCK) for at, n in zip(seen[2:], cut.size, strict=True))
    part = blur(cut.crop((x0, y0, x1, y1)), edits.blur)
    part = jpeg(part, edits.jpeg) if edits.jpeg else part
    return Edited(part.crop((seen[0] - x0, seen[1] - y0, seen[2] - x0, seen[3] - y0)), cut, window)


def _box(outer: tuple[int, int], inner: list[int], edits: Edits) -> Box:
    """The inner rectangle where the edits put it in the outer one."""
    left, top = (round((o - i) * at / 100) for o, i, at in zip(outer, inner, (edits.left, edits.top), strict=True))
    return left, top, left + inner[0], top + inner[1]
