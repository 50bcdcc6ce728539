"""Rebuild the mini benchmark from its named packages: `python data/make_mini.py --work DIR`.

Fetches the pinned Debian packages and wheels (or takes them from --debs / --wheels), checks every hash, cuts the crops,
sends them through the generators and writes `mini/**.webp` and `manifest.csv`. Needs `ncnn` (see README.md), numpy and
Pillow; torch and safetensors for the generators trained here. The camera crops come out byte for byte.
"""

import argparse
import csv
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import crops  # noqa: E402
import generators  # noqa: E402
import sources  # noqa: E402

SEEN = "realesrgan_x4plus"  # the training generator
DEV = ("srmd_x4", "realcugan_x2")  # families that are not in test, on the validation photographs
TEST = (
    SEEN,
    "realesrgan_x4plus_anime",
    "realesr_animevideo_x2",
    "realesr_animevideo_x4",
    "realsr_df2k_x4",
    "waifu2x_cunet_x2",
    "waifu2x_photo_x4",
    *generators.TRAINED,
)
COLUMNS = ("path", "label", "generator", "family", "split", "photo", "source_package", "author", "licence")
FAMILY = {name: spec.family for name, spec in generators.NETWORKS.items()} | generators.TRAINED


def plan(rows):
    """[(photo row, crop number k, split of the crop, [(manifest split, generator), ...])] in a fixed order.

    A test generator leaves out one crop of every test photograph, rotating: each photograph carries the same number of
    fakes of every generator, so which photograph it is says nothing about the label.
    """
    splits = crops.split_photos(rows)
    test = sorted(photo for photo, split in splits.items() if split == "test")
    for row in rows:
        photo, split = row["photo"], splits[row["photo"]]
        for k in range(crops.CROPS[split]):
            if split == "test":
                index = test.index(photo)
                fakes = [("test", name) for g, name in enumerate(TEST) if (index + g) % crops.CROPS["test"] != k]
            else:
                fakes = [(split, SEEN)] + ([("dev", name) for name in DEV] if split == "val" else [])
            yield row, k, split, fakes


def line(row, k, split, generator):
    """One manifest row."""
    return {
        "path": f"mini/{split}/{generator}/{row['photo']}_{k}.webp",
        "label": int(generator != "camera"),
        "generator": generator,
        "family": FAMILY.get(generator, "camera"),
        "split": split,
        "photo": row["photo"],
        "source_package": row["package"],
        "author": row["author"],
        "licence": row["licence"],
    }


def manifest(rows):
    """Every manifest row, by split, generator (camera first), photograph and crop."""
    lines = []
    for row, k, split, fakes in plan(rows):
        lines.append(line(row, k, split, "camera"))
        lines += [line(row, k, fake_split, name) for fake_split, name in fakes]
    order = {"train": 0, "val": 1, "dev": 2, "test": 3}
    rank = {"camera": -1} | {name: i for i, name in enumerate((*DEV, *TEST))}
    return sorted(lines, key=lambda r: (order[r["split"]], rank[r["generator"]], r["path"]))


def build(args):
    """Cut, regenerate and write everything; returns the number of files written."""
    rows = crops.read_photos()
    photographs = sources.Photographs(args.debs, args.work)
    patches, written = {}, 0
    todo = {}
    for row, k, split, fakes in plan(rows):
        for fake_split, name in [(split, "camera"), *fakes]:
            todo.setdefault(name, []).append((fake_split, row["photo"], k))
    for row in rows:
        array = crops.downscale(photographs.open(row))
        count = crops.CROPS[crops.split_photos(rows)[row["photo"]]]
        for k, (x, y) in enumerate(crops.choose_tiles(row["photo"], array, count)):
            patches[row["photo"], k] = crops.with_margin(array, x, y)
    for name in ("camera", *DEV, *TEST):
        if args.only and name not in args.only:
            continue
        print(f"{name}: {len(todo[name])} crops", flush=True)
        if name == "camera":
            make = generators.centre
        elif name in generators.TRAINED:
            from trained import TrainedGenerator  # needs torch, which the rest does not

            make = TrainedGenerator(name, threads=args.threads)
        else:
            make = generators.NcnnGenerator(name, args.wheels, threads=args.threads)
        for split, photo, k in todo[name]:
            if args.photos and photo not in args.photos:
                continue
            crops.save_crop(make(patches[photo, k]), args.out / "mini" / split / name / f"{photo}_{k}.webp")
            written += 1
    return written


def write_manifest(path):
    """Write manifest.csv."""
    with open(path, "w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(manifest(crops.read_photos()))


def main(argv=None):
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="scratch folder for packages and extracted files")
    parser.add_argument("--debs", type=Path, help="folder with the Debian packages (default: WORK/debs, fetched)")
    parser.add_argument("--wheels", type=Path, help="folder with the wheels (default: WORK/wheels, fetched)")
    parser.add_argument("--out", type=Path, default=HERE, help="where mini/ and manifest.csv go (default: this folder)")
    parser.add_argument("--only", nargs="+", metavar="GENERATOR", help="only these generators (`camera` is the real class)")
    parser.add_argument("--photos", nargs="+", metavar="PHOTO", help="only these photographs")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args(argv)
    args.work.mkdir(parents=True, exist_ok=True)
    args.debs, args.wheels = args.debs or args.work / "debs", args.wheels or args.work / "wheels"
    known = ("camera", *DEV, *TEST)
    if args.only and set(args.only) - set(known):
        parser.error(f"unknown generator {sorted(set(args.only) - set(known))[0]}; known: {', '.join(known)}")
    try:
        written = build(args)
        write_manifest(args.out / "manifest.csv")
    except (sources.SourceError, RuntimeError, ValueError, ImportError) as error:
        print(f"make_mini: {error}", file=sys.stderr)
        return 2
    print(f"{written} crops and manifest.csv written to {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
