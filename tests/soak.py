"""The long forms of test_nothing_lost.py, minutes each: `make soak`. A line of figures a promise; exit code 1 if one broke."""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TQDM_DISABLE", "1")
os.environ.setdefault("PYTHONWARNINGS", "ignore:resource_tracker")  # of what killed processes could not give back

import kills  # noqa: E402
import numpy as np  # noqa: E402
from elsewhere import Elsewhere  # noqa: E402

from sddlib.runs import machine_text  # noqa: E402

FILES, IMAGES, NAMES, KILLS, BATCH, EPOCHS = 10_000, 20_000, 100_000, 10, 32, 60
GROWTH = 0.05  # of resident memory after the first fifth of the images
BYTES = 2048  # of memory that a scanned name may take


def scoring(folder: Path, seed: int) -> tuple[bool, str]:
    """FILES files of mixed formats, some broken: KILLS times SIGKILL and --resume give the CSV of one go, byte for byte."""
    call = [kills.pictures(folder / "pictures", FILES, seed), "--checkpoint", kills.checkpoint(folder)]
    begin = time.perf_counter()
    whole = Elsewhere(folder / "whole", kills.score, [*call, "--out", folder / "whole.csv", "--batch", BATCH])
    assert whole.wait(1200) == kills.DONE, whole.err.read_text()
    seconds = time.perf_counter() - begin
    begin, out = time.perf_counter(), folder / "out.csv"
    rows = kills.score_through_kills(call, out, FILES, BATCH, KILLS, np.random.default_rng(seed))
    same = out.read_bytes() == (folder / "whole.csv").read_bytes()
    said = f"{FILES:,} files scored with {KILLS} SIGKILLs (rows kept: {', '.join(map(str, rows))}) and --resume: the CSV is "
    said += f"{'the same' if same else 'NOT THE SAME'}, byte for byte ({out.stat().st_size:,} bytes)"
    return same, f"{said}; {time.perf_counter() - begin:.0f} s, undisturbed {seconds:.0f} s"


def training(folder: Path, seed: int) -> tuple[bool, str]:
    """A training of SDD with KILLS times SIGKILL gives the weights of an undisturbed one, bit for bit."""
    steps, resumed, whole = kills.train_through_kills(folder, EPOCHS, KILLS, np.random.default_rng(seed))
    same = kills.same_weights(resumed, whole)
    said = (
        f"SDD trained for {3 * EPOCHS} steps with {KILLS} SIGKILLs (after steps {', '.join(map(str, steps))}): final weights "
    )
    return same, said + f"{'the same' if same else 'NOT THE SAME'}, bit for bit"


def memory(folder: Path, seed: int) -> tuple[bool, str]:
    """IMAGES images in one process: memory grows by GROWTH at most after the first fifth."""
    call = [kills.pictures(folder / "pictures", IMAGES, seed), "--checkpoint", kills.checkpoint(folder)]
    begin = time.perf_counter()
    series = kills.rss_while_scoring(call, folder / "out.csv", BATCH)
    grown, seconds = kills.growth(series, IMAGES), time.perf_counter() - begin
    points = [next(mib for rows, mib in series if rows >= IMAGES * k // 10) for k in range(1, 10)]
    said = f"{IMAGES:,} images scored in one process: {' '.join(f'{mib:.0f}' for mib in points)} MiB after each tenth, "
    return grown <= GROWTH, said + f"growth after warm-up {grown:+.1%} (at most {GROWTH:.0%}); {seconds:.0f} s"


def scanning(folder: Path, _seed: int) -> tuple[bool, str]:
    """A folder of NAMES names is scanned, every one counted, in BYTES a name at most."""
    found = kills.scanned(kills.names(folder / "names", NAMES), folder / "scan")
    counted = (found["pictures"], found["others"]) == (NAMES * 4 // 5, NAMES // 5)
    said = f"{NAMES:,} names scanned: {found['pictures']:,} pictures, {found['others']:,} others; "
    return counted and found["MiB"] * 2**20 <= BYTES * NAMES, said + f"{found['seconds']:.1f} s, {found['MiB']:.0f} MiB"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="of pictures and random points (default: 0)")
    seed, begin, kept = parser.parse_args().seed, time.perf_counter(), []
    print(f"soak, seed {seed}; {machine_text()}; one thread a process", flush=True)
    for promise in (scoring, training, memory, scanning):
        with tempfile.TemporaryDirectory() as folder:
            good, said = promise(Path(folder), seed)
        kept.append(good)
        print(f"{'ok' if good else 'BROKEN'}: {said}", flush=True)
    print(f"{sum(kept)} of {len(kept)} promises kept, {time.perf_counter() - begin:.0f} s", flush=True)
    return 0 if all(kept) else 1


if __name__ == "__main__":
    sys.exit(main())
