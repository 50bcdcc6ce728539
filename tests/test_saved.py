"""Saved scores: computed once for what they depend on, by any number of processes, every image once; a kill loses little."""

import json
import os
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import torch.distributed as dist
from elsewhere import Elsewhere
from PIL import Image
from torch import nn

from sddlib import SDDError, saved
from sddlib.baselines.lora import LinearOutput
from sddlib.baselines.probe import LinearProbe
from sddlib.data import Sample, normalised
from sddlib.evaluate import COLUMNS, read_scores, score_samples, write_csv
from sddlib.presets import get_preset
from sddlib.protocols import PROTOCOLS
from sddlib.recipes import encoder, load_scorer
from sddlib.saved import images_hash, saved_scores

NATIVE = PROTOCOLS["full-native"]


class Counting(nn.Module):
    """Scores a crop by its mean; counts the images it has seen; may fail at one of them."""

    kind = "sdd"

    def __init__(self):
        super().__init__()
        self.image_size, self.prepare = 16, normalised
        self.about, self.seen, self.fails_after = {"sha256": "a" * 64}, 0, None

    def forward(self, x):
        if self.fails_after is not None and self.seen >= self.fails_after:
            raise KeyboardInterrupt
        self.seen += len(x)
        return LinearOutput(x.mean((1, 2, 3)), x)


def make_samples(folder: Path, count: int) -> list[Sample]:
    rng = np.random.default_rng(0)
    made = []
    for i in range(count):
        path = folder / "test" / f"{i}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (20, 22, 3), dtype=np.uint8)).save(path)
        made.append(Sample(path, i % 2, f"g{i % 3}" if i % 2 else "camera", "f", "test", f"p{i}"))
    return made


@pytest.fixture
def samples(tmp_path):
    return make_samples(tmp_path, 23)


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(saved, "PART", 4)


def alone_as(monkeypatch, rank: int, world: int) -> None:
    """Let this process believe that it is one of several, and that the others are always there."""
    for name, value in (("rank", rank), ("world", world), ("wait", None)):
        monkeypatch.setattr(saved, name, lambda value=value: value)


@pytest.mark.parametrize("n", [1, 4, 5, 23])
@pytest.mark.parametrize("world", [1, 2, 3, 4, 8])
def test_every_image_is_scored_once_whatever_the_number_of_processes(n, world, samples, tmp_path, monkeypatch):
    model, path = Counting(), tmp_path / "sdd.csv"
    for rank in range(world - 1, 0, -1):
        alone_as(monkeypatch, rank, world)
        with pytest.raises(SDDError, match="is missing"):  # only the first process joins the parts, and here it comes last
            saved_scores(model, samples[:n], tmp_path, path, NATIVE)
    alone_as(monkeypatch, 0, world)
    rows = saved_scores(model, samples[:n], tmp_path, path, NATIVE)
    assert [r["path"] for r in rows] == [f"test/{i}.png" for i in range(n)] and model.seen == n


def test_scores_are_those_of_one_go_in_parts_or_not(samples, tmp_path):
    rows = saved_scores(Counting(), samples, tmp_path, tmp_path / "sdd.csv", NATIVE)
    once = score_samples(Counting(), samples, tmp_path)
    assert [r["path"] for r in rows] == [f"test/{i}.png" for i in range(23)] and list(rows[0]) == COLUMNS
    np.testing.assert_allclose([r["score"] for r in rows], [r["score"] for r in once], atol=1e-7)
    assert rows == read_scores(tmp_path / "sdd.csv")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["sdd.csv", "sdd.json", "test"]


def test_second_evaluation_reads_saved_scores_and_says_so(samples, tmp_path, capsys):
    path, model = tmp_path / "sdd.csv", Counting()
    first = saved_scores(model, samples, tmp_path, path, NATIVE)
    assert model.seen == 23 and "scoring 23 images" in capsys.readouterr().out
    assert saved_scores(model, samples, tmp_path, path, NATIVE) == first
    assert model.seen == 23 and "23 saved scores of this checkpoint, images and protocol read" in capsys.readouterr().out
    saved_scores(model, samples, tmp_path, path, NATIVE, force=True)
    assert model.seen == 46 and "as asked" in capsys.readouterr().out


