"""Pictures, colour scales and tables as HTML for `09_explore`, drawn without matplotlib's figures: in milliseconds. Text from
outside is escaped."""

import base64
import io
from html import escape

import matplotlib
import numpy as np
import torch
from PIL import Image

from .data import MEAN, STD
from .edits import Box
from .figures import surroundings

TILE = 156  # pixels of a picture on the screen
FRAME = (255, 255, 0)
STYLE = """<style>
.sdd, .sdd .widget-html-content {font-size: 13px; line-height: 1.4; color: var(--jp-ui-font-color1, #222)}
.sdd small, .sdd figcaption {font-size: 12px; opacity: .85; line-height: 1.3}
.sdd figcaption {padding-top: 3px}
.sdd .card {border-left: 8px solid; padding: 2px 0 2px 14px; display: flex; gap: 26px; flex-wrap: wrap; align-items: center}
.sdd .big {font-size: 36px; font-weight: 700; line-height: 1.1; letter-spacing: .02em}
.sdd .axis {position: relative; height: 12px; width: 230px; border-radius: 6px; margin: 8px 0 20px;
  background: linear-gradient(90deg, #0072B2, #bcd3e2 48%, #f0cdb4 52%, #D55E00)}
.sdd .axis i {position: absolute; top: -5px; height: 22px; width: 5px; margin-left: -3px; background: #111; border-radius: 2px;
  outline: 1px solid #fff}
.sdd .axis u {position: absolute; top: 0; height: 12px; margin-left: -1px; border-left: 2px dotted #111}
.sdd .axis span {position: absolute; top: 14px; transform: translateX(-50%); font-size: 11px; opacity: .8}
.sdd table {border-collapse: collapse; margin: 0 0 3px}
.sdd td, .sdd th {padding: 1px 14px 1px 0; text-align: left; font-size: 12px; font-weight: normal; white-space: nowrap}
.sdd th {border-bottom: 1px solid #8888; opacity: .8}
.sdd .row {display: flex; gap: 14px; margin: 12px 0 8px}
.sdd figure {margin: 0; width: 156px; flex: none}
.sdd figure img {width: 156px; height: 156px; object-fit: contain; image-rendering: pixelated; display: block;
  background: #8882}
.sdd .near {display: flex; gap: 8px; align-items: flex-start; margin-top: 7px}
.sdd .near figure {width: 84px} .sdd .near figure img, .sdd .near .none {width: 84px; height: 84px}
.sdd .near .none {background: #8882; display: flex; align-items: center; justify-content: center; opacity: .8}
.sdd .to {padding: 30px 6px 0; font-size: 18px}
.sdd .scale {height: 8px; margin-top: 4px} .sdd .ends {display: flex; justify-content: space-between; font-size: 11px}
.sdd .history {max-height: 190px; overflow-y: auto}
.sdd .wrong {color: #b00020; font-weight: 600} .sdd .said {opacity: .8}
.sdd .head {max-width: 690px}
.sdd-open {align-items: center; gap: 8px}
.sdd-open .drop {border: 2px dashed #888; border-radius: 8px; padding: 0 22px; text-align: center; cursor: copy;
  line-height: 26px}
</style>"""


def uri(pixels: np.ndarray) -> str:
    """An image of bytes (H, W, 3) as the address of a PNG that holds it."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=1)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def pixels_of(x: torch.Tensor) -> np.ndarray:
    """(3, H, W) as the model sees it -> (H, W, 3) in 0..1 as people do."""
    return (x.cpu() * STD + MEAN).clamp(0, 1).permute(1, 2, 0).numpy()


def as_bytes(pixels: np.ndarray) -> np.ndarray:
    """0..1 -> bytes."""
    return (pixels * 255).round().astype(np.uint8)


def heat(values: np.ndarray, top: float, colours: str = "viridis") -> np.ndarray:
    """A map (h, w) coloured from 0 to `top`, as bytes (h, w, 3)."""
    return as_bytes(matplotlib.colormaps[colours](np.clip(values / (top or 1), 0, 1))[..., :3])


def over(pixels: np.ndarray, cam: np.ndarray) -> np.ndarray:
    """A CAM (H, W) in 0..1 laid over the grey picture (H, W, 3), as `figures_visual.cam_overlays` does, as bytes."""
    grey = np.repeat(pixels.mean(2, keepdims=True), 3, 2)
    return as_bytes(0.4 * grey + 0.6 * matplotlib.colormaps["inferno"](cam)[..., :3])


def framed(picture: Image.Image, window: Box) -> np.ndarray:
    """A picture as bytes, brought to at most TILE pixels wide and high, its window framed."""
    scale = TILE / max(picture.size)
    size = [max(1, round(n * scale)) for n in picture.size]
    small = np.array(picture.resize(size, Image.BILINEAR, reducing_gap=2))
    left, top = (min(round(at * scale), n - 1) for at, n in zip(window[:2], size, strict=True))
    right, bottom = (min(round(at * scale), n) - 1 for at, n in zip(window[2:], size, strict=True))
    return frame(small, left, top, right, bottom)


def frame(found: np.ndarray, left: int, top: int, right: int, bottom: int) -> np.ndarray:
    """Draws a rectangle of lines one pixel wide into bytes (H, W, 3), the last row and column included."""
    for row in (top, bottom):
        found[row, left : right + 1] = FRAME
    for column in (left, right):
        found[top : bottom + 1, column] = FRAME
    return found


def rows_html(rows: list[list]) -> str:
    """Rows of text as a table, the first one its header."""
    lines = []
    for at, row in enumerate(rows):
        cell = "td" if at else "th"
        lines.append("<tr>" + "".join(f"<{cell}>{escape(str(v))}</{cell}>" for v in row) + "</tr>")
    return f"<table>{''.join(lines)}</table>"


def tile(pixels: np.ndarray, caption: str, below: str = "") -> str:
    """A picture with its caption (text) and what stands below it (HTML)."""
    return f'<figure><img src="{uri(pixels)}">{below}<figcaption>{escape(caption)}</figcaption></figure>'


def bar(colours: str, low: str, high: str) -> str:
    """A colour scale with its ends."""
    steps = matplotlib.colormaps[colours](np.linspace(0, 1, 9))[:, :3]
    stops = ", ".join("rgb({:.0f} {:.0f} {:.0f})".format(*(255 * c)) for c in steps)
    ends = f'<div class="ends"><span>{escape(low)}</span><span>{escape(high)}</span></div>'
    return f'<div class="scale" style="background: linear-gradient(90deg, {stops})"></div>{ends}'


def boxed(pixels: np.ndarray, patch: int, g: int) -> np.ndarray:
    """A patch of a picture (H, H, 3) in 0..1 within its surroundings, framed, as bytes."""
    around, reach = surroundings(pixels, patch, g)
    last = len(around) - reach - 1
    return frame(as_bytes(around), reach, reach, last, last)
