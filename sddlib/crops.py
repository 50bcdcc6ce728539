"""What a training or an evaluation draws its crops from: batches that hold twins together, sets of fewer classes or images."""

from collections.abc import Callable
from itertools import zip_longest
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from . import SDDError
from .data import Sample, cut, decode, normalised
from .perturb import Augment

NO_AUGMENT = Augment()


def content_ids(samples: list[Sample]) -> np.ndarray:
    """(n,) ints, equal for images that show the same thing: a real crop and its regenerations share photograph and file
    name. Where a benchmark has no such twins, every image is alone."""
    ids: dict[tuple, int] = {}
    return np.array([ids.setdefault((s.photo, s.path.stem), len(ids)) for s in samples])


class TwinBatches(Sampler):
    """Shuffled batches in which the images of one content stand together, so that what separates the classes of a batch is
    the generator and not the motif. Without twins this is plain shuffling. The last, smaller batch is dropped.

    A batch comes in `parts` pieces that follow one another, of which each process takes `share` = (rank, processes); it must be
    a multiple of both. The length counts pieces.
    skip: batches of the next pass that are left out, because a training that goes on has had them."""

    def __init__(
        self, samples: list[Sample], batch: int, generator: torch.Generator, parts: int = 1, share: tuple[int, int] = (0, 1)
    ):
        self.content, self.batch, self.generator = content_ids(samples), batch, generator
        self.parts, self.share, self.skip = parts, share, 0

    def __len__(self) -> int:
        return len(self.content) // self.batch * self.parts

    def __iter__(self):
        number = torch.randperm(int(self.content.max()) + 1, generator=self.generator).numpy()
        order = np.argsort(number[self.content], kind="stable")
        step, (rank, world) = self.batch // (self.parts * self.share[1]), self.share
        skip, self.skip = self.skip, 0
        for k in range(skip * self.parts, len(self)):
            start = (k * world + rank) * step
            yield order[start : start + step].tolist()


def low_data(samples: list[Sample], count: int, seed: int) -> list[Sample]:
    """`count` of the samples, drawn by the seed, half of each class and equally many from every folder as far as it goes; in
    their order. 0: all. For trainings on little data."""
    if not count:
        return samples
    rng, chosen = np.random.default_rng(seed), []
    for label in (0, 1):
        folders: dict[Path, list[int]] = {}
        for i, s in enumerate(samples):
            if s.label == label:
                folders.setdefault(s.path.parent, []).append(i)
        queues = [rng.permutation(found).tolist() for found in folders.values()]
        turns = [i for turn in zip_longest(*queues) for i in turn if i is not None]  # one of each folder, then the next
        if len(turns) < count // 2:
            raise SDDError(
                f"{count // 2} training images of label {label} are asked for, there are {len(turns)}; ask for fewer"
            )
        chosen += turns[: count // 2]
    return [samples[i] for i in sorted(chosen)]


class Crops(Dataset):
    """Samples as (input, label, index). Training crops are random, seeded by (seed, epoch, content): the same whatever the
    workers or the batch order, and the same window for a real crop and its regenerations.
    keep: hold decoded pictures in memory (small data), and inputs that come again. resize: the shorter side that training
    pictures are brought to (bilinear) before the crop; 0 leaves them as they are. augment: what is then done to them, with the
    same draws for twins. read: a crop as a model's input, here (3, size, size). views: this many training crops an image come
    again and again, epoch by epoch; 0: every epoch has new ones."""

    def __init__(
        self,
        samples: list[Sample],
        size: int,
        train: bool,
        seed: int = 0,
        keep: bool = False,
        resize: int = 0,
        augment: Augment = NO_AUGMENT,
        read: Callable[[Image.Image], Tensor] = normalised,
        views: int = 0,
    ):
        if resize and resize < size:
            raise SDDError(f"training pictures cannot be cut to {size} px after a resize to {resize} px; raise the resize")
        self.samples, self.size, self.train, self.seed, self.epoch = samples, size, train, seed, 0
        self.resize, self.augment, self.read, self.views = resize if train else 0, augment, read, views if train else 1
        self.content = content_ids(samples)
        self.cache: dict[int, Image.Image] | None = {} if keep and train else None
        self.inputs: dict[tuple[int, int], Tensor] | None = {} if keep and self.views else None

    def __len__(self) -> int:
        return len(self.samples)

    def picture(self, i: int) -> Image.Image:
        if self.cache is not None and i in self.cache:
            return self.cache[i]
        found = decode(self.samples[i].path)
        if self.resize:
            w, h = (max(self.resize, round(side * self.resize / min(found.size))) for side in found.size)
            found = found.resize((w, h), Image.BILINEAR)
        if self.cache is not None:
            self.cache[i] = found
        return found

    def __getitem__(self, i: int) -> tuple[Tensor, int, int]:
        view = self.epoch % self.views if self.views else self.epoch
        if self.inputs is None:
            return self.read(self.crop(i, view)), self.samples[i].label, i
        if (i, view) not in self.inputs:
            self.inputs[i, view] = self.read(self.crop(i, view))
        return self.inputs[i, view], self.samples[i].label, i

    def crop(self, i: int, view: int) -> Image.Image:
        """The size*size picture that the input of image i is read from."""
        if not self.train:
            return cut(self.picture(i), self.size)
        rng = np.random.default_rng((self.seed, view, int(self.content[i])))
        left, top, flip = rng.random(3)
        return cut(self.augment(self.picture(i), rng), self.size, left, top, flip < 0.5)
