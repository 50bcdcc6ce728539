"""The mini benchmark keeps its promises: same crops, same container, whole photographs in one split, nothing else to go by."""

import csv
import sys
from collections import Counter, defaultdict
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from sddlib import audit
from sddlib.filefacts import inspect_files
from sddlib.near_duplicates import DISTANCE, look_alikes

DATA = Path(__file__).resolve().parents[1] / "data"
sys.path.insert(0, str(DATA))


@pytest.fixture(scope="module")
def rows():
    with (DATA / "manifest.csv").open(newline="", encoding="utf-8") as handle:
        return list(csv.DictReader(handle))


@pytest.fixture(scope="module")
def samples(rows):
    return [
        SimpleNamespace(
            path=DATA / r["path"],
            label=int(r["label"]),
            generator=r["generator"],
            family=r["family"],
            split=r["split"],
            photo=r["photo"],
        )
        for r in rows
    ]


def test_manifest_and_files_are_the_same_set(rows):
    listed = {r["path"] for r in rows}
    stored = {p.relative_to(DATA).as_posix() for p in (DATA / "mini").rglob("*") if p.is_file()}
    assert len(listed) == len(rows)
    assert listed == stored
    assert list(rows[0]) == ["path", "label", "generator", "family", "split", "photo", "source_package", "author", "licence"]


def test_counts_reach_what_is_promised(rows):
    reals = Counter(r["split"] for r in rows if r["label"] == "0")
    fakes = Counter((r["split"], r["generator"]) for r in rows if r["label"] == "1")
    assert reals["train"] >= 300 and reals["val"] >= 81 and reals["test"] >= 150 and reals["dev"] == 0
    for split in ("train", "val"):
        assert {g for s, g in fakes if s == split} == {"realesrgan_x4plus"}
        assert fakes[split, "realesrgan_x4plus"] == reals[split]
    assert all(n == reals["val"] for (s, _), n in fakes.items() if s == "dev")
    test = {g: n for (s, g), n in fakes.items() if s == "test"}
    assert len(test) == 11 and all(n == 100 for n in test.values())
    assert len({r["photo"] for r in rows}) >= 60


def test_unseen_families_and_dev_families_do_not_meet(rows):
    families = defaultdict(set)
    for r in rows:
        families[r["split"]].add(r["family"])
    assert not families["dev"] & families["test"]
    assert len(families["test"] - {"camera", "gan_rrdb"}) >= 4
    assert all((r["label"] == "0") == (r["generator"] == "camera") == (r["family"] == "camera") for r in rows)


def test_every_image_is_lossless_128_rgb_without_metadata(samples):
    for s in samples:
        with Image.open(s.path) as image:
            assert (image.format, image.mode, image.size) == ("WEBP", "RGB", (128, 128)), s.path
            assert not image.getexif() and not set(image.info) - {"loop", "background", "timestamp", "duration"}, s.path
            image.load()
        head = s.path.read_bytes()[:16]
        assert head[12:16] == b"VP8L", f"{s.path} is not lossless WebP"


def test_no_photograph_is_in_two_splits(rows):
    where = defaultdict(set)
    for r in rows:
        where[r["photo"]].add("val" if r["split"] == "dev" else r["split"])
    assert all(len(splits) == 1 for splits in where.values())
    assert set(where) == {p["photo"] for p in csv.DictReader((DATA / "photos.csv").open(newline="", encoding="utf-8"))}


def test_every_fake_has_its_camera_twin(rows):
    reals = {(r["split"], Path(r["path"]).name) for r in rows if r["label"] == "0"}
    for r in rows:
        assert ("val" if r["split"] == "dev" else r["split"], Path(r["path"]).name) in reals, r["path"]


def test_each_test_generator_uses_two_crops_of_every_test_photograph(rows):
    test = [r for r in rows if r["split"] == "test"]
    photos = {r["photo"] for r in test}
    fakes = Counter((r["generator"], r["photo"]) for r in test if r["label"] == "1")
    reals = Counter(r["photo"] for r in test if r["label"] == "0")
    assert set(reals.values()) == {3}
    for generator in {g for g, _ in fakes}:
        assert [fakes[generator, p] for p in sorted(photos)] == [2] * len(photos), generator
    # the crop left out rotates, so no crop number is kept from the fakes
    assert set(Counter(Path(r["path"]).stem[-1] for r in test if r["label"] == "1")) == {"0", "1", "2"}


def test_no_picture_looks_like_one_of_another_split(samples):
    """Fakes too. Different photographs are much further apart than a regeneration is from its photograph."""
    facts = inspect_files([str(s.path) for s in samples], 1)
    found = [{"path": s.path, "split": s.split, **f} for s, f in zip(samples, facts, strict=True)]
    assert all(r["phash"] for r in found) and look_alikes(found) == []
    codes = np.frombuffer(bytes.fromhex("".join(r["phash"] for r in found)), np.uint8).reshape(len(found), -1)
    bits = np.unpackbits(codes, axis=1).astype(np.float32)
    apart = bits @ (1 - bits).T
    apart += apart.T
    photo = np.array([s.photo for s in samples])
    assert apart[photo[:, None] != photo[None]].min() > 2 * DISTANCE
    real = {s.path.name: i for i, s in enumerate(samples) if s.label == 0}
    regenerated = [apart[i, real[s.path.name]] for i, s in enumerate(samples) if s.label]
    assert np.mean(np.array(regenerated) <= DISTANCE) > 0.97


def test_fakes_stay_close_to_their_photograph(samples):
    reals = {s.path.name: s.path for s in samples if s.label == 0}
    shift = defaultdict(list)
    for s in samples:
        if s.label == 1:
            fake, real = (np.asarray(Image.open(p), dtype=np.float64) for p in (s.path, reals[s.path.name]))
            shift[s.generator].append(((fake - real).mean((0, 1)), 10 * np.log10(255**2 / ((fake - real) ** 2).mean())))
    for generator, values in shift.items():
        colour, psnr = np.mean([c for c, _ in values], axis=0), np.mean([p for _, p in values])
        assert np.abs(colour).max() < 4 and psnr > 20, f"{generator}: colour shift {colour}, PSNR {psnr:.1f}"


def test_the_container_says_nothing_about_the_class(samples):
    table = audit.metadata_baseline(samples)["per_generator"]
    assert all(0.45 <= value <= 0.55 for value in table.values()), table


def test_the_photograph_says_nothing_about_the_class(samples):
    table = audit.photo_baseline(samples)["per_generator"]
    assert {"train", "val"} <= set(table) and all(0.45 <= value <= 0.55 for value in table.values()), table


def test_thumbnails_say_next_to_nothing_about_the_class(samples):
    report = audit.thumbnail_baseline(samples)
    assert 0.4 <= report["mean"] <= 0.6, report


def test_compressed_bytes_are_reported(samples):
    report = audit.bytes_baseline(samples)
    assert report["direction"] == -1
    table = report["per_generator"]
    assert table["waifu2x_photo_x4"] == pytest.approx(0.84, abs=0.01)  # as data/README.md says
    assert max(table["diffusion_ddim20"], table["diffusion_ddpm50"]) < 0.07


def test_split_of_the_manifest_is_the_seeded_one(rows):
    crops = pytest.importorskip("crops")
    splits = crops.split_photos(crops.read_photos())
    assert all(splits[r["photo"]] == ("val" if r["split"] == "dev" else r["split"]) for r in rows)
