"""Data: every readable picture becomes the same three channels, unreadable ones one sentence, crops follow their seed."""

import dataclasses
import os
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from open_clip import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from PIL import Image
from torch.utils.data import DataLoader

from sddlib import SDDError
from sddlib.crops import Crops, TwinBatches, content_ids
from sddlib.data import Sample, check_splits, data_hash, decode, open_image, read_manifest, scan_paths, to_input, to_rgb
from sddlib.pictures import open_content

HEADER = "path,label,generator,family,split,photo\n"


def picture(w: int = 20, h: int = 30, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (h, w, 3), dtype=np.uint8))


def sample(path, label: int = 0, split: str = "train", photo: str = "p") -> Sample:
    return Sample(path, label, "gan" if label else "camera", "gan" if label else "camera", split, photo)


# --- decode


@pytest.mark.parametrize("suffix", ["png", "webp", "bmp", "tif"])
def test_lossless_files_decode_to_the_pixels_that_were_saved(tmp_path, suffix):
    picture().save(tmp_path / f"a.{suffix}", **({"lossless": True} if suffix == "webp" else {}))
    decoded, form, size = open_image(tmp_path / f"a.{suffix}")
    assert decoded.mode == "RGB" and np.array_equal(decoded, picture())
    assert form == {"png": "PNG", "webp": "WEBP", "bmp": "BMP", "tif": "TIFF"}[suffix] and size == (20, 30)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_honoured_once(tmp_path, suffix, orientation):
    """Corners red, green, blue, black; where they must be for each orientation is written down here."""
    corners = np.zeros((24, 40, 3), dtype=np.uint8)
    corners[:12, :20, 0], corners[:12, 20:, 1], corners[12:, :20, 2] = 255, 255, 255
    image = Image.fromarray(corners)
    exif = image.getexif()
    exif[0x0112] = orientation
    options = {"jpg": {"quality": 100}, "webp": {"lossless": True}}.get(suffix, {})
    image.save(tmp_path / f"a.{suffix}", exif=exif, **options)
    shown = decode(tmp_path / f"a.{suffix}")
    assert shown.size == ((40, 24) if orientation < 5 else (24, 40))
    a = np.array(shown).astype(int)
    h, w = a.shape[:2]
    names = "".join(
        "K" if a[y, x].max() < 100 else "RGB"[a[y, x].argmax()] for y in (h // 4, 3 * h // 4) for x in (w // 4, 3 * w // 4)
    )
    assert names == ["RGBK", "GRKB", "KBGR", "BKRG", "RBGK", "BRKG", "KGBR", "GKRB"][orientation - 1]
    again = to_rgb(shown)
    assert np.array_equal(again, shown)  # nothing is left to turn it a second time
    size = open_image(tmp_path / f"a.{suffix}")[2]
    assert size == (shown.size if suffix == "tif" else (40, 24))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "RGB with a transparent colour"])
def test_alpha_lies_on_white(tmp_path, mode):
    colour = np.zeros((4, 4, 4), dtype=np.uint8)
    colour[..., 3] = [255, 0, 128, 255]
    image, options = Image.fromarray(colour), {}
    expected = [0, 255, 127, 0]
    if mode == "LA":
        image = image.convert("LA")
    elif mode == "P":
        image = Image.fromarray(np.tile(np.arange(4, dtype=np.uint8), (4, 1)), "P")
        image.putpalette([0, 0, 0] * 4)
        options = {"transparency": bytes([255, 0, 128, 255])}
    elif mode.startswith("RGB with"):
        image = Image.new("RGB", (4, 4))
        image.putpixel((1, 0), (9, 9, 9))
        options, expected = {"transparency": (9, 9, 9)}, [0, 255, 0, 0]
    image.save(tmp_path / "a.png", **options)
    decoded = np.array(decode(tmp_path / "a.png"))
    assert decoded.shape == (4, 4, 3)
    assert np.abs(decoded[0].astype(int) - np.array(expected)[:, None]).max() <= 1


