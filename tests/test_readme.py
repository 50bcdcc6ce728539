"""The README is true: every command in it is one that works, every link leads somewhere."""

import csv
import importlib
import inspect
import json
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file
from scipy import stats
from scores import univfd_rows
from trees import univfd

from sddlib import __main__ as cli
from sddlib import ablations, chance, effects, interventions, repeats, runner
from sddlib.baselines import trials
from sddlib.baselines.standing import same_order, standing, title
from sddlib.data import data_hash, read_manifest
from sddlib.evaluate import read_scores, table, write_csv
from sddlib.grids import read_grid
from sddlib.presets import Preset, get_preset
from sddlib.profiles import all_parameters, check_overrides, parse_overrides, read_json
from sddlib.report import NAMES

ROOT = Path(__file__).resolve().parent.parent
PYTHON = ("python", "accelerate", "torchrun")  # what starts Python
README = (ROOT / "README.md").read_text()
PLACES = "Where the paper's equations and figures are"


def blocks(language: str) -> list[str]:
    """The fenced blocks of one language."""
    return re.findall(rf"```{language}\n(.*?)```", README, re.S)


def commands() -> list[list[str]]:
    """Every command line of the README's sh blocks as words, comments left out; `a && b` are two."""
    lines = [part for block in blocks("sh") for line in block.splitlines() for part in line.split("&&")]
    return [words for words in (shlex.split(line, comments=True) for line in lines) if words]


def sddlib_commands(name: str = "") -> list[list[str]]:
    """What follows `-m sddlib`, by itself or under a launcher."""
    found = []
    for words in commands():
        at = [i for i in range(len(words) - 1) if words[i : i + 2] == ["-m", "sddlib"]]
        found += [words[i + 2 :] for i in at if words[0] in PYTHON]
    return [words for words in found if name in ("", words[0])]


def test_every_command_is_of_a_kind_that_is_tested_here():
    known = {("make",), ("papermill",), ("conda", "env"), (".",), ("python", "data/make_checkpoint.py")}
    known |= {("accelerate", "launch", "-m", "sddlib"), ("torchrun", "--nproc_per_node", "2", "-m", "sddlib")}
    known |= {("python", "-m", module) for module in ("sddlib", "pytest", "jupyterlab", "pip", "venv", "ipykernel")}
    for words in commands():
        assert any(tuple(words[: len(k)]) == k for k in known), f"no test knows {' '.join(words)}"
    assert {words[0] for words in sddlib_commands()} == {  # doctor and manifest have test files of their own
        "doctor",
        "manifest",
        "env",
        "run",
        "report",
        "score",
        "seeds",
        "ablate",
        "baselines",
        "figures",
        "verify",
        "plan",
        "compare",
        "sweep",
    }


@pytest.mark.skipif(not shutil.which("make"), reason="needs make")
def test_make_has_every_target_that_is_named():
    named = {words[1] for words in commands() if words[0] == "make"} | set(re.findall(r"`make (\w+)`", README))
    assert {"run", "test", "env", "lab", "bench"} <= named
    for target in named:
        done = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def test_lines_without_make_are_the_bodies_of_make():
    makefile = (ROOT / "Makefile").read_text()
    for variable, value in (("$(PY)", "python"), ('"$(VENV)"', ".venv"), ("--disable-pip-version-check $(PIP_ARGS) ", "")):
        makefile = makefile.replace(variable, value)
    bodies = [shlex.split(line.strip().strip("@").split(" $(TORCH)")[0].split(" || ")[0]) for line in recipe_lines(makefile)]
    modules = ("pip", "ipykernel", "pytest", "jupyterlab")
    ours = [words for words in commands() if words[:2] == ["python", "-m"] and words[2] in modules]
    assert len(ours) == 5
    for words in ours:
        assert words in bodies, f"make does not do {' '.join(words)}"
    assert ["env"] in sddlib_commands("env") and ["run", "all", "--profile", "mini"] in sddlib_commands("run")


def recipe_lines(makefile: str) -> list[str]:
    return [line for line in makefile.splitlines() if line.strip().lstrip("@").startswith("python -m")]


