"""What code here never does, where data can lead, what outside text is on a page, what notebooks write, how Lab starts."""

import ast
import asyncio
import base64
import csv
import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import pytest
from files import content, noise
from models import tiny_checkpoint

from sddlib import SDDError, history, widgets
from sddlib.baselines import baseline
from sddlib.baselines.trials import Trials
from sddlib.columns import columns
from sddlib.data import read_csv, read_manifest
from sddlib.evaluate import score_samples, write_csv
from sddlib.explore import bundled
from sddlib.grids import read_grid
from sddlib.limits import is_name
from sddlib.origins import written
from sddlib.profiles import ROOT, read_profile
from sddlib.registry import Registry, state_of
from sddlib.report import generator_table
from sddlib.runs import Run
from sddlib.uploads import picture_of

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
AWAY = ("../away", "/away", "a/../../away", "..", ".", "", "a\\..\\away", "a\0b")
EVIL = "<img src=x onerror=alert(1)>"


# --- code


def sources() -> dict[str, str]:
    """Every module, script and notebook, as Python."""
    found = {str(p.relative_to(ROOT)): p.read_text() for folder in ("sddlib", "data") for p in (ROOT / folder).rglob("*.py")}
    for path in NOTEBOOKS:
        cells = [c.source for c in nbformat.read(path, 4).cells if c.cell_type == "code"]
        found[f"notebooks/{path.name}"] = "\n".join(cells)
    return found


def calls(tree: ast.AST) -> list[tuple[str, dict[str, str], ast.Call]]:
    """(dotted name, keyword -> source, the call) of every call."""
    found = [n for n in ast.walk(tree) if isinstance(n, ast.Call)]
    return [(ast.unparse(n.func), {k.arg: ast.unparse(k.value) for k in n.keywords}, n) for n in found]


NEVER = {
    "eval",
    "exec",
    "compile",
    "__import__",
    "os.system",
    "os.popen",
    "os.execv",
    "os.execvp",
    "pickle.load",
    "pickle.loads",
}
NEVER |= {"yaml.unsafe_load", "yaml.full_load", "yaml.load_all", "yaml.unsafe_load_all", "torch.hub.load", "joblib.load"}
NEVER |= {"pd.read_pickle", "pandas.read_pickle", "marshal.loads", "shelve.open", "dill.load", "dill.loads"}
FOREIGN = {"pickle", "cPickle", "joblib", "dill", "cloudpickle", "marshal", "shelve"}


def dangers(text: str) -> list[str]:
    """The calls and imports in a text of Python that would run what a file says."""
    tree, found = ast.parse(text), []
    for name, options, call in calls(tree):
        unsafe = name in NEVER or options.get("shell", "False") != "False" or "trust_remote_code" in options
        unsafe |= name.endswith("torch.load") and options.get("weights_only") != "True"
        unsafe |= name in ("np.load", "numpy.load") and options.get("allow_pickle") != "False"
        unsafe |= name == "yaml.load" and [ast.unparse(a) for a in call.args[1:]] != ["Plain"]
        if unsafe:
            found.append(ast.unparse(call))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [a.name for a in node.names if a.name.split(".")[0] in FOREIGN]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in FOREIGN:
            found += [a.name for a in node.names if not a.name.endswith("Error")]
    return found


def test_nothing_here_runs_what_a_file_says():
    assert {name: found for name, text in sources().items() if (found := dangers(text))} == {}


def test_a_script_archive_is_opened_in_one_place_behind_its_hash():
    places = [name for name, text in sources().items() if "torch.jit.load" in text or "jit.load" in text]
    assert places == ["sddlib/checkpoints.py"]  # what `test_weights` tests


@pytest.mark.parametrize(
    "text",
    [
        "torch.load(f)",
        "torch.load(f, weights_only=False)",
        "np.load(f)",
        "np.load(f, allow_pickle=True)",
        "yaml.load(t, yaml.Loader)",
        "subprocess.run(c, shell=True)",
        "eval(x)",
        "import pickle",
        "from joblib import load",
    ],
)
def test_the_test_above_sees(text):
    assert dangers(text)


# --- where data can lead


