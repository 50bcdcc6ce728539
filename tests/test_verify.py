"""Verify: what is missing, broken, doubled or mislabelled is listed and ends in exit code 1; what files give away is said."""

import csv
import dataclasses
import io
import shutil
import subprocess
import sys
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from trees import SIZE, both, picture, synris, univfd

from sddlib import SDDError, filefacts, verify_report
from sddlib import __main__ as cli
from sddlib import verify as verify_module
from sddlib.benchmarks import PROGAN_4, SYNRIS, UNIVFD
from sddlib.data import decode
from sddlib.filefacts import TABLES, file_facts, inspect_files, jpeg_quality, misnamed
from sddlib.layouts import Listing
from sddlib.leaks import NAMES, by_name, by_number, leaks, warn_above
from sddlib.verify import verify

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    """UnivFD, whole; not to be changed."""
    return univfd(tmp_path_factory.mktemp("univfd"))


@pytest.fixture
def copy(tree, tmp_path) -> Path:
    """UnivFD, to be changed."""
    return shutil.copytree(tree, tmp_path / "univfd")


@pytest.fixture
def small(monkeypatch):
    """Published sizes that the stand-ins have."""
    sets = tuple(dataclasses.replace(s, real=SIZE[s.name], fake=SIZE[s.name]) for s in UNIVFD)
    monkeypatch.setattr(verify_module, "UNIVFD", sets)


def call(capsys, root: Path, layout: str = "univfd", *options) -> tuple[int, str]:
    """(exit code, what is printed) of the command."""
    code = cli.main(["verify", str(root), "--layout", layout, "--workers", "1", *map(str, options)])
    done = capsys.readouterr()
    assert not done.err or code == 2
    return code, done.out or done.err


def lines(text: str, title: str) -> list[str]:
    """The lines of a list in the report."""
    found = [part.splitlines() for part in text.split("\n\n") if part.startswith(f"{title}: ")]
    return [line.strip() for part in found for line in part[1:]]


# --- sets and numbers


def test_a_whole_benchmark_is_exit_code_0_and_every_file_is_decoded(tree, small, capsys):
    before = sorted(tree.rglob("*"))
    code, text = call(capsys, tree)
    count = sum(p.is_file() for p in before)
    assert code == 0 and text.strip().endswith("whole: nothing is missing, every file can be decoded")
    assert f"{count} image files, {count} of them decoded" in text
    assert sorted(tree.rglob("*")) == before


def test_each_class_of_each_set_is_described_beside_its_published_number(tree):
    report = verify(str(tree), "univfd", workers=1)
    known = {(s["split"], s["set"], s["class"]): s for s in report.sets}
    assert len(known) == len(report.sets) == 2 * 11 + 8 + 2 + 4
    assert {name for split, name, label in known if (split, label) == ("test", "fake")} == {s.name for s in UNIVFD}
    assert known["test", "san", "fake"] == {
        "split": "test",
        "set": "san",
        "class": "fake",
        "n": 2,
        "published": 219,
        "format": {"PNG": 2},
        "mode": {"RGB": 2},
        "width": (12, 12, 12),
        "height": (10, 10, 10),
        "quality": None,
    }
    assert known["test", "laion", "real"]["published"] == known["test", "imagenet", "real"]["published"] == 1000
    assert known["train", "progan", "real"]["published"] is None and known["train", "progan", "real"]["n"] == 40
    assert "test deepfake: 2 real images, published are 2707" in report.differs
    assert "test deepfake: 2 fake images, published are 2698" in report.differs
    assert len(report.differs) == 2 * 14 and report.exit_code == 1 and not report.missing


def test_another_number_than_published_is_exit_code_1(copy, small, capsys):
    (copy / "test" / "biggan" / "1_fake" / "1.PNG").unlink()
    picture(copy / "test" / "diffusion_datasets" / "laion" / "0_real" / "more.png")
    code, text = call(capsys, copy)
    shared = [s.name for s in UNIVFD if s.reals == "laion"]
    assert code == 1 and lines(text, "OTHER NUMBER THAN PUBLISHED") == [
        "test biggan: 1 fake images, published are 2",
        *(f"test {name}: 3 real images, published are 2" for name in shared),
    ]
    assert text.strip().endswith("NOT WHOLE: other numbers than published 8") and "2 (differs)" in text