@pytest.mark.parametrize("words", sddlib_commands("run"), ids=" ".join)
def test_run_commands_name_notebooks_and_parameters_that_exist(words, tmp_path, monkeypatch):
    seen = {}

    def check(names, profile, overrides, run_dir, say):
        check_overrides(overrides, names)
        seen.update({name: all_parameters(profile, name, overrides) for name in names})
        return {"seconds": 0, "peak_rss_mb": 0}

    monkeypatch.setattr(runner, "run_notebooks", check)
    assert cli.main([*words, "--run-dir", str(tmp_path)]) == 0
    assert seen


def all_but_three(folder: str, names: list[str]) -> list[str]:
    return sorted(name for name in names if (Path(folder) / name).is_file())[3:]


@pytest.mark.parametrize("words", [w for w in sddlib_commands("score") if "--checkpoint" not in w], ids=" ".join)
def test_score_commands_work_on_the_shipped_checkpoint(words, tmp_path, monkeypatch, capsys):
    """In a folder that has what the command names, three files of each folder: that all can be read has a test of its own."""
    for name in words[1:]:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, tmp_path / name, ignore=all_but_three)
        elif (ROOT / name).is_file():
            (tmp_path / name).parent.mkdir(parents=True)
            shutil.copy2(ROOT / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    out = tmp_path / cli.build_parser().parse_args(words).out
    assert cli.main(words) == 0, capsys.readouterr().err
    rows = list(csv.DictReader(out.open(newline="")))
    assert rows and all(row["verdict"] in ("real", "fake") and not row["error"] for row in rows)


@pytest.mark.parametrize("words", sddlib_commands("report"), ids=" ".join)
def test_report_commands_name_a_run_and_a_folder(words, monkeypatch, smoke_run, tmp_path, capsys):
    shutil.copytree(smoke_run.dir, tmp_path / words[1], ignore=shutil.ignore_patterns("checkpoints"))
    monkeypatch.chdir(tmp_path)
    assert cli.main(words) == 0, capsys.readouterr().err
    assert (Path(words[words.index("--to") + 1]) / "report.html").is_file()


def test_seeds_and_figures_commands_work_on_a_run(smoke_run, tmp_path, capsys):
    for words in sddlib_commands("seeds"):
        folders = [another_seed(smoke_run.dir, tmp_path / str(seed), seed) for seed in range(len(words) - 1)]
        assert cli.main(["seeds", *map(str, folders), "--draws", "10"]) == 0
        assert f"{len(folders)} runs" in capsys.readouterr().out
    for words in sddlib_commands("figures"):
        assert cli.main([*words, "--run", str(smoke_run.dir), "--to", str(tmp_path)]) == 0
        assert list(tmp_path.glob("*.png"))


def test_commands_of_the_full_scale_work_on_stand_ins(smoke_run, tmp_path, capsys):
    """verify on UnivFD's folders, compare on a scores file, sweep on the grid by name; plan has a test of its own."""
    root = univfd(tmp_path / "univfd")
    for words in sddlib_commands("verify"):
        assert words[1] == "data/univfd"
        assert cli.main(["verify", str(root), *words[2:], "--workers", "1"]) == 1  # two images are not a published set
        assert "progan" in capsys.readouterr().out
    write_csv(univfd_rows(), tmp_path / "sdd.csv")
    for words in sddlib_commands("compare"):
        assert words[1].endswith("/scores/sdd.csv")
        assert (
            cli.main(["compare", str(tmp_path / "sdd.csv"), "--draws", "10"]) == 1
        )  # no detector is like the paper's on all sets
    for words in sddlib_commands("sweep"):
        args = cli.build_parser().parse_args(words)
        assert args.list or len(read_grid(ROOT / args.grid).runs) == 3
    assert [["plan"]] == sddlib_commands("plan")


@pytest.mark.parametrize("words", sddlib_commands("baselines"), ids=" ".join)
def test_baselines_commands_name_kinds_seeds_and_a_profile_that_exist(words, monkeypatch, capsys):
    """What is kept of them was made with the settings of this command."""
    seen = []

    def sweep(kinds, seeds, found, force, say):
        for kind in trials.check_kinds(kinds):
            for seed in {*seeds} & {*found.seeds(kind)}:
                assert read_json(found.file(kind, seed).with_suffix(".json"))["settings"] == found.settings(kind, seed)
                seen.append((kind, seed))
        return 0

    monkeypatch.setattr(trials, "sweep", sweep)
    assert cli.main(words) == 0 and seen, capsys.readouterr().err


@pytest.mark.parametrize("words", sddlib_commands("ablate"), ids=" ".join)
def test_ablate_commands_name_variants_seeds_and_parameters_that_exist(words, monkeypatch, capsys):
    seen = []

    def sweep(names, seeds, profile, overrides, folder, work, say):
        check_overrides(overrides, [ablations.TEMPLATE])
        seen.extend(ablations.parameters_of(name, seed, profile, overrides) for name in names for seed in seeds)
        return 0

    monkeypatch.setattr(ablations, "sweep", sweep)
    assert cli.main(words) == 0 and seen, capsys.readouterr().err
    folder = ROOT / "data" / "ablations"
    again = repeats.find_repeats(folder, "mini")
    assert [*again] == ["again", "two_cores"]
    for store in (*ablations.find_stores(folder, "mini"), *chain(*again.values())):  # all was made with this command's settings
        for name, facts in store.facts().items():
            overrides = parse_overrides(words[words.index("-p") + 1 : words.index("-p") + 2])
            assert facts["settings"] == ablations.settings_of(ablations.parameters_of(name, store.seed, "mini", overrides))


def test_checkpoint_is_shipped_in_half_precision_if_scores_stay(smoke_run, tmp_path, capsys):
    target = tmp_path / "new" / "sdd.safetensors"
    assert [words[2:] for words in commands() if words[:2] == ["python", "data/make_checkpoint.py"]] == [
        ["runs/C"],
        ["runs/field0", "--to", "data/checkpoints/sdd-field.safetensors"],
    ]
    script = [sys.executable, ROOT / "data" / "make_checkpoint.py", "--to", target]
    done = subprocess.run([*script, smoke_run.dir], capture_output=True, text=True)
    assert done.returncode == 0 and "largest change of a score" in done.stdout, done.stderr
    assert {p.name for p in target.parent.iterdir()} == {"sdd.safetensors", "sdd.json", "sdd.md"}
    card, rows = target.with_suffix(".md").read_text(), table(read_scores(smoke_run.dir / "scores" / "sdd.csv"))[0]
    for r in rows:  # a card says what the run scored, and what training saw
        assert f"| {r['generator']} | {'yes' if r['seen'] else 'no'} | {r['n_real']} + {r['n_fake']} | {r['ap']:.3f} |" in card
    about = json.loads(target.with_suffix(".json").read_text())
    assert f"| train | real | camera | {about['train']['n_real']} |" in card and about["sha256"] in card
    assert "no proof" in card and "trial" not in card
    whole = smoke_run.dir / "checkpoints" / "sdd.safetensors"
    assert target.stat().st_size < 0.6 * whole.stat().st_size
    moved = tmp_path / "moved"
    shutil.copytree(smoke_run.dir, moved, ignore=shutil.ignore_patterns("notebooks", "figures"))
    rows = (moved / "scores" / "sdd.csv").read_text().replace(",0.", ",0.9")
    (moved / "scores" / "sdd.csv").write_text(rows)
    make_checkpoint = runpy.run_path(str(script[1]))  # the same script, without Python and torch anew
    assert make_checkpoint["main"](["--to", str(target), str(moved)]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "moves a score" in said
    record = json.loads((moved / "run.json").read_text())
    del record["parameters"]["04_evaluate"]["protocol"]
    (moved / "run.json").write_text(json.dumps(record))
    assert make_checkpoint["main"](["--to", str(target), str(moved)]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "does not say how it was trained and scored" in said
    assert {p.name for p in target.parent.iterdir()} == {"sdd.safetensors", "sdd.json", "sdd.md"}


def test_shipped_checkpoint_keeps_its_promises():
    path = ROOT / "data" / "checkpoints" / "sdd-mini.safetensors"
    about = json.loads(path.with_suffix(".json").read_text())
    assert path.stat().st_size < 25e6
    assert about["weights"] == "embedded" and about["preset"] == get_preset("paper").as_dict()
    benchmark = read_manifest(ROOT / "data" / "manifest.csv")
    assert about["data"] == data_hash([s for split in ("train", "val") for s in benchmark if s.split == split])
    assert sum(t.numel() for t in load_file(path).values()) < 12e6
    assert not re.search(r"/(work|root|home|tmp)/", path.with_suffix(".json").read_text())


def another_seed(run: Path, folder: Path, seed: int) -> Path:
    """The scores of a run in a folder that says that it had this seed."""
    shutil.copytree(run / "scores", folder / "scores")
    record = json.loads((run / "run.json").read_text())
    for values in record["parameters"].values():
        values["seed"] = seed
    (folder / "run.json").write_text(json.dumps(record))
    return folder


def test_runs_of_one_seed_or_of_other_settings_are_not_pooled(smoke_run, tmp_path, capsys):
    one, two, other = (another_seed(smoke_run.dir, tmp_path / str(seed), seed) for seed in range(3))
    assert cli.main(["seeds", str(one), str(one)]) == 2
    assert "different seeds" in capsys.readouterr().err
    record = json.loads((other / "run.json").read_text())
    record["parameters"]["03_train"]["lr"] = 1.0
    (other / "run.json").write_text(json.dumps(record))
    assert cli.main(["seeds", str(one), str(two), str(other)]) == 2
    assert "lr of 03_train" in capsys.readouterr().err


def test_python_example_runs_as_printed(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    (example,) = blocks("python")
    exec(compile(example, "README.md", "exec"), {})
    assert 0 <= float(capsys.readouterr().out) <= 1


def test_files_that_are_linked_exist():
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), f"{target} is linked and not there"


def test_papermill_example_names_a_notebook_and_its_parameters():
    for words in commands():
        if words[0] == "papermill":
            assert words[1].startswith("notebooks/") and "-p" in words
            names = {words[i + 1] for i, word in enumerate(words) if word == "-p"}
            assert names <= set(all_parameters("mini", Path(words[1]).stem, {}))


def test_layout_names_every_module():
    layout = README[README.index("sddlib/      one mechanism a file") : README.index("data/        mini/")]
    modules = {p.stem for p in (ROOT / "sddlib").glob("*.py") if not p.stem.startswith("__")}
    assert modules <= set(re.findall(r"\w+", layout))


def test_minutes_are_those_that_the_notebooks_give():
    rows = [row for row in table_rows(README) if re.fullmatch(r"`0\d_\w+`", row[0])]
    assert len(rows) == 10
    for row in rows:
        (path,) = (ROOT / "notebooks").glob(f"{row[0].strip('`')}.ipynb")
        head = "".join(json.loads(path.read_text())["cells"][0]["source"])
        assert re.search(r"2 CPU cores: about ([\d.]+)", head)[1] == row[2].split()[0], path.name


def section(title: str) -> str:
    return README.split(f"\n## {title}\n")[1].split("\n## ")[0]


def table_rows(text: str) -> list[list[str]]:
    """The cells of every body row of the tables in a text."""
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def attribute(name: str):
    module, function = name.split(".")
    return getattr(importlib.import_module(f"sddlib.{module}"), function)


def test_every_equation_has_one_place_which_names_it():
    found = {}
    for equation, _, where in (row for row in table_rows(section(PLACES)) if re.fullmatch(r"[0-9-]+", row[0])):
        first, last = (int(n) for n in (equation.split("-") * 2)[:2])
        for n in range(first, last + 1):
            names = re.findall(r"`([\w.]+)`", where)
            assert names and n not in found, n
            found[n] = names
            assert all(callable(attribute(name)) for name in names), n
            source = "".join(inspect.getsource(attribute(name)) for name in names)
            spans = [
                [int(m) for m in re.findall(r"[0-9]+", text)] for text in re.findall(r"Eqs?\. ([0-9]+(?:-[0-9]+)?)", source)
            ]
            assert any(span[0] <= n <= span[-1] for span in spans) or f", {n}" in source, n
    assert sorted(found) == list(range(1, 17))


def test_every_figure_of_the_notebooks_is_listed_with_its_function_and_kept_in_both_forms():
    saved, drawn = set(), set()
    for path in sorted((ROOT / "notebooks").glob("0*.ipynb")):
        source = "\n".join("".join(cell["source"]) for cell in json.loads(path.read_text())["cells"])
        saved |= {(path.name[:2], name) for name in re.findall(r'save_figure\(fig, "(\w+)"\)', source)}
        drawn |= {(path.name[:2], name) for name in re.findall(r"fig, \w+ = (?:figures\w*\.)?(\w+)\(", source)}
    listed, functions = set(), set()
    for _, names, notebook, made_by in (row for row in table_rows(section(PLACES)) if "](figures/" in row[1]):
        listed |= {(notebook.strip("`"), name) for name in re.findall(r"\[(\w+)\]", names)}
        functions |= {(notebook.strip("`"), name.split(".")[1]) for name in re.findall(r"`([\w.]+)`", made_by)}
        assert all(callable(attribute(name)) for name in re.findall(r"`([\w.]+)`", made_by))
    assert listed == saved and functions == drawn
    for _, name in listed:
        assert all((ROOT / "figures" / f"{name}.{suffix}").is_file() for suffix in ("png", "svg")), name


BASELINES_TITLE = "### The systems the paper compares with (profile `mini`, run here)"


def baseline_row(kind: str, f: dict, mine: list[dict]) -> list[str]:
    """A line of the README's table from `standing` and the facts of a method's trainings."""
    span = "{:.3f} [{:.3f}, {:.3f}]".format(*f["ap"])
    shift = "{:+.3f} [{:+.3f}, {:+.3f}]".format(*f["difference"]) if f["difference"] else ""
    levels = [f"{f[name]:.3f}" for name in ("mean_auroc_unseen", "mean_acc_unseen")] + [f"{f['ap_seen']:.2f}"]
    seconds = [m["train_seconds"] for m in mine if "train_seconds" in m and not m.get("resumed")]
    cost = [f"{np.mean([m['ms_image'] for m in mine if 'ms_image' in m]):.0f}", f"{np.mean(seconds):.0f}" if seconds else ""]
    name = title(kind).replace("SDD", "**SDD**") if kind == "sdd" else title(kind)
    return [name, str(f["seeds"]), span, shift, *levels, f"{mine[0]['learned'] / 1000:,.0f}", *cost]


def test_table_of_the_baselines_is_that_of_the_kept_scores():
    kept = trials.profile_trials("mini", {}, trials.STORE)
    kinds = [*NAMES, *trials.check_kinds([])]
    runs, facts = trials.read_trials(kept, kinds)
    found = standing(runs)
    rows = [baseline_row(kind, f, [m for (k, _), m in facts.items() if k == kind]) for kind, f in found.items()]
    text = README.split(BASELINES_TITLE)[1].split("\n### ")[0]
    assert [row for row in table_rows(text) if row[0] != "over the 10 unseen generators"] == rows
    same, pairs = same_order(found)
    assert f"of {pairs} pairs of methods in the paper's Table 1, {same} stand in its order here" in " ".join(text.split())


ABLATIONS_TITLE = "### What each part adds (Table 4, Fig. 5 and beyond; profile `mini`, run here)"


BANKS = {"sdd": "minus random tokens", "bank_noise": "minus random ones", "bank_none": "none at all"}


def ablation_row(name: str, e: dict, ratios: list[float]) -> list[str]:
    """A line of the README's table from `effects` and the readings of D_s, fakes by reals, of a variant's trainings."""
    shifts = [effects.as_text(e[f"{metric}_difference"]) for metric in ("ap", "acc")]
    compared = [shifts[0], effects.verdict(e), shifts[1]] if name != effects.BASE else ["", "", ""]
    read = f"{np.mean(ratios):.2f} ({min(ratios):.2f} - {max(ratios):.2f})" if ratios else ""
    level = f"{e['ap']:.3f} ± {e['ap_sd']:.3f}"
    return [f"`{name}`", ablations.VARIANTS[name].what, str(e["trainings"]), level, *compared, read]


def test_table_of_the_ablations_and_what_is_said_of_it_are_those_of_the_kept_scores():
    manifest = ROOT / "data" / "manifest.csv"
    stores, again = ablations.find_stores(ablations.STORE, "mini"), repeats.find_repeats(ablations.STORE, "mini")
    every = repeats.counted(stores, ablations.STORE, ["again", "two_cores"], "mini")
    runs, _ = repeats.runs_of(every, manifest)
    found = effects.effects(runs)
    facts = {name: [s.facts()[name] for s in every if name in s.facts()] for name in ablations.VARIANTS}
    ratios = {name: [f["D_s_fake"] / f["D_s_real"] for f in those if "D_s_real" in f] for name, those in facts.items()}
    text = README.split(ABLATIONS_TITLE)[1].split("\n### ")[0]
    rows = [ablation_row(name, found[name], ratios[name]) for name in ablations.VARIANTS]
    assert [row for row in table_rows(text) if row[0] != "variant"] == rows
    parts = [effects.part_strengths(run) for run in runs if "sdd:F_low_only" in run]
    right = [part["alike"] for part in parts if part["F_low"] > 0.5]
    wholes = found["sdd"]["ap_each"].values()
    below = [(part["alike"], ap) for part, ap in zip(parts, wholes, strict=True) if part["F_low"] < 0.5]
    against, levels = (", ".join(texts) for texts in zip(*[(f"{a:.2f}", f"{ap:.3f}") for a, ap in below], strict=True))
    pixels, louder = ([part[key] for part in parts] for key in ("without_pixels", "louder"))
    banks = effects.effects(runs, base="no_sts")
    dev = [np.mean([f["dev_ap"] for f in facts[name]]) for name in ("dropout_0.8", "sdd")]
    pairs = {kind: repeats.twice(stores, those, manifest) for kind, those in again.items()}
    change = {kind: [b - a for *_, a, b in those if a != b] for kind, those in pairs.items()}
    spread, _ = chance.pooled_spread(found[name]["ap_each"].values() for name in ablations.VARIANTS)
    known = [name for name in ratios if ratios[name]]
    rank = stats.spearmanr([np.mean(ratios[n]) for n in known], [found[n]["ap"] for n in known])
    trained_twice = [(a, b) for name, _, a, b in pairs["again"] if name == "sdd"]
    cut = {n: np.subtract(*(list(found[m]["ap_each"].values()) for m in (f"sdd:{n}", "sdd"))) for n in interventions.PATHS}
    said = " ".join(text.split())
    for words in (
        f"{sum(len(s.facts()) for s in every)} trainings",
        f"{len(parts)} trained SDDs",
        *(
            f"{path}: median {np.median(cut[n]):+.3f}, {(cut[n] < 0).sum()} of {len(parts)} fell"
            for n, path in interventions.PATHS.items()
        ),
        f"fakes above reals in {len(right)}",
        f"correlation {min(right):.2f} to {max(right):.2f}; in {len(below)} it ranks them below",
        f"({against}; AP of the whole {levels}, the lowest of all)",
        f"{min(louder):.1f} to {max(louder):.1f} times",
        *(f"{words} {effects.as_text(banks[n]['ap_difference'])}" for n, words in BANKS.items()),
        f"+{-found['lora']['ap_difference'][0]:.3f} AP [{-found['lora']['ap_difference'][2]:+.3f}, ",
        f"+{-found['lora']['acc_difference'][0]:.3f} [{-found['lora']['acc_difference'][2]:+.3f}, ",
        f"last four blocks alone, {found['blocks_4']['ap_difference'][0]:+.3f} AP",
        f"correlation {min(pixels):.3f} to {max(pixels):.3f}",
        f"rank correlation {rank.statistic:+.2f} over {len(known)} variants",
        f"gave {', '.join(f'{b:.3f}' for _, b in trained_twice)} after {', '.join(f'{a:.3f}' for a, _ in trained_twice)}",
        f"{chance.spread_of_one(change['two_cores']):.3f} on another machine ({len(change['two_cores'])} pairs)",
        f"{spread:.3f} among the trainings of a variant",
    ):
        assert words in said, words
    assert min(wholes) in [ap for _, ap in below]
    assert "AP {:.3f} on dev (three trainings) against {:.3f} (twelve)".format(*dev) in inspect.getsource(Preset)
    one, other = trained_twice[1]
    assert f"gave mean AP {one:.3f} and {other:.3f}" in " ".join(README.split())
