"""Near duplicates: pictures that look alike though their bytes differ, by perceptual hash. On two sides of a benchmark they
are a leak: what was trained on would be tested.

How near is near was chosen on real pairs, in bits of 256. `data/mini`, 2202 crops of 128 px: two different photographs differ
in 82 at least, two crops of one photograph in 86. Copies of its 541 real crops: half or double size 8 at most, a quarter 10,
Gaussian blur of 2 px 10, JPEG 80 16, JPEG 50 28, JPEG 30 34 (99 %: 19), WebP 80 18. Its 1661 regenerations differ from their
photograph in 8 (median), 98.7 % of them in 30 or fewer, one in 76. Of the 1214 pictures of profile `field`, made from prompts
or photographed, those of two splits differ in 90 at least, but two of one generator for prompts that share most words, both
in test, in 32. So DISTANCE finds copies and nearly all regenerations, and takes nothing else for one. What has lost 2 % of
its sides it finds in part (three in four crops of `mini`, one in three of `field`), what has lost 5 % or is mirrored never.

Time on one busy core of an AMD EPYC: hashing 1 ms a crop of 128 px; searching 0.1 s for 5,000 pictures, 2 s for 50,000, 14 s
for 200,000 (it grows with the square: one pair in 128 is looked at).

Light: worker processes import it without torch.
"""

from collections.abc import Hashable, Iterable
from itertools import combinations, product

import imagehash
import numpy as np
from PIL import Image

from . import SDDError
from .benchmarks import side_of

SIDE = 16  # of the square of lowest frequencies that a hash keeps
BITS = SIDE**2
DISTANCE = 30  # bits: at most so far apart, two pictures look alike
FLAT = 1.0  # grey levels of detail below which a picture has no hash
BANDS = 16  # of 16 bits, in which hashes are searched
ONES = np.array([number.bit_count() for number in range(2**16)], np.uint8)  # bits that are set in a band


def perceptual_hash(picture: Image.Image) -> str:
    """pHash of a picture: BITS bits as hexadecimal digits, "" for one that is too flat to have one.

    The picture in 64x64 grey levels (0..255); a bit says whether one of the 16x16 lowest DCT coefficients is above their
    median. 225 of the 256 come from what is left without the means of rows and columns: where that has a standard deviation
    below FLAT (a blank page, a plain gradient, stripes), they are rounding, and any two such pictures would look alike.
    """
    grey = picture.convert("L").resize((4 * SIDE, 4 * SIDE), Image.LANCZOS)
    level = np.asarray(grey, dtype=float)
    detail = level - level.mean(0) - level.mean(1, keepdims=True) + level.mean()
    return str(imagehash.phash(grey, SIDE)) if detail.std() >= FLAT else ""


def near_pairs(hashes: list[str], sides: Iterable[Hashable], distance: int = DISTANCE) -> list[tuple[int, int, int]]:
    """(i, j, differing bits), i < j, of hashes on different sides that differ in at most `distance` bits: as many of these
    pairs as join all that look alike, and none between two that others join already (a burst of n pictures is n - 1 pairs, not
    n * n / 2). Of equal hashes on one side the first stands for all, and "" looks like nothing.

    None is missed, and not by comparing all with all: of the BANDS bands of two such hashes one at least differs in no more
    than distance // BANDS bits (pigeonhole principle), so only hashes are compared of which one band is equal but for so many.
    """
    if not 0 <= distance < BITS:
        raise SDDError(f"perceptual hashes of {BITS} bits cannot be compared at distance {distance}; use 0 to {BITS - 1}")
    names: dict[Hashable, int] = {}
    first: dict[tuple[int, str], int] = {}
    for i, (found, side) in enumerate(zip(hashes, sides, strict=True)):
        if found:
            first.setdefault((names.setdefault(side, len(names)), found), i)
    if len(names) < 2:
        return []
    where, side = np.array([*first.values()]), np.array([s for s, _ in first])
    codes = np.frombuffer(bytes.fromhex("".join(h for _, h in first)), np.uint16).reshape(-1, BANDS)
    near, leader = [], np.arange(len(codes))  # of the group that a hash has been joined to
    for band, spared in product(range(BANDS), combinations(range(BITS // BANDS), distance // BANDS)):
        for a, b in sharing(codes[:, band] & ~np.uint16(sum(1 << k for k in spared))):
            apart = (side[a] != side[b]) & (leader[a] != leader[b])
            a, b = a[apart], b[apart]
            differ = ONES[codes[a] ^ codes[b]].sum(1)
            close = differ <= distance
            near += join(leader, a[close], b[close], differ[close])
    return sorted((*sorted((int(where[a]), int(where[b]))), d) for a, b, d in near)


def join(leader: np.ndarray, a: np.ndarray, b: np.ndarray, differ: np.ndarray) -> list[tuple[int, int, int]]:
    """Join the groups of a[k] and b[k] in `leader`, the first of each one's group; returns the pairs that joined two."""
    found = []
    for i, j, d in zip(a.tolist(), b.tolist(), differ.tolist(), strict=True):
        one, other = i, j
        while leader[one] != one:
            one = leader[one]
        while leader[other] != other:
            other = leader[other]
        if one != other:
            leader[max(one, other)] = min(one, other)
            found.append((i, j, d))
    while (leader[leader] != leader).any():
        leader[:] = leader[leader]
    return found


def sharing(keys: np.ndarray) -> Iterable[tuple[np.ndarray, np.ndarray]]:
    """Every two positions of equal keys, as pairs of arrays: in sorted order, neighbours first, then those two apart, ..."""
    order = np.argsort(keys, kind="stable")
    ranked, at, apart = keys[order], np.arange(len(keys)), 1
    while True:
        at = at[at + apart < len(keys)]
        at = at[ranked[at] == ranked[at + apart]]
        if not len(at):
            return
        yield order[at], order[at + apart]
        apart += 1


def look_alikes(rows: list[dict]) -> list[tuple[dict, dict, int]]:
    """Pictures on two sides of training, validation and test that look alike, and in how many bits they differ. rows: with
    split and phash, of `perceptual_hash`; `dev` shares validation's photographs and counts as one side with it."""
    return [(rows[i], rows[j], d) for i, j, d in near_pairs([r["phash"] for r in rows], [side_of(r["split"]) for r in rows])]


def alike(one: dict, other: dict, differ: int) -> str:
    """Two rows that look alike, in words."""
    return f"{one['path']} ({one['split']}) and {other['path']} ({other['split']}), {differ} of {BITS} bits differ"


def refuse_look_alikes(found: list[tuple[dict, dict, int]], name) -> None:
    """An error that names a pair of this benchmark, if there is any. found: of `look_alikes`, whose rows hold path too."""
    if found:
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        raise SDDError(f"{name}: two splits hold pictures that look alike: {alike(*found[0])}{more}; keep them in one split")