@pytest.mark.parametrize(
    "gone, said",
    [
        (["test/biggan"], ["test biggan: no real images", "test biggan: no fake images"]),
        (["test/seeingdark/0_real"], ["test sitd: no real images"]),
        (["test/diffusion_datasets/dalle"], ["test dalle: no fake images"]),
        (["test/diffusion_datasets/imagenet"], ["test guided: no real images"]),
        (["test/diffusion_datasets/laion"], [f"test {s.name}: no real images" for s in UNIVFD if s.reals == "laion"]),
        (["train"], ["train progan: no real images", "train progan: no fake images"]),
        (
            ["train/progan/sofa", "val/progan/car"],
            ["train progan: no images of class sofa", "val progan: no images of class car"],
        ),
    ],
)
def test_a_missing_set_is_named_and_exit_code_1(copy, small, capsys, gone, said):
    for folder in gone:
        shutil.rmtree(copy / folder)
    code, text = call(capsys, copy)
    assert code == 1 and lines(text, "MISSING") == said and f"NOT WHOLE: missing {len(said)}" in text


def test_an_emptied_class_folder_is_missing(copy, small, capsys):
    shutil.rmtree(copy / "val" / "progan" / "dog" / "1_fake")
    (copy / "val" / "progan" / "dog" / "1_fake").mkdir()
    code, text = call(capsys, copy)
    assert code == 1 and lines(text, "MISSING") == ["val/progan/dog/1_fake: an empty folder"]


def test_splits_and_classes_that_are_not_asked_for_are_not_missed(copy, small, capsys):
    shutil.rmtree(copy / "train")
    assert call(capsys, copy, "univfd", "--splits", "val", "test")[0] == 0
    for folder in (copy / "val" / "progan").iterdir():
        if folder.name not in PROGAN_4:
            shutil.rmtree(folder)
    assert call(capsys, copy, "univfd", "--splits", "val")[0] == 1
    code, text = call(capsys, copy, "univfd", "--splits", "val", "--classes", *PROGAN_4)
    assert code == 0 and "16 image files" in text
    code, text = call(capsys, copy, "univfd", "--splits", "val", "--classes", "car", "zebra")
    assert code == 1 and lines(text, "MISSING") == ["val progan: no images of class zebra"]


def test_synris_must_have_its_13_and_unknown_generators_are_named(tmp_path, capsys):
    both(synris(tmp_path) / "flux")
    code, text = call(capsys, tmp_path, "synris")
    assert code == 0 and lines(text, "generators that SynRIS does not have, read all the same") == ["flux"]
    assert text.count("not known") == 2 * (len(SYNRIS) + 1)
    shutil.rmtree(tmp_path / "dalle3")
    code, text = call(capsys, tmp_path, "synris")
    assert code == 1 and lines(text, "MISSING") == ["test dalle3: no real images", "test dalle3: no fake images"]


def test_a_set_with_one_class_is_missing_the_other_in_any_layout(tmp_path, capsys):
    both(tmp_path / "a")
    both(tmp_path / "b", ("fake",))
    code, text = call(capsys, tmp_path, "folder")
    assert code == 1 and lines(text, "MISSING") == ["test b: no real images"]
    (tmp_path / "m.csv").write_text("path,label,generator,split\na/0_real/1.PNG,0,camera,val\n")
    code, text = call(capsys, tmp_path / "m.csv", "manifest")
    assert code == 1 and lines(text, "MISSING") == ["val camera: no fake images"]


def test_folders_that_are_not_read_and_files_that_are_no_images_are_named(copy, small, capsys):
    both(copy / "test" / "stylegan2" / "car")
    both(copy / "test" / "mine")
    (copy / "test" / "san" / "0_real" / "Thumbs.db").touch()
    code, text = call(capsys, copy)
    assert code == 0
    assert lines(text, "folders without a place in layout univfd, not read") == [
        "test/mine (4 image files)",
        "test/stylegan2 (4 image files; in the archive, but not among the 19 sets)",
    ]
    assert lines(text, "files beside the images, by suffix") == [".db 1"]


