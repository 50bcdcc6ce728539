"""The same seed on the same machine gives the same score file, bit for bit; how images are scored moves no score by 1e-5."""

from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import easy
import numpy as np
import pytest
import torch
import torch.distributed as dist
from elsewhere import Elsewhere
from models import enliven
from PIL import Image

from sddlib import saved
from sddlib.data import Sample
from sddlib.detector import Detector
from sddlib.evaluate import read_scores, score_paths
from sddlib.fitting import fit, job_bank, read_job
from sddlib.profiles import ROOT, all_parameters
from sddlib.protocols import PROTOCOLS
from sddlib.recipes import SCORERS
from sddlib.saved import saved_scores

NATIVE, SLACK = PROTOCOLS["full-native"], 1e-5


def quiet(_line: str) -> None:
    pass


# --- the whole way, from the images to the score file


def outcome(folder: Path, seed: int = 0) -> dict[str, bytes]:
    """Bank, checkpoints and score files of a training on profile smoke, as bytes."""
    p = SimpleNamespace(**all_parameters("smoke", "03_train", {"seed": seed, "force": False, "save_minutes": 60.0}))
    job = read_job(p, ROOT / p.manifest, p.weights, folder)
    (folder / "scores").mkdir(parents=True)
    bank = job_bank(job, torch.device("cpu"))
    for kind in SCORERS:
        model = fit(job, kind, bank if kind == "sdd" else None, quiet)
        held_out = [s for s in job.samples if s.split != "train"]
        saved_scores(model, held_out, job.root, folder / "scores" / f"{kind}.csv", NATIVE)
    kept = (p for p in folder.rglob("*") if p.suffix in (".csv", ".safetensors"))
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in kept}


def test_same_seed_gives_the_same_bank_weights_and_score_file_bit_for_bit(tmp_path):
    one = outcome(tmp_path / "one")
    torch.rand(7), np.random.rand(3)  # what was drawn before does not matter
    assert outcome(tmp_path / "again") == one and len(one) == 1 + 2 * len(SCORERS)
    other = outcome(tmp_path / "other", seed=1)
    assert other.keys() == one.keys() and other["scores/sdd.csv"] != one["scores/sdd.csv"]


# --- how images are scored


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """37 pictures of several sizes, one of which is broken, and an SDD whose every part says something."""
    folder, rng = tmp_path_factory.mktemp("scored"), np.random.default_rng(0)
    for i in range(37):
        size = (64 + i % 5, 90 - i % 7, 3)
        pixels = rng.integers(0, 256, size) * rng.random(3) + rng.integers(0, 60, 3)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{i:02d}.png")
    (folder / "11.png").write_bytes(b"no picture")
    enliven(easy.new_model()).save(folder / "sdd.safetensors", {"backbone": "tiny", "weights": "random", "seed": 0})
    return folder


def scores(rows: list[dict]) -> np.ndarray:
    """In order, NaN for the broken one."""
    assert [r["path"] for r in rows if r["error"]] == [r["path"] for r in rows if r["path"].endswith("11.png")] and len(
        rows
    ) == 37
    return np.array([np.nan if r["score"] in ("", None) else r["score"] for r in rows])


@pytest.fixture(scope="module")
def alone(folder) -> np.ndarray:
    """Every picture in a batch of its own, through the call for one picture."""
    model = Detector.load(folder / "sdd.safetensors")
    paths = sorted(folder.glob("*.png"))
    found = np.array([np.nan if p.name == "11.png" else model.score(p) for p in paths])
    assert np.nanstd(found) > 1e-2  # they differ, so that a mistake would show
    return found


@pytest.mark.parametrize("batch", [1, 7, 32])
def test_batch_size_changes_no_score(batch, folder, alone):
    rows = score_paths(Detector.load(folder / "sdd.safetensors"), sorted(folder.glob("*.png")), batch=batch)
    np.testing.assert_allclose(scores(rows), alone, atol=SLACK, rtol=0)


@pytest.mark.parametrize("workers", [0, 2])
def test_number_of_workers_changes_no_score(workers, folder, alone):
    rows = score_paths(Detector.load(folder / "sdd.safetensors"), sorted(folder.glob("*.png")), workers=workers)
    np.testing.assert_allclose(scores(rows), alone, atol=SLACK, rtol=0)


def score_together(folder: Path, rank: int) -> list[dict]:
    """What each of two processes does; they meet in a file and share parts of five images."""
    saved.PART = 5
    meeting = {"init_method": f"file://{folder}/meeting", "rank": rank, "world_size": 2, "timeout": timedelta(seconds=300)}
    dist.init_process_group("gloo", **meeting)
    try:
        samples = [Sample(p, 0, "camera", "f", "test", p.stem) for p in sorted(folder.glob("*.png"))]
        return saved_scores(Detector.load(folder / "sdd.safetensors"), samples, folder, folder / "two.csv", NATIVE, batch=3)
    finally:
        dist.destroy_process_group()


def test_number_of_processes_changes_no_score(folder, alone, monkeypatch):
    monkeypatch.setattr(saved, "PART", 5)
    other = Elsewhere(folder / "other", score_together, folder, 1)
    rows = score_together(folder, 0)
    assert other.wait() == 0, other.err.read_text()
    np.testing.assert_allclose(scores(rows), alone, atol=SLACK, rtol=0)
    assert rows == read_scores(folder / "two.csv")
