"""Ablations: what each variant changes (Table 4, Fig. 5 and beyond), a resumable sweep of a papermill call each, its scores."""

import csv
import hashlib
import json
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from filelock import FileLock

from . import SDDError
from .data import data_hash, read_manifest
from .disk import alone_at, expanded, replaced
from .evaluate import read_scores, write_csv
from .limits import CSV, check_size
from .presets import get_preset
from .profiles import ROOT, all_parameters, check_overrides, near, read_json
from .recipes import subset
from .runner import execute
from .runs import shown, versions, write_json

VARIED = ("kind", "preset", "preset_fields", "intervene", "banks", "seed")  # parameters of the template that a sweep sets
TEMPLATE = "variant"  # the notebook that trains and scores one variant
STORE = ROOT / "data" / "ablations"


@dataclass(frozen=True)
class Variant:
    """One change to SDD. group: of changes, "unsaid" for what the paper leaves open; kind: "sdd" or "lora"; fields: of the
    preset; intervene: ask the trained detector what it rests on."""

    group: str
    what: str
    fields: dict = field(default_factory=dict)
    preset: str = "paper"
    kind: str = "sdd"
    intervene: bool = False


MLP = ["q", "k", "v", "out", "c_fc", "c_proj"]
VARIANTS = {
    "sdd": Variant("whole", "SDD, nothing changed", intervene=True),
    "lora": Variant("modules", "no STS, no CFDL, no enhancement: LoRA-CLIP + linear head", kind="lora"),
    "no_sts": Variant("modules", "no STS: random real tokens for the sampled bank", {"bank": "random"}),
    "no_cfdl": Variant("modules", "no CFDL: no reconstruction, plain convolutions", {"reconstruction": "none"}),
    "no_enhancement": Variant("modules", "no enhancement: the mean of D_s for F_low", {"enhancement": "none"}),
    "cfdl_only": Variant("modules", "CFDL alone: random bank, mean of D_s", {"bank": "random", "enhancement": "none"}),
    "bank_noise": Variant("bank", "Gaussian noise for the bank", {"bank": "noise"}),
    "bank_none": Variant("bank", "no bank: the image's own tokens for f_s", {"bank": "none"}),
    "weight_abs": Variant("weight", "adaptive weight abs(x) (Fig. 5)", {"weight": "abs"}),
    "weight_square": Variant("weight", "adaptive weight x^2 (Fig. 5)", {"weight": "square"}),
    "printed": Variant("wiring", "Eq. 5-8 letter for letter, M = N", {"reconstruction": "printed"}),
    "residual_bank": Variant(
        "wiring", "queries added in Eq. 5, 7 and 8, so that the bank's tokens stay apart", {"residual": "bank"}
    ),
    "residual_tokens": Variant("wiring", "queries added in Eq. 6, 7 and 8, which lets V_H through", {"residual": "tokens"}),
    "release": Variant("wiring", "the release's parts and losses, M = 256, trained as SDD is", {"M": 256}, "release"),
    "release_trained": Variant(
        "wiring", "the same with attention that trains", {"M": 256, "detach_attention": False}, "release"
    ),
    "no_triplet": Variant("loss", "no triplet loss", {"lambda_tri": 0.0}),
    "no_L_r": Variant("loss", "no reconstruction loss", {"lambda_r": 0.0}),
    "L_r_all": Variant("loss", "L_r over all images", {"r_over": "all"}),
    "dropout_0.8": Variant("LoRA", "LoRA dropout 0.8, as printed", {"lora_dropout": 0.8}),
    "lora_qv": Variant("LoRA", "LoRA on q and v only", {"lora_targets": ["q", "v"]}),
    "lora_mlp": Variant("LoRA", "LoRA on the MLPs too", {"lora_targets": MLP}),
    "blocks_4": Variant("LoRA", "LoRA in the last 4 blocks", {"lora_blocks": 4}),
    "blocks_8": Variant("LoRA", "LoRA in the last 8 blocks", {"lora_blocks": 8}),
    "raw_tokens": Variant("unsaid", "tokens before CLIP's final LayerNorm", {"norm": "none"}),
    "detach_target": Variant("unsaid", "L_r does not move the tokens it rebuilds", {"detach_target": True}),
    "no_highpass": Variant("unsaid", "the enhancer's first filters start with their mean", {"highpass": False}),
}


