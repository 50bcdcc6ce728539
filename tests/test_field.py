"""Real text-to-image fakes: the manifest is whole, splits share no prompt of the seen generator; images only where they are."""

import csv
from collections import Counter

import pytest

from sddlib.data import read_manifest
from sddlib.profiles import ROOT, all_parameters

MANIFEST = ROOT / "data" / "field" / "manifest.csv"


def test_manifest_names_source_commit_and_blob_of_every_image():
    with MANIFEST.open(newline="") as f:
        rows = list(csv.DictReader(f))
    assert len(rows) == 1214 == len({r["git_blob"] for r in rows})
    assert all(len(r["git_blob"]) == len(r["source_commit"]) == 40 and r["source_repo"].count("/") == 1 for r in rows)


def test_splits_hold_what_the_table_beside_the_manifest_says_and_share_no_prompt_of_the_seen_generator():
    samples = read_manifest(MANIFEST)
    counts = Counter((s.generator, s.split) for s in samples)
    assert counts == {
        ("camera", "train"): 300, ("camera", "val"): 60, ("camera", "test"): 260,
        ("latent_diffusion", "train"): 144, ("latent_diffusion", "val"): 27, ("latent_diffusion", "test"): 54,
        ("dalle_mini", "test"): 225, ("glid3_xl", "test"): 144,
    }  # fmt: skip
    prompts = {
        split: {s.photo.split("/")[1] for s in samples if s.generator == "latent_diffusion" and s.split == split}
        for split in ("train", "val", "test")
    }
    assert not prompts["train"] & prompts["val"] and not (prompts["train"] | prompts["val"]) & prompts["test"]


def test_profile_reads_this_manifest():
    for notebook in ("02_token_bank", "03_train", "04_evaluate"):
        assert ROOT / all_parameters("field", notebook, {})["manifest"] == MANIFEST


@pytest.mark.skipif(not (MANIFEST.parent / "test").exists(), reason="the images are not part of the repository")
def test_images_are_there_and_of_one_size_and_container():
    from PIL import Image

    kinds = set()
    for s in read_manifest(MANIFEST):
        with Image.open(s.path) as image:
            kinds.add((image.format, image.mode, image.size))
    assert kinds == {("JPEG", "RGB", (256, 256))}
