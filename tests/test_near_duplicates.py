"""Near duplicates: copies are found, other pictures are not, the search misses no pair, flat pictures are told apart."""

import io

import imagehash
import numpy as np
import pytest
from PIL import Image

from sddlib import SDDError
from sddlib.near_duplicates import BITS, DISTANCE, look_alikes, near_pairs, perceptual_hash, refuse_look_alikes


def scene(seed: int, size: int = 160) -> Image.Image:
    """Shapes of all sizes, the larger the stronger, as in a photograph."""
    rng, pixels = np.random.default_rng(seed), np.full((size, size, 3), 127.0)
    for n in (4, 8, 16, 32, 64):
        shapes = Image.fromarray(rng.integers(0, 256, (n, n, 3), dtype=np.uint8)).resize((size, size), Image.BICUBIC)
        pixels += (np.asarray(shapes) - 127.0) * 2 * n**-0.8
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def saved(picture: Image.Image, form: str, **options) -> Image.Image:
    file = io.BytesIO()
    picture.save(file, form, **options)
    return Image.open(file).convert("RGB")


def differ(one: str, other: str) -> int:
    return (int(one, 16) ^ int(other, 16)).bit_count()


def code(bits: np.ndarray) -> str:
    return np.packbits(bits).tobytes().hex()


def planted(seed: int = 0) -> tuple[list[str], list[int]]:
    """Hashes on three sides: strangers, and copies of some of them that differ in 0 to 40 bits; some "", some twice."""
    rng = np.random.default_rng(seed)
    bits = [rng.integers(0, 2, BITS) for _ in range(60)]
    for i in range(41):
        copy = bits[i].copy()
        copy[rng.choice(BITS, i, replace=False)] ^= 1
        bits.append(copy)
    hashes = [code(b) for b in bits] + ["", "", code(bits[3]), code(bits[3])]
    return hashes, rng.integers(0, 3, len(hashes)).tolist()


@pytest.mark.parametrize("distance", [0, 1, 4, 7, DISTANCE, 31, 255])
@pytest.mark.parametrize("seed", range(3))
def test_what_looks_alike_is_joined_and_nothing_else(seed, distance):
    """Against comparing all with all; of equal hashes on a side the first counts."""
    hashes, sides = planted(seed)
    both = [*zip(hashes, sides, strict=True)]
    first = [i for i, (h, _) in enumerate(both) if h and both.index(both[i]) == i]
    slowly = [(i, j, differ(hashes[i], hashes[j])) for i in first for j in first if i < j and sides[i] != sides[j]]
    near = [pair for pair in slowly if pair[2] <= distance]
    found = near_pairs(hashes, sides, distance)
    assert set(found) <= set(near) and (near or distance == 0)
    assert groups(len(hashes), found) == groups(len(hashes), near)
    assert len(hashes) - len(found) == len(set(groups(len(hashes), near)))  # no pair more than it takes


def groups(count: int, pairs: list[tuple[int, int, int]]) -> list[int]:
    """The lowest of those that pairs join each one to."""
    lowest = list(range(count))
    for _ in range(count):
        for i, j, _d in pairs:
            lowest[i] = lowest[j] = min(lowest[i], lowest[j])
    return lowest


def test_nothing_is_near_within_one_side_or_without_a_hash():
    hashes, _ = planted()
    assert near_pairs(hashes, [0] * len(hashes)) == near_pairs([], []) == near_pairs(["", ""], [0, 1]) == []
    for wrong in (-1, BITS):
        with pytest.raises(SDDError, match="cannot be compared at distance"):
            near_pairs(hashes, range(len(hashes)), wrong)


def test_many_equal_pictures_are_one_pair_and_quick():
    """A thousand copies on each side would be a million pairs."""
    hash_ = perceptual_hash(scene(0))
    assert near_pairs([hash_] * 2000, [0, 1] * 1000) == [(0, 1, 0)]


def test_a_long_burst_is_joined_by_one_pair_a_picture():
    """600 pictures a few bits apart, each its own photograph, are 180,000 pairs."""
    rng, start = np.random.default_rng(0), np.random.default_rng(1).integers(0, 2, BITS)
    burst = []
    for _ in range(600):
        frame = start.copy()
        frame[rng.choice(BITS, 4, replace=False)] ^= 1
        burst.append(code(frame))
    found = near_pairs(burst, range(600))
    assert len(found) == 599 and set(groups(600, found)) == {0}


def test_hash_is_imagehashs_phash_of_256_bits():
    for seed in range(3):
        assert perceptual_hash(scene(seed)) == str(imagehash.phash(scene(seed), 16)) and BITS == 256


COPIES = {
    "jpeg": lambda p: saved(p, "JPEG", quality=60),
    "webp": lambda p: saved(p, "WEBP", quality=60),
    "smaller": lambda p: p.resize((96, 96), Image.LANCZOS),
    "larger": lambda p: p.resize((320, 320), Image.BICUBIC),
    "brighter": lambda p: p.point(lambda v: min(255, v + 12)),
    "grey": lambda p: p.convert("L").convert("RGB"),
}


@pytest.mark.parametrize("kind", COPIES)
def test_copies_look_alike_and_other_pictures_do_not(kind):
    hashes = [perceptual_hash(scene(seed)) for seed in range(12)]
    copies = [perceptual_hash(COPIES[kind](scene(seed))) for seed in range(12)]
    found = near_pairs(hashes + copies, [0] * 12 + [1] * 12)
    assert [(i, j - 12) for i, j, _ in found] == [(i, i) for i in range(12)]


def test_pictures_without_detail_have_no_hash_and_faint_ones_have():
    ramp = np.tile(np.linspace(0, 255, 128), (128, 1)).astype(np.uint8)
    stripes = np.tile(np.arange(128) // 8 % 2 * 255, (128, 1)).astype(np.uint8)
    for flat in (np.zeros((40, 50)), np.full((128, 128), 255), ramp, ramp.T, stripes, stripes.T):
        assert perceptual_hash(Image.fromarray(flat.astype(np.uint8))) == ""
    page = np.full((128, 128), 250, np.uint8)
    page[40:60, 30:90] = 20
    assert perceptual_hash(Image.fromarray(page))


def rows(*splits: str, copies: int = 2) -> list[dict]:
    """Pictures of which the first `copies` are one."""
    looks = [0] * copies + list(range(1, len(splits) - copies + 1))
    return [
        {"path": f"{split}{i}.png", "split": split, "phash": perceptual_hash(scene(look))}
        for i, (split, look) in enumerate(zip(splits, looks, strict=True))
    ]


@pytest.mark.parametrize(
    "one, other", [("train", "val"), ("train", "dev"), ("train", "test"), ("val", "test"), ("dev", "test")]
)
def test_a_picture_on_two_sides_is_refused_by_the_names_of_both(one, other):
    with pytest.raises(SDDError, match=f"m.csv: .*{one}0.png .{one}. and {other}1.png .{other}., 0 of 256 .*keep them in one"):
        refuse_look_alikes(look_alikes(rows(one, other, "train", "test")), "m.csv")


def test_others_are_counted_where_one_is_named():
    with pytest.raises(SDDError, match="and 1 more"):
        refuse_look_alikes(look_alikes(rows("train", "val", "test", "train", copies=3)), "m.csv")


def test_validation_and_dev_are_one_side_and_a_split_may_repeat_itself():
    for splits in (("val", "dev", "train"), ("train", "train", "test"), ("dev", "dev", "val")):
        assert look_alikes(rows(*splits)) == []
        refuse_look_alikes(look_alikes(rows(*splits)), "m.csv")
