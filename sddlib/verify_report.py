"""What `verify` found as text, and the command that prints it."""

from collections import Counter
from pathlib import Path

from . import SDDError
from .benchmarks import UNIVFD_EXTRA
from .columns import printable
from .evaluate import write_csv
from .leaks import NAMES, telling
from .pictures import IMAGE_SUFFIXES
from .report import columns
from .verdicts import check_out
from .verify import COLUMNS, Report, shown_set, verify

SHOWN = 20  # lines of a list; the CSV has every file


def text(report: Report) -> str:
    """Tables and lists for a reader; the last line is the verdict."""
    good = sum(not r["error"] for r in report.files)
    head = f"{report.root}, layout {report.layout}: {len(report.files)} image files, {good} of them decoded"
    parts = [head, sets_table(report), leaks_table(report), *notes(report), *problems(report), verdict(report)]
    return "\n\n".join(p for p in parts if p)


def spread(values: tuple[float, ...] | None) -> str:
    """(least, median, most) as text; one number where all are the same."""
    return "-" if values is None else "-".join(f"{v:g}" for v in (values if values[0] < values[-1] else values[:1]))


def shares(counts: dict[str, int]) -> str:
    """Names with their counts, the counts left out where there is one name."""
    return ", ".join(f"{name} {n}" if len(counts) > 1 else name for name, n in counts.items()) or "-"


def sets_table(report: Report) -> str:
    """One line for each class of each set."""
    header = ["split", "set", "class", "N", "published", "formats", "modes", "width", "height", "JPEG quality"]
    body = []
    for s in report.sets:
        size = (
            "not known" if s["published"] is None else f"{s['published']}" + (" (differs)" if s["n"] != s["published"] else "")
        )
        body.append([s["split"], s["set"], s["class"], s["n"], size, shares(s["format"]), shares(s["mode"])])
        body[-1] += [spread(s[what]) for what in ("width", "height", "quality")]
    return columns([header, *body], 5) + "\n(ranges: least-median-most; quality: the nearest of the IJG library's tables)"


def leaks_table(report: Report) -> str:
    """AUROC of the file alone for each set, a warning for each set whose containers tell its classes apart, and one for those
    where only the compressed size does, which belongs to the pictures as well."""
    body, warnings, by_size = [], [], []
    for (split, name), found in report.leaks.items():
        body.append([split, name, found["n_real"], found["n_fake"], *("-" if found[k] is None else found[k] for k in NAMES)])
        told, by_bytes = telling(found)
        if told and not by_bytes:
            what = ", ".join(f"{k} {a:.2f}" for k, a in told.items())
            warnings.append(f"warning: {split} {name}: the file alone tells real from fake ({what})")
        elif told:
            by_size.append(f"{split} {name} {told['bytes/pixel']:.2f}")
    if by_size:
        warnings.append(f"warning: compressed size alone tells real from fake, as smooth pictures do: {', '.join(by_size)}")
    if not body:
        return ""
    table = columns([["split", "set", "N real", "N fake", *NAMES], *body], 2)
    return "\n".join(
        ["real from fake by the file alone, without a look at the picture (AUROC; 0.5 is chance):", table, *warnings]
    )


def listed(title: str, lines: list[str], shown: int = SHOWN) -> str:
    """A title with the number of lines, and the first of them."""
    more = [f"  ... and {len(lines) - shown} more (--csv FILE lists every file)"] if len(lines) > shown else []
    return "\n".join([f"{title}: {len(lines)}", *(f"  {printable(line)}" for line in lines[:shown]), *more]) if lines else ""


def notes(report: Report) -> list[str]:
    """What is no fault: folders not read, other files, names that the benchmark does not have, duplicates, suffixes."""
    listing, unread = report.listing, []
    for folder, n in listing.unread.items():
        extra = "; in the archive, but not among the 19 sets" if folder.rsplit("/", 1)[-1] in UNIVFD_EXTRA else ""
        unread.append(f"{folder} ({n} image files{extra})")
    where = Counter(
        " = ".join(sorted({f"{r['split']} {shown_set(r['set'], r['label'])}" for r in g})) for g in report.duplicates
    )
    return [
        listed(f"folders without a place in layout {report.layout}, not read", unread),
        listed("files beside the images, by suffix", [f"{suffix} {n}" for suffix, n in listing.other.items()]),
        listed("generators that SynRIS does not have, read all the same", report.unknown),
        listed("duplicates (files of the same bytes), by where they lie", [f"{place}: {n}" for place, n in where.items()]),
        listed("duplicates, one by one", [" = ".join(r["path"] for r in g) for g in report.duplicates]),
        listed("warning: names that say another container", [f"{path} {why}" for path, why in report.misnamed]),
        listed("too flat for a perceptual hash, not compared across splits", report.flat),
    ]


def problems(report: Report) -> list[str]:
    """What makes the exit code 1."""
    return [
        listed("MISSING", report.missing, len(report.missing)),
        listed("OTHER NUMBER THAN PUBLISHED", report.differs, len(report.differs)),
        listed("ZERO BYTES", [path for path, _ in report.empty]),
        listed("UNDECODABLE", [f"{path}: {why}" for path, why in report.undecodable]),
        listed("MISLABELLED", [f"{path}: {why}" for path, why in report.mislabelled]),
        listed("THE SAME BYTES IN TWO SPLITS", report.across),
        listed("LOOK ALIKE IN TWO SPLITS", report.look_alikes),
    ]


def verdict(report: Report) -> str:
    """One line: whole, or what is wrong."""
    kinds = {"missing": report.missing, "other numbers than published": report.differs, "zero-byte": report.empty}
    kinds |= {"undecodable": report.undecodable, "mislabelled": report.mislabelled}
    kinds["the same in two splits"] = report.across
    kinds["alike in two splits"] = report.look_alikes
    wrong = ", ".join(f"{name} {len(found)}" for name, found in kinds.items() if found)
    return f"NOT WHOLE: {wrong}" if wrong else "whole: nothing is missing, every file can be decoded"


def verify_command(
    root: str, layout: str, classes: list[str] | None, splits: list[str] | None, workers: int | None, csv: str | None
) -> int:
    """Verify, write CSV with a row a file where one is named, print the text; returns the exit code 0 or 1."""
    if workers is not None and workers < 1:
        raise SDDError(f"--workers {workers} is no number of processes; use 1 or more")
    if csv is not None:
        if Path(csv).suffix.lower() in IMAGE_SUFFIXES:
            raise SDDError(f"--csv {csv} has the name of an image; name a CSV file")
        check_out(Path(csv), [Path(root)], "--csv", ",".join(COLUMNS))
    report = verify(root, layout, classes and tuple(classes), splits and tuple(splits), workers)
    if csv is not None:
        write_csv(report.files, csv, COLUMNS)
    print(text(report).encode(errors="backslashreplace").decode())  # a file name may be any bytes
    return report.exit_code
