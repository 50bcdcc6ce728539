"""Protocols: which images of a test set are scored and what is done to them, by the rules of the code they are named after."""

import pickle
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms

from sddlib import SDDError
from sddlib.data import MEAN, STD, Sample, data_hash, to_input
from sddlib.protocols import PROTOCOLS, choose, get_protocol, odd_name, prepare

OJHA = PROTOCOLS["ojha1k"]
SHARED = "ldm_200+glide_100_27"


def images(generator: str, label: int, count: int, split: str = "test", name: str = "{}.png") -> list[Sample]:
    kind = generator if label else f"{generator}/real"
    return [
        Sample(Path(split, kind, name.format(i)), label, generator, "f", split, f"{split}/{kind}/{i}") for i in range(count)
    ]


@pytest.fixture(scope="module")
def univfd():
    """UnivFD in little of its shape: a large set, a small one, two sets that share a folder of reals, and validation."""
    made = images("progan", 0, 30, "val") + images("progan", 1, 30, "val")
    for name, count in (("progan", 1500), ("sitd", 180)):
        made += images(name, 0, count) + images(name, 1, count)
    made += images(SHARED, 0, 1200)
    return made + images("ldm_200", 1, 1000) + images("glide_100_27", 1, 1000)


def counts(samples: list[Sample]) -> Counter:
    return Counter((s.split, s.generator, s.label) for s in samples)


def test_whole_protocols_take_every_image(univfd):
    for name in ("full-native", "full-resize256"):
        assert choose(univfd, PROTOCOLS[name]) == (univfd, [])


def test_ojha1k_draws_at_most_1000_a_class_and_falls_to_100_where_a_set_has_fewer(univfd):
    chosen, notes = choose(univfd, OJHA)
    assert counts(chosen) == {
        ("val", "progan", 0): 30,
        ("val", "progan", 1): 30,
        ("test", "progan", 0): 1000,
        ("test", "progan", 1): 1000,
        ("test", "sitd", 0): 100,
        ("test", "sitd", 1): 100,
        ("test", SHARED, 0): 1000,
        ("test", "ldm_200", 1): 1000,
        ("test", "glide_100_27", 1): 1000,
    }
    assert notes == ["sitd fell back to 100 real + 100 fake: it has 180 + 180, fewer than 1000 of a class"]


def test_999_of_one_class_are_too_few_and_1000_are_not():
    for fakes, left in ((1000, 1000), (999, 100)):
        chosen, notes = choose(images("a", 0, 1300) + images("a", 1, fakes), OJHA)
        assert counts(chosen) == {("test", "a", 0): left, ("test", "a", 1): left} and bool(notes) == (left == 100)


def test_fewer_than_100_are_all_taken_and_said():
    chosen, notes = choose(images("a", 0, 150) + images("a", 1, 60), OJHA)
    assert counts(chosen) == {("test", "a", 0): 100, ("test", "a", 1): 60}
    assert "fell back to 100 real + 60 fake: it has 150 + 60" in notes[0]


def test_draw_is_random_by_its_seed_and_keeps_the_order(univfd):
    chosen, _ = choose(univfd, OJHA)
    assert chosen == choose(univfd, OJHA)[0] != choose(univfd, OJHA, seed=1)[0]
    place = {s.path: i for i, s in enumerate(univfd)}
    assert [place[s.path] for s in chosen] == sorted(place[s.path] for s in chosen)
    numbers = [int(s.path.stem) for s in chosen if s.generator == "progan" and s.split == "test" and s.label]
    assert numbers != list(range(1000)) and max(numbers) > 1400 and len(set(numbers)) == 1000
    assert data_hash(chosen) != data_hash(univfd)


def test_sets_that_share_reals_and_need_equally_many_draw_the_same_ones(univfd):
    """And what one set draws does not depend on which others there are."""
    chosen, _ = choose(univfd, OJHA)
    reals = [s.path for s in chosen if s.label == 0 and s.generator == SHARED]
    alone = [s for s in univfd if s.generator in (SHARED, "glide_100_27")]
    assert [s.path for s in choose(alone, OJHA)[0] if s.label == 0] == reals


def test_shared_reals_of_a_set_that_fell_back_stand_against_it_only_as_far_as_it_drew_them():
    samples = images("a+b", 0, 1200) + images("a", 1, 1000) + images("b", 1, 900)
    chosen, notes = choose(samples, OJHA)
    assert counts(chosen) == {
        ("test", "a+b", 0): 100,
        ("test", "a", 0): 900,
        ("test", "a", 1): 1000,
        ("test", "b", 1): 100,
    }
    assert len(notes) == 1 and notes[0].startswith("b fell back")


