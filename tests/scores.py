"""Made-up score rows with numbers that can be told beforehand."""

from sddlib.benchmarks import SYNRIS, UNIVFD, TestSet


def make(label: int, generator: str, scores: list[float], split: str = "test", family: str = "f") -> list[dict]:
    """Rows of one class; each image is a photograph of its own."""
    kind = generator if label else f"{generator}/real"
    facts = {"label": label, "generator": generator, "family": family, "split": split, "error": ""}
    facts |= {"width": 256, "height": 256, "format": "PNG"}
    names = [f"{split}/{kind}/{i}.png" for i in range(len(scores))]
    return [{**facts, "path": n, "photo": n, "score": s} for n, s in zip(names, scores, strict=True)]


def rows_of(sets: tuple[TestSet, ...], wrong: dict[str, int], size: dict[str, int], seen: str = "progan") -> list[dict]:
    """A scores file of these sets: reals at 0.1 and fakes at 0.9, but the first `wrong` fakes of a set at 0.05, below every
    real. size: images of each class, else 20; sets that share a folder of reals share them here too, 20 of them."""
    rows = make(0, seen, [0.1] * 5, "val") + make(1, seen, [0.9] * 5, "val")
    for folder in dict.fromkeys(t.reals for t in sets if t.reals):
        rows += make(0, "+".join(t.name for t in sets if t.reals == folder), [0.1] * 20)
    for t in sets:
        n, bad = size.get(t.name, 20), wrong.get(t.name, 0)
        rows += [] if t.reals else make(0, t.name, [0.1] * n)
        rows += make(1, t.name, [0.05] * bad + [0.9] * (n - bad), family=t.family)
    return rows


def univfd_rows(**wrong: int) -> list[dict]:
    """All 19 sets; sitd with its 180 + 180 images, cyclegan with 1321 + 1321."""
    return rows_of(UNIVFD, wrong, {"sitd": 180, "cyclegan": 1321})


def synris_rows(**wrong: int) -> list[dict]:
    """All 13 sets."""
    return rows_of(SYNRIS, wrong, {}, "sd_v1")
