"""python -m sddlib: env, run, train, score, compare, seeds, ablate, figures, bench. A mistake is one line on stderr and
exit code 2."""

import argparse
import logging
import shutil
import signal
import sys
from pathlib import Path

from . import SDDError

CHECKPOINT = "data/checkpoints/sdd-mini.safetensors"


def env(args) -> int:
    """Fetch the embedded CLIP weights, pinned and hashed, into the cache; a second call only checks them."""
    from .embedded import fetch_embedded

    print(f"embedded CLIP: {fetch_embedded()}")
    return 0


def run(args, names: list[str] | None = None) -> int:
    """Run notebooks in order with a profile; print the table, and where notebooks, figures and scores lie."""
    from .profiles import all_parameters, check_overrides, parse_overrides, resolve
    from .runner import run_notebooks
    from .runs import new_run_dir, shown

    chosen, overrides = resolve(names or args.notebooks), parse_overrides(args.p)
    if args.seed is not None:
        if overrides.get("seed", args.seed) != args.seed:
            raise SDDError(f"--seed {args.seed} and -p seed={overrides['seed']} disagree; give one")
        overrides["seed"] = args.seed
    check_overrides(overrides, chosen)
    for name in chosen:  # everything is refused before a folder is made
        all_parameters(args.profile, name, overrides)
    folder = Path(args.run_dir).resolve() if args.run_dir else new_run_dir(args.profile)
    args.folder = folder
    print(f"run folder {shown(folder)}: {', '.join(chosen)} with profile {args.profile}", flush=True)
    summary = run_notebooks(chosen, args.profile, overrides, folder, lambda text: print(text, flush=True))
    if any(name >= "04" for name in chosen) and (folder / "scores").is_dir():
        from .report import generator_table, read_run  # heavy: not before it is needed

        print(f"\n{generator_table(read_run(folder))}\n")
    print(f"{summary['seconds']:.0f} s, peak memory {summary['peak_rss_mb']} MiB")
    for what in ("notebooks", "figures", "scores", "checkpoints", "summary.json"):
        if (folder / what).exists():
            print(f"{what}: {shown(folder / what)}")
    return 0


def train(args) -> int:
    """Build the token bank and train SDD and both baselines: notebooks 02 and 03."""
    return run(args, ["02", "03"])


def score(args) -> int:
    """Score image files and folders with a checkpoint; write a CSV with one row a file, also for unreadable ones."""
    from .verdicts import score_to_csv

    score_to_csv(args.paths, Path(args.out), args.checkpoint and Path(args.checkpoint), args.threshold, args.batch)
    return 0


def compare(args) -> int:
    """Say of every set of a scores file whether it lies inside the expected band; exit code 1 if one does not."""
    from .compare import compare as inside

    return 0 if inside(Path(args.scores), args.method, args.table, args.draws) else 1


def seeds(args) -> int:
    """Runs that differ in their seed, side by side: mean, spread and intervals over photographs and runs."""
    from .report import seeds_table
    from .runs import find_run

    print(seeds_table([find_run(folder) for folder in args.runs], args.draws))
    return 0


def ablate(args) -> int:
    """Train and score variants of SDD, a papermill call each; what is stored with the same settings is skipped."""
    from .ablations import STORE, VARIANTS, check_variants, sweep
    from .profiles import parse_overrides
    from .runs import RUNS

    names, folder = check_variants(args.variants or list(VARIANTS)), Path(args.out) if args.out else STORE
    work = RUNS / f"ablations-{Path(args.profile).stem}"
    print(f"{len(names)} variants, seeds {', '.join(map(str, args.seeds))}, profile {args.profile}", flush=True)
    made = sweep(names, args.seeds, args.profile, parse_overrides(args.p), folder, work, lambda text: print(text, flush=True))
    print(f"{made} made; scores: {folder}")
    return 0


def figures(args) -> int:
    """Copy the figures of a run to figures/, all of them or those named."""
    from .profiles import ROOT, near
    from .runs import find_run, shown

    folder = find_run(args.run)
    found = {p.stem: p for p in sorted((folder / "figures").glob("*.svg"))}
    if not found:
        raise SDDError(f"{shown(folder)} has no figures; run the notebooks in it first")
    for name in args.names or found:
        if name not in found:
            raise SDDError(f"{shown(folder)} has no figure {name!r}; near it are {near(name, found)}")
    target = Path(args.to) if args.to else ROOT / "figures"
    target.mkdir(parents=True, exist_ok=True)
    for name in args.names or found:
        for suffix in (".svg", ".png"):
            print(shown(Path(shutil.copy2(found[name].with_suffix(suffix), target / f"{name}{suffix}"))))
    return 0