def tree(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*")}


@pytest.mark.parametrize("name", AWAY)
def test_names_that_lead_elsewhere_are_no_names(name, tmp_path):
    assert not is_name(name) and all(map(is_name, ("a", "..a", "a b", "ü", "-x")))
    run = Run("00_setup_and_data", {}, tmp_path, "cpu")
    fig = plt.figure()
    for act in (lambda: run.save_figure(fig, name), lambda: Trials(tmp_path / "m.csv", profile=name)):
        with pytest.raises(SDDError, match="name"):
            act()
    plt.close(fig)
    assert tree(tmp_path) == set()


def test_a_registry_of_a_stranger_names_no_folder_outside(tmp_path):
    """Looking whether a run is at work makes a lock file in its folder."""
    (tmp_path / "away").mkdir()
    lines = [
        {"run": run, "event": "started", "varied": {}} for run in ("../away", str(tmp_path / "away"), "grid/../../away", "g/r")
    ]
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "index.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    latest, torn = Registry(tmp_path / "runs" / "index.jsonl").read()
    assert list(latest) == ["g/r"] and torn == [1, 2, 3]
    state_of(latest["g/r"], tmp_path / "runs" / "g/r")
    assert not any((tmp_path / "away").iterdir())


def test_values_of_a_grid_make_folders_of_one_plain_name(tmp_path):
    (tmp_path / "g.yaml").write_text('notebooks: ["03"]\ngrid:\n  manifest: ["../../m.csv", "/etc/m.csv", "a b;c", "$(x)"]\n')
    names = [run.name for run in read_grid(tmp_path / "g.yaml").runs]
    assert len(names) == 4 and all(is_name(n) and re.fullmatch(r"[\w.+-]+", n) for n in names)


def test_a_profile_does_not_say_where_a_run_writes(tmp_path):
    for section in ("common", "03_train"):
        (tmp_path / "p.yaml").write_text(f"{section}:\n  run_dir: /away\n")
        with pytest.raises(SDDError, match="where a run writes is not for a profile to say"):
            read_profile(str(tmp_path / "p.yaml"))


@pytest.mark.parametrize("cache", ["../away", "/away", "runs/../../away", "~"])
def test_a_checkpoint_does_not_say_where_maps_are_kept(cache, tmp_path, capsys):
    pytest.importorskip("diffusers")
    path = tmp_path / "dire.safetensors"
    baseline("dire")(32, side=16, width=4, steps=1, cache="runs").save(path, {"threshold": 0.5})
    about = json.loads(path.with_suffix(".json").read_text())
    path.with_suffix(".json").write_text(json.dumps(about | {"options": about["options"] | {"cache": cache}}))
    assert baseline("dire").load(path).diffusion.cache is None
    assert "which the checkpoint names for them, is outside the repository" in capsys.readouterr().out
    path.with_suffix(".json").write_text(json.dumps(about))
    assert baseline("dire").load(path).diffusion.cache.is_relative_to(ROOT / "runs")


@pytest.fixture
def benchmark(tmp_path):
    """A manifest whose names of generators, families and photographs would all lead elsewhere, or be markup or formulas."""
    folder, lines = tmp_path / "inside" / "pictures", ["path,label,generator,family,split,photo"]
    folder.mkdir(parents=True)
    names = ("../../away", EVIL, "$\\frac", "a\nb", "=1+1", "camera")
    for split in ("val", "test"):
        for i, generator in enumerate(names):
            for k in range(2):
                name = f"{EVIL.replace('/', '')} {split} {i}{k}.png"
                (folder / name).write_bytes(content(noise(size=(70 + i, 66 + k)), "PNG"))
                lines.append(f'"{name}",{int(generator != "camera")},"{generator}","{generator}",{split},"../../{split}{i}{k}"')
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n")
    return folder / "manifest.csv"


def test_names_in_a_manifest_stay_text(benchmark, tmp_path):
    before = tree(tmp_path)
    samples = read_manifest(benchmark)
    model = baseline("npr")(32, width=4).eval()
    rows = score_samples(model, samples, benchmark.parent)
    write_csv(rows, benchmark.parent / "scores.csv")
    assert [r["generator"] for r in read_csv(benchmark.parent / "scores.csv")] == [s.generator for s in samples]
    said = generator_table({"sdd": rows})
    assert "a\\nb" in said and len(said.splitlines()) == 7  # a header, five generators, the mean
    assert tree(tmp_path) == before | {"inside/pictures/scores.csv"}


def test_columns_keep_one_line_a_row_and_do_nothing_to_a_terminal():
    assert columns([["name"], ["a\nb"], ["\x1b[2J"], ["ü"]]).splitlines() == ["name", "a\\nb", "\\x1b[2J", "ü"]


@pytest.mark.parametrize("name", ["../../away.png", "/etc/away.png", "C:\\x\\away.png", "a/b/away.png"])
def test_an_upload_keeps_no_folder_of_its_name(name, tmp_path):
    short, _ = picture_of(name, content(noise(), "PNG"))
    assert short == "away.png"
    row = dict.fromkeys(history.COLUMNS, "") | {"image": name, "checkpoint": name}
    assert history.save([row], tmp_path / "run") == tmp_path / "run" / "explored.csv"
    assert tree(tmp_path) == {"run", "run/explored.csv"}


# --- pages


class Tags(HTMLParser):
    """Every element and attribute of a text of HTML."""

    def __init__(self, text: str):
        super().__init__()
        self.names, self.attributes = set(), set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.names.add(tag)
        self.attributes |= {(tag, name, value or "") for name, value in attrs}


def harmless(text: str) -> bool:
    """Whether HTML has only pictures and links that it carries itself, and nothing that runs."""
    found = Tags(text)
    loads = [v for _, name, v in found.attributes if name in ("src", "href")]
    carried = all(v.startswith(("data:image/png;base64,", "data:text/csv;charset=utf-8;base64,")) for v in loads)
    runs = [name for _, name, _ in found.attributes if name.startswith("on")]
    return carried and not runs and not found.names & {"script", "iframe", "object", "embed", "form", "base", "meta", "svg"}


def test_every_panel_of_the_explorer_is_harmless_whatever_names_are(benchmark, tmp_path):
    run = tmp_path / EVIL.replace("/", "")
    (run / "checkpoints").mkdir(parents=True)
    facts = {"generators": [EVIL], "manifest": str(benchmark), "bank": written(range(10), [f"{EVIL}.png"], 16)}
    checkpoint = tiny_checkpoint(run / "checkpoints" / f"{EVIL}.safetensors", **facts)

    async def session():
        explorer = widgets.Explorer(checkpoint, run, bundled(benchmark, 1))
        widgets.show_own(explorer, f"{EVIL}.png", content(noise(size=(80, 80)), "PNG"))
        await asyncio.gather(explorer.soon.task)
        pages = [panel.value for panel in explorer.c.shown.values()]
        widgets.save(explorer)
        with widgets.told(explorer):
            widgets.show_own(explorer, f"{EVIL}.png", b"no picture")
        return explorer, pages + [panel.value for panel in explorer.c.shown.values()]

    explorer, pages = asyncio.run(session())
    assert all(map(harmless, pages)) and "&lt;img src=x" in "".join(pages)
    assert sum("&lt;img src=x" in page for page in pages) >= 5  # the history, what is said, the tokens, the link
    assert not harmless(EVIL) and not harmless("<a href='javascript:x()'>") and not harmless("<script>")
    link = re.search(r"base64,([\w+/=]+)", explorer.c.shown["saved"].value)[1]
    rows = list(csv.DictReader(base64.b64decode(link).decode().splitlines()))
    assert rows[-1]["image"] == f"{EVIL}.png" and explorer.rows[-1]["image"] == f"{EVIL}.png"


def test_no_notebook_shows_html_of_its_own():
    """What it prints is text, figures are pictures, and the explorer's panels are tested above."""
    for name, text in sources().items():
        if name.startswith("notebooks/"):
            used = {called.split(".")[-1] for called, _, _ in calls(ast.parse(text))}
            assert not used & {"HTML", "Markdown", "SVG", "Javascript", "display_html", "display_javascript", "IFrame"}, name


# --- what notebooks write

WRITES = {
    "write_text",
    "write_bytes",
    "savefig",
    "to_csv",
    "mkdir",
    "unlink",
    "rmtree",
    "rename",
    "symlink_to",
    "touch",
    "dump",
}
WRITES |= {"save", "save_file", "open", "save_figure", "write_csv", "write_json", "write_store", "save_bank", "copy", "copy2"}
WRITES |= {"tofile", "makedirs", "remove", "shared_bank", "saved_scores", "score_run", "savez", "to_json", "sweep", "Trials"}


def in_run(node: ast.AST, own: set[str]) -> bool:
    """Whether an expression is a path in the run's folder: run.dir, a name of one, or that and a slash; or what holds one (a
    choice between one and the folder that a sweep names, too)."""
    if isinstance(node, ast.Dict):
        return any(in_run(value, own) for value in node.values)
    if isinstance(node, ast.IfExp):
        return in_run(node.body, own) or in_run(node.orelse, own)
    if isinstance(node, ast.Call) and ast.unparse(node.func) == "Trials":
        return any(in_run(k.value, own) for k in node.keywords)
    while isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
        node = node.left
    return ast.unparse(node) in own


def strays(text: str) -> list[str]:
    """The calls in a notebook's Python that write and name nothing in the run's folder."""
    parsed, own = ast.parse(text), {"run.dir"}
    for node in ast.walk(parsed):
        if isinstance(node, ast.Assign):
            pairs = [(target, node.value) for target in node.targets]
            if isinstance(node.targets[0], ast.Tuple) and isinstance(node.value, ast.Tuple):
                pairs = list(zip(node.targets[0].elts, node.value.elts, strict=True))
            own |= {ast.unparse(target) for target, value in pairs if in_run(value, own)}
    found = []
    for name, _, call in calls(parsed):
        used = [
            *call.args,
            *(k.value for k in call.keywords),
            *([call.func.value] if isinstance(call.func, ast.Attribute) else []),
        ]
        if name.split(".")[-1] in WRITES and name != "run.save_figure" and not any(in_run(node, own) for node in used):
            found.append(ast.unparse(call))
    return found


def test_whatever_a_notebook_writes_goes_to_its_run_folder():
    assert {name: found for name, text in sources().items() if name.startswith("notebooks/") and (found := strays(text))} == {}
    for text in ("fig.savefig('x.png')", "open('x', 'w')", "write_csv(rows, p.scores)", "a = p.scores\nsave_bank(bank, a)"):
        assert strays(text)
    assert not strays("a = run.dir / 'x'\nb = {'folder': a / 'y'}\nsave_bank(bank, a)\nTrials(m, **b)")


def test_a_smoke_run_changes_nothing_but_its_folder(smoke_run):
    assert [name for name in smoke_run.changed if not name.startswith("figures/")] == []


# --- how Lab starts


def test_make_lab_starts_jupyterlab_on_the_notebooks_and_says_nothing_else():
    body = re.search(r"^lab: env\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.M)[1]
    assert body == "\t$(PY) -m jupyterlab notebooks\n"
    assert not [p for p in ROOT.rglob("jupyter*config*") if not {".venv", ".git", "runs"} & set(p.relative_to(ROOT).parts)]


def test_jupyters_effective_settings_keep_the_token_and_this_machine(tmp_path):
    pytest.importorskip("jupyterlab")
    alone = {f"JUPYTER_{name}_DIR": str(tmp_path / name) for name in ("CONFIG", "DATA", "RUNTIME")}
    environment = {k: v for k, v in os.environ.items() if not k.startswith("JUPYTER")} | alone
    command = [sys.executable, "-m", "jupyterlab", "notebooks", "--show-config-json"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    settings = json.loads(done.stdout[done.stdout.index("{") :])
    loose = {
        "token",
        "ip",
        "password",
        "allow_unauthenticated_access",
        "allow_remote_access",
        "allow_origin",
        "disable_check_xsrf",
    }
    assert {f"{app}.{name}" for app, options in settings.items() for name in options if name in loose} == set()

    from jupyter_server.auth.identity import PasswordIdentityProvider
    from jupyter_server.serverapp import ServerApp

    app = ServerApp()
    assert app.ip in ("localhost", "127.0.0.1") and not app.allow_remote_access and app.identity_provider_class is not None
    assert len(PasswordIdentityProvider(parent=app).token) >= 32 and PasswordIdentityProvider(parent=app).auth_enabled
