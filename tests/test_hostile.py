"""What becomes of which file, decided here kind by kind and tried through the command: decoded, or a row with its reason."""

import csv
import os
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from files import SIZE, chunk, content, deep, deep_png, exif, interlaced_png, noise, png, profile, with_size
from models import tiny_checkpoint
from PIL import Image, ImageFile

from sddlib import SDDError, pictures
from sddlib import __main__ as cli
from sddlib.data import decode
from sddlib.filefacts import file_facts

MOVING = {"save_all": True, "append_images": [Image.new("RGB", SIZE)]}
RGB = content(noise(), "PNG")
HUGE = (30_000, 30_000)
Made = bytes | Callable[[Path], object]  # content, or a function that makes the path

# Decoded: name -> (what it is made of, format, width, height as stored, name of a file that must get the same score or "")
DECODED: dict[str, tuple[Made, str, int, int, str]] = {
    "rgb.png": (RGB, "PNG", *SIZE, ""),
    "named otherwise.jpg": (RGB, "PNG", *SIZE, "rgb.png"),
    "UPPER.PNG": (RGB, "PNG", *SIZE, "rgb.png"),
    "one pixel.png": (content(noise(size=(1, 1)), "PNG"), "PNG", 1, 1, ""),
    "just no strip.png": (content(noise(size=(2, 200)), "PNG"), "PNG", 2, 200, ""),
    "cmyk.jpg": (content(noise("CMYK"), "JPEG", quality=90), "JPEG", *SIZE, ""),
    "progressive.jpg": (content(noise(), "JPEG", progressive=True), "JPEG", *SIZE, ""),
    "palette.png": (content(noise("P"), "PNG", transparency=bytes(range(256))), "PNG", *SIZE, ""),
    "palette.gif": (content(noise("P"), "GIF", transparency=3), "GIF", *SIZE, ""),
    "interlaced.png": (interlaced_png(), "PNG", *SIZE, "grey.png"),
    "grey.png": (content(noise("L"), "PNG"), "PNG", *SIZE, ""),
    "16 bit.png": (content(deep(), "PNG"), "PNG", *SIZE, "its high byte.png"),
    "16 bit.tif": (content(deep(), "TIFF"), "TIFF", *SIZE, "its high byte.png"),
    "its high byte.png": (content(Image.fromarray((np.asarray(deep()) >> 8).astype(np.uint8)), "PNG"), "PNG", *SIZE, ""),
    "16 bit rgb.png": (deep_png(), "PNG", *SIZE, ""),
    "first of two.gif": (content(noise("P"), "GIF", **MOVING), "GIF", *SIZE, "still.gif"),
    "still.gif": (content(noise("P"), "GIF"), "GIF", *SIZE, ""),
    "first of two.webp": (content(noise(), "WEBP", lossless=True, **MOVING), "WEBP", *SIZE, "rgb.png"),
    "first of two.png": (content(noise(), "PNG", **MOVING), "PNG", *SIZE, "rgb.png"),
    "first of two.tif": (content(noise(), "TIFF", **MOVING), "TIFF", *SIZE, "rgb.png"),
    "turned.png": (content(noise(), "PNG", exif=exif(6)), "PNG", *SIZE, "upright.png"),
    "upright.png": (content(noise().transpose(Image.Transpose.ROTATE_270), "PNG"), "PNG", *SIZE[::-1], ""),
    "profile.png": (content(noise(), "PNG", icc_profile=profile()), "PNG", *SIZE, "rgb.png"),
    "profile.tif": (content(noise(), "TIFF", icc_profile=profile()), "TIFF", *SIZE, "rgb.png"),
    "new\nline.png": (RGB, "PNG", *SIZE, "rgb.png"),
    "-dash.png": (RGB, "PNG", *SIZE, "rgb.png"),
    "--out.png": (RGB, "PNG", *SIZE, "rgb.png"),
    "ünicode 画像 🙂.png": (RGB, "PNG", *SIZE, "rgb.png"),
    'comma,"quote".png': (RGB, "PNG", *SIZE, "rgb.png"),
    "=1+1.png": (RGB, "PNG", *SIZE, "rgb.png"),
    "\x1b[31mred.png": (RGB, "PNG", *SIZE, "rgb.png"),
    "<b onclick=x>.png": (RGB, "PNG", *SIZE, "rgb.png"),
    "n" * 240 + ".png": (RGB, "PNG", *SIZE, "rgb.png"),
    "link.png": (lambda path: path.symlink_to("rgb.png"), "PNG", *SIZE, "rgb.png"),
}

