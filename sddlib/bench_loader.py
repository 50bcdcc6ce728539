"""Whether two loading workers keep ahead of the encoder: images a second that they decode and crop, from files."""

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import cycle, islice
from pathlib import Path

import numpy as np
from PIL import Image
from torch.utils.data import DataLoader

from .crops import Crops
from .data import Sample, read_manifest
from .profiles import ROOT

WORKERS = 2


@contextmanager
def photographs(side: int = 256, count: int = 64) -> Iterator[list[Sample]]:
    """Made-up JPEG files, as smooth as photographs at some scales and as rough at others; gone afterwards."""
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        samples = []
        for i in range(count):
            layers = [Image.fromarray(rng.integers(0, 256, (n, n, 3), np.uint8)).resize((side, side), 3) for n in (4, 16, 64)]
            pixels = np.average([np.asarray(layer, float) for layer in layers], 0, (4, 2, 1)).astype(np.uint8)
            path = Path(folder, f"{i}.jpg")
            Image.fromarray(pixels).save(path, quality=90)
            samples.append(Sample(path, 0, "made up", "none", "train", path.stem))
        yield samples


def delivered(samples: list[Sample], size: int, batch: int, batches: int = 60) -> float:
    """Images a second from WORKERS processes: read, decoded, cropped as in training, normalised, made a batch. Samples are
    read again and again until there are enough, so that the system may hold the files in memory."""
    crops = Crops(list(islice(cycle(samples), batch * (batches + 1))), size, train=True)
    loader = iter(DataLoader(crops, batch, num_workers=WORKERS))
    next(loader)  # the workers have started
    start = time.perf_counter()
    count = sum(len(x) for x, _, _ in loader)
    return count / (time.perf_counter() - start)


def report(size: int, batch: int, encoder: float) -> None:
    """Print both. encoder: images a second that the bare encoder scores on this device."""
    with photographs() as made_up:
        real = read_manifest(ROOT / "data" / "manifest.csv", ("train",))
        for name, samples in (("data/mini's WebP files", real), ("made-up JPEG files of 256 px", made_up)):
            rate = delivered(samples, size, batch)
            verdict = "ahead of" if rate > encoder else "behind"
            print(
                f"{WORKERS} loading workers, {name}: {rate:,.0f} images/s, {verdict} the encoder's {encoder:,.1f}: "
                f"{rate / encoder:.1f}"
            )
