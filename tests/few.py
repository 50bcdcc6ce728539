"""A few pictures, a small checkpoint and what one go says of them, for tests of `score` within this process."""

import shutil
from pathlib import Path

import kills
from kills import DONE

from sddlib import __main__ as cli

BATCH, COUNT = 4, 22


def make(folder: Path) -> Path:
    """FOLDER/pictures with COUNT pictures, one of them broken, tiny.safetensors, whole.csv."""
    kills.pictures(folder / "pictures", COUNT, 0)
    kills.checkpoint(folder)
    assert score(folder, folder / "whole.csv") == DONE
    return folder


def copied(few: Path, folder: Path) -> Path:
    return Path(shutil.copytree(few, folder))


def call(few: Path, out: Path, batch: int = BATCH) -> list[str]:
    """The arguments of `score`."""
    found = [few / "pictures", "--checkpoint", few / "tiny.safetensors", "--batch", batch, "--out", out]
    return [*map(str, found)]


def score(few: Path, out: Path, *options: str, batch: int = BATCH) -> int:
    """Exit code of `python -m sddlib score`."""
    return cli.main(["score", *call(few, out, batch), *options])
