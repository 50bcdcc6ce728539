"""Two folders of one's own: splits by photograph, nothing left out in silence, leaks said first, and a whole way through."""

import csv
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from sddlib import SDDError
from sddlib import __main__ as cli
from sddlib.data import read_manifest
from sddlib.own_data import LEAST, collect, readable, split


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
