"""Two folders of one's own: splits by photograph, nothing left out in silence, leaks said first, and a whole way through."""

import csv
import json
import os
import shutil

import numpy as np
import pytest
from PIL import Image

from sddlib import SDDError
from sddlib import __main__ as cli
from sddlib.data import read_manifest
from sddlib.own_data import LEAST, collect, readable, split, together


def picture(path, shade: int = 0, size=(72, 72)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(list(str(path).encode())).integers(0, 150, (size[1], size[0], 3)) + shade
    Image.fromarray(noise.astype(np.uint8)).save(path)


@pytest.fixture
def folders(tmp_path):
    """40 real and 40 generated images under names of their own, alike in format and size."""
    for i in range(40):
        picture(tmp_path / "photos" / f"holiday{i}.png")
        picture(tmp_path / "made" / "gan" / f"dream{i}.png", 60)
    return tmp_path


def make(folder, *options) -> int:
    arguments = ["manifest", str(folder / "photos"), str(folder / "made"), "--out", str(folder / "my.csv"), "--workers", "1"]
    return cli.main([*arguments, *options])


def rows(number: int, generator: str = "gan", label: int = 1, name: str = "") -> list[dict]:
    names = [f"{name or generator}{i}" for i in range(number)]
    return [{"path": f"{generator}/{n}.png", "label": label, "generator": generator, "photo": n} for n in names]


def test_manifest_is_read_as_a_benchmark_with_all_splits_of_both_classes(folders, capsys):
    assert make(folders) == 0
    samples = read_manifest(folders / "my.csv")
    assert len(samples) == 80 and all(s.path.is_file() for s in samples)
    for part, least in (("train", 26), ("val", LEAST), ("test", LEAST)):
        for label in (0, 1):
            assert sum((s.split, s.label) == (part, label) for s in samples) >= least
    assert {s.generator for s in samples} == {"camera", "gan"}
    said = capsys.readouterr().out
    assert "warning" not in said and "-p manifest=" in said and "--checkpoint runs/my/checkpoints/sdd.safetensors" in said


def test_splits_are_the_same_again_and_hardly_move_when_images_are_added():
    few, many = split(rows(100) + rows(100, "camera", 0, "p")), split(rows(103) + rows(100, "camera", 0, "p"))
    assert few == split(list(reversed(rows(100))) + rows(100, "camera", 0, "p"))
    where = {r["path"]: r["split"] for r in many}
    assert sum(where[r["path"]] != r["split"] for r in few) <= 10


def test_regenerations_stay_in_the_split_of_their_photograph(tmp_path):
    for i in range(40):
        picture(tmp_path / "real" / "sea" / f"{i}.jpg")
        picture(tmp_path / "fake" / "vae" / "sea" / f"{i}.png")
    paired = collect(tmp_path / "real", tmp_path / "fake")
    assert {r["photo"] for r in paired} == {f"sea/{i}" for i in range(40)}
    where = {}
    for r in split(paired):
        where.setdefault(r["photo"], set()).add(r["split"])
    assert all(len(parts) == 1 for parts in where.values())
    assert len({r["photo"] for r in collect(tmp_path / "real", tmp_path / "fake", paired=False)}) == 80


def test_copies_of_a_real_picture_among_the_generated_ones_are_warned_of_and_named_first():
    said, reals, fakes = [], rows(8, "camera", 0, "p"), rows(2)
    looks = [f"{i:02x}" * 32 for i in (0, 0, 0, 0, 0, 0, 0, 255, 255, 15)]  # six pairs of reals, and one of a real and a fake
    found = together([r | {"phash": look} for r, look in zip(reals + fakes, looks, strict=True)], said.append)
    assert found[7]["photo"] == found[8]["photo"] == "gan0" != found[9]["photo"] and len({r["photo"] for r in found[:7]}) == 1
    assert said[0].startswith("warning: 1 pairs that look alike are one real, one generated")
    assert said[1].endswith(": 7") and said[2].splitlines()[0] == "  camera/p7.png ~ gan/gan0.png (0 of 256 bits differ)"


def test_unseen_generators_are_for_test_alone_and_what_is_left_out_is_said():
    said = []
    reals, seen = rows(40, "camera", 0, "p"), rows(40)
    found = split(reals + seen + rows(10, "new") + rows(40, "twin", name="p"), ("new", "twin"), said.append)
    assert {r["split"] for r in found if r["generator"] in ("new", "twin")} == {"test"}
    assert sum(r["generator"] == "new" for r in found) == 10
    tested = {r["photo"] for r in found if r["generator"] == "camera" and r["split"] == "test"}
    assert {r["photo"] for r in found if r["generator"] == "twin"} == tested
    assert said == [f"left out, of unseen generators but of photographs that are trained on: {40 - len(tested)}"]
    with pytest.raises(SDDError, match="--unseen names 'gam', which is no generator here; there are gan"):
        split(reals + seen, ("gam",))


@pytest.mark.parametrize(
    "made, unseen, said",
    [
        (rows(20) + rows(40, "camera", 0, "p"), (), "split val would have 3 generated images, and 5 are the least"),
        (rows(40) + rows(12, "camera", 0, "p"), (), "2 real images, and 5 are the least"),
        (rows(40) + rows(40, "camera", 0, "p"), ("gan",), "split train would have 0 generated images"),
        (rows(40) + rows(9, "small") + rows(40, "camera", 0, "p"), (), "'small' has too few images for val"),
    ],
)
def test_too_few_images_are_refused_with_the_number_that_would_do(made, unseen, said):
    with pytest.raises(SDDError, match=said):
        split(made, unseen)


def test_unreadable_and_doubled_files_are_left_out_and_named():
    made = [{**r, "generator": "gan"} for r in rows(3)]
    facts = [{"sha256": "a", "error": ""}, {"sha256": "", "error": "zero bytes"}, {"sha256": "a", "error": ""}]
    said = []
    assert [r["path"] for r in readable(made, facts, said.append)] == ["gan/gan0.png"]
    text = "\n".join(said)
    assert "unreadable: 1\n  gan/gan1.png: zero bytes" in text and "gan/gan2.png = gan/gan0.png" in text


def test_pictures_that_look_alike_come_into_one_split_and_are_named(folders, capsys):
    """Every photograph again under another name, smaller and as JPEG; one, regenerated, among the fakes; and a blank."""
    for i in range(40):
        with Image.open(folders / "photos" / f"holiday{i}.png") as image:
            image.resize((64, 64), Image.LANCZOS).save(folders / "photos" / f"copy{i}.jpg", quality=95)
            if not i:
                image.point(lambda v: min(255, v + 20)).save(folders / "made" / "gan" / "seaside.png")
    Image.new("RGB", (72, 72), (200, 200, 200)).save(folders / "made" / "gan" / "blank.png")
    assert make(folders) == 0
    found = {s.path.stem: s for s in read_manifest(folders / "my.csv")}
    for i in range(40):
        one, other = found[f"holiday{i}"], found[f"copy{i}"]
        assert (one.split, one.photo) == (other.split, other.photo)
    assert found["seaside"].photo == found["holiday0"].photo and len({s.photo for s in found.values()}) == 40 + 40 + 1
    said = capsys.readouterr().out
    assert "pairs that look alike, kept in one split: 41\n" in said and "of 256 bits differ)" in said
    (line,) = [
        a for a, b in zip(said.splitlines()[1:], said.splitlines(), strict=False) if "too flat for a perceptual hash" in b
    ]
    assert line.strip().endswith("blank.png")


def test_likeness_goes_from_one_to_the_next():
    """a ~ b and b ~ c are one photograph, though a and c are further apart."""
    zeros = 64 * "0"
    made = [{**r, "phash": h} for r, h in zip(rows(4), (zeros, "ff" + zeros[2:], "fffff" + zeros[5:], 64 * "f"), strict=True)]
    assert [r["photo"] for r in together(made, lambda _: None)] == ["gan0", "gan0", "gan0", "gan3"]


def test_the_same_file_in_both_folders_is_refused(folders, capsys):
    shutil.copy2(folders / "photos" / "holiday3.png", folders / "made" / "gan" / "copy.png")
    assert make(folders) == 2
    assert "are the same file, once real and once generated" in capsys.readouterr().err
    assert not (folders / "my.csv").exists()


@pytest.mark.parametrize("change, word", [("format", "format 1.00"), ("size", "size 1.00")])
def test_what_the_files_alone_give_away_is_said_before_training(folders, capsys, change, word):
    for path in sorted((folders / "made" / "gan").glob("*.png")):
        with Image.open(path) as image:
            (image if change == "format" else image.resize((64, 64))).save(
                path.with_suffix(".jpg" if change == "format" else ".png")
            )
        if change == "format":
            path.unlink()
    assert make(folders) == 0
    said = capsys.readouterr().out
    assert "warning: gan: the file alone tells real from generated" in said and word in said
    assert said.index("warning") < said.index("go on with")


def test_mistakes_are_one_line(folders, capsys, tmp_path):
    picture(tmp_path / "odd" / "a+b" / "x.png")
    for real, fake, said in (
        ("nowhere", "made", "nowhere is no folder"),
        ("made", "made", "lie in one another"),
        (".", "made", "lie in one another"),
        ("photos", "odd", "generator 'a+b'"),
    ):
        out = ["--out", str(folders / "my.csv")]
        assert cli.main(["manifest", str(folders / real), str(folders / fake), *out]) == 2
        err = capsys.readouterr().err
        assert said in err and len(err.splitlines()) == 1
    assert cli.main(["manifest", str(folders / "photos"), str(folders / "made"), "--out", str(folders)]) == 2


def test_files_of_other_suffixes_are_counted(tmp_path):
    for name in ("real/a.png", "real/b.heic", "fake/a.png", "fake/c.avif", "fake/notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    said = []
    assert len(collect(tmp_path / "real", tmp_path / "fake", say=said.append)) == 2
    (line,) = said
    assert line.startswith("3 files left out: no suffix of .bmp,") and ".png" in line


@pytest.mark.parametrize("closed", ["photos", "made", "made/gan"])
def test_folder_that_cannot_be_opened_is_named(closed, folders, monkeypatch, capsys):
    listing = os.scandir

    def scandir(path):
        if str(path) == str(folders / closed):
            raise PermissionError(13, "Permission denied", str(path))
        return listing(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert make(folders) == 2
    assert f"{folders / closed} cannot be opened; change its permissions" in capsys.readouterr().err


def test_out_replaces_a_manifest_and_nothing_else(folders, capsys):
    for text in ("my notes\n", "path,label,generator,family,split,photo,score\n"):
        (folders / "my.csv").write_text(text)
        assert make(folders) == 2 and (folders / "my.csv").read_text() == text
        assert "my.csv exists and is no manifest of this command; name another file" in capsys.readouterr().err
    (folders / "my.csv").unlink()
    assert make(folders) == make(folders) == 0


def test_names_of_any_bytes_are_printed_on_one_line(folders, capsys):
    made, names = os.fsencode(folders / "made"), (b"caf\xe9", b"line\nbreak")
    for name in names:
        try:
            shutil.copytree(made + b"/gan", made + b"/" + name)
        except OSError:
            pytest.skip("this file system takes UTF-8 names only")
    assert make(folders) == 0
    said = capsys.readouterr().out
    assert "left out, the same bytes as another file: 80" in said and "\udce9" not in said and "line\nbreak" not in said
    assert "caf\\udce9" in said or "line\\nbreak" in said


def test_two_folders_become_a_trained_and_scored_detector(folders, command):
    """The walk-through of the README, on the smallest profile."""
    assert make(folders) == 0
    run = folders / "run"
    options = ["-p", "limit=0", "-p", f"manifest={folders / 'my.csv'}", "--run-dir", run]
    done = command("run", "02", "03", "04", "--profile", "smoke", *options)
    assert done.returncode == 0, done.stderr
    assert "gan (seen)" in done.stdout and "mean of seen" in done.stdout
    about = json.loads((run / "checkpoints" / "sdd.json").read_text())
    assert about["generators"] == ["gan"]
    report = (run / "report.html").read_text(encoding="utf-8")
    assert "cannot be shown" not in report and "mean of seen" in report and "1 generator seen in training" in report
    summary = json.loads((run / "summary.json").read_text())
    assert summary["mean_ap_seen"] == summary["ap_seen"] and "mean_ap_unseen" not in summary
    out = folders / "verdicts.csv"
    checkpoint = run / "checkpoints" / "sdd.safetensors"
    assert cli.main(["score", str(folders / "photos"), "--checkpoint", str(checkpoint), "--out", str(out)]) == 0
    verdicts = list(csv.DictReader(out.open(newline="")))
    assert len(verdicts) == 40 and all(not v["error"] and v["verdict"] in ("real", "fake") for v in verdicts)
