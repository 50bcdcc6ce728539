"""Two folders of one's own as a benchmark: which images are trained on and which tested, and what the files alone give away."""

import hashlib
import os
import shlex
from collections import Counter
from pathlib import Path

from . import SDDError
from .columns import columns
from .data import scan_paths
from .evaluate import write_csv
from .filefacts import cores, inspect_files
from .leaks import leaks, telling
from .near_duplicates import BITS, near_pairs
from .profiles import ROOT, near
from .verdicts import check_out, left_out, printable

COLUMNS = ("path", "label", "generator", "family", "split", "photo")
SHARES = {"train": 0.7, "val": 0.15, "test": 0.15}
CAMERA = "camera"  # the generator value of reals that stand against every fake
LEAST = 5  # images of each class that every split must have
FEW = 10  # photographs of the same generators below which all are trained on: one alone in test would have no interval
SHOWN = 5  # files that a list names


def collect(real: Path, fake: Path, paired: bool = True, say=print) -> list[dict]:
    """A row an image: path, label, generator, photo. A folder right below `fake` is a generator, images beside such folders are
    of one that is called as `fake` is. paired: an image and its regeneration of the same name (without suffix) show one
    photograph; else each image is one of its own. Files whose suffix is no image's are counted, which is said."""
    for folder in (real, fake):
        if not folder.is_dir():
            raise SDDError(f"{folder} is no folder; name the folder of real images, then that of generated ones")
    if real.resolve() in (fake.resolve(), *fake.resolve().parents) or fake.resolve() in real.resolve().parents:
        raise SDDError(f"{real} and {fake} lie in one another; keep real and generated images apart")
    rows, others = [], []
    for label, root in enumerate((real, fake)):
        for path in scan_paths([root], others):
            if path.is_dir():  # only such as cannot be listed
                raise SDDError(f"{path} cannot be opened; change its permissions")
            inside = path.relative_to(root)
            nested = label == 1 and len(inside.parts) > 1
            generator = (inside.parts[0] if nested else root.resolve().name) if label else CAMERA
            name = Path(*inside.parts[1:]) if nested else inside
            photo = name.with_suffix("").as_posix() if paired else f"{generator}/{name.as_posix()}"
            rows.append({"path": path, "label": label, "generator": generator, "photo": photo})
    if others:
        say(left_out(others))
    for name in {r["generator"] for r in rows if r["label"]}:
        if name == CAMERA or "+" in name:
            raise SDDError(f"generator {name!r} in {fake} has a name that means something else here; rename its folder")
    return rows


def readable(rows: list[dict], facts: list[dict], say=print) -> list[dict]:
    """The rows of files that can be decoded, each content once, with their facts; what is left out is said. The same bytes in
    both classes are an error."""
    kept, first, errors, twice = [], {}, [], []
    for row, found in zip(rows, facts, strict=True):
        if found["error"]:
            errors.append(f"{printable(row['path'])}: {found['error']}")
            continue
        other = first.setdefault(found["sha256"], row)
        if other["label"] != row["label"]:
            raise SDDError(f"{other['path']} and {row['path']} are the same file, once real and once generated; remove one")
        if other is row:
            kept.append(row | found)
        else:
            twice.append(f"{printable(row['path'])} = {printable(other['path'])}")
    list_some("left out, unreadable", errors, say)
    list_some("left out, the same bytes as another file", twice, say)
    return kept


def together(rows: list[dict], say=print) -> list[dict]:
    """The rows, where pictures that look alike (a burst, a copy in another size or quality) show one photograph, so that they
    come into one split; which do, and which are too flat to tell, is said. rows: with phash."""
    pairs = near_pairs([r["phash"] for r in rows], [r["photo"] for r in rows])
    leader = {r["photo"]: r["photo"] for r in rows}

    def first(photo: str) -> str:
        while leader[photo] != photo:
            photo = leader[photo]
        return photo

    for i, j, _ in pairs:
        one, other = sorted((first(rows[i]["photo"]), first(rows[j]["photo"])))
        leader[other] = one
    pairs.sort(key=lambda p: rows[p[0]]["label"] == rows[p[1]]["label"])  # those of both classes are shown first
    if mixed := sum(rows[i]["label"] != rows[j]["label"] for i, j, _ in pairs):
        say(f"warning: {mixed} pairs that look alike are one real, one generated, under other names: copies teach nothing")
    lines = [f"{printable(rows[i]['path'])} ~ {printable(rows[j]['path'])} ({d} of {BITS} bits differ)" for i, j, d in pairs]
    list_some("pairs that look alike, kept in one split", lines, say)
    flat = [printable(r["path"]) for r in rows if not r["phash"]]
    list_some("too flat for a perceptual hash, so likenesses are not seen", flat, say)
    return [r | {"photo": first(r["photo"])} for r in rows]


def list_some(title: str, lines: list[str], say) -> None:
    """Say a title with the number of lines and the first of them; nothing where there are none."""
    if lines:
        say(f"{title}: {len(lines)}")
        say("\n".join(f"  {line}" for line in lines[:SHOWN]))