def test_this_repositorys_own_benchmark_is_whole(capsys):
    code, text = call(capsys, ROOT / "data" / "manifest.csv", "manifest", "--splits", "val")
    assert code == 0 and "170 image files, 170 of them decoded" in text
    (warning,) = (line for line in text.splitlines() if line.startswith("warning"))
    assert warning.startswith("warning: compressed size alone") and warning.endswith(": val realesrgan_x4plus 0.64")


# --- files


def test_files_that_cannot_be_decoded_are_listed_with_the_reason_and_empty_ones_apart(copy, small, capsys):
    folder = copy / "test" / "san" / "1_fake"
    for empty in (folder / "1.PNG", folder.parent / "0_real" / "1.PNG"):  # alike, and yet no duplicates and not mislabelled
        empty.write_bytes(b"")
    (folder / "0.crop.png").write_text("no image")
    whole = picture(copy / "test" / "crn" / "0_real" / "1.PNG", (90, 90)).read_bytes()
    (copy / "test" / "crn" / "0_real" / "1.PNG").write_bytes(whole[: len(whole) // 2])
    (copy / "test" / "crn" / "0_real" / "0.crop.png").unlink()
    (copy / "test" / "crn" / "0_real" / "0.crop.png").symlink_to("nowhere.png")
    code, text = call(capsys, copy)
    assert code == 1 and text.strip().endswith("NOT WHOLE: zero-byte 2, undecodable 3")
    assert lines(text, "ZERO BYTES") == ["test/san/0_real/1.PNG", "test/san/1_fake/1.PNG"]
    words, link, cut = lines(text, "UNDECODABLE")
    assert link == "test/crn/0_real/0.crop.png: no such file"
    assert cut.startswith("test/crn/0_real/1.PNG: cannot be decoded: ") and "truncated" in cut
    assert words == "test/san/1_fake/0.crop.png: not an image file that can be read"


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF"])
def test_a_truncated_file_of_any_container_is_undecodable(tmp_path, form):
    path = picture(tmp_path / "a.png", (80, 80), form)
    assert not file_facts(str(path))["error"]
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    facts = file_facts(str(path))
    assert facts["error"] and "\n" not in facts["error"] and facts["bytes"] == path.stat().st_size


def test_what_can_be_decoded_here_is_what_training_and_scoring_can_read(tmp_path):
    Image.new("1", (1, 500)).save(tmp_path / "strip.png")
    Image.fromarray(np.full((4, 4), 0.5, np.float32)).save(tmp_path / "float.tif")
    picture(tmp_path / "good.png")
    for path in tmp_path.iterdir():
        error = file_facts(str(path))["error"]
        if error:
            with pytest.raises(SDDError, match=error.split(",")[0].split(";")[0]):
                decode(path)
        else:
            assert decode(path).size == (12, 10)
    assert sum(bool(file_facts(str(p))["error"]) for p in tmp_path.iterdir()) == 2


def test_a_file_of_a_manifest_that_is_not_there_is_listed(tmp_path, capsys):
    both(tmp_path)
    rows = ["0_real/1.PNG,0,camera,test", "1_fake/1.PNG,1,gan,test", "gone.png,1,gan,test"]
    (tmp_path / "m.csv").write_text("path,label,generator,split\n" + "\n".join(rows) + "\n")
    code, text = call(capsys, tmp_path / "m.csv", "manifest")
    assert code == 1 and lines(text, "UNDECODABLE") == ["gone.png: no such file"]


def test_duplicates_are_a_warning_that_says_where_and_across_splits_an_error(copy, small, capsys):
    test = copy / "test"
    shutil.copy(test / "crn" / "0_real" / "1.PNG", test / "imle" / "0_real" / "1.PNG")
    shutil.copy(test / "san" / "1_fake" / "1.PNG", test / "san" / "1_fake" / "0.crop.png")
    shutil.copy(copy / "train" / "progan" / "car" / "0_real" / "1.PNG", test / "biggan" / "0_real" / "1.PNG")
    code, text = call(capsys, copy)
    assert code == 1 and lines(text, "duplicates (files of the same bytes), by where they lie") == [
        "test biggan = train progan: 1",
        "test san: 1",
        "test crn = test imle: 1",
    ]
    across = "train/progan/car/0_real/1.PNG = test/biggan/0_real/1.PNG"
    assert lines(text, "THE SAME BYTES IN TWO SPLITS") == [across]
    assert "test/san/1_fake/0.crop.png = test/san/1_fake/1.PNG" in lines(text, "duplicates, one by one")
    (pair,) = lines(text, "LOOK ALIKE IN TWO SPLITS")
    assert pair.startswith("train/progan/car/0_real/1.PNG (train) and test/biggan/0_real/1.PNG (test), 0 of 256 bits")


def test_pictures_of_two_splits_that_look_alike_are_an_error_and_flat_ones_are_said(tmp_path, capsys):
    """A training picture tested in another size and container; the same in dev and val is none."""
    for split in ("train", "val", "dev", "test"):
        for kind in ("0_real", "1_fake")[split == "dev" :]:
            for i in range(2):
                picture(tmp_path / split / "gan" / kind / f"{i}.png", (64, 64))
    assert call(capsys, tmp_path, "folder")[0] == 0
    for start, end in (
        ("train/gan/0_real/0.png", "test/gan/0_real/copy.jpg"),
        ("val/gan/1_fake/0.png", "dev/gan/1_fake/copy.png"),
    ):
        with Image.open(tmp_path / start) as image:
            image.resize((128, 128), Image.BICUBIC).save(tmp_path / end)
    Image.new("RGB", (64, 64), (9, 9, 9)).save(tmp_path / "test" / "gan" / "0_real" / "blank.png")
    code, text = call(capsys, tmp_path, "folder", "--csv", tmp_path / "files.csv")
    assert code == 1 and text.strip().endswith("NOT WHOLE: alike in two splits 1")
    (pair,) = lines(text, "LOOK ALIKE IN TWO SPLITS")
    assert pair.startswith("train/gan/0_real/0.png (train) and test/gan/0_real/copy.jpg (test), ")
    assert lines(text, "too flat for a perceptual hash, not compared across splits") == ["test/gan/0_real/blank.png"]
    rows = {r["path"]: r for r in csv.DictReader((tmp_path / "files.csv").open(newline=""))}
    assert rows["test/gan/0_real/copy.jpg"]["problems"] == "looks like train/gan/0_real/0.png of split train"
    assert len(rows["train/gan/0_real/0.png"]["phash"]) == 64 and not rows["test/gan/0_real/blank.png"]["phash"]
    assert call(capsys, tmp_path, "folder", "--splits", "test")[0] == 0


def test_shared_reals_are_no_duplicates(tree):
    report = verify(str(tree), "univfd", workers=1)
    assert not report.duplicates and not report.mislabelled
    assert sum("laion" in r["path"] for r in report.files) == 2


def test_the_same_bytes_in_both_classes_are_mislabelled(copy, small, capsys):
    shutil.copy(copy / "test" / "san" / "0_real" / "1.PNG", copy / "test" / "crn" / "1_fake" / "1.PNG")
    code, text = call(capsys, copy)
    assert code == 1 and lines(text, "MISLABELLED") == [
        "test/san/0_real/1.PNG: the same bytes are fake in test/crn/1_fake/1.PNG",
        "test/crn/1_fake/1.PNG: the same bytes are real in test/san/0_real/1.PNG",
    ]
    assert "duplicates" not in text


def test_a_fake_folder_below_a_real_one_is_mislabelled(copy, small, capsys):
    inside = copy / "test" / "san" / "0_real" / "1_fake"
    inside.mkdir()
    (copy / "test" / "san" / "0_real" / "1.PNG").rename(inside / "1.PNG")
    code, text = call(capsys, copy)
    assert code == 1
    assert lines(text, "MISLABELLED") == ["test/san/0_real/1_fake/1.PNG: lies in a folder of reals and in one of fakes"]


def test_a_name_that_says_another_container_is_a_warning(copy, small, capsys):
    (copy / "test" / "san" / "0_real" / "1.PNG").rename(copy / "test" / "san" / "0_real" / "1.JPG")
    code, text = call(capsys, copy)
    assert code == 0 and lines(text, "warning: names that say another container") == ["test/san/0_real/1.JPG is PNG"]
    assert misnamed("a.b.PNG", "JPEG") and misnamed("a.jpg", "WEBP")
    right = {"a.jpg": "JPEG", "a.JPEG": "MPO", "a.tif": "TIFF", "a.TIFF": "TIFF", "a.gif": "GIF", "a.bmp": "BMP"}
    assert (
        not any(misnamed(name, form) for name, form in right.items())
        and not misnamed("a.webp", "")
        and not misnamed("a", "PNG")
    )


# --- JPEG quality


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0, "optimize": True}])
def test_quality_of_every_jpeg_that_pil_writes_is_found(tmp_path, options):
    for quality in range(1, 101):
        path = picture(tmp_path / "a.jpg", form="JPEG", quality=quality, **options)
        assert file_facts(str(path))["quality"] == quality