def test_palette_cmyk_grey_and_bilevel_become_rgb(tmp_path):
    flat = Image.new("RGB", (16, 16), (200, 40, 90))
    flat.convert("P", palette=Image.Palette.ADAPTIVE).save(tmp_path / "p.gif")
    flat.convert("CMYK").save(tmp_path / "c.jpg", quality=100)
    flat.convert("CMYK").save(tmp_path / "c.tif")
    for name, slack in (("p.gif", 0), ("c.tif", 0), ("c.jpg", 4)):
        decoded = np.array(decode(tmp_path / name)).astype(int)
        assert decoded.shape == (16, 16, 3) and np.abs(decoded - [200, 40, 90]).max() <= slack
    flat.convert("L").save(tmp_path / "g.png")
    Image.new("1", (16, 16), 1).save(tmp_path / "b.png")
    assert np.ptp(np.array(decode(tmp_path / "g.png")), 2).max() == 0
    assert np.array(decode(tmp_path / "b.png")).min() == 255


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bit_greys_keep_their_high_byte_instead_of_turning_white(tmp_path, suffix):
    deep = (np.arange(256 * 4, dtype=np.uint32) * 64).astype(np.uint16).reshape(32, 32)
    Image.fromarray(deep).save(tmp_path / f"d.{suffix}")
    assert np.array_equal(np.array(decode(tmp_path / f"d.{suffix}"))[..., 1], deep >> 8)


def test_pixels_without_a_known_range_are_refused(tmp_path):
    Image.fromarray(np.full((4, 4), 0.5, dtype=np.float32)).save(tmp_path / "f.tif")
    Image.fromarray(np.full((4, 4), 70000, dtype=np.int32)).save(tmp_path / "i.tif")
    for name, said in (("f.tif", "floating-point"), ("i.tif", "more than 16 bits")):
        with pytest.raises(SDDError, match=said):
            decode(tmp_path / name)


def test_whole_numbers_of_32_bits_are_refused_even_where_they_are_small(tmp_path):
    """Taken for 16 bits, a picture of 0..255 would be scored as black."""
    Image.fromarray(np.arange(256, dtype=np.int32).reshape(16, 16)).save(tmp_path / "i.tif")
    with pytest.raises(SDDError, match="more than 16 bits"):
        decode(tmp_path / "i.tif")


def test_odd_exif_beside_the_orientation_does_not_matter(tmp_path):
    """Time as a floating-point number; Pillow cannot write that again."""
    tags = struct.pack("<HHIHH", 0x0112, 3, 1, 6, 0) + struct.pack("<HHII", 0x0132, 12, 1, 38)
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 2) + tags + bytes(4) + struct.pack("<d", 1.5)
    picture(40, 24).save(tmp_path / "a.jpg", exif=exif)
    assert decode(tmp_path / "a.jpg").size == (24, 40)


def test_a_jpeg_of_endless_scans_is_refused_before_they_are_decoded(tmp_path):
    picture(64, 64).save(tmp_path / "a.jpg", progressive=True)
    content = (tmp_path / "a.jpg").read_bytes()
    scans = content.count(b"\xff\xda")
    assert 3 < scans < 20 and decode(tmp_path / "a.jpg").size == (64, 64)
    (tmp_path / "b.jpg").write_bytes(content[:-2] + b"\xff\xda\0\x08\x01\x01\0\0\x3f\0" * 150 + content[-2:])
    for read in (decode, lambda path: open_content(path.read_bytes())):
        with pytest.raises(SDDError, match=f"{scans + 150} scans are more than the 100 of any picture"):
            read(tmp_path / "b.jpg")