def test_what_scores_depend_on_makes_them_anew_and_is_named(samples, tmp_path, capsys):
    path, model = tmp_path / "sdd.csv", Counting()
    saved_scores(model, samples, tmp_path, path, NATIVE)
    other = Counting()
    other.about = {"sha256": "b" * 64}
    wider = Counting()
    wider.image_size = 18
    changes = [
        ("checkpoint", other, samples, NATIVE, 0),
        ("protocol", model, samples, PROTOCOLS["full-resize256"], 0),
        ("jpeg", model, samples, NATIVE, 96),
        ("image_size", wider, samples, NATIVE, 0),
        ("images, count", model, samples[:-1], NATIVE, 0),
        ("images", model, samples[::-1], NATIVE, 0),
    ]
    for named, detector, images, protocol, quality in changes:
        capsys.readouterr()
        rows = saved_scores(detector, images, tmp_path, path, protocol, quality)
        assert f"was made with another {named}; scoring again" in capsys.readouterr().out
        assert [r["path"] for r in rows] == [os.path.relpath(s.path, tmp_path) for s in images]
        saved_scores(model, samples, tmp_path, path, NATIVE)


def test_image_that_changes_its_size_or_appears_is_scored_anew(samples, tmp_path):
    before = images_hash(samples, tmp_path)
    content = samples[3].path.read_bytes()
    samples[3].path.unlink()
    gone = images_hash(samples, tmp_path)
    samples[3].path.write_bytes(content + b"\0")
    assert len({before, gone, images_hash(samples, tmp_path)}) == 3
    samples[3].path.write_bytes(content)
    assert images_hash(samples, tmp_path) == before
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    (tmp_path / "test").rename(moved / "test")
    there = [Sample(moved / "test" / s.path.name, *list(vars(s).values())[1:]) for s in samples]
    assert images_hash(there, moved) == before  # a benchmark may be moved


def test_scores_that_were_edited_or_lost_their_record_are_not_believed(samples, tmp_path, capsys):
    path, model = tmp_path / "sdd.csv", Counting()
    first = saved_scores(model, samples, tmp_path, path, NATIVE)
    path.write_text(path.read_text().replace(",0.", ",0.1", 1))
    assert saved_scores(model, samples, tmp_path, path, NATIVE) == first
    assert "is not the file that was written" in capsys.readouterr().out
    for text, said in (("{", "record is broken"), ("[]", "record is broken"), ('{"settings": 3}', "record is broken")):
        path.with_suffix(".json").write_text(text)
        assert saved_scores(model, samples, tmp_path, path, NATIVE) == first
        assert said in capsys.readouterr().out
    path.with_suffix(".json").unlink()
    assert saved_scores(model, samples, tmp_path, path, NATIVE) == first
    assert model.seen == 23 * 6


def test_killed_scoring_goes_on_where_it_stood(samples, tmp_path, capsys):
    path, model = tmp_path / "sdd.csv", Counting()
    model.fails_after = 10
    with pytest.raises(KeyboardInterrupt):
        saved_scores(model, samples, tmp_path, path, NATIVE, batch=2)
    assert not path.exists() and len(list((tmp_path / "sdd.parts").glob("*.csv"))) == 2  # 10 images: two parts of four
    again = Counting()
    rows = saved_scores(again, samples, tmp_path, path, NATIVE, batch=2)
    assert again.seen == 23 - 8 and "2 of 6 parts are there" in capsys.readouterr().out
    assert rows == saved_scores(Counting(), samples, tmp_path, tmp_path / "other.csv", NATIVE, batch=2)
    assert not (tmp_path / "sdd.parts").exists()


def test_parts_of_another_scoring_are_not_taken(samples, tmp_path):
    path, model = tmp_path / "sdd.csv", Counting()
    model.fails_after = 10
    with pytest.raises(KeyboardInterrupt):
        saved_scores(model, samples, tmp_path, path, NATIVE, batch=2)
    again = Counting()
    saved_scores(again, samples, tmp_path, path, NATIVE, quality=96)
    assert again.seen == 23 and not (tmp_path / "sdd.parts").exists()