# Refused: name -> (what it is made of, a part of the reason)
REFUSED: dict[str, tuple[Made, str]] = {
    "empty.png": (b"", "not an image file that can be read"),
    "text.png": (b"no picture", "not an image file that can be read"),
    "page.jpg": (b"<html><body>404</body></html>", "not an image file that can be read"),
    "vectors.png": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "not an image file that can be read"),
    "program.png": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image file that can be read"),
    "other.png": (content(noise(), "PPM"), "not an image file that can be read"),
    "other.jpg": (content(noise(), "ICO"), "not an image file that can be read"),
    "zeros.jpg": (bytes(5000), "not an image file that can be read"),
    "cut.jpg": (content(noise(), "JPEG")[:900], "cannot be decoded: image file is truncated"),
    "cut.png": (RGB[: len(RGB) // 2], "cannot be decoded: "),
    "cut.webp": (content(noise(), "WEBP")[:300], "cannot be "),
    "cut.gif": (content(noise("P"), "GIF")[:1000], "cannot be decoded: image file is truncated"),
    "head only.png": (RGB[:33], "not an image file that can be read"),
    "no pixels.png": (png((0, 5), 8, 0, b""), "not an image file that can be read"),
    "strip.png": (content(Image.new("1", (1, 20_000)), "PNG"), "1x20000 pixels are a strip"),
    "head.png": (with_size(RGB, *HUGE), "too many pixels"),
    "head.jpg": (with_size(content(noise(), "JPEG"), *HUGE), "too many pixels"),
    "head.gif": (with_size(content(noise("P"), "GIF", **MOVING), *HUGE), "too many pixels"),
    "head.bmp": (with_size(content(noise(), "BMP"), *HUGE), "too many pixels"),
    "head.tif": (with_size(content(noise(), "TIFF", **MOVING), *HUGE), "too many pixels"),
    "head.webp": (with_size(content(noise(), "WEBP", lossless=True, **MOVING), 16_000, 16_000), "too many pixels"),
    "bomb.png": (png((20_000, 8_000), 1, 0, bytes(2501 * 8000)), "too many pixels: 20000x8000 are more than 120 million"),
    "words.png": (
        RGB[:33] + chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(100_000_000))) + RGB[33:],
        "cannot be decoded: ",
    ),
    "float.tif": (content(noise("F"), "TIFF"), "floating-point pixels have no known range"),
    "32 bit.tif": (content(Image.fromarray(np.full((4, 4), 70_000, np.int32)), "TIFF"), "more than 16 bits"),
    "2 GiB.webp": (lambda path: sparse(path, b"RIFF" + (2**31).to_bytes(4, "little") + b"WEBP"), "2048 MiB is too large"),
    "nowhere.png": (lambda path: path.symlink_to("gone.png"), "no such file"),
    "itself.png": (lambda path: path.symlink_to(path.name), "cannot be opened: Too many levels of symbolic links"),
    "device.png": (lambda path: path.symlink_to("/dev/zero"), "no regular file"),
    "pipe.png": (os.mkfifo, "no regular file"),
}


def sparse(path: Path, head: bytes) -> None:
    path.write_bytes(head)
    os.truncate(path, 2**31)


