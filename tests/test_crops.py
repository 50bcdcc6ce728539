"""What a training draws from: augmentation seeded by content, class folders, small balanced sets."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sddlib import SDDError, crops
from sddlib.crops import Crops, low_data
from sddlib.data import Sample
from sddlib.perturb import Augment


def sample(path: str, label: int, split: str = "train") -> Sample:
    return Sample(Path(path), label, "progan", "gan", split, path)


@pytest.fixture
def tree() -> list[Sample]:
    """Three class folders of 10 real and 10 fake each, in train; one image a class and label in val."""
    names = [(c, k, i) for c in ("car", "cat", "horse") for k in ("0_real", "1_fake") for i in range(10)]
    found = [sample(f"train/progan/{c}/{k}/{i}.png", int(k[0])) for c, k, i in names]
    return found + [sample(f"val/progan/{c}/{k}/0.png", int(k[0]), "val") for c in ("car", "cat") for k in ("0_real", "1_fake")]


def test_low_data_is_balanced_over_classes_and_folders_and_follows_its_seed(tree):
    train = tree[:60]
    found = low_data(train, 12, 0)
    assert Counter((s.path.parent.parent.name, s.label) for s in found) == {
        (c, k): 2 for c in ("car", "cat", "horse") for k in (0, 1)
    }
    assert found == low_data(train, 12, 0) != low_data(train, 12, 1)
    assert [train.index(s) for s in found] == sorted(train.index(s) for s in found)
    assert low_data(train, 0, 0) is train and len(low_data(train, 60, 0)) == 60
    with pytest.raises(SDDError, match="40 training images of label 0 are asked for, there are 30; ask for fewer"):
        low_data(train, 80, 0)


@pytest.fixture
def pictures(tmp_path) -> list[Sample]:
    rng, found = np.random.default_rng(0), []
    for name in ("camera", "gan"):  # twins: equal pixels, photograph and file name
        (tmp_path / name).mkdir()
    for i in range(12):
        pixels = rng.integers(0, 256, (40, 40, 3)).astype(np.uint8)
        for label, name in enumerate(("camera", "gan")):
            Image.fromarray(pixels).save(tmp_path / name / f"{i}.png")
            found.append(Sample(tmp_path / name / f"{i}.png", label, name, name, "train", f"p{i}"))
    return found


def test_augmentation_leaves_windows_alone_follows_seed_and_epoch_and_is_the_same_for_twins(pictures):
    plain = Crops(pictures, 40, train=True)  # as large as the picture: what differs is not the window
    augmented = Crops(pictures, 40, train=True, augment=Augment(blur_prob=0.5, jpeg_prob=0.5))
    changed = [not torch.equal(plain[i][0], augmented[i][0]) for i in range(24)]
    assert 0.4 < np.mean(changed) < 1  # three in four on average
    assert all(torch.equal(augmented[i][0], augmented[i + 1][0]) for i in range(0, 24, 2))
    first = [augmented[i][0] for i in range(24)]
    assert all(torch.equal(a, augmented[i][0]) for i, a in enumerate(first))
    augmented.epoch = 1
    assert not all(torch.equal(a, augmented[i][0]) for i, a in enumerate(first))


def test_scored_images_are_never_augmented(pictures):
    loud = Crops(pictures, 32, train=False, augment=Augment(blur_prob=1, jpeg_prob=1))
    plain = Crops(pictures, 32, train=False)
    assert all(torch.equal(loud[i][0], plain[i][0]) for i in range(24)) and crops.NO_AUGMENT == Augment()
