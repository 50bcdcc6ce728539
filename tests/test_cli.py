"""The command line: one row a file whatever is wrong with it, one line for a mistake, no traceback."""

import csv
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from sddlib import SDDError, verdicts
from sddlib import __main__ as cli
from sddlib.evaluate import iter_scores
from sddlib.pictures import open_image
from sddlib.profiles import ROOT
from sddlib.verdicts import COLUMNS


@pytest.fixture
def pictures(tmp_path):
    """A folder with two pictures, a text file called .png, an empty .jpg, and a file that is no picture's business."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (90, 120, 3), dtype=np.uint8)).save(folder / "a.png")
    Image.fromarray(rng.integers(0, 255, (40, 30, 4), dtype=np.uint8)).save(folder / "b.webp")
    (folder / "c_text.png").write_text("not a picture")
    (folder / "d_empty.jpg").touch()
    (folder / "notes.txt").write_text("not looked at")
    return folder


def test_score_writes_a_row_for_every_file_good_or_not(smoke_run, pictures, tmp_path, capsys):
    out, checkpoint = tmp_path / "v.csv", smoke_run.dir / "checkpoints" / "sdd.safetensors"
    paths = str(pictures), str(tmp_path / "nowhere.png")
    assert cli.main(["score", *paths, "--out", str(out), "--checkpoint", str(checkpoint)]) == 1
    rows = list(csv.DictReader(out.open(newline="")))
    assert list(rows[0]) == COLUMNS
    names = ["a.png", "b.webp", "c_text.png", "d_empty.jpg", "nowhere.png"]
    assert [row["path"].rsplit("/", 1)[-1] for row in rows] == names
    for row in rows[:2]:
        assert row["verdict"] == ("fake" if float(row["score"]) > float(row["threshold"]) else "real") and not row["error"]
    assert [(r["width"], r["height"], r["format"]) for r in rows[:2]] == [("120", "90", "PNG"), ("30", "40", "WEBP")]
    for row in rows[2:]:
        assert row["error"] and row["score"] == row["verdict"] == ""
    said = capsys.readouterr().out
    assert "3 unreadable" in said
    printed = said.splitlines()  # so few files are printed too, then what the checkpoint knows of its errors
    assert printed.pop(0).startswith("1 files left out: no suffix of .bmp, .gif, .jpeg, .jpg")
    assert printed[0].split() == ["P(generated)", "verdict", "file"] and len(printed) == 8
    for row, line in zip(rows, printed[1:6], strict=True):
        assert line.split()[-1 if row["verdict"] else 0] == (row["path"] if row["verdict"] else "none")
        assert row["error"] in line and row["path"] in line
    assert printed[1].split()[:2] == [f"{float(rows[0]['score']):.4f}", rows[0]["verdict"]]
    val = json.loads(checkpoint.with_suffix(".json").read_text())["val"]
    assert f"{1 - val['real_acc_val']:.0%} of {val['n_real']} reals are called fake" in printed[7]
    assert f"{1 - val['fake_acc_val']:.0%} of {val['n_fake']} fakes are missed" in printed[7]


def test_a_name_that_is_no_text_is_printed_on_one_line(tmp_path):
    assert verdicts.printable("a b.png") == "a b.png" and verdicts.printable("ü.png") == "ü.png"
    assert verdicts.printable("a\nb\udcff.png") == "a\\nb\\udcff.png"


def test_a_score_at_the_threshold_is_called_real():
    assert [verdicts.verdict(score, 0.5) for score in (0.4, 0.5, 0.6)] == ["real", "real", "fake"]


def test_checkpoint_that_is_silent_on_its_errors_is_said_to_be():
    assert "does not say" in verdicts.error_rates({"val": {"n_real": 3}})


def test_score_without_a_readable_file_fails_in_one_line_and_keeps_the_rows(smoke_run, pictures, tmp_path, capsys):
    out, checkpoint = tmp_path / "v.csv", smoke_run.dir / "checkpoints" / "sdd.safetensors"
    broken = [str(pictures / "c_text.png"), str(pictures / "d_empty.jpg")]
    assert cli.main(["score", *broken, "--out", str(out), "--checkpoint", str(checkpoint)]) == 2
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1 and "none of the 2 files could be read" in said
    assert len(list(csv.DictReader(out.open(newline="")))) == 2


def test_given_threshold_decides_the_verdict(smoke_run, pictures, tmp_path, capsys):
    checkpoint = str(smoke_run.dir / "checkpoints" / "lora.safetensors")
    for threshold, verdict in (("0", "fake"), ("1", "real")):
        out = tmp_path / f"{verdict}.csv"
        options = ["--out", str(out), "--checkpoint", checkpoint, "--threshold", threshold]
        assert cli.main(["score", str(pictures / "a.png"), *options]) == 0
        (row,) = csv.DictReader(out.open(newline=""))
        assert row["verdict"] == verdict and float(row["threshold"]) == float(threshold)


def test_verdict_does_not_depend_on_the_batch(smoke_run, pictures, tmp_path):
    checkpoint = str(smoke_run.dir / "checkpoints" / "sdd.safetensors")
    scores = []
    for batch in ("1", "32"):
        out = tmp_path / f"{batch}.csv"
        assert cli.main(["score", str(pictures), "--out", str(out), "--checkpoint", checkpoint, "--batch", batch]) == 1
        scores.append([float(r["score"]) for r in csv.DictReader(out.open(newline="")) if r["score"]])
    assert np.allclose(*scores, atol=1e-6)


@pytest.mark.parametrize(
    "arguments, named",
    [
        (["score", "x.png", "--checkpoint", "none.safetensors"], "none.safetensors is missing"),
        (["score", "x.png", "--checkpoint", "."], "checkpoint . is a folder; name the .safetensors file"),
        (["score", "x.png", "--checkpoint", ""], "checkpoint . is a folder"),
        (["score", "x.png", "--batch", "0"], "--batch 0"),
        (["manifest", "", "x", "--out", "m.csv"], "an empty path was given"),
        (["manifest", "x", "", "--out", "m.csv"], "an empty path was given"),
        (["run", "03", "-p", "epochs=" + "[" * 5000], "is not a valid YAML value"),
        (["score", "x.png", "--threshold", "2"], "--threshold 2"),
        (["score", "x.png", "--out", "no/such/folder/v.csv"], "its folder does not exist"),
        (["score", "x.png", "--out", "."], "--out . is a folder"),
        (["score", ""], "an empty path was given"),
        (["score", "x.png", "--out", "x" * 300 + ".csv"], "File name too long"),
        (["run", "03", "-p", "epochs=0"], "epochs = 0 lies outside 1 to"),
        (["run", "all", "-p", "seed=-1"], "seed = -1 lies outside 0 to"),
        (["run", "03", "-p", "lr=.nan"], "lr = nan lies outside 0.0 to"),
        (["run", "03", "-p", "preset_fields={M: 0}"], "preset field M = 0"),
        (["run", "03", "-p", "preset_fields={1: 2}"], "has a name that is no text"),
        (["run", "03", "-p", "preset=papr"], "preset 'papr' is unknown"),
        (["run", "03", "--profile", "x" * 300], "File name too long"),
        (["bench", "--batch", "0"], "whole numbers above 0"),
        (["run", "all", "-p", "run_dir=x"], "name it with --run-dir"),
        (["run", "03", "-p", "seed=1", "--seed", "2"], "--seed 2 and -p seed=1 disagree"),
        (["run", "03", "-p", "epochs=three"], "epochs = 'three' is not of type int"),
        (["run", "nonsense"], "there is no notebook 'nonsense'"),
        (["run", "all", "--profile", "smok"], "there is no profile 'smok'; there are smoke"),
        (["run", "03", "-p", "epohcs=1"], "'epohcs' is no parameter of 03_train; near it are epochs"),
        (["train", "-p", "draws=1"], "'draws' is no parameter of 02_token_bank, 03_train"),
        (["figures", "--run", "no-such-run"], "no-such-run is missing"),
    ],
)
def test_mistake_is_one_line_with_its_cure_and_exit_code_2(arguments, named, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert cli.main(arguments) == 2
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1 and named in said
    assert not list(tmp_path.iterdir())


def test_wrong_usage_is_one_line_too(capsys):
    for arguments in ([], ["run"], ["score"], ["nonsense"], ["score", "x", "--batch", "many"]):
        with pytest.raises(SystemExit) as stop:
            cli.main(arguments)
        said = capsys.readouterr().err
        assert stop.value.code == 2 and len(said.splitlines()) == 1 and "--help" in said


def test_out_never_replaces_an_input(smoke_run, pictures, capsys):
    checkpoint = smoke_run.dir / "checkpoints" / "sdd.safetensors"
    before = {p: p.read_bytes() for p in (pictures / "a.png", checkpoint)}
    for path in before:
        assert cli.main(["score", str(pictures), "--checkpoint", str(checkpoint), "--out", str(path)]) == 2
        assert "is an input or no regular file" in capsys.readouterr().err
    assert all(p.read_bytes() == content for p, content in before.items())


def test_out_never_replaces_a_file_of_others_and_does_replace_its_own(smoke_run, pictures, tmp_path, capsys):
    """As happens to the first picture in `--out *.jpg`."""
    call = ["score", str(pictures / "a.png"), "--checkpoint", str(smoke_run.dir / "checkpoints" / "sdd.safetensors"), "--out"]
    for name, content in (("mine.py", b"print()\n"), ("other.csv", b"path,score\na,1\n"), ("photo.jpg", b"\xff\xd8\xff" * 99)):
        (tmp_path / name).write_bytes(content)
        assert cli.main([*call, str(tmp_path / name)]) == 2
        assert "exists and is no CSV of this command; name another file" in capsys.readouterr().err
        assert (tmp_path / name).read_bytes() == content
    (tmp_path / "empty.csv").touch()
    for _ in range(2):
        assert cli.main([*call, str(tmp_path / "empty.csv")]) == 0
    inside = tmp_path / "v.csv.12.part"
    inside.write_bytes((pictures / "a.png").read_bytes())
    assert cli.main(["score", str(inside), *call[2:], str(tmp_path / "v.csv")]) == 2
    assert "has the name of a file that is written beside --out" in capsys.readouterr().err and inside.exists()


def test_a_file_that_ends_in_part_is_left_alone_and_nothing_stays_of_the_trial(tmp_path):
    mine = tmp_path / "v.csv.part"
    mine.write_text("mine")
    verdicts.check_out(tmp_path / "v.csv", [])
    assert mine.read_text() == "mine" and list(tmp_path.iterdir()) == [mine]
    with pytest.raises(SDDError, match="File name too long"):
        verdicts.check_out(tmp_path / ("x" * 245), [])  # fits by itself, but not what it is written as


def test_score_says_nothing_of_pillows_own_about_a_large_picture(tmp_path, monkeypatch, recwarn):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    Image.new("RGB", (40, 40)).save(tmp_path / "a.png")
    assert open_image(tmp_path / "a.png")[2] == (40, 40) and not recwarn.list


def test_ctrl_c_keeps_the_rows_scored_so_far(smoke_run, pictures, tmp_path, monkeypatch, capsys):
    def some(model, files, batch):
        yield from list(iter_scores(model, files[:2], batch))
        raise KeyboardInterrupt

    monkeypatch.setattr(verdicts, "iter_scores", some)
    checkpoint, out = smoke_run.dir / "checkpoints" / "sdd.safetensors", tmp_path / "v.csv"
    assert cli.main(["score", str(pictures), "--checkpoint", str(checkpoint), "--out", str(out)]) == 130
    assert len(list(csv.DictReader(out.open(newline="")))) == 2


def test_any_bytes_may_be_a_file_name(smoke_run, pictures, tmp_path):
    name = os.fsencode(pictures) + b"/caf\xe9.png"
    try:
        os.link(pictures / "a.png", name)
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    checkpoint, out = str(smoke_run.dir / "checkpoints" / "sdd.safetensors"), tmp_path / "v.csv"
    assert cli.main(["score", os.fsdecode(name), "--checkpoint", checkpoint, "--out", str(out)]) == 0
    assert name in out.read_bytes()


def test_threshold_of_a_checkpoint_must_be_a_probability(smoke_run, pictures, tmp_path, capsys):
    for name in ("sdd.safetensors", "sdd.json"):
        shutil.copy2(smoke_run.dir / "checkpoints" / name, tmp_path / name)
    about = json.loads((tmp_path / "sdd.json").read_text())
    for threshold in (None, "abc", 5.0, float("nan")):
        (tmp_path / "sdd.json").write_text(json.dumps(about | {"threshold": threshold}))
        options = ["--checkpoint", str(tmp_path / "sdd.safetensors"), "--out", str(tmp_path / "v.csv")]
        assert cli.main(["score", str(pictures / "a.png"), *options]) == 2
        assert "names no threshold in 0..1" in capsys.readouterr().err


def test_folder_without_images_is_named(tmp_path, capsys):
    assert cli.main(["score", str(tmp_path), "--out", str(tmp_path / "v.csv")]) == 2
    assert "no image files in" in capsys.readouterr().err


def test_interrupt_is_one_sentence_and_exit_code_130(monkeypatch, capsys):
    def interrupted(args):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli.commands, "env", interrupted)
    assert cli.main(["env"]) == 130
    assert capsys.readouterr().err == "sddlib: stopped by the user\n"


def test_help_and_commands_that_need_no_clip_import_nothing_heavy():
    check = "import sys; from sddlib.__main__ import build_parser; build_parser().format_help()"
    check += "; assert not {'torch', 'numpy', 'yaml', 'nbformat'} & set(sys.modules)"
    check += "; import sddlib.runner, sddlib.sweeps; assert not {'torch', 'nbformat'} & set(sys.modules)"
    check += "; import sddlib.compare, sddlib.verify_report; assert not {'open_clip', 'peft', 'nbformat'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], cwd=ROOT).returncode == 0


def test_figures_are_copied_by_name_from_a_run(smoke_run, tmp_path, capsys):
    run = ["--run", str(smoke_run.dir), "--to", str(tmp_path / "f")]
    assert cli.main(["figures", "ap_by_generator", *run]) == 0
    assert sorted(p.name for p in (tmp_path / "f").iterdir()) == ["ap_by_generator.png", "ap_by_generator.svg"]
    assert cli.main(["figures", "ap_by_genrator", *run]) == 2
    assert "near it are ap_by_generator" in capsys.readouterr().err
    assert cli.main(["figures", *run]) == 0
    saved = {p.name for p in (smoke_run.dir / "figures").iterdir()}
    assert {p.name for p in (tmp_path / "f").iterdir()} == saved
