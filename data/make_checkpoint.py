"""The shipped checkpoint out of a run: `python data/make_checkpoint.py [RUN]` (default: the latest run).

Writes checkpoints/sdd-mini.safetensors and .json in half precision, provided that every image which the run scored keeps
its score within 1e-3.
"""

import argparse
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from sddlib import SDDError  # noqa: E402
from sddlib.detector import Detector  # noqa: E402
from sddlib.evaluate import read_scores, score_paths  # noqa: E402
from sddlib.origins import read_origins  # noqa: E402
from sddlib.profiles import ROOT  # noqa: E402
from sddlib.runs import find_run  # noqa: E402

TOLERANCE = 1e-3


def ship(run: Path, target: Path) -> float:
    """Save the run's SDD as `target` in half precision; returns the largest change of a score. Errors leave no new file."""
    rows = read_scores(run / "scores" / "sdd.csv")
    model = Detector.load(run / "checkpoints" / "sdd.safetensors")
    if origins := read_origins(model, run / "checkpoints" / "sdd.safetensors"):  # an older run says it in its bank's file only
        model.about["bank"] = [f"{o.file}#{o.patch}" for o in origins]
    target.parent.mkdir(parents=True, exist_ok=True)
    trial = target.with_name(f"trial-{target.name}")
    root = (ROOT / model.about["manifest"]).parent  # what the paths of the rows start at
    try:
        model.save(trial, {k: v for k, v in model.about.items() if k != "settings"}, half=True)
        again = score_paths(Detector.load(trial), [root / row["path"] for row in rows])
        if unreadable := [row["path"] for row in (*rows, *again) if row["error"]]:
            raise SDDError(f"{unreadable[0]} has no score to compare; evaluate a run on a benchmark that is whole")
        change = max(abs(new["score"] - old["score"]) for new, old in zip(again, rows, strict=True))
        if change > TOLERANCE:
            raise SDDError(f"half precision moves a score by {change:.1e}, more than {TOLERANCE}; ship another run")
        for suffix in (target.suffix, ".json"):
            trial.with_suffix(suffix).replace(target.with_suffix(suffix))
    finally:
        for suffix in (target.suffix, ".json"):
            trial.with_suffix(suffix).unlink(missing_ok=True)
    return change


def main(argv=None):
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", nargs="?", help="run folder (default: runs/latest)")
    parser.add_argument("--to", type=Path, default=HERE / "checkpoints" / "sdd-mini.safetensors", help="file to write")
    args = parser.parse_args(argv)
    try:
        change = ship(find_run(args.run), args.to)
    except SDDError as error:
        print(f"make_checkpoint: {error}", file=sys.stderr)
        return 2
    print(f"{args.to}: {args.to.stat().st_size / 1e6:.1f} MB, largest change of a score {change:.1e}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