def split(rows: list[dict], unseen: tuple[str, ...] = (), say=print) -> list[dict]:
    """The rows with their split, photograph by photograph, in the proportions of SHARES; which is which is decided by a hash of
    the photograph's name. Generators in `unseen` are for test alone: their fakes of photographs that are trained on are left
    out, which is said. An SDDError where a split has too few images of a class."""
    generators = {r["generator"] for r in rows if r["label"]}
    if unknown := [g for g in unseen if g not in generators]:
        raise SDDError(f"--unseen names {unknown[0]!r}, which is no generator here; there are {near(unknown[0], generators)}")
    shows: dict[str, set] = {}
    for r in rows:
        if r["generator"] not in unseen:
            shows.setdefault(r["photo"], set()).add(r["generator"])
    alike: dict[frozenset, list[str]] = {}
    for photo, found in shows.items():
        alike.setdefault(frozenset(found), []).append(photo)
    where = {}
    for photos in alike.values():
        photos.sort(key=lambda name: hashlib.sha256(name.encode(errors="surrogateescape")).digest())
        for rank, photo in enumerate(photos):
            at = (rank + 0.5) / len(photos) if len(photos) >= FEW else 0.0
            where[photo] = "train" if at < SHARES["train"] else "val" if at < 1 - SHARES["test"] else "test"
    placed = [r | {"split": where.get(r["photo"], "test"), "family": r["generator"]} for r in rows]
    kept = [r for r in placed if r["generator"] not in unseen or r["split"] == "test"]
    if len(kept) < len(placed):
        say(f"left out, of unseen generators but of photographs that are trained on: {len(placed) - len(kept)}")
    check(kept, generators - set(unseen))
    order = list(SHARES)
    return sorted(kept, key=lambda r: (order.index(r["split"]), r["label"], r["generator"], str(r["path"])))


def check(rows: list[dict], seen: set[str]) -> None:
    """Refuse a split with fewer than LEAST images of a class, and a generator of training that is not in every split."""
    classes = Counter((r["split"], r["label"]) for r in rows)
    made = Counter((r["split"], r["generator"]) for r in rows)
    least = round(LEAST / min(SHARES.values())) + 1
    for part in SHARES:
        for label, name in enumerate(("real", "generated")):
            if classes[part, label] < LEAST:
                text = f"split {part} would have {classes[part, label]} {name} images, and {LEAST} are the least"
                raise SDDError(f"{text}; bring {least} or more of each class to train on")
        for name in sorted(seen):
            if not made[part, name]:
                raise SDDError(
                    f"generator {name!r} has too few images for {part}; bring more, or test it only (--unseen {name})"
                )


def given_away(rows: list[dict]) -> list[str]:
    """A sentence for each generator whose files can be told from the real ones by container, size or JPEG quality alone."""
    said, reals = [], [r for r in rows if not r["label"]]
    for generator in sorted({r["generator"] for r in rows if r["label"]}):
        fakes = [r for r in rows if r["generator"] == generator]
        found, bytes_alone = telling(leaks(reals + fakes) | {"n_real": len(reals), "n_fake": len(fakes)})
        if found and not bytes_alone:
            names = ", ".join(f"{name} {auroc:.2f}" for name, auroc in found.items())
            said.append(f"warning: {printable(generator)}: the file alone tells real from generated (AUROC: {names})")
    if said:
        said.append("a detector may learn that instead of the picture: bring both folders to one format and one size first")
    return said


def check_earlier(target: Path) -> None:
    """Refuse to replace a file that is no manifest of this command, as its first line says."""
    if target.is_file() and target.stat().st_size:
        with target.open(encoding="utf-8", errors="replace") as f:
            if f.readline(1000).strip() != ",".join(COLUMNS):
                raise SDDError(f"--out {target} exists and is no manifest of this command; name another file")


def manifest_command(real: str, fake: str, out: str, unseen: list[str], paired: bool = True, workers: int | None = None) -> int:
    """Write OUT, a manifest, say what is in it and what the files give away, and how to go on. Returns 0."""
    if not (real and fake):
        raise SDDError("an empty path was given; name the folder of real images, then that of generated ones")
    target = Path(out)
    check_earlier(target)
    rows = collect(Path(real), Path(fake), paired)
    check_out(target, [r["path"] for r in rows], header="")  # check_earlier has looked at what is there
    if workers is not None and workers < 1:
        raise SDDError(f"--workers {workers} is no number of processes; use 1 or more")
    facts = inspect_files([str(r["path"]) for r in rows], workers or cores())
    rows = split(together(readable(rows, facts)), tuple(unseen))
    base = target.resolve().parent
    write_csv([r | {"path": Path(os.path.relpath(r["path"].resolve(), base)).as_posix()} for r in rows], target, COLUMNS)
    count = Counter((r["split"], r["generator"]) for r in rows)
    print(columns([["split", "generator", "images"], *([part, printable(g), n] for (part, g), n in count.items())], 2))
    for line in given_away(rows):
        print(line)
    place, folder = target.resolve(), f"runs/{target.stem}"
    place = place.relative_to(ROOT) if place.is_relative_to(ROOT) else place
    place, folder = shlex.quote(printable(place)), shlex.quote(printable(folder))
    print(f"{len(rows)} images in {printable(target)}; go on with")
    print(f"python -m sddlib run 02 03 04 --profile mini -p manifest={place} --run-dir {folder}")
    print(f"python -m sddlib score IMAGES --checkpoint {folder}/checkpoints/sdd.safetensors")
    return 0
