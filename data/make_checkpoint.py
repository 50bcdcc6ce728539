"""A shipped checkpoint out of a run: `python data/make_checkpoint.py [RUN]` (default: the latest run).

Writes checkpoints/sdd-mini.safetensors and .json in half precision, provided that every image which the run scored keeps
its score within 1e-3, and beside them a model card, NAME.md: what it saw, what it scored, what it is no proof of.
"""

import argparse
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from sddlib import SDDError  # noqa: E402
from sddlib.data import Sample, data_hash  # noqa: E402
from sddlib.detector import Detector  # noqa: E402
from sddlib.evaluate import read_scores, score_paths, table  # noqa: E402
from sddlib.fitting import choose  # noqa: E402
from sddlib.layouts import read_benchmark  # noqa: E402
from sddlib.origins import read_origins  # noqa: E402
from sddlib.profiles import ROOT, read_json  # noqa: E402
from sddlib.recipes import subset  # noqa: E402
from sddlib.runs import find_run  # noqa: E402

TOLERANCE = 1e-3
SUFFIXES = (".safetensors", ".json", ".md")
CARD = """# {name}

The Semantic Discrepancy-aware Detector (SDD), preset `{preset}`, on {backbone} at {size} px: score = P(generated) of the
centre {size}x{size} pixels of a picture. One training, seed {seed}, {epochs} epochs; weights in half precision, which moves no
score of its test set by more than {change:.1e}. {mb:.1f} MB, sha256 `{sha256}`. CLIP itself is not inside.

## What it saw
The images of `{manifest}`, nothing else beside what OpenAI trained CLIP on. Training fitted the weights; validation chose the
epoch and the threshold.

{saw}

## What it scored
Run here, protocol `{protocol}`, at the threshold {threshold:.4f} from validation. N: reals + fakes.

{scored}

## What it is no proof of
A score is no proof that a picture is generated, nor that it is a photograph, and no probability outside this benchmark: it
says how far a picture is like these fakes and unlike these reals. Where the two differ in anything else (what they show, how
they were stored), it has learned that too: the manifest's folder says which differences are known. On a generator that is not
in the table, after compression, scaling or a screenshot, nothing is known of its errors. Accuse nobody with it.
"""


def table_text(rows: list[list]) -> str:
    """Rows, the first one the header, as a Markdown table."""
    lines = ["| " + " | ".join(f"{v:.3f}" if isinstance(v, float) else str(v) for v in row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])


def parameters_of(run: Path) -> tuple[dict, dict]:
    """(of 03_train, of 04_evaluate), as the run recorded them."""
    known = read_json(run / "run.json").get("parameters", {})
    trained, scored = known.get("03_train", {}), known.get("04_evaluate", {})
    if "layout" not in trained or "protocol" not in scored:
        raise SDDError(f"{run / 'run.json'} does not say how it was trained and scored; run notebooks 03 and 04 in it again")
    return trained, scored


def trained_on(run: Path, about: dict) -> list[Sample]:
    """The train and val images that the run's training saw, by the parameters it had."""
    p = SimpleNamespace(**parameters_of(run)[0])
    manifest = ROOT / p.manifest
    samples = subset(read_benchmark(manifest, p.layout), p.limit)
    if data_hash([s for split in ("train", "val") for s in samples if s.split == split]) != about["data"]:
        raise SDDError(f"{run} was trained on other images than {manifest} lists now; ship a run of today's benchmark")
    return choose(samples, p, manifest)


def card(target: Path, run: Path, rows: list[dict], change: float) -> str:
    """The model card of a written checkpoint. rows: of the run's scores file; change: the largest of a score."""
    about = read_json(target.with_suffix(".json"))
    counts = Counter((s.split, "fake" if s.label else "real", s.generator) for s in trained_on(run, about))
    saw = [["split", "class", "from", "images"], *([*key, n] for key, n in counts.items())]
    lines, _ = table(rows)
    scored = [["generator", "in training", "N", "AP", "AUROC", "accuracy", "of reals", "of fakes"]]
    for r in lines:
        numbers = [r[k] for k in ("ap", "auroc", "acc_val", "real_acc_val", "fake_acc_val")]
        scored.append([r["generator"], "yes" if r["seen"] else "no", f"{r['n_real']} + {r['n_fake']}", *numbers])
    trained, evaluated = parameters_of(run)
    changed = "".join(f", {name} = {value}" for name, value in trained["preset_fields"].items())
    facts = {"name": target.stem, "preset": trained["preset"] + changed, "protocol": evaluated["protocol"]}
    facts |= {"size": about["image_size"], "epochs": len(about["history"])}
    facts |= {k: about[k] for k in ("backbone", "seed", "sha256", "manifest", "threshold")}
    facts |= {"change": change, "mb": target.stat().st_size / 1e6, "saw": table_text(saw), "scored": table_text(scored)}
    return CARD.format(**facts)


def ship(run: Path, target: Path) -> float:
    """Save the run's SDD as `target` in half precision; returns the largest change of a score. Errors leave no new file."""
    parameters_of(run)  # refused before anything is scored
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
        trial.with_suffix(".md").write_text(card(trial, run, rows, change).replace(trial.stem, target.stem), encoding="utf-8")
        for suffix in SUFFIXES:
            trial.with_suffix(suffix).replace(target.with_suffix(suffix))
    finally:
        for suffix in SUFFIXES:
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
