"""What ran on what: the facts of a run folder as (name, value) texts, read from its files and nothing else."""

from collections import Counter
from datetime import datetime
from pathlib import Path

from .embedded import sha256
from .executed import Executed
from .profiles import read_json
from .report import NAMES

UNKNOWN = "not recorded"
SPLITS = ("val", "dev", "test")


def optional_json(path: Path) -> dict:
    """The object in a JSON file of the run, {} where there is none. A broken one is an SDDError."""
    return read_json(path) if path.is_file() else {}


def moment(iso: str) -> str:
    """An ISO time as a reader writes it, to the minute."""
    try:
        return f"{datetime.fromisoformat(iso):%Y-%m-%d %H:%M %Z}".strip()
    except ValueError:
        return UNKNOWN


def minutes(seconds: float | None) -> str:
    """Seconds as a reader says them."""
    if seconds is None:
        return UNKNOWN
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def count(number: int, noun: str) -> str:
    """A number and its noun, in the plural where it belongs."""
    plural = f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"
    return f"{number} {noun if number == 1 else plural}"


def run_facts(run_dir: Path, executed: list[Executed]) -> list[tuple[str, str]]:
    """Profile, seed, time, peak memory, machine, device."""
    record, metrics = optional_json(run_dir / "run.json"), all_metrics(run_dir)
    peaks = [m["peak_rss_mb"] for m in metrics.values() if "peak_rss_mb" in m]
    times = [e.seconds for e in executed if e.seconds]
    devices = dict.fromkeys(m["device"] for m in metrics.values() if "device" in m)
    started = min((e.started for e in executed if e.started), default="")
    return [
        ("Profile", str(record.get("profile", UNKNOWN))),
        ("Seed", str(record.get("seed", UNKNOWN))),
        ("Started", moment(started)),
        ("Time", f"{minutes(sum(times))} in {count(len(times), 'notebook')}" if times else UNKNOWN),
        ("Peak memory", f"{max(peaks) / 1024:.1f} GiB" if peaks else UNKNOWN),
        ("Machine", str(record.get("machine", UNKNOWN))),
        ("Device", "; ".join(devices) or UNKNOWN),
    ]


def all_metrics(run_dir: Path) -> dict[str, dict]:
    """Notebook -> the numbers it has handed over."""
    return {path.stem: read_json(path) for path in sorted((run_dir / "metrics").glob("*.json"))}


def versions(run_dir: Path) -> list[tuple[str, str]]:
    """Library -> version, as run.json names them."""
    return [(str(k), str(v)) for k, v in optional_json(run_dir / "run.json").get("versions", {}).items()]


def abouts(run_dir: Path) -> dict[str, dict]:
    """Method -> what its checkpoint says of itself."""
    return {m: about for m in NAMES if (about := optional_json(run_dir / "checkpoints" / f"{m}.json"))}


def data_facts(run_dir: Path, scores: dict[str, list[dict]]) -> list[tuple[str, str]]:
    """Which benchmark, how many images of each class in each split, and the hash of what training saw."""
    parameters = optional_json(run_dir / "run.json").get("parameters") or {}
    about = next(iter(abouts(run_dir).values()), {})
    sources = dict.fromkeys(str(v["manifest"]) for v in parameters.values() if v.get("manifest"))
    facts = [("Benchmark", ", ".join(sources) or UNKNOWN)]
    if trained := about.get("train"):
        facts.append(("train", f"{trained['n_real']} real, {trained['n_fake']} fake"))
    rows = next(iter(scores.values()), [])
    for split in SPLITS:
        inside = [r for r in rows if r["split"] == split]
        labels, makers = Counter(r["label"] for r in inside), {r["generator"] for r in inside if r["label"]}
        if inside:
            photographs = len({r["photo"] for r in inside})
            made = f"{labels[1]} fake of {count(len(makers), 'generator')}"
            facts.append((split, f"{labels[0]} real, {made}, {count(photographs, 'photograph')}"))
    if errors := sum(bool(r["error"]) for r in rows):
        facts.append(("Unreadable", f"{errors} images, which count nowhere"))
    facts.append(("SHA-256 of train and val", str(about.get("data", UNKNOWN))))
    return facts


def file_facts(run_dir: Path) -> list[dict]:
    """A line for the token bank and each checkpoint: file, what, size, sha256 as computed now, and whether its JSON agrees."""
    lines = []
    paths = [run_dir / "bank.safetensors", *(run_dir / "checkpoints" / f"{m}.safetensors" for m in NAMES)]
    for path in (p for p in paths if p.is_file()):
        about, found = optional_json(path.with_suffix(".json")), sha256(path)
        agrees = about.get("sha256") in (None, found)
        what = NAMES.get(path.stem, "token bank")
        size = path.stat().st_size
        size = f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"
        facts = {"threshold": about.get("threshold"), "validation AP": about.get("val", {}).get("ap")}
        lines.append(
            {"file": path.relative_to(run_dir), "what": what, "size": size, "sha256": found, "agrees": agrees, **facts}
        )
    return lines


def settings(run_dir: Path) -> list[tuple[str, str]]:
    """How the detectors were made: backbone, crops, preset, generators of training, steps."""
    about = next(iter(abouts(run_dir).values()), {})
    if not about:
        return []
    config = about.get("settings", {}).get("config", {})
    steps = ", ".join(f"{k} {config[k]}" for k in ("epochs", "batch", "lr", "schedule", "precision") if k in config)
    facts = [("Backbone", f"{about.get('backbone')}, weights {about.get('weights')}, crops of {about.get('image_size')} px")]
    facts.append(("Trained on fakes of", ", ".join(map(str, about.get("generators", []))) or UNKNOWN))
    return [*facts, ("Training", steps or UNKNOWN), ("Made by sddlib", str(about.get("version", UNKNOWN)))]