def test_quality_is_of_jpeg_alone_in_any_of_its_modes(tmp_path):
    for mode in ("L", "CMYK"):
        Image.new(mode, (16, 16)).save(tmp_path / f"{mode}.jpg", quality=63)
        assert file_facts(str(tmp_path / f"{mode}.jpg"))["quality"] == 63
    for form in ("PNG", "WEBP", "TIFF"):
        assert file_facts(str(picture(tmp_path / "a", form=form)))["quality"] is None


def test_quality_of_a_table_that_is_not_the_librarys_is_the_nearest():
    rng = np.random.default_rng(0)
    for quality in (50, 75, 90):
        assert abs(jpeg_quality(TABLES[quality - 1] + rng.integers(-1, 2, 64)) - quality) <= 1


def test_tables_are_those_that_pil_writes():
    for quality in (1, 25, 50, 75, 99, 100):
        buffer = io.BytesIO()
        Image.new("L", (8, 8)).save(buffer, "JPEG", quality=quality)
        assert np.array_equal(Image.open(buffer).quantization[0], TABLES[quality - 1])


# --- what files give away


def facts(label: int, **changes) -> dict:
    return {"label": label, "format": "PNG", "mode": "RGB", "width": 64, "height": 64, "bytes": 9000, "quality": None} | changes