def test_unreadable_image_is_a_row_and_is_counted_in_the_record(samples, tmp_path):
    samples[5].path.write_text("no image")
    rows = saved_scores(Counting(), samples, tmp_path, tmp_path / "sdd.csv", NATIVE)
    assert [r["path"] for r in rows if r["error"]] == ["test/5.png"] and rows[5]["score"] is None
    assert json.loads((tmp_path / "sdd.json").read_text())["unreadable"] == 1


def test_no_images_are_an_error(tmp_path):
    with pytest.raises(SDDError, match="no images to score"):
        saved_scores(Counting(), [], tmp_path, tmp_path / "sdd.csv", NATIVE)


def test_part_that_no_process_wrote_is_an_error(samples, tmp_path, monkeypatch):
    alone_as(monkeypatch, 0, 2)
    with pytest.raises(SDDError, match="was not written; let all processes see the folder"):
        saved_scores(Counting(), samples, tmp_path, tmp_path / "sdd.csv", NATIVE)


# --- two real processes, a real (tiny) backbone


def found(folder: Path) -> list[Sample]:
    return [Sample(p, 0, "camera", "f", "test", p.stem) for p in sorted((folder / "test").glob("*.png"))]


def score(folder: Path, name: str) -> list[dict]:
    return saved_scores(load_scorer(folder / "probe.safetensors"), found(folder), folder, folder / name, NATIVE)


def score_together(folder: Path, rank: int) -> list[dict]:
    """What each of two processes does; they meet in a file."""
    meeting = {"init_method": f"file://{folder}/meeting", "rank": rank, "world_size": 2, "timeout": timedelta(seconds=300)}
    dist.init_process_group("gloo", **meeting)
    try:
        return score(folder, "together.csv")
    finally:
        dist.destroy_process_group()


def second(folder: Path) -> None:
    saved.PART = 4
    score_together(folder, 1)


def test_two_processes_neither_duplicate_nor_drop_an_image_and_score_as_one(tmp_path, monkeypatch):
    make_samples(tmp_path, 23)
    source = {"backbone": "tiny", "weights": "random", "image_size": 64}
    probe = LinearProbe(encoder(source, get_preset("paper").norm), get_preset("paper"))
    probe.save(tmp_path / "probe.safetensors", source)
    one, written = score(tmp_path, "one.csv"), []
    monkeypatch.setattr(saved, "write_csv", lambda rows, path: written.append(path.name) or write_csv(rows, path))
    other = Elsewhere(tmp_path / "other", second, tmp_path)
    two = score_together(tmp_path, 0)
    assert other.wait() == 0 and not other.out.read_text(), other.err.read_text()  # rank 0 alone speaks
    assert [int(name[-9:-4]) for name in written[:-1]] == [0, 2, 4]  # the other did 1, 3, 5
    assert written[-1].startswith("together.csv")
    assert [r["path"] for r in two] == [r["path"] for r in one] and len({r["path"] for r in two}) == 23
    np.testing.assert_allclose([r["score"] for r in two], [r["score"] for r in one], atol=1e-6)
    assert len({r["score"] for r in one}) > 20


# --- a whole run


def test_run_is_scored_beforehand_by_all_processes_of_a_launcher(smoke_run, capsys):
    """With 04's own parameters: what the notebook has saved is all there, so that either can come first."""
    from types import SimpleNamespace

    from sddlib.launch import run_together, score_together
    from sddlib.profiles import all_parameters

    before = {p: p.read_bytes() for p in (smoke_run.dir / "scores").rglob("*.*")}
    score_together(SimpleNamespace(**all_parameters("smoke", "04_evaluate", {})), smoke_run.dir)
    said = capsys.readouterr().out
    for file in ("scores/sdd", "jpeg96/sdd", "scores/lora", "scores/probe"):
        assert f"{file}.csv: 90 saved scores of this checkpoint, images and protocol read" in said
    assert {p: p.read_bytes() for p in (smoke_run.dir / "scores").rglob("*.*")} == before
    for wrong, named in (
        ({"equalise": ["sd"]}, "equalise names 'sd'"),
        ({"protocol": "full"}, "no protocol 'full'"),
        ({"draw": 1}, "'draw'"),
    ):
        with pytest.raises(SDDError, match=named):
            run_together(["04_evaluate"], "smoke", wrong, str(smoke_run.dir))