def test_reals_of_no_set_are_drawn_for_every_set():
    samples = images("camera", 0, 1200) + images("a", 1, 1000) + images("b", 1, 1000)
    assert counts(choose(samples, OJHA)[0])["test", "camera", 0] == 1000


def test_names_with_two_dots_and_capital_extensions_are_skipped_and_counted():
    odd = {"a.b.png": True, "x.PNG": True, "x.JPG": True, "x": True, "x.JPEG": False, "x.jpg": False, "x.png.b": False}
    assert {name: odd_name(name) for name in odd} == odd
    samples = images("a", 0, 1000) + images("a", 1, 1000) + images("a", 1, 7, name="{}.b.png")
    samples += images("a", 0, 3, name="big{}.PNG") + images("a", 1, 5, "val", "{}.b.png")
    chosen, notes = choose(samples, OJHA)
    assert notes == ["10 images of a skipped for their names (two dots, or an extension in capitals)"]
    assert counts(chosen) == {("test", "a", 0): 1000, ("test", "a", 1): 1000, ("val", "a", 1): 5}
    assert not [s for s in chosen if s.split == "test" and odd_name(s.path.name)]


def test_set_that_loses_a_class_is_an_error_and_not_a_missing_line():
    samples = images("a", 0, 10) + images("a", 1, 10, name="{}.PNG")
    with pytest.raises(SDDError, match="leaves 10 real \\+ 0 fake images of a; use full-native"):
        choose(samples, OJHA)


def test_unknown_protocol_is_named_with_those_there_are():
    assert get_protocol("ojha1k") is OJHA
    with pytest.raises(SDDError, match="no protocol 'ohja1k'; there are ojha1k"):
        get_protocol("ohja1k")


# --- pictures


def picture(width: int, height: int) -> Image.Image:
    rng = np.random.default_rng(width * height)
    small = Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8))
    return small.resize((width, height), Image.BICUBIC)


def seen(protocol: str, image: Image.Image, size: int = 64, quality: int = 0) -> torch.Tensor:
    """(3, size, size) in 0..1: what a model gets under a protocol."""
    return to_input(PROTOCOLS[protocol].preparation(size, quality)(image), size) * STD + MEAN


SIZES = [(64, 64), (150, 90), (91, 130), (300, 65)]
SMALL = [(50, 40), (100, 41), (33, 200)]


@pytest.mark.parametrize("size", SIZES + SMALL, ids=str)
def test_pictures_are_cropped_and_squeezed_as_by_the_code_that_a_protocol_is_named_after(size):
    image, tensor = picture(*size), transforms.ToTensor()
    crop = transforms.CenterCrop(64)
    assert torch.allclose(seen("ojha1k", image), tensor(crop(image)), atol=1e-6)
    squeezed = transforms.Resize((256, 256))(image)
    assert torch.allclose(seen("full-resize256", image), tensor(crop(squeezed)), atol=1e-6)
    if size in SIZES:
        assert torch.allclose(seen("full-native", image), tensor(crop(image)), atol=1e-6)


def test_small_pictures_are_enlarged_natively_and_framed_in_black_by_ojha1k():
    image = Image.new("RGB", (40, 64), "white")
    assert seen("full-native", image).min() > 0.99
    framed = seen("ojha1k", image)
    assert framed[:, :, :12].max() < 0.01 and framed[:, :, -12:].max() < 0.01 and framed[:, :, 12:-12].min() > 0.99


def test_full_native_leaves_the_picture_alone_and_preparations_can_be_sent_to_workers():
    image = picture(70, 80)
    for name, protocol in PROTOCOLS.items():
        again = pickle.loads(pickle.dumps(protocol.preparation(64, 96)))(image)
        assert again.size == (256, 256) if name == "full-resize256" else again.size == image.size
    assert PROTOCOLS["full-native"].preparation(64)(image) is image


def test_equalised_pictures_are_jpeg_before_the_crop_and_before_a_resize(tmp_path):
    image = picture(150, 90)
    image.save(tmp_path / "a.jpg", quality=96)
    as_file = Image.open(tmp_path / "a.jpg").convert("RGB")
    for name in PROTOCOLS:
        assert torch.equal(seen(name, image, quality=96), seen(name, as_file)), name
        assert not torch.equal(seen(name, image, quality=96), seen(name, image))


def test_picture_that_jpeg_cannot_hold_is_an_error_of_its_own():
    with pytest.raises(SDDError, match="cannot be written as JPEG"):
        prepare(Image.new("RGB", (66000, 4)), quality=96)