def drawn(n: int, real, fake) -> dict[str, float | None]:
    """`leaks` of n reals and n fakes, each made from a random generator."""
    rng = np.random.default_rng(0)
    return leaks([facts(0, **real(rng)) for _ in range(n)] + [facts(1, **fake(rng)) for _ in range(n)])


def test_files_that_are_alike_give_nothing_away():
    found = drawn(60, lambda _: {}, lambda _: {})
    assert found == {name: 0.5 for name in NAMES} | {"quality": None}

    def noise(rng):
        side = int(rng.integers(50, 90))
        return {"width": side, "height": side + 3, "bytes": int(rng.integers(5000, 9000)), "quality": int(rng.integers(60, 99))}

    found = drawn(400, noise, noise)
    assert all(abs(a - 0.5) < 0.07 for a in found.values()) and max(found.values()) < warn_above(400, 400)


@pytest.mark.parametrize(
    "real, fake, told",
    [
        ({"format": "JPEG"}, {}, {"format", "combined"}),
        ({}, {"mode": "L"}, {"combined"}),
        ({"width": 70}, {}, {"size", "width", "pixels", "bytes/pixel", "combined"}),
        ({"height": 70}, {}, {"size", "height", "pixels", "bytes/pixel", "combined"}),
        ({"width": 32, "height": 128}, {}, {"size", "width", "height", "combined"}),
        ({"bytes": 8000}, {}, {"bytes/pixel", "combined"}),
        ({}, {"bytes": 8000}, {"bytes/pixel", "combined"}),
        ({"format": "JPEG", "quality": 95}, {"format": "JPEG", "quality": 75}, {"quality", "combined"}),
    ],
)
def test_what_separates_the_classes_is_found_whichever_way_it_points(real, fake, told):
    found = drawn(20, lambda _: real, lambda _: fake)
    assert {name for name, a in found.items() if a is not None and a > 0.99} == told
    assert all(found[name] in (0.5, None) for name in set(NAMES) - told)


def test_one_size_amid_many_is_found_though_its_numbers_lie_in_the_middle():
    found = drawn(100, lambda rng: {"width": int(rng.integers(30, 98)), "height": int(rng.integers(30, 98))}, lambda _: {})
    assert found["width"] < 0.65 and found["size"] > 0.99 and found["combined"] > 0.99


