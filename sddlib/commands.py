"""What each command of `python -m sddlib` does; heavy imports wait until a command needs them."""

import os
import shutil
import sys
from pathlib import Path

from . import SDDError


def env(args) -> int:
    """Fetch the embedded CLIP weights, pinned and hashed, into the cache; a second call only checks them."""
    from .embedded import fetch_embedded

    print(f"embedded CLIP: {fetch_embedded()}")
    return 0


def doctor(args) -> int:
    """Look at versions, device, memory, disk, weights, data, kernels and widgets; name a cure for each fault. Exit code 1: one
    of them is a [fail]."""
    from .doctor import doctor as look

    return look()


def run(args, names: list[str] | None = None) -> int:
    """Run notebooks in order with a profile; print the table, and where notebooks, figures and scores lie. Under
    `accelerate launch` or `torchrun`, many GPUs, machines or CPU processes share training and scoring."""
    from .profiles import all_parameters, check_overrides, parse_overrides, resolve
    from .registry import claimed
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
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:  # a launcher has started this process and others
        from .launch import run_together
        from .parallel import leave

        folder, summary = run_together(chosen, args.profile, overrides, args.run_dir)
        leave()
        if not summary:
            return 0
    else:
        folder = args.folder = Path(args.run_dir).resolve() if args.run_dir else new_run_dir(args.profile)
        print(f"run folder {shown(folder)}: {', '.join(chosen)} with profile {args.profile}", flush=True)
        with claimed(folder):
            try:
                summary = run_notebooks(chosen, args.profile, overrides, folder, lambda text: print(text, flush=True))
            except SDDError:
                if (folder / "notebooks").is_dir():  # a notebook has failed, and the report says which
                    say_report(folder)
                raise
    if any(name >= "04" for name in chosen) and (folder / "scores").is_dir():
        from .report import generator_table, read_run  # heavy: not before it is needed

        print(f"\n{generator_table(read_run(folder))}\n")
    print(f"{summary['seconds']:.0f} s, peak memory {summary['peak_rss_mb']} MiB")
    for what in ("notebooks", "figures", "scores", "checkpoints", "summary.json"):
        if (folder / what).exists():
            print(f"{what}: {shown(folder / what)}")
    say_report(folder)
    return 0


def say_report(folder: Path) -> None:
    """Write the report of a run and print its path. What goes wrong with it is said and changes nothing of the run."""
    from .runs import shown

    try:
        from .report_page import write_report

        print(f"report: {shown(write_report(folder))}", flush=True)
    except Exception as e:  # hours of computing must not look failed for a page about them
        said = " ".join(f"{type(e).__name__}: {e}".split())
        print(f"sddlib: no report ({said}); make it again with `python -m sddlib report {shown(folder)}`", file=sys.stderr)


def report(args) -> int:
    """Write report.html of a run again, with a page of each executed notebook beside it, into its folder or elsewhere."""
    from .report_page import write_report
    from .runs import find_run, shown

    print(f"report: {shown(write_report(find_run(args.run), Path(args.to).resolve() if args.to else None))}")
    return 0


def train(args) -> int:
    """Build the token bank and train SDD and both baselines: notebooks 02 and 03."""
    return run(args, ["02", "03"])


def score(args) -> int:
    """Score image files and folders with a checkpoint; write a CSV with one row a file, also for unreadable ones. One that was
    killed or stopped leaves its scores in CSV.journal, and goes on from them with --resume, to the same CSV. Exit code 1: some
    could not be read, 2: none, or a mistake in the call."""
    from .verdicts import score_to_csv

    checkpoint = None if args.checkpoint is None else Path(args.checkpoint)
    return int(score_to_csv(args.paths, Path(args.out), checkpoint, args.threshold, args.batch, args.resume) > 0)


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


def baselines(args) -> int:
    """Train and score the paper's baselines with the sizes of a profile; what is stored with the same settings is skipped, a
    training that was stopped goes on. --keep stores the scores of SDD, LoRA and the probe of finished runs beside them."""
    from .baselines.trials import STORE, check_kinds, keep_run, profile_trials, sweep
    from .profiles import parse_overrides
    from .runs import find_run

    folder = Path(args.out) if args.out else STORE
    trials = profile_trials(args.profile, parse_overrides(args.p), folder)
    for name in args.keep:
        keep_run(find_run(name), trials)
    if args.keep and not args.kinds:
        return 0
    kinds = check_kinds(args.kinds)
    print(f"{', '.join(kinds)}; seeds {', '.join(map(str, args.seeds))}, profile {args.profile}", flush=True)
    made = sweep(kinds, args.seeds, trials, args.force, lambda text: print(text, flush=True))
    print(f"{made} made; scores: {folder}")
    return 0


def sweep(args) -> int:
    """Run a grid of runs (YAML, such as notebooks/grids/seeds.yaml); done ones are skipped. Exit code 1: some are not done."""
    from .sweeps import command

    return command(args)


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


def manifest(args) -> int:
    """Make a benchmark of two folders of your own, one of real and one of generated images: a manifest CSV with splits, and a
    warning where the files alone tell the classes apart. Pictures that look alike come into one split."""
    from .own_data import manifest_command

    return manifest_command(args.real, args.fake, args.out, args.unseen, not args.unpaired, args.workers)


def verify(args) -> int:
    """Count and decode every file of a benchmark, and say what is missing, broken, doubled or given away by the files alone.

    Exit code 0: whole; 1: a set is missing or has another number of files than published (its results would not be comparable),
    or a file is empty, undecodable or mislabelled, or pictures of two splits look alike; 2: a mistake in the call. Duplicates
    within a split and leaks are warnings.
    """
    from .verify_report import verify_command

    return verify_command(args.root, args.layout, args.classes, args.splits, args.workers, args.csv)


def plan(args) -> int:
    """Print the memory that training takes, and hours and GPUs at the paper's scale (its own --help tells more)."""
    from .paper_plan import main as plan_main

    return plan_main(args.rest)


def bench(args) -> int:
    """Print what a training step and scoring cost beside plainer ones, as ratios (its own --help tells more)."""
    from .bench import main as bench_main

    return bench_main(args.rest)
