"""The expected bands out of runs that differ in their seed: `python data/make_expected.py RUN RUN RUN`.

Writes expected.csv, which `python -m sddlib compare` reads. What a band is, is written in sddlib/expected.py.
"""

import argparse
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from sddlib import SDDError  # noqa: E402
from sddlib.evaluate import write_csv  # noqa: E402
from sddlib.expected import COLUMNS, EXPECTED, expected_rows  # noqa: E402
from sddlib.runs import find_run, shown  # noqa: E402


def main(argv: list[str] | None = None) -> int:
    """Exit code: 0 written, 2 a mistake named in one line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", metavar="RUN", help="folders of whole runs of one profile, one a seed")
    parser.add_argument("--benchmark", default="mini", help="what the rows call the images (default: mini)")
    parser.add_argument("--to", type=Path, default=EXPECTED, help="target (default: data/expected.csv)")
    args = parser.parse_args(argv)
    try:
        rows = expected_rows([find_run(folder) for folder in args.runs], args.benchmark)
        write_csv(rows, args.to, COLUMNS)
    except SDDError as e:
        print(f"make_expected: {e}", file=sys.stderr)
        return 2
    print(f"{shown(args.to.resolve())}: {len(rows)} bands from {len(args.runs)} runs")
    return 0


if __name__ == "__main__":
    sys.exit(main())
