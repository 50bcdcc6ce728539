"""The committed scores of 08_robustness from a run: `python data/make_robustness.py RUN --note NOTE`.

Writes robustness/mini_seed0, which the notebook shows where a run folder has no checkpoints. What RUN has saved is read, what
it has not is scored.
"""

import argparse
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from sddlib import SDDError  # noqa: E402
from sddlib.layouts import benchmark_root  # noqa: E402
from sddlib.profiles import parameters  # noqa: E402
from sddlib.robustness import fixed_subset  # noqa: E402
from sddlib.robustness_store import gather, store_settings, write_store  # noqa: E402
from sddlib.runs import find_run, shown  # noqa: E402


def main(argv: list[str] | None = None) -> int:
    """Exit code: 0 written, 2 a mistake named in one line."""
    defaults = parameters("08_robustness")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", metavar="RUN", help="folder of a run with checkpoints")
    parser.add_argument("--note", required=True, help="seed, profile and machine, for the reader")
    parser.add_argument("--manifest", type=Path, default=HERE / "manifest.csv", help="benchmark (default: data/manifest.csv)")
    parser.add_argument("--limit", type=int, default=0, help="photographs taken from each split; 0: all (default)")
    parser.add_argument("--photographs", type=int, default=defaults["photographs"], help="as in the notebook")
    parser.add_argument("--to", type=Path, default=HERE / "robustness" / "mini_seed0", help="target folder")
    args = parser.parse_args(argv)
    try:
        run = find_run(args.run)
        if not (run / "checkpoints").is_dir():
            raise SDDError(f"{shown(run)} has no checkpoints; run 03_train in it first")
        found = gather(run, args.manifest, "manifest", args.limit, args.photographs, args.to)
        samples = [s for s in found.benchmark if s.split in ("val", "test")]
        settings = store_settings(samples, fixed_subset(samples, args.photographs), benchmark_root(args.manifest))
        write_store(args.to, found, settings, args.note)
    except SDDError as e:
        print(f"make_robustness: {e}", file=sys.stderr)
        return 2
    changes = len(settings["perturbations"])
    print(f"{shown(args.to.resolve())}: {len(samples)} images, {changes} perturbations of a part of them")
    return 0


if __name__ == "__main__":
    sys.exit(main())