def test_no_image_is_guessed_from_its_own_label():
    y = np.array([0, 1] * 40)
    assert by_name(y, [str(i) for i in range(80)]) == 0.5  # in sample this would be 1
    rng = np.random.default_rng(1)
    assert abs(by_name(np.array([0, 1] * 200), [str(v) for v in rng.integers(0, 150, 400)]) - 0.5) < 0.08
    assert by_number(y, -y.astype(float)) == 1


def test_a_handful_of_images_gets_no_number_and_a_chance_difference_no_warning():
    assert set(drawn(9, lambda _: {"format": "JPEG"}, lambda _: {}).values()) == {None}
    assert warn_above(10, 10) > 0.85 and warn_above(1000, 1000) == 0.6


def test_a_set_that_its_files_tell_apart_is_warned_of_by_name_and_the_exit_code_stays_0(tmp_path, capsys):
    for i in range(12):
        for name in ("leaky", "fair"):
            picture(tmp_path / name / "1_fake" / f"{i}.png")
        picture(tmp_path / "fair" / "0_real" / f"{i}.png")
        picture(tmp_path / "leaky" / "0_real" / f"{i}.jpg", form="JPEG", quality=80 + i)
    code, text = call(capsys, tmp_path, "folder")
    warnings = [line for line in text.splitlines() if line.startswith("warning")]
    assert code == 0 and len(warnings) == 1
    assert warnings[0].startswith("warning: test leaky: the file alone tells real from fake (format 1.00")
    (row,) = (line for line in text.splitlines() if line.startswith("test   leaky  real"))
    assert "JPEG" in row and row.endswith("80-85.5-91")


def test_compressed_size_is_warned_of_apart_and_what_only_all_together_tells_is_not_laid_to_it():
    alike = dict.fromkeys(NAMES, 0.5) | {"n_real": 1000, "n_fake": 1000}
    report = verify_module.Report("root", "folder", Listing(), [])
    report.leaks = {("test", "a"): alike | {"bytes/pixel": 0.7, "combined": 0.7}, ("test", "b"): alike | {"combined": 0.9}}
    warnings = [line for line in verify_report.leaks_table(report).splitlines() if line.startswith("warning")]
    assert warnings == [
        "warning: test b: the file alone tells real from fake (combined 0.90)",
        "warning: compressed size alone tells real from fake, as smooth pictures do: test a 0.70",
    ]


def test_each_set_is_judged_with_its_own_reals(copy):
    laion = copy / "test" / "diffusion_datasets" / "laion" / "0_real"
    for i in range(10):
        for folder in ("imagenet/0_real", "guided/1_fake", "dalle/1_fake"):
            picture(laion.parent.parent / folder / f"{i}.png")
        picture(laion / f"{i}.jpg", form="JPEG")
    report = verify(str(copy), "univfd", splits=("test",), workers=1)
    assert report.leaks["test", "guided"]["format"] == 0.5 and report.leaks["test", "dalle"]["format"] > 0.8
    assert (report.leaks["test", "guided"]["n_real"], report.leaks["test", "dalle"]["n_real"]) == (12, 12)
    shutil.rmtree(laion.parent.parent / "guided")  # then imagenet's reals stand against nobody, and not against everybody
    report = verify(str(copy), "univfd", splits=("test",), workers=1)
    assert report.leaks["test", "dalle"]["n_real"] == 12 and report.leaks["test", "biggan"]["n_real"] == 2


# --- the command


