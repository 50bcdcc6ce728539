"""Evaluation protocols: which images of each test set are scored, and what is done to a picture before its centre crop."""

from collections import Counter
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from PIL import Image

from . import SDDError
from .benchmarks import opposed
from .data import IMAGE_SUFFIXES, Sample
from .evaluate import Prepare
from .perturb import jpeg
from .profiles import near

EQUALISED = 96  # JPEG quality of the equalised column
UNIVFD_SUFFIXES = {suffix[1:] for suffix in IMAGE_SUFFIXES} | {"JPEG"}  # what may follow a name's first dot


@dataclass(frozen=True)
class Protocol:
    """One way to evaluate. Numbers of different protocols are not comparable, so each is printed with its name.

    resize: side of the square that a picture is squeezed to, its aspect not kept; 0: none.
    pads: a side below the crop is filled up with black instead of being enlarged, as torchvision's CenterCrop does.
    per_class: at most so many reals and so many fakes of each test set, drawn at random; 0: all.
    fallback: so many of each where a set has fewer than per_class of either class.
    skips_odd_names: leave out files whose name has two dots or an extension in capitals, other than JPEG.
    """

    name: str
    resize: int = 0
    pads: bool = False
    per_class: int = 0
    fallback: int = 0
    skips_odd_names: bool = False

    def preparation(self, size: int, quality: int = 0) -> Prepare:
        """What `evaluate.iter_scores` does to a picture before a centre crop of `size` pixels; it can be pickled."""
        return partial(prepare, resize=self.resize, pad=size if self.pads else 0, quality=quality)


PROTOCOLS = {
    p.name: p
    for p in (
        Protocol("full-native"),  # all files as they are; the SDD paper's accuracies fit these sets
        Protocol("ojha1k", pads=True, per_class=1000, fallback=100, skips_odd_names=True),  # UnivFD's published code
        Protocol("full-resize256", resize=256),  # FatFormer's code
    )
}


def get_protocol(name: str) -> Protocol:
    """A protocol by its name."""
    if name not in PROTOCOLS:
        raise SDDError(f"there is no protocol {name!r}; there are {near(name, PROTOCOLS)}")
    return PROTOCOLS[name]


def prepare(picture: Image.Image, resize: int = 0, pad: int = 0, quality: int = 0) -> Image.Image:
    """The picture as a file of JPEG quality `quality` would hold it, then squeezed to resize x resize (bilinear), then with
    black around it up to `pad` pixels a side; 0 leaves out a step."""
    if quality:
        try:
            picture = jpeg(picture, quality)
        except OSError as e:  # a side above 65500 pixels, for one
            raise SDDError(f"cannot be written as JPEG: {e}") from None
    if resize:
        picture = picture.resize((resize, resize), Image.BILINEAR)
    if min(picture.size) < pad:
        framed = Image.new("RGB", tuple(max(pad, side) for side in picture.size))
        framed.paste(picture, tuple((new - old) // 2 for new, old in zip(framed.size, picture.size, strict=True)))
        return framed
    return picture


def odd_name(name: str) -> bool:
    """Whether UnivFD's code passes over a file: it takes what follows the *first* dot for the extension, in small letters or
    JPEG. (It knows png, jpg, jpeg and bmp only; other formats, which its benchmark does not hold, count here.)"""
    return (name.split(".") + [""])[1] not in UNIVFD_SUFFIXES


def choose(samples: list[Sample], protocol: Protocol, seed: int = 0) -> tuple[list[Sample], list[str]]:
    """(samples that the protocol scores, in their order; notes for the reader: what was skipped, which sets fell back).

    Only test sets are cut, never validation. Every set draws with the same seed, as UnivFD's code does (which images that
    gives there depends on the order of its file system, here on that of the samples): sets that share a folder of reals and
    need equally many draw the same ones. A shared real that not all of its sets drew names, in `generator`, those that did.
    A test set that is left without a class is an error.
    """
    if not (protocol.per_class or protocol.skips_odd_names):
        return samples, []
    sets = {s.generator: ([], []) for s in samples if s.split == "test" and s.label == 1}
    skipped: Counter = Counter()
    for i, s in enumerate(samples):
        if s.split != "test":
            continue
        if protocol.skips_odd_names and odd_name(s.path.name):
            skipped[s.generator] += 1
            continue
        for name in [s.generator] if s.label else opposed(s.generator, sets):
            sets[name][s.label].append(i)
    notes = [f"{n} images of {g} skipped for their names (two dots, or an extension in capitals)" for g, n in skipped.items()]
    drawn: dict[int, list[str]] = {}
    for name, classes in sets.items():
        notes += draw(name, classes, protocol, seed, drawn)
    chosen = []
    for i, s in enumerate(samples):
        if s.split == "test" and i not in drawn:
            continue
        if s.split == "test" and not s.label and len(drawn[i]) < len(opposed(s.generator, sets)):
            s = replace(s, generator="+".join(drawn[i]))
        chosen.append(s)
    return chosen, notes


def draw(name: str, classes: tuple[list, list], protocol: Protocol, seed: int, drawn: dict[int, list[str]]) -> list[str]:
    """Put into `drawn` (position -> sets) what one set takes of its reals and fakes, given as positions; returns its notes."""
    real, fake = map(len, classes)
    if not real or not fake:
        raise SDDError(f"protocol {protocol.name} leaves {real} real + {fake} fake images of {name}; use full-native")
    short = min(real, fake) < protocol.per_class
    count = protocol.fallback if short else protocol.per_class
    rng = np.random.default_rng(seed)  # reals first, then fakes: not the same positions, which may be counterparts
    taken = [rng.permutation(len(members))[: count or None] for members in classes]
    for members, order in zip(classes, taken, strict=True):
        for k in order:
            drawn.setdefault(members[k], []).append(name)
    if not short:
        return []
    said = f"{name} fell back to {len(taken[0])} real + {len(taken[1])} fake"
    return [f"{said}: it has {real} + {fake}, fewer than {protocol.per_class} of a class"]