def bench(args) -> int:
    """Print what a training step and scoring cost beside the bare encoder, as ratios (its own --help tells more)."""
    from .bench import main as bench_main

    return bench_main(args.rest)


class Parser(argparse.ArgumentParser):
    """One line for a mistake, without the usage before it."""

    def error(self, message: str):
        self.exit(2, f"sddlib: {message}; see {self.prog} --help\n")


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m sddlib", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name, function):
        sub = commands.add_parser(name, help=function.__doc__, description=function.__doc__)
        sub.set_defaults(function=function)
        return sub

    add("env", env)
    for sub in (add("run", run), add("train", train)):
        if sub.get_default("function") is run:
            sub.add_argument(
                "notebooks", nargs="+", metavar="NAME", help="03_train, 03, all (the main job) or full (every one)"
            )
        sub.add_argument("--profile", default="mini", help="notebooks/profiles/NAME.yaml, or a YAML file (default: mini)")
        sub.add_argument("-p", action="append", default=[], metavar="NAME=VALUE", help="set a notebook parameter (repeatable)")
        sub.add_argument("--seed", type=int, help="short for -p seed=N")
        sub.add_argument(
            "--run-dir", metavar="DIR", help="run here, or go on in an earlier run (default: a new runs/DATE-PROFILE)"
        )
    sub = add("score", score)
    sub.add_argument("paths", nargs="+", metavar="PATH", help="image files and folders (searched for images)")
    sub.add_argument("--out", default="verdicts.csv", metavar="CSV", help="where to write (default: verdicts.csv)")
    sub.add_argument("--checkpoint", metavar="FILE", help=f"safetensors file with its JSON beside it (default: {CHECKPOINT})")
    sub.add_argument("--threshold", type=float, help="fake above this score (default: the checkpoint's, fitted on validation)")
    sub.add_argument("--batch", type=int, default=32, help="images a forward pass (default: 32)")
    sub = add("compare", compare)
    sub.add_argument("scores", metavar="SCORES.csv", help="as 04_evaluate writes it: RUN/scores/sdd.csv")
    sub.add_argument("--method", default="", help="sdd, lora or probe (default: what the file's JSON or its name says)")
    sub.add_argument("--table", type=int, nargs="+", choices=(1, 2, 3), default=(), help="of the paper (default: what fits)")
    sub.add_argument("--draws", type=int, default=1000, help="bootstrap draws (default: 1000)")
    sub = add("seeds", seeds)
    sub.add_argument("runs", nargs="+", metavar="DIR", help="run folders of one profile, one a seed")
    sub.add_argument("--draws", type=int, default=1000, help="bootstrap draws (default: 1000)")
    sub = add("ablate", ablate)
    sub.add_argument("variants", nargs="*", metavar="VARIANT", help="names in sddlib/ablations.py (default: all)")
    sub.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], metavar="N", help="training seeds (default: 0 1 2)")
    sub.add_argument("--profile", default="mini", help="notebooks/profiles/NAME.yaml, or a YAML file (default: mini)")
    sub.add_argument("-p", action="append", default=[], metavar="NAME=VALUE", help="set a parameter of the variant notebook")
    sub.add_argument("--out", metavar="DIR", help="where scores are kept (default: data/ablations)")
    sub = add("figures", figures)
    sub.add_argument("names", nargs="*", metavar="NAME", help="figures to copy (default: all of the run)")
    sub.add_argument("--run", metavar="DIR", help="run folder (default: runs/latest)")
    sub.add_argument("--to", metavar="DIR", help="target folder (default: figures/)")
    add("bench", bench).add_argument("rest", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    return parser


def interrupted(*_) -> None:
    """Ctrl-C: the sentence that `main` prints is enough, without what the loggers say of a kernel that is going down."""
    logging.disable(logging.CRITICAL)
    raise KeyboardInterrupt


def main(argv: list[str] | None = None) -> int:
    """Exit code: 0 done, 1 something is not as expected (compare), 2 a mistake named in one line, 130 interrupted."""
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == ["bench"]:  # its options are its own
        args = argparse.Namespace(function=bench, rest=argv[1:])
    else:
        args = build_parser().parse_args(argv)
    try:
        return args.function(args)
    except SDDError as e:
        print(f"sddlib: {' '.join(str(e).split())}", file=sys.stderr)
        return 2
    except (OSError, UnicodeError, MemoryError) as e:  # what the system refuses: a full disk, a folder without permission
        print(f"sddlib: {type(e).__name__}: {' '.join(str(e).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        where = f"; what was computed is kept in {args.folder}" if hasattr(args, "folder") else ""
        print(f"sddlib: stopped by the user{where}", file=sys.stderr)
        return 130


if __name__ == "__main__":
    signal.signal(signal.SIGINT, interrupted)
    sys.exit(main())