def score(checkpoint: Path, out: Path, *arguments) -> tuple[int, list[dict]]:
    """(exit code, rows) of the command."""
    code = cli.main(["score", "--checkpoint", str(checkpoint), "--out", str(out), *map(str, arguments)])
    return code, list(csv.DictReader(out.open(newline="", encoding="utf-8"))) if out.is_file() else []


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return tiny_checkpoint(tmp_path_factory.mktemp("tiny") / "sdd.safetensors")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Every kind in one folder, which also leads to itself by a link."""
    place = tmp_path_factory.mktemp("hostile") / "a folder"
    place.mkdir()
    for name, (made, *_) in (DECODED | REFUSED).items():
        if isinstance(made, bytes):
            (place / name).write_bytes(made)
        else:
            made(place / name)
    (place / "round").symlink_to(place, target_is_directory=True)
    return place


@pytest.fixture(scope="module")
def result(folder, checkpoint):
    """(exit code, name -> row) of one call on the whole folder."""
    code, rows = score(checkpoint, folder.parent / "verdicts.csv", folder)
    return code, {os.path.relpath(r["path"], folder): r for r in rows}


def test_every_file_has_its_row_and_the_exit_code_says_that_some_were_refused(result):
    code, rows = result
    assert code == 1 and sorted(rows) == sorted(DECODED | REFUSED)


@pytest.mark.parametrize("name", DECODED)
def test_kinds_that_are_decoded(result, name):
    row, (_, form, width, height, same) = result[1][name], DECODED[name]
    assert row["error"] == "" and row["verdict"] in ("real", "fake")
    assert (row["format"], row["width"], row["height"]) == (form, str(width), str(height))
    if same:
        assert float(row["score"]) == pytest.approx(float(result[1][same]["score"]), abs=1e-6)


@pytest.mark.parametrize("name", REFUSED)
def test_kinds_that_are_refused_and_why(result, folder, name):
    row = result[1][name]
    assert REFUSED[name][1] in row["error"] and row["score"] == row["verdict"] == row["width"] == ""
    assert row["error"].isprintable() and len(row["error"]) < 300 and str(folder) not in row["error"]


@pytest.mark.parametrize("name", [*DECODED, *REFUSED])
def test_manifest_and_verify_judge_alike(result, folder, name):
    said, error = file_facts(str(folder / name))["error"], result[1][name]["error"]
    assert said == error or (said, name) == ("zero bytes", "empty.png")


def test_scores_of_different_pictures_differ(result):
    """Else equal scores above would say nothing."""
    names = [name for name, (*_, same) in DECODED.items() if not same]
    assert len({round(float(result[1][name]["score"]), 5) for name in names}) > len(names) - 3


# --- the call


def test_exit_code_is_0_if_all_are_read_1_if_some_and_2_if_none(folder, checkpoint, tmp_path, capsys):
    good, bad, out = folder / "rgb.png", folder / "text.png", tmp_path / "v.csv"
    assert score(checkpoint, out, good)[0] == 0
    assert score(checkpoint, out, good, bad)[0] == 1
    assert score(checkpoint, out, bad, bad)[0] == 2 and len(capsys.readouterr().err.splitlines()) == 1


def test_names_that_look_like_options_are_files_behind_two_dashes_or_a_folder(folder, checkpoint, tmp_path, monkeypatch):
    monkeypatch.chdir(folder)
    code, rows = score(checkpoint, tmp_path / "v.csv", "--", "-dash.png", "--out.png")
    assert code == 0 and [r["path"] for r in rows] == ["-dash.png", "--out.png"]
    assert score(checkpoint, tmp_path / "v.csv", "./-dash.png")[0] == 0


def test_what_is_printed_of_names_does_nothing_to_a_terminal(folder, checkpoint, tmp_path, capsys):
    names = ["new\nline.png", "\x1b[31mred.png", "text.png"]
    assert score(checkpoint, tmp_path / "v.csv", *(folder / name for name in names))[0] == 1
    said = capsys.readouterr().out
    assert said.replace("\n", "").isprintable() and "new\\nline.png" in said and "\\x1b[31mred.png" in said
    assert score(checkpoint, tmp_path / "v.csv", tmp_path / "\x1b[2Jgone.png")[0] == 2
    assert "\x1b" not in capsys.readouterr().err


@contextmanager
def nobody(open_folder: Path) -> Iterator[None]:
    """As somebody who is not root, to whom permissions mean something."""
    if os.geteuid():
        yield
        return
    for place in (open_folder, *open_folder.iterdir()):
        os.chown(place, 65534, 65534, follow_symlinks=False)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_what_may_not_be_read_is_a_row_with_its_reason(tmp_path_factory):
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        (place / "locked").mkdir()
        for file in ("a.png", "b.png", "locked/c.png"):
            (place / file).write_bytes(RGB)
        tiny_checkpoint(place / "sdd.safetensors")
        with nobody(place):
            os.chmod(place / "b.png", 0)
            os.chmod(place / "locked", 0)
            code, rows = score(place / "sdd.safetensors", place / "v.csv", place)
            os.chmod(place / "locked", 0o700)
        assert code == 1
        errors = {os.path.relpath(r["path"], place): r["error"] for r in rows}
        assert errors == {"a.png": "", "b.png": "cannot be opened: Permission denied", "locked": errors["locked"]}
        assert errors["locked"].startswith("cannot be opened: ")


# --- the limits are our own


def test_pixels_are_counted_before_any_is_decoded_whatever_pillows_limit_is(folder, monkeypatch):
    def decodes(self):
        raise AssertionError("a pixel was decoded")

    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    monkeypatch.setattr(ImageFile.ImageFile, "load", decodes)
    for name in ("bomb.png", "head.png", "head.jpg", "head.gif", "head.bmp", "head.tif"):
        with pytest.raises(SDDError, match="too many pixels: .* are more than 120 million; make it smaller first"):
            decode(folder / name)


def test_the_limit_is_the_last_size_that_is_decoded(tmp_path, monkeypatch):
    (tmp_path / "a.png").write_bytes(RGB)
    monkeypatch.setattr(pictures, "MAX_PIXELS", SIZE[0] * SIZE[1])
    assert decode(tmp_path / "a.png").size == SIZE
    monkeypatch.setattr(pictures, "MAX_PIXELS", SIZE[0] * SIZE[1] - 1)
    with pytest.raises(SDDError, match="too many pixels"):
        decode(tmp_path / "a.png")
    with pytest.raises(SDDError, match="too many pixels"):
        pictures.to_rgb(noise())  # a picture that a caller has opened, too
