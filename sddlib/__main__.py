"""The commands of `python -m sddlib`; --help lists them. A mistake is one line on stderr and exit code 2."""

import argparse
import logging
import signal
import sys

from . import SDDError, commands
from .columns import printable

CHECKPOINT = "data/checkpoints/sdd-mini.safetensors"
OWN_OPTIONS = ("plan", "bench")  # commands whose options are read by their own modules


class Parser(argparse.ArgumentParser):
    """One line for a mistake, without the usage before it."""

    def error(self, message: str):
        self.exit(2, f"sddlib: {message}; see {self.prog} --help\n")


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m sddlib", description=__doc__)
    parsers = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name):
        function = getattr(commands, name)
        sub = parsers.add_parser(name, help=function.__doc__, description=function.__doc__)
        sub.set_defaults(function=function)
        return sub

    add("env")
    add("doctor")
    for sub in (add("run"), add("train")):
        if sub.get_default("function") is commands.run:
            sub.add_argument(
                "notebooks", nargs="+", metavar="NAME", help="03_train, 03, all (the main job) or full (every one)"
            )
        sub.add_argument("--profile", default="mini", help="notebooks/profiles/NAME.yaml, or a YAML file (default: mini)")
        sub.add_argument("-p", action="append", default=[], metavar="NAME=VALUE", help="set a notebook parameter (repeatable)")
        sub.add_argument("--seed", type=int, help="short for -p seed=N")
        sub.add_argument(
            "--run-dir", metavar="DIR", help="run here, or go on in an earlier run (default: a new runs/DATE-PROFILE)"
        )
    sub = add("score")
    sub.add_argument("paths", nargs="+", metavar="PATH", help="image files and folders (searched for images)")
    sub.add_argument("--out", default="verdicts.csv", metavar="CSV", help="where to write (default: verdicts.csv)")
    sub.add_argument("--checkpoint", metavar="FILE", help=f"safetensors file with its JSON beside it (default: {CHECKPOINT})")
    sub.add_argument("--threshold", type=float, help="fake above this score (default: the checkpoint's, fitted on validation)")
    sub.add_argument("--batch", type=int, default=32, help="images a forward pass (default: 32)")
    sub.add_argument("--resume", action="store_true", help="go on from the scores that a killed call like this one has left")
    sub = add("compare")
    sub.add_argument("scores", metavar="SCORES.csv", help="as 04_evaluate writes it: RUN/scores/sdd.csv")
    sub.add_argument("--method", default="", help="sdd, lora or probe (default: what the file's JSON or its name says)")
    sub.add_argument("--table", type=int, nargs="+", choices=(1, 2, 3), default=(), help="of the paper (default: what fits)")
    sub.add_argument("--draws", type=int, default=1000, help="bootstrap draws (default: 1000)")
    sub = add("seeds")
    sub.add_argument("runs", nargs="+", metavar="DIR", help="run folders of one profile, one a seed")
    sub.add_argument("--draws", type=int, default=1000, help="bootstrap draws (default: 1000)")
    sub = add("ablate")
    sub.add_argument("variants", nargs="*", metavar="VARIANT", help="names in sddlib/ablations.py (default: all)")
    sub.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], metavar="N", help="training seeds (default: 0 1 2)")
    sub.add_argument("--profile", default="mini", help="notebooks/profiles/NAME.yaml, or a YAML file (default: mini)")
    sub.add_argument("-p", action="append", default=[], metavar="NAME=VALUE", help="set a parameter of the variant notebook")
    sub.add_argument("--out", metavar="DIR", help="where scores are kept (default: data/ablations)")
    sub = add("baselines")
    sub.add_argument("kinds", nargs="*", metavar="KIND", help="names in sddlib/baselines/__init__.py (default: all)")
    sub.add_argument("--seeds", type=int, nargs="+", default=[0], metavar="N", help="training seeds (default: 0)")
    sub.add_argument("--profile", default="mini", help="notebooks/profiles/NAME.yaml, or a YAML file (default: mini)")
    sub.add_argument("-p", action="append", default=[], metavar="NAME=VALUE", help="set a parameter of notebook 07_baselines")
    sub.add_argument("--out", metavar="DIR", help="where scores are kept (default: data/baselines)")
    sub.add_argument("--force", action="store_true", help="train and score again what is there")
    sub.add_argument("--keep", nargs="+", default=[], metavar="RUN", help="run folders whose scores are stored beside")
    sub = add("sweep")
    sub.add_argument("grid", nargs="?", metavar="GRID", help="YAML file; its name is that of the folder in runs/")
    sub.add_argument("--jobs", type=int, metavar="N", help="processes at a time (default: 1)")
    sub.add_argument("--scheduler", metavar="ADDRESS", help="run on the workers of a Dask scheduler, such as tcp://host:8786")
    sub.add_argument("--retry", action="store_true", help="run failed ones again")
    sub.add_argument("--list", action="store_true", help="print the table and run nothing; without GRID, of all sweeps")
    sub = add("figures")
    sub.add_argument("names", nargs="*", metavar="NAME", help="figures to copy (default: all of the run)")
    sub.add_argument("--run", metavar="DIR", help="run folder (default: runs/latest)")
    sub.add_argument("--to", metavar="DIR", help="target folder (default: figures/)")
    sub = add("manifest")
    sub.add_argument("real", metavar="REAL_DIR", help="folder of real images")
    sub.add_argument("fake", metavar="FAKE_DIR", help="folder of generated images; folders in it are generators")
    sub.add_argument("--out", required=True, metavar="CSV", help="the manifest to write")
    sub.add_argument("--unseen", nargs="+", default=[], metavar="GENERATOR", help="generators for test alone")
    sub.add_argument("--unpaired", action="store_true", help="equal names mean nothing (else: the same photograph, one split)")
    sub.add_argument("--workers", type=int, metavar="N", help="processes that decode (default: one for each core)")
    sub = add("report")
    sub.add_argument("run", nargs="?", metavar="RUN", help="run folder (default: runs/latest)")
    sub.add_argument("--to", metavar="DIR", help="write the pages there (default: into the run folder)")
    sub = add("verify")
    sub.add_argument("root", metavar="ROOT", help="the benchmark's folder, or its manifest CSV")
    sub.add_argument("--layout", required=True, metavar="NAME", help="manifest, univfd, synris or folder")
    sub.add_argument("--splits", nargs="+", metavar="SPLIT", help="only these of train, val, dev, test (default: all)")
    sub.add_argument("--classes", nargs="+", metavar="CLASS", help="univfd: only these class folders of train and val")
    sub.add_argument("--workers", type=int, metavar="N", help="processes that decode (default: one for each core)")
    sub.add_argument("--csv", metavar="FILE", help="write a row for each file")
    for name in OWN_OPTIONS:
        add(name).add_argument("rest", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    return parser


def interrupted(*_) -> None:
    """Ctrl-C: the sentence that `main` prints is enough, without what the loggers say of a kernel that is going down."""
    logging.disable(logging.CRITICAL)
    raise KeyboardInterrupt


def main(argv: list[str] | None = None) -> int:
    """Exit code: 0 done, 1 something is not as expected (compare, doctor, score, verify), 2 a mistake named in one line, 130
    interrupted."""
    argv = sys.argv[1:] if argv is None else argv
    if argv and argv[0] in OWN_OPTIONS:
        args = argparse.Namespace(function=getattr(commands, argv[0]), rest=argv[1:])
    else:
        args = build_parser().parse_args(argv)
    try:
        return args.function(args)
    except SDDError as e:
        print(f"sddlib: {printable(' '.join(str(e).split()))}", file=sys.stderr)
        return 2
    except (OSError, UnicodeError, MemoryError) as e:  # what the system refuses: a full disk, a folder without permission
        print(f"sddlib: {type(e).__name__}: {printable(' '.join(str(e).split()))}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        where = f"; what was computed is kept in {args.folder}" if hasattr(args, "folder") else ""
        print(f"sddlib: stopped by the user{where}", file=sys.stderr)
        return 130


if __name__ == "__main__":
    signal.signal(signal.SIGINT, interrupted)
    sys.exit(main())