def check_variants(names: list[str]) -> list[str]:
    """The names in the order of VARIANTS; an unknown one is refused."""
    for name in names:
        if name not in VARIANTS:
            raise SDDError(f"there is no variant {name!r}; near it are {near(name, VARIANTS)}")
    return [name for name in VARIANTS if name in names]


def parameters_of(name: str, seed: int, profile: str, overrides: dict) -> dict:
    """Every parameter of the template for a variant, without its run folder."""
    variant = VARIANTS[name]
    values = all_parameters(profile, TEMPLATE, overrides)
    fields = variant.fields | values["preset_fields"]  # a profile's sizes stay
    chosen = {"kind": variant.kind, "preset": variant.preset, "preset_fields": fields, "intervene": variant.intervene}
    chosen |= {"seed": seed, "run_dir": "", "banks": ""}
    return all_parameters(profile, TEMPLATE, overrides | chosen)


def settings_of(values: dict) -> str:
    """12 hex digits over the parameters, every field of the preset and the images; the code and its libraries are not in it."""
    samples = subset(read_manifest(ROOT / expanded(values["manifest"])), values["limit"])
    known = {**values, "preset": get_preset(values["preset"], **values["preset_fields"]).as_dict(), "data": data_hash(samples)}
    return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:12]


class Store:
    """Scores of many variants on the same images, one seed: FILE.csv has a row an image and a column a variant, FILE.json
    says of every column with which settings it was made, and what else was measured. Both are small enough to be kept."""

    def __init__(self, folder: Path, profile: str, seed: int):
        self.seed, stem = seed, f"{Path(profile).stem}_seed{seed}"
        self.csv, self.json = folder / f"{stem}.csv", folder / f"{stem}.json"

    def facts(self) -> dict[str, dict]:
        """Variant -> {settings, seconds, readings, ...}."""
        return read_json(self.json) if self.json.is_file() else {}

    def columns(self) -> tuple[list[str], dict[str, list[str]]]:
        """(paths, column name -> score texts)."""
        if not self.csv.is_file():
            return [], {}
        check_size(self.csv, CSV)
        with self.csv.open(newline="", encoding="utf-8", errors="surrogateescape") as f:
            header, *rows = list(csv.reader(f))
        return [r[0] for r in rows], {n: [r[i] for r in rows] for i, n in enumerate(header[1:], 1)}

    def add(self, name: str, scores: dict[str, list[dict]], facts: dict) -> None:
        """Put in the scores of a variant (column -> rows of a scores file) and what is known of it, after what another process
        is putting in. What was known before goes once the new scores are on the disk, so that a variant whose call is killed
        in between is made again."""
        self.csv.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(self.csv.with_suffix(".lock")):
            self._add(name, scores, facts)

    def _add(self, name: str, scores: dict[str, list[dict]], facts: dict) -> None:
        paths, known = self.columns()
        known = {n: v for n, v in known.items() if n.split(":")[0] != name}
        for column, rows in scores.items():
            if paths and [r["path"] for r in rows] != paths:
                raise SDDError(f"{shown(self.csv)} holds other images than this sweep scores; give another folder")
            paths = [r["path"] for r in rows]
            known[column] = ["" if r["score"] is None else repr(r["score"]) for r in rows]
        columns = ["path", *known]
        lines = zip(paths, *known.values(), strict=True)
        earlier = self.facts()
        try:
            with replaced(self.csv) as part:
                write_csv([dict(zip(columns, line, strict=True)) for line in lines], part, columns)
                write_json(self.json, {n: f for n, f in earlier.items() if n != name})
        except OSError:  # the earlier scores are still there, and so what is known of them
            write_json(self.json, earlier)
            raise
        write_json(self.json, earlier | {name: facts})

    def runs(self, manifest: Path, limit: int) -> dict[str, list[dict]]:
        """Column -> rows as `evaluate.read_scores` gives them; label, generator and photograph come from the manifest."""
        known = {}
        for s in subset(read_manifest(manifest), limit):
            facts = {"label": s.label, "generator": s.generator, "family": s.family, "split": s.split, "photo": s.photo}
            known[os.path.relpath(s.path, manifest.parent)] = facts  # as scores are written
        paths, columns = self.columns()
        if foreign := [p for p in paths if p not in known]:
            raise SDDError(f"{shown(self.csv)}: {foreign[0]} is not in {manifest.name}; sweep again on this benchmark")
        facts = self.facts()
        if columns and not facts:
            raise SDDError(f"{shown(self.csv)} has no {self.json.name} beside it that says how it was made; sweep again")
        if len({json.dumps(f["common"], sort_keys=True) for f in facts.values()}) > 1:
            raise SDDError(f"{shown(self.csv)} holds variants that were trained differently; sweep all with the same settings")
        return {
            name: [{"path": p, **known[p], "score": self.score(name, p, t)} for p, t in zip(paths, texts, strict=True)]
            for name, texts in columns.items()
            if name.split(":")[0] in facts
        }

    def score(self, column: str, path: str, text: str) -> float:
        """A score of the file; what is none, or missing, is an error that names it."""
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not 0 <= value <= 1:
            raise SDDError(f"{shown(self.csv)}: {column} has {text!r} for {path}, which is no score in 0..1; sweep it again")
        return value

    def refuse_others(self, names: list[str], common: dict) -> None:
        """An error where variants that stay here were trained with other settings: in one store they could not be compared."""
        for name, facts in self.facts().items():
            for n in (n for n in common if name not in names and facts["common"].get(n) != common[n]):
                was = facts["common"].get(n)
                raise SDDError(
                    f"{shown(self.json)} holds {name} trained with {n} {was!r}, this sweep has {common[n]!r}; "
                    f"give -p {n}={was} or another --out"
                )