def test_first_frame_of_an_animation_is_taken(tmp_path):
    frames = [Image.new("RGB", (8, 8), c) for c in ("white", "black")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert np.array(decode(tmp_path / "a.gif")).min() == 255


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif", "gif", "bmp"])
def test_truncated_files_are_one_sentence(tmp_path, suffix):
    picture(80, 80).save(tmp_path / f"whole.{suffix}")
    data = (tmp_path / f"whole.{suffix}").read_bytes()
    (tmp_path / f"cut.{suffix}").write_bytes(data[: len(data) // 2])
    with pytest.raises(SDDError) as caught:
        open_image(tmp_path / f"cut.{suffix}")
    assert "\n" not in str(caught.value) and str(caught.value)


def test_what_is_no_image_is_one_sentence_that_names_the_file(tmp_path):
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "folder.png").mkdir()
    for name, said in (
        ("text.png", "not an image"),
        ("empty.png", "not an image"),
        ("folder.png", "cannot be opened: Is a directory"),
        ("absent.png", "no such file"),
    ):
        with pytest.raises(SDDError, match=f"{name}: {said}"):
            decode(tmp_path / name)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_broken_exif_is_one_sentence(tmp_path):
    """Pillow raises TypeError here, of all things: no kind of exception may get past."""
    exif = Image.Exif()
    exif[0x0112], exif[0x011A] = 6, 72.0
    picture(40, 30).save(tmp_path / "a.jpg", exif=exif)
    whole = (tmp_path / "a.jpg").read_bytes()
    failures = 0
    for at in range(20, 90):
        (tmp_path / "b.jpg").write_bytes(whole[:at] + b"\x01" + whole[at + 1 :])
        try:
            open_image(tmp_path / "b.jpg")
        except SDDError:
            failures += 1
    assert failures


def test_a_pipe_is_not_waited_for_and_a_strip_is_no_picture(tmp_path):
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.png")
        with pytest.raises(SDDError, match="pipe.png: no regular file"):
            decode(tmp_path / "pipe.png")
    Image.new("1", (1, 200_000)).save(tmp_path / "strip.png")
    with pytest.raises(SDDError, match="strip.png: 1x200000 pixels are a strip"):
        decode(tmp_path / "strip.png")
    assert to_rgb(Image.new("RGB", (1, 100))).size == (1, 100)


def test_decompression_bomb_is_refused(tmp_path, monkeypatch):
    picture(64, 64).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(SDDError, match="too many pixels: Image size"):
        decode(tmp_path / "a.png")


# --- crops


def test_input_is_the_centre_crop_with_clips_mean_and_std():
    image = picture(20, 30)
    x = to_input(image, 16)
    pixels = np.array(image)[7:23, 2:18] / 255
    expected = (pixels - np.array(OPENAI_DATASET_MEAN)) / np.array(OPENAI_DATASET_STD)
    np.testing.assert_allclose(x.numpy(), expected.transpose(2, 0, 1), atol=1e-5)


def test_crops_reach_all_four_corners_and_are_never_resized_when_large_enough():
    image = picture(20, 30)
    whole = to_input(image.crop((0, 0, 20, 20)), 20)
    assert torch.equal(to_input(image, 20, top=0.0), whole)
    for left, top in ((0, 0), (0, 1), (1, 0), (1, 1)):
        x = to_input(image, 16, left, top)
        box = (left * 4, top * 14, left * 4 + 16, top * 14 + 16)
        assert torch.equal(x, to_input(image.crop(box), 16))
    assert torch.equal(to_input(image, 16, flip=True), to_input(image, 16).flip(2))


@pytest.mark.parametrize("size", [(5, 9), (16, 3), (1, 1), (15, 400)])
def test_small_pictures_are_enlarged_with_their_aspect_kept(size):
    grey = Image.new("RGB", size, (128, 128, 128))
    x = to_input(grey, 16)
    assert x.shape == (3, 16, 16) and x[0].std() < 1e-6


@pytest.fixture
def crops(tmp_path) -> list[Sample]:
    samples = []
    for i in range(6):
        picture(40, 50, i).save(tmp_path / f"{i}.png")
        samples.append(sample(tmp_path / f"{i}.png", i % 2, photo=str(i)))
    return samples


def test_training_crops_depend_only_on_seed_epoch_and_content(crops):
    def epoch(n: int, seed: int = 0, **options) -> dict[int, torch.Tensor]:
        data = Crops(crops, 16, train=True, seed=seed, keep=options.pop("keep", False))
        data.epoch = n
        return {int(i): x for xs, _, ids in DataLoader(data, 4, **options) for x, i in zip(xs, ids, strict=True)}

    torch.manual_seed(0)
    one = epoch(0)
    torch.manual_seed(1)
    np.random.seed(1)
    for other in (epoch(0), epoch(0, keep=True), epoch(0, shuffle=True), epoch(0, num_workers=2)):
        assert all(torch.equal(one[i], other[i]) for i in range(6))
    for other in (epoch(1), epoch(0, seed=1)):
        assert sum(torch.equal(one[i], other[i]) for i in range(6)) == 0
    assert not torch.equal(one[0], one[1])


@pytest.fixture
def twins(tmp_path) -> list[Sample]:
    """Five photographs: all real first, then a fake of three of them that shows the same pixels."""
    made = []
    for label, folder, photos in ((0, "camera", range(5)), (1, "gan", (3, 0, 4))):
        (tmp_path / folder).mkdir()
        for i in photos:
            path = tmp_path / folder / f"{i}.png"
            picture(40, 50, i).save(path)
            made.append(sample(path, label, photo=f"photo{i}"))
    return made


def test_a_real_crop_and_its_regeneration_are_cut_at_the_same_window(twins):
    data = Crops(twins, 16, train=True)
    for data.epoch in range(3):
        x = [data[i][0] for i in range(len(twins))]
        assert torch.equal(x[3], x[5]) and torch.equal(x[0], x[6]) and torch.equal(x[4], x[7])
        assert not torch.equal(x[1], x[2])


def test_batches_hold_an_image_once_and_its_twin_beside_it(twins):
    batches = TwinBatches(twins, 3, torch.Generator().manual_seed(0))
    one, other = list(batches), list(batches)
    assert len(batches) == 2 and one != other
    assert list(TwinBatches(twins, 3, torch.Generator().manual_seed(0))) == one
    whole = TwinBatches(twins, 8, torch.Generator().manual_seed(0))
    for _ in range(5):
        (order,) = whole
        assert sorted(order) == list(range(8))
        assert all(abs(order.index(real) - order.index(fake)) == 1 for real, fake in ((3, 5), (0, 6), (4, 7)))


def test_without_twins_batches_are_plain_shuffling(crops):
    seen = [tuple(order) for seed in range(30) for order in TwinBatches(crops, 6, torch.Generator().manual_seed(seed))]
    assert all(sorted(order) == list(range(6)) for order in seen) and len(set(seen)) > 20


def test_same_file_name_of_another_photograph_is_no_twin(crops):
    assert content_ids(crops).tolist() == list(range(6))
    named_alike = [dataclasses.replace(s, path=Path(f"{s.label}/0001.png")) for s in crops]
    assert content_ids(named_alike).tolist() == list(range(6))


def test_training_crops_are_real_crops_some_of_them_mirrored(crops):
    data, places, mirrored = Crops(crops[:1], 16, train=True), set(), 0
    pixels = np.array(picture(40, 50, 0))
    windows = {pixels[t : t + 16, s : s + 16].tobytes(): (t, s) for t in range(35) for s in range(25)}
    mean, std = (np.array(v)[:, None, None] for v in (OPENAI_DATASET_MEAN, OPENAI_DATASET_STD))
    for data.epoch in range(60):
        x = (np.round((data[0][0].numpy() * std + mean) * 255)).astype(np.uint8).transpose(1, 2, 0)
        straight, mirror = (np.ascontiguousarray(v).tobytes() for v in (x, x[:, ::-1]))
        mirrored += mirror in windows
        places.add(windows[straight if straight in windows else mirror])
    assert len(places) > 40 and 15 < mirrored < 45


def test_validation_crops_are_the_centre_whatever_the_epoch(crops):
    data = Crops(crops, 16, train=False)
    for data.epoch in range(2):
        for i in range(6):
            x, label, index = data[i]
            assert torch.equal(x, to_input(picture(40, 50, i), 16)) and (label, index) == (i % 2, i)


def test_a_kept_picture_is_read_once(crops):
    data = Crops(crops, 16, train=False, keep=True)
    before = data[0][0]
    crops[0].path.unlink()
    assert torch.equal(data[0][0], before)
    with pytest.raises(SDDError, match="0.png: no such file"):
        Crops(crops, 16, train=False)[0]


# --- manifest


def test_manifest_rows_come_in_order_with_paths_relative_to_it(tmp_path):
    (tmp_path / "m.csv").write_text(
        HEADER + "a/1.png,0,camera,camera,train,p1\nb.png,1,gan,GAN,test,p2\nc.png,0,camera,camera,val,p3\n"
    )
    samples = read_manifest(tmp_path / "m.csv")
    assert samples[0] == Sample(tmp_path / "a/1.png", 0, "camera", "camera", "train", "p1")
    assert [s.label for s in samples] == [0, 1, 0]
    assert [s.photo for s in read_manifest(tmp_path / "m.csv", ("train", "val"))] == ["p1", "p3"]
    (tmp_path / "excel.csv").write_bytes(b"\xef\xbb\xbf" + (tmp_path / "m.csv").read_bytes())
    assert read_manifest(tmp_path / "excel.csv") == samples


def test_family_and_photo_may_be_left_out_of_a_manifest(tmp_path):
    (tmp_path / "m.csv").write_text("path,label,generator,split\nx/a.png,0,camera,train\nb.png,1,gan,test\n")
    samples = read_manifest(tmp_path / "m.csv")
    assert samples[0] == Sample(tmp_path / "x/a.png", 0, "camera", "camera", "train", "x/a.png")
    assert samples[1] == Sample(tmp_path / "b.png", 1, "gan", "gan", "test", "b.png")
    (tmp_path / "n.csv").write_text("path,label,generator,split,photo\na.png,0,camera,train,p\nb.png,1,gan,test,p\n")
    with pytest.raises(SDDError, match="keep it in one split"):
        read_manifest(tmp_path / "n.csv")


@pytest.mark.parametrize(
    "text, said",
    [
        ("", "has no rows"),
        (HEADER, "has no rows"),
        ("path,label,generator,family,photo\na,0,c,c,p\n", "no column 'split'"),
        ("path,label,split\na,0,train\n", "no column 'generator'"),
        ("path,label,generator,split\na,0,c,\n", "row 2 has an empty cell"),
        ("path,label,generator,split,family\na,0,c,train,\n", "row 2 has an empty cell"),
        (HEADER + "a,fake,g,g,train,p\n", "neither 0"),
        (HEADER + "a,2,g,g,train,p\n", "neither 0"),
        (HEADER + "a\n", "neither 0"),
        (HEADER + "a,0,c,c,train\n", "row 2 has an empty cell"),
        (HEADER + "a,0,c,c,train,p\n,0,c,c,train,p\n", "row 3 has an empty cell"),
        (HEADER + "a,0,c,c,train,p,more\n", "row 2 has an empty cell or too many"),
        (HEADER + "a,0,c,c,Train,p\n", "row 2 has the split 'Train'; use train"),
        (HEADER + "a,0,c,c,train,p\na,1,g,g,train,p\n", "lists a path twice"),
    ],
)
def test_broken_manifests_are_one_sentence(tmp_path, text, said):
    (tmp_path / "m.csv").write_text(text)
    with pytest.raises(SDDError, match=said):
        read_manifest(tmp_path / "m.csv")
    with pytest.raises(SDDError, match="is missing"):
        read_manifest(tmp_path / "absent.csv")


@pytest.mark.parametrize("sides", [("train", "val"), ("train", "test"), ("val", "test"), ("train", "dev"), ("dev", "test")])
def test_a_photograph_on_two_sides_is_refused_even_as_a_fake(tmp_path, sides):
    samples = [sample("a", 0, sides[0], "p7"), sample("b", 1, sides[1], "p7")]
    with pytest.raises(SDDError, match="'p7' is in"):
        check_splits(samples, "m")
    with pytest.raises(SDDError, match="'p7' is in"):
        check_splits(samples[::-1], "m")
    rows = "".join(f"{s.path},{s.label},g,g,{s.split},p7\n" for s in samples)
    (tmp_path / "m.csv").write_text(HEADER + rows)
    with pytest.raises(SDDError, match="keep it in one split"):
        read_manifest(tmp_path / "m.csv", ("train",))  # reading one side only hides nothing


def test_dev_may_share_photographs_with_validation():
    check_splits([sample("a", 0, "val", "p"), sample("b", 1, "dev", "p"), sample("c", 0, "train", "q")], "m")


def test_data_hash_follows_names_labels_splits_and_order(tmp_path):
    a, b = sample(tmp_path / "a.png"), sample(tmp_path / "b.png", 1)
    different = [[a, b], [b, a], [a], [a, sample(tmp_path / "b.png", 0)], [a, sample(tmp_path / "b.png", 1, "val")]]
    assert len({data_hash(samples) for samples in different}) == len(different)
    elsewhere = [sample(tmp_path / "x" / s.path.name, s.label) for s in (a, b)]
    assert data_hash(elsewhere) == data_hash([a, b])


def test_folders_are_searched_in_order_and_missing_paths_are_kept_for_their_error_row(tmp_path):
    for name in ("b/2.JPG", "b/1.png", "a.webp", "notes.txt", "b/folder.png/x.bmp"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = scan_paths([tmp_path / "notes.txt", tmp_path, str(tmp_path / "gone.png")])
    names = [str(p.relative_to(tmp_path)) for p in found]
    assert names == ["notes.txt", "a.webp", "b/1.png", "b/2.JPG", "b/folder.png/x.bmp", "gone.png"]
    (tmp_path / "b" / "loop").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "b" / "broken.png").symlink_to("nowhere")
    assert len(scan_paths([tmp_path])) == 5  # the broken link is there for its error row, the loop is walked once


def test_training_pictures_are_resized_before_the_crop_and_scored_ones_never(tmp_path):
    """A resize to twice the side makes a crop show half of it; bilinear, aspect kept."""
    stripes = np.zeros((60, 80, 3), np.uint8)
    stripes[:, ::2] = 255
    Image.fromarray(stripes).save(tmp_path / "a.png")
    s = [Sample(tmp_path / "a.png", 0, "camera", "camera", "train", "a")]
    crops = Crops(s, 40, train=True, resize=120, keep=True)
    assert crops.picture(0).size == (160, 120) and crops.picture(0).size == (160, 120)
    assert crops[0][0].shape == (3, 40, 40)
    twice = np.asarray(Image.fromarray(stripes).resize((160, 120), Image.BILINEAR))
    assert np.array_equal(np.asarray(crops.picture(0)), twice)
    assert Crops(s, 40, train=False, resize=120).picture(0).size == (80, 60)
    with pytest.raises(SDDError, match="cannot be cut to 40 px after a resize to 30 px"):
        Crops(s, 40, train=True, resize=30)