def test_csv_has_a_row_for_every_file_good_or_not(copy, small, tmp_path, capsys):
    san = copy / "test" / "san"
    (san / "1_fake" / "1.PNG").write_bytes(b"")
    shutil.copy(san / "0_real" / "1.PNG", san / "0_real" / "0.crop.png")
    picture(san / "1_fake" / "0.crop.png", form="JPEG", quality=77)
    out = tmp_path / "files.csv"
    assert call(capsys, copy, "univfd", "--csv", out)[0] == 1
    rows = list(csv.DictReader(out.open(newline="")))
    assert list(rows[0]) == verify_module.COLUMNS
    assert {r["path"] for r in rows} == {p.relative_to(copy).as_posix() for p in copy.rglob("*") if p.is_file()}
    (empty,) = (r for r in rows if r["path"] == "test/san/1_fake/1.PNG")
    assert (empty["bytes"], empty["error"], empty["problems"], empty["width"]) == ("0", "zero bytes", "zero bytes", "")
    (named,) = (r for r in rows if r["path"] == "test/san/1_fake/0.crop.png")
    assert (named["format"], named["quality"], named["set"], named["label"]) == ("JPEG", "77", "san", "1")
    assert named["problems"] == "its name says another container than JPEG"
    doubled = {r["path"]: r["problems"] for r in rows if r["problems"].startswith("duplicate")}
    assert doubled["test/san/0_real/1.PNG"] == "duplicate of test/san/0_real/0.crop.png"
    assert doubled["test/san/0_real/0.crop.png"] == "duplicate of test/san/0_real/1.PNG" and len(doubled) == 2


def test_a_long_list_says_how_many_it_leaves_out(copy, small, capsys):
    for i in range(verify_report.SHOWN + 5):
        (copy / "test" / "san" / "1_fake" / f"bad{i}.png").write_text("bad")
    code, text = call(capsys, copy)
    shown = lines(text, "UNDECODABLE")
    assert code == 1 and len(shown) == verify_report.SHOWN + 1 and shown[-1].startswith("... and 5 more (--csv FILE")
    assert "UNDECODABLE: 25\n" in text


@pytest.mark.parametrize(
    "options, said",
    [
        (["absent", "--layout", "univfd"], "absent is no folder"),
        (["hollow", "--layout", "univf"], "layout 'univf' is unknown"),
        (["hollow", "--layout", "folder"], "hollow has no images of layout folder"),
        (["hollow", "--layout", "manifest"], "hollow is a folder"),
        (["good", "--layout", "folder", "--workers", "0"], "--workers 0 is no number of processes"),
        (["good", "--layout", "folder", "--splits", "tset"], "split 'tset' is unknown"),
        (["good", "--layout", "folder", "--classes", "car"], "layout folder has none"),
        (["good", "--layout", "folder", "--csv", "good/0_real/1.PNG"], "has the name of an image"),
        (["good", "--layout", "folder", "--csv", "no/such/folder.csv"], "--csv no/such/folder.csv: its folder does not exist"),
        (["m.csv", "--layout", "manifest", "--csv", "m.csv"], "--csv m.csv is an input"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(tmp_path, monkeypatch, capsys, options, said):
    monkeypatch.chdir(tmp_path)
    both(Path("good"))
    Path("hollow").mkdir()
    Path("m.csv").write_text("path,label,generator,split\ngood/0_real/1.PNG,0,camera,test\n")
    before = Path("m.csv").read_text()
    assert cli.main(["verify", *options]) == 2
    err = capsys.readouterr().err
    assert said in err and len(err.splitlines()) == 1
    assert Path("m.csv").read_text() == before and sorted(p.name for p in Path().iterdir()) == ["good", "hollow", "m.csv"]


def test_help_says_what_the_exit_codes_mean(capsys):
    with pytest.raises(SystemExit):
        cli.main(["verify", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert "another number of files than published" in said and "2: a mistake" in said


def test_any_number_of_processes_finds_the_same(tree):
    paths = sorted(str(p) for p in tree.rglob("*") if p.is_file())
    assert len(paths) > 2 * filefacts.CHUNK
    assert inspect_files(paths, 2) == inspect_files(paths, 1)


def test_a_worker_that_dies_is_one_sentence(tree, monkeypatch):
    class Dying:
        def __init__(self, *_, **__):
            pass

        def map(self, *_, **__):
            raise BrokenProcessPool

        def shutdown(self, **_):
            pass

    monkeypatch.setattr(filefacts, "ProcessPoolExecutor", Dying)
    with pytest.raises(SDDError, match="a worker process died.*--workers"):
        inspect_files([str(tree)] * filefacts.CHUNK, 2)


def test_workers_need_no_torch():
    check = "import sys, sddlib.filefacts; assert not {'torch', 'sklearn', 'open_clip'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], cwd=ROOT).returncode == 0