def find_stores(folder: Path, profile: str) -> list[Store]:
    """The stores of a profile in a folder, by seed."""
    seeds = [p.stem.rpartition("_seed")[2] for p in folder.glob(f"{Path(profile).stem}_seed*.csv")]
    return [Store(folder, profile, seed) for seed in sorted(int(s) for s in seeds if s.isdigit())]


def sweep(names: list[str], seeds: list[int], profile: str, overrides: dict, folder: Path, work: Path, say=print) -> int:
    """Train and score every variant with every seed, one papermill call each; what is there with the same settings is skipped.

    folder: of the stores; work: where each call has a run folder. Returns how many were made. Scores are stored as each ends,
    so a killed sweep goes on where it stood.
    """
    check_overrides(overrides, [TEMPLATE])
    if clash := [n for n in overrides if n in VARIED]:
        raise SDDError(f"parameter {clash[0]} is what a sweep sets; name variants and seeds, and sizes in a profile")
    made, values = 0, parameters_of(next(iter(VARIANTS)), 0, profile, overrides)
    for store in find_stores(folder, profile):  # before hours go into what could not be kept
        store.refuse_others(check_variants(names) if store.seed in seeds else [], common_of(values))
    for seed in seeds:
        store = Store(folder, profile, seed)
        for name in check_variants(names):
            values = parameters_of(name, seed, profile, overrides)
            if store.facts().get(name, {}).get("settings") == settings_of(values) and name in store.columns()[1]:
                say(f"{name}, seed {seed}: is there")
                continue
            with alone_at(work, f"{name}-seed{seed}"):
                scores, facts = make(name, values, work / f"{name}-seed{seed}", work / "banks", say)
                store.add(name, scores, facts)
            say(f"{name}, seed {seed}: {facts['seconds']:.0f} s, dev AP {facts['dev_ap']:.3f}")
            made += 1
    return made


def make(name: str, values: dict, run_dir: Path, banks: Path, say) -> tuple[dict[str, list[dict]], dict]:
    """Train and score one variant in a run folder of its own. Returns what `Store.add` takes: scores and facts."""
    shutil.rmtree(run_dir, ignore_errors=True)  # nothing of an earlier call may be taken for this one's
    places = {"run_dir": str(run_dir), "banks": str(banks)}  # results do not depend on them
    execute(TEMPLATE, values | places, run_dir, say)
    scores = {
        name if p.stem == "scores" else f"{name}:{p.stem}": read_scores(p)
        for p in sorted((run_dir / "scores").glob("*.csv"), key=lambda p: (p.stem != "scores", p.stem))
    }
    facts = read_json(run_dir / "metrics" / f"{TEMPLATE}.json")
    return scores, {"settings": settings_of(values), "common": common_of(values), **facts, "versions": versions()}


def common_of(values: dict) -> dict:
    """The parameters that all variants of a sweep share."""
    return {n: v for n, v in values.items() if n not in VARIED}
