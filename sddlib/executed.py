"""The executed notebooks of a run, read back: what became of them, captions and findings, without the machine's paths."""

import re
import sys
from dataclasses import dataclass
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from . import SDDError
from .limits import JSON, check_size
from .profiles import ROOT, read_json

# an absolute path after a space, a quote, a bracket, "=" or a colour code of a traceback; addresses and a/b are none
ABSOLUTE = re.compile(
    r"""(^|[\s'"`(=\[,>:;]|\x1b\[[\d;]*m|file://)/(?:[^\s/'"`<>:,;()\[\]{}\x1b]+/)+([^\s/'"`<>:,;()\[\]{}\x1b]*)""", re.M
)
WINDOWS = re.compile(r"""\b[A-Za-z]:\\(?:[^\\\s'"`<>|]+\\)+""")
SAVES = re.compile(r"""save_figure\(\s*\w+\s*,\s*["'](\w+)["']""")
DONE, FAILED, UNFINISHED = "done", "failed", "unfinished"


class Places:
    """What of paths may be shown: those in the repository from its root on, the run folder by its name, of others the end."""

    def __init__(self, run_dir: Path):
        known = {str(ROOT): "", sys.prefix: "", str(Path.home()): "~"}
        for folder in {run_dir, run_dir.resolve(), *recorded_folders(run_dir)}:
            known[str(folder)] = str(folder.relative_to(ROOT)) if folder.is_relative_to(ROOT) else folder.name
            if folder.parent.name == "runs" and folder.is_absolute():
                known |= {str(folder.parent.parent): "", str(folder): f"runs/{folder.name}"}
        self.known = sorted((k for k in known.items() if len(Path(k[0]).parts) > 1), key=lambda k: -len(k[0]))

    def hide(self, text: str) -> str:
        """text without absolute paths of the machine that it was written on."""
        for path, instead in self.known:
            text = re.sub(rf"{re.escape(path)}(?![\w.-])/?", lambda m, i=instead: _rest(m[0], i), text)
        text = ABSOLUTE.sub(lambda m: f"{m[1]}…/{m[2]}", text)
        return WINDOWS.sub("…\\\\", text)


def recorded_folders(run_dir: Path) -> list[Path]:
    """The run folder as run.json names it, which may lie in another checkout; [] where it does not say."""
    try:
        values = read_json(run_dir / "run.json")["parameters"].values()
        return [Path(v["run_dir"]) for v in values if v.get("run_dir")]
    except (SDDError, LookupError, TypeError, AttributeError):  # the page says of a broken run.json that it is
        return []


def _rest(found: str, instead: str) -> str:
    slash = found.endswith("/")
    return f"{instead}/" if instead and slash else instead if instead or slash else "."


@dataclass
class Executed:
    """One executed notebook. state: DONE, FAILED or UNFINISHED; reason: of a failure, in a line; started, ended: ISO times;
    seconds: None where it did not end; captions: figure -> the Markdown below it; findings: what it printed under Findings."""

    name: str
    notebook: NotebookNode
    title: str
    state: str
    reason: str
    started: str
    ended: str
    seconds: float | None
    captions: dict[str, str]
    findings: str


def read_executed(run_dir: Path, places: Places) -> tuple[list[Executed], dict[str, str]]:
    """(the executed notebooks of a run in order, {name: why} for those that cannot be read). Paths are hidden in all texts."""
    found, broken = [], {}
    for path in sorted((run_dir / "notebooks").glob("[0-9][0-9]_*.ipynb")):
        try:
            check_size(path, JSON)
            notebook = nbformat.read(path, 4)
            hide_paths(notebook, places)
            found.append(describe(path.stem, notebook))
        except (OSError, ValueError, nbformat.ValidationError, nbformat.reader.NotJSONError) as e:
            broken[path.stem] = places.hide(" ".join(str(e).split())[:200])
        except (AttributeError, LookupError, TypeError, RecursionError) as e:  # what JSON of another form leads to
            said = " ".join(str(e).split())[:200]
            broken[path.stem] = places.hide(f"it has not the form of an executed notebook: {type(e).__name__}: {said}")
    return found, broken


def hide_paths(notebook: NotebookNode, places: Places) -> None:
    """Hide paths in sources and outputs, in place; metadata, which holds papermill's, is never shown."""
    for cell in notebook.cells:
        cell.source = places.hide(cell.source)
        for output in cell.get("outputs", []):
            for key in ("text", "ename", "evalue"):
                if key in output:
                    output[key] = places.hide(output[key])
            if "traceback" in output:
                output.traceback = [places.hide(line) for line in output.traceback]
            for kind, value in output.get("data", {}).items():
                if kind.startswith("text/"):
                    output.data[kind] = places.hide(value)


def describe(name: str, notebook: NotebookNode) -> Executed:
    """What a report says of an executed notebook."""
    facts, cells = notebook.metadata.get("papermill", {}), notebook.cells
    errors = [o for c in cells for o in c.get("outputs", []) if o.output_type == "error"]
    reason, state = "", DONE
    if errors:
        reason, state = " ".join(f"{errors[0].ename}: {errors[0].evalue}".split())[:300], FAILED
    elif facts and not facts.get("end_time"):
        reason, state = "stopped or killed before its last cell; what it had shown is kept", UNFINISHED
    titles = [c.source.splitlines()[0][2:] for c in cells if c.cell_type == "markdown" and c.source.startswith("# ")]
    captions = {}
    for cell, after in zip(cells, cells[1:], strict=False):
        for figure in SAVES.findall(cell.source) if cell.cell_type == "code" else ():
            captions[figure] = after.source if after.cell_type == "markdown" and not after.source.startswith("#") else ""
    heads = [i for i, c in enumerate(cells) if c.cell_type == "markdown" and c.source.startswith("## Findings")]
    last = cells[heads[-1] :] if heads else []
    said = [o.text for c in last for o in c.get("outputs", []) if o.output_type == "stream" and o.name == "stdout"]
    times = (str(facts.get("start_time") or ""), str(facts.get("end_time") or ""))
    texts = (captions, "".join(said).strip())
    return Executed(name, notebook, titles[0] if titles else name, state, reason, *times, facts.get("duration"), *texts)
