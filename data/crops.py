"""From photographs to crops: downscale, choose tiles, split by photograph, pad a margin.

The real class is these crops as they are; every fake is the same crop after a trip through a network.
"""

import csv
import random
from pathlib import Path

import numpy as np
from PIL import Image

SIZE = 128  # crop side in pixels
SHORT_SIDE = 480  # short side after downscaling, at most; the factor is never below 2
MIN_FACTOR = 2.0
MARGIN = 32  # context given to a network around a crop, in pixels of the crop's scale
MIN_GRADIENT = 2.0  # mean absolute luma step between neighbours, in grey levels; below: nearly flat
SEED = 20
CROPS = {"train": 6, "val": 5, "test": 3}  # crops of every photograph of a split
PHOTOS = {"val": 17, "test": 50}  # the rest is train


def read_photos(path=Path(__file__).parent / "photos.csv"):
    """Rows of photos.csv (photo, package, file, sha256, author, licence), in order."""
    with open(path, newline="", encoding="utf-8") as handle:
        return list(csv.DictReader(handle))


def downscale(stream):
    """RGB array (H,W,3) uint8 of a photograph, reduced by at least 2 so that compression traces fall below a pixel."""
    image = Image.open(stream).convert("RGB")
    factor = max(MIN_FACTOR, min(image.size) / SHORT_SIDE)
    size = tuple(int(side / factor) for side in image.size)
    return np.asarray(image.resize(size, Image.Resampling.LANCZOS))


def gradient_energy(crop):
    """Mean absolute luma difference of neighbouring pixels, in grey levels."""
    luma = crop.astype(np.float64) @ (0.299, 0.587, 0.114)
    return (np.abs(np.diff(luma, axis=0)).mean() + np.abs(np.diff(luma, axis=1)).mean()) / 2


def tiles(array):
    """[(x, y)] of the non-overlapping SIZE x SIZE tiles, centred on the picture, that are not nearly flat."""
    height, width = array.shape[:2]
    x0, y0 = (width % SIZE) // 2, (height % SIZE) // 2
    found = [(x, y) for y in range(y0, height - SIZE + 1, SIZE) for x in range(x0, width - SIZE + 1, SIZE)]
    return [(x, y) for x, y in found if gradient_energy(array[y : y + SIZE, x : x + SIZE]) >= MIN_GRADIENT]


def choose_tiles(photo, array, count):
    """`count` of the photograph's usable tiles, drawn with a seed of its own, in reading order."""
    usable = tiles(array)
    if len(usable) < count:
        raise ValueError(
            f"photograph {photo} has {len(usable)} crops that are not flat, {count} are needed; drop it from photos.csv"
        )
    drawn = random.Random(f"{SEED}:{photo}").sample(usable, count)
    return sorted(drawn, key=lambda xy: (xy[1], xy[0]))


def split_photos(rows):
    """{photo: split}: seeded, stratified by source (package and archive), whole photographs only."""
    strata = {}
    for row in rows:
        strata.setdefault(row["photo"].partition("-")[0], []).append(row["photo"])
    order = []  # photographs of a stratum spread evenly over (0,1): a cut of the merged list is stratified
    for name in sorted(strata):
        photos = sorted(strata[name])
        random.Random(f"{SEED}:{name}").shuffle(photos)
        order += [((i + 0.5) / len(photos), name, photo) for i, photo in enumerate(photos)]
    names = [photo for _, _, photo in sorted(order)]
    val, test = PHOTOS["val"], PHOTOS["test"]
    cuts = {"test": names[:test], "val": names[test : test + val], "train": names[test + val :]}
    return {photo: split for split, photos in cuts.items() for photo in photos}


def with_margin(array, x, y, margin=MARGIN):
    """The crop at (x, y) with `margin` pixels around it, from the photograph where it reaches, reflected beyond."""
    height, width = array.shape[:2]
    left, top = max(0, margin - x), max(0, margin - y)
    right, bottom = max(0, x + SIZE + margin - width), max(0, y + SIZE + margin - height)
    part = array[max(0, y - margin) : y + SIZE + margin, max(0, x - margin) : x + SIZE + margin]
    return np.pad(part, ((top, bottom), (left, right), (0, 0)), mode="reflect")


def save_crop(array, path):
    """Write one crop as lossless WebP without metadata; the same settings for both classes."""
    if array.shape != (SIZE, SIZE, 3) or array.dtype != np.uint8:
        raise ValueError(f"{path}: a crop must be {SIZE}x{SIZE}x3 uint8, got {array.shape} {array.dtype}")
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, "WEBP", lossless=True, quality=90, method=6, exact=True)
