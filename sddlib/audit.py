"""What a benchmark gives away without looking at the picture: trivial baselines that a detector must be read against.

Every function takes an iterable of samples with `path` (absolute), `label` (1 = fake), `generator`, `split` and `photo`.
"""

from collections import defaultdict

import numpy as np
from PIL import Image
from sklearn.feature_extraction import DictVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from . import SDDError
from .benchmarks import stand_against
from .pictures import decode, opened


def _test_sets(samples):
    """{generator: its fakes of split test, and before them the reals that they stand against}."""
    test = [s for s in samples if s.split == "test"]
    reals = [s for s in test if s.label == 0]
    fakes = defaultdict(list)
    for s in test:
        if s.label == 1:
            fakes[s.generator].append(s)
    if not reals or not fakes:
        raise SDDError("the samples hold no test reals or no test fakes; pass the whole manifest")
    against = stand_against((s.generator for s in reals), sorted(fakes))
    return {name: [s for s in reals if s.generator in against[name]] + fakes[name] for name in against}


def _auroc(samples, scores):
    return float(roc_auc_score([s.label for s in samples], [scores[s.path] for s in samples]))


def _report(samples, scores):
    """{"mean": over the test generators, "per_generator": {name: AUROC}} of scores by path."""
    table = {name: _auroc(members, scores) for name, members in _test_sets(samples).items()}
    return {"mean": float(np.mean(list(table.values()))), "per_generator": table}


def _fit_and_score(samples, features, model):
    """Fit on split train, score split test; features: {path: vector or dict}."""
    train = [s for s in samples if s.split == "train"]
    test = [s for s in samples if s.split == "test"]
    if len({s.label for s in train}) < 2:
        raise SDDError("split train holds one class only; the baseline needs both")
    model.fit([features[s.path] for s in train], [s.label for s in train])
    return dict(zip([s.path for s in test], model.decision_function([features[s.path] for s in test]), strict=True))


def _metadata(path):
    with opened(path) as image:
        facts = {"format": image.format, "mode": image.mode, "width": float(image.width), "height": float(image.height)}
        return facts | {f"info:{key}": 1.0 for key in image.info} | {f"exif:{key}": 1.0 for key in image.getexif()}


def metadata_baseline(samples):
    """AUROC of a logistic regression on format, mode, width, height and metadata keys; 0.5 when the container says nothing.

    Fitted on split train, scored on each test generator against the test reals. Returns {"mean", "per_generator"}.
    """
    samples = list(samples)
    features = {s.path: _metadata(s.path) for s in samples if s.split in ("train", "test")}
    model = make_pipeline(DictVectorizer(sparse=False), StandardScaler(), LogisticRegression(max_iter=1000))
    return _report(samples, _fit_and_score(samples, features, model))


def photo_baseline(samples):
    """AUROC of the best guess of the label from the photograph alone; 0.5 when every photograph has the same share of fakes.

    The guess is the share of fakes among the samples of the same photograph, in sample: the most that photo identity can
    give (leave-one-out would be anti-correlated on balanced labels). Sets: each test generator with the test reals, and
    train and val by themselves. Returns {"mean", "per_generator"}.
    """
    samples = list(samples)
    sets = {split: [s for s in samples if s.split == split] for split in ("train", "val")}
    table = {}
    for name, members in ({k: v for k, v in sets.items() if v} | _test_sets(samples)).items():
        labels = defaultdict(list)
        for s in members:
            labels[s.photo].append(s.label)
        table[name] = _auroc(members, {s.path: float(np.mean(labels[s.photo])) for s in members})
    return {"mean": float(np.mean(list(table.values()))), "per_generator": table}


def bytes_baseline(samples):
    """AUROC of compressed bytes per pixel, its direction taken from split train; reported, no gate.

    Smooth fakes compress better than photographs. Returns {"mean", "per_generator", "direction"};
    direction -1: fewer bytes mean fake.
    """
    samples = [s for s in samples if s.split in ("train", "test")]
    size = {}
    for s in samples:
        with opened(s.path) as image:
            size[s.path] = s.path.stat().st_size / (image.width * image.height)
    train = [s for s in samples if s.split == "train"]
    direction = 1 if _auroc(train, size) >= 0.5 else -1
    return _report(samples, {path: direction * value for path, value in size.items()}) | {"direction": direction}


def thumbnail_baseline(samples, side=8):
    """AUROC of a logistic regression on side x side thumbnails: near 0.5 when both classes show the same content.

    Fitted on split train, scored on each test generator. Returns {"mean", "per_generator"}.
    """
    samples = [s for s in samples if s.split in ("train", "test")]
    features = {}
    for s in samples:
        small = decode(s.path).resize((side, side), Image.Resampling.BOX)
        features[s.path] = np.asarray(small, dtype=np.float64).ravel() / 255
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000))
    return _report(samples, _fit_and_score(samples, features, model))
