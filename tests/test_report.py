"""The report of a run: it says the run's own numbers, what made them, and what is missing or broken."""

import csv
import json
import re
import shutil
from pathlib import Path

import nbformat
import numpy as np
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_output
from pages import notebook, read, rows, words
from sklearn.metrics import average_precision_score

from sddlib import SDDError, figures, launch, report_page, runner
from sddlib import __main__ as cli
from sddlib.markup import tag
from sddlib.report import NAMES
from sddlib.report_page import write_report
from sddlib.runs import machine_text, write_json

ROOT = Path(__file__).parent.parent
TWO = ("notebooks/00_setup_and_data.ipynb", "notebooks/03_train.ipynb")  # enough where others would only take time


def small_run(folder: Path, smoke_run, *parts: str) -> Path:
    """A run folder with some parts of the smoke run."""
    folder.mkdir(exist_ok=True)
    for name in parts:
        source = smoke_run.dir / name
        (folder / name).parent.mkdir(exist_ok=True)
        (shutil.copytree if source.is_dir() else shutil.copy2)(source, folder / name)
    return folder


def test_run_ends_with_the_path_of_its_report(smoke_run):
    assert smoke_run.stdout.rstrip().splitlines()[-1] == f"report: {smoke_run.dir / 'report.html'}"
    assert (smoke_run.dir / "report.html").is_file()


def test_every_executed_notebook_is_linked_by_its_question(smoke_run):
    text = (smoke_run.dir / "report.html").read_text(encoding="utf-8")
    executed = sorted((smoke_run.dir / "notebooks").glob("*.ipynb"))
    assert {p.stem for p in executed} == {p.stem for p in (smoke_run.dir / "html").iterdir()}
    for path in executed:
        cells = nbformat.read(path, 4).cells
        question = next(c.source.splitlines()[0][2:] for c in cells if c.cell_type == "markdown")
        assert str(tag("h3", tag("a", question, href=f"html/{path.stem}.html"))) in text
        page = (smoke_run.dir / "html" / f"{path.stem}.html").read_text(encoding="utf-8")
        assert "../report.html" in page
        printed = [o.text for c in cells for o in c.get("outputs", []) if o.output_type == "stream" and o.name == "stdout"]
        last = printed[-1].strip().splitlines()[-1]
        assert " ".join(last.split()) in " ".join(words(page).split()), f"{path.stem} lacks {last!r}"
        shown = sum("image/png" in o.get("data", {}) for c in cells for o in c.get("outputs", []))
        assert page.count("data:image/webp;base64,") == shown


def test_headline_is_what_summary_and_scores_say(smoke_run):
    html = (smoke_run.dir / "report.html").read_text(encoding="utf-8")
    summary = json.loads((smoke_run.dir / "summary.json").read_text())
    found = {line[0].replace("\u00a0", " "): line for line in rows(html, "headline")}
    assert set(found) == set(NAMES.values())
    for method, prefix in (("sdd", ""), ("lora", "lora_"), ("probe", "probe_")):
        line = found[NAMES[method]]
        assert line[1].split()[0] == f"{summary[prefix + 'mean_ap_unseen']:.3f}"
        assert line[-3:] == [f"{summary[prefix + k]:.3f}" for k in ("mean_auroc_unseen", "mean_acc_unseen", "ap_seen")]
        with (smoke_run.dir / "scores" / f"{method}.csv").open(newline="") as f:
            scores = list(csv.DictReader(f))
        seen = {r["generator"] for r in scores if r["split"] == "val" and r["label"] == "1"}
        unseen = dict.fromkeys(r["generator"] for r in scores if r["split"] == "test" and r["label"] == "1")
        aps = {}
        for generator in unseen:
            used = [r for r in scores if r["split"] == "test" and (r["label"] == "0" or r["generator"] == generator)]
            aps[generator] = average_precision_score([int(r["label"]) for r in used], [float(r["score"]) for r in used])
        assert line[1].split()[0] == f"{np.mean([ap for g, ap in aps.items() if g not in seen]):.3f}"
        column = 1 + list(NAMES).index(method)
        table = {line[0].split()[0]: line for line in rows(html, "generators")}
        for generator, ap in aps.items():
            assert table[generator][column] == f"{ap:.2f}", generator


def test_intervals_are_those_that_the_notebook_handed_over(smoke_run):
    html = (smoke_run.dir / "report.html").read_text(encoding="utf-8")
    handed = json.loads((smoke_run.dir / "metrics" / "04_evaluate.json").read_text())
    for other in ("lora", "probe"):
        value, low, high = (f"{v:+.3f}".replace("-", "−") for v in handed[f"sdd_minus_{other}"])
        assert re.search(rf"{re.escape(value)}</strong> \[{re.escape(low)}, {re.escape(high)}\]", html)


def test_report_names_machine_device_seed_versions_data_and_checkpoints(smoke_run):
    text = words((smoke_run.dir / "report.html").read_text(encoding="utf-8"))
    record = json.loads((smoke_run.dir / "run.json").read_text())
    assert record["machine"] == machine_text() and record["machine"] in text
    assert re.search(r"cpu, \d+ threads|NVIDIA|AMD", text)
    for name, version in record["versions"].items():
        assert f"{name} {version}" in text
    for kind in NAMES:
        about = json.loads((smoke_run.dir / "checkpoints" / f"{kind}.json").read_text())
        assert about["sha256"] in text and about["data"] in text
        train = about["train"]
        assert f"{train['n_real']} real, {train['n_fake']} fake" in text
    assert "not what its JSON says" not in text and "random weights" in text and "not recorded" not in text


def test_six_figures_with_the_sentences_of_their_notebooks(smoke_run):
    report = read(smoke_run.dir / "report.html")
    assert len(report.of("figure")) == 6 == len(report.of("figcaption")) == len(report.of("img"))
    html = (smoke_run.dir / "report.html").read_text(encoding="utf-8")
    assert "Six figures" in html
    cells = nbformat.read(ROOT / "notebooks" / "04_evaluate.ipynb", 4).cells
    (below,) = [b.source for a, b in zip(cells, cells[1:], strict=False) if '"scores_sdd"' in a.source]
    (block,) = re.findall(r'<figure id="scores_sdd">.*?</figure>', html, re.S)
    assert below.strip() in words(block) and "html/04_evaluate.html" in block


def test_colours_are_those_of_the_figures(smoke_run):
    html = (smoke_run.dir / "report.html").read_text(encoding="utf-8")
    for key, colour in {"real": figures.REAL, "fake": figures.FAKE, "lora": figures.METHODS["lora"][1]}.items():
        assert f"--{key}:{colour}" in html


def test_data_cannot_become_markup(smoke_run, tmp_path):
    evil = "<script>alert(1)</script>&\"'<img src=x>"
    run = small_run(tmp_path / "run", smoke_run, "scores", "run.json", "checkpoints", "metrics")
    with (run / "scores" / "sdd.csv").open(newline="") as f:
        name = next(r["generator"] for r in csv.DictReader(f) if r["split"] == "test" and r["label"] == "1")
    for path in (run / "scores").glob("*.csv"):
        lines = list(csv.DictReader(path.open(newline="")))
        changed = [r | {"generator": evil if r["generator"] == name else r["generator"], "family": evil} for r in lines]
        with path.open("w", newline="") as f:
            writer = csv.DictWriter(f, list(lines[0]))
            writer.writeheader()
            writer.writerows(changed)
    record = json.loads((run / "run.json").read_text())
    write_json(run / "run.json", record | {"profile": evil, "machine": evil, "versions": {evil: evil}})
    about = json.loads((run / "checkpoints" / "sdd.json").read_text())
    write_json(run / "checkpoints" / "sdd.json", about | {"generators": [evil], "backbone": evil})
    cells = [new_markdown_cell("# Is it?"), new_code_cell("x", outputs=[new_output("stream", text=evil)])]
    (run / "notebooks").mkdir()
    nbformat.write(notebook(*cells), run / "notebooks" / "03_train.ipynb")
    for path in (write_report(run), run / "html" / "03_train.html"):
        page = read(path)
        assert not page.of("script") and not page.of("img") and not page.problems
        assert "alert(1)" in " ".join(page.text)


@pytest.mark.parametrize(
    "parts", [("run.json",), TWO, ("scores",), ("run.json", *TWO, "figures/gallery.png"), ("figures/gallery.png", "scores")]
)
def test_missing_parts_are_named(parts, smoke_run, tmp_path):
    run = small_run(tmp_path / "run", smoke_run, *parts)
    text = words(write_report(run).read_text(encoding="utf-8"))
    assert ("No results" in text and "04_evaluate" in text) == ("scores" not in parts)
    assert ("none of the key figures" in text) == ("figures/gallery.png" not in parts)
    assert ("No notebook has run" in text) == (TWO[0] not in parts)
    assert "No token bank and no checkpoints" in text and "cannot be shown" not in text
    assert ("has not run" in text) == ("run.json" in parts)


def test_run_of_one_method_has_no_difference_and_says_so(smoke_run, tmp_path):
    run = small_run(tmp_path / "run", smoke_run, "scores")
    for name in ("lora", "probe"):
        (run / "scores" / f"{name}.csv").unlink()
    html = write_report(run).read_text(encoding="utf-8")
    assert [line[0] for line in rows(html, "headline")] == ["SDD"] and "SDD was scored alone" in html


@pytest.mark.parametrize(
    "broken, said",
    [
        ("run.json", "run.json is broken"),
        ("scores/sdd.csv", "No results: scores file"),
        ("checkpoints/sdd.json", "sdd.json is broken"),
        ("metrics/04_evaluate.json", "04_evaluate.json is broken"),
        ("notebooks/03_train.ipynb", "03_train : its executed copy cannot be read"),
        ("figures/scores_sdd.png", "cannot identify image file"),
    ],
)
def test_broken_file_is_named_and_hides_nothing_else(broken, said, smoke_run, tmp_path):
    pictures = ("figures/scores_sdd.png", "figures/ap_by_generator.png")
    names = ("run.json", "scores", "checkpoints", "metrics", *TWO, *pictures)
    run = small_run(tmp_path / "run", smoke_run, *names)
    (run / broken).write_text("{ not whole")
    text = words(write_report(run).read_text(encoding="utf-8"))
    assert said.replace(" :", ":") in text.replace(" :", ":") and str(tmp_path) not in text
    assert "Which generators are caught?" in text and "What am I standing on?" in text
    assert "SDD minus LoRA + linear" in text or broken in ("scores/sdd.csv", "run.json")


def test_failed_and_unfinished_notebooks_are_named_on_both_pages(tmp_path):
    (tmp_path / "notebooks").mkdir()
    trace = [f"\x1b[31mValueError\x1b[39m at {ROOT}/sddlib/train.py:3", "ValueError: <no> such thing"]
    error = new_output("error", ename="ValueError", evalue=f"<no> {ROOT}/x such thing", traceback=trace)
    failed = notebook(new_markdown_cell("# Does it learn?"), new_code_cell("x", outputs=[error]))
    nbformat.write(failed, tmp_path / "notebooks" / "03_train.ipynb")
    nbformat.write(notebook(new_markdown_cell("# Where?"), finished=False), tmp_path / "notebooks" / "06_visualise.ipynb")
    text = words(write_report(tmp_path).read_text(encoding="utf-8"))
    assert "03_train  failed: ValueError: <no> x such thing" in text and "06_visualise  did not finish" in text
    page = words((tmp_path / "html" / "03_train.html").read_text(encoding="utf-8"))
    assert "This notebook failed: ValueError: <no> x such thing" in page and "sddlib/train.py:3" in page
    assert str(ROOT) not in page


def test_command_of_a_failed_run_leaves_a_report_and_keeps_its_error(tmp_path, monkeypatch, capsys):
    def fail(names, profile, overrides, run_dir, say):
        (run_dir / "notebooks").mkdir(parents=True)
        nbformat.write(notebook(new_markdown_cell("# Why?"), finished=False), run_dir / "notebooks" / f"{names[0]}.ipynb")
        raise SDDError("03_train stopped in cell [3]")

    monkeypatch.setattr(runner, "run_notebooks", fail)
    assert cli.main(["run", "03", "--run-dir", str(tmp_path / "run")]) == 2
    said = capsys.readouterr()
    assert said.err == "sddlib: 03_train stopped in cell [3]\n"
    assert said.out.splitlines()[-1] == f"report: {tmp_path / 'run' / 'report.html'}"


def test_report_that_cannot_be_written_changes_nothing_of_a_run(tmp_path, monkeypatch, capsys):
    def fail(folder):
        raise RuntimeError("no\nreport")

    monkeypatch.setattr(runner, "run_notebooks", lambda *_: {"seconds": 1, "peak_rss_mb": 1})
    monkeypatch.setattr(report_page, "write_report", fail)
    assert cli.main(["run", "03", "--run-dir", str(tmp_path)]) == 0
    said = capsys.readouterr()
    assert "1 s, peak memory" in said.out and "report:" not in said.out
    assert said.err.count("\n") == 1 and "RuntimeError: no report" in said.err and "python -m sddlib report" in said.err


@pytest.mark.parametrize("first", [True, False])
def test_of_several_processes_the_first_writes_the_report(first, tmp_path, monkeypatch, capsys):
    summary = {"seconds": 1, "peak_rss_mb": 1} if first else {}
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(launch, "run_together", lambda *_: (tmp_path, summary))
    (tmp_path / "run.json").write_text("{}")
    assert cli.main(["run", "03", "--run-dir", str(tmp_path)]) == 0
    assert (tmp_path / "report.html").is_file() == first == ("report:" in capsys.readouterr().out)


def test_report_command_writes_again_and_elsewhere_and_takes_away_old_pages(smoke_run, tmp_path, capsys):
    run = small_run(tmp_path / "run", smoke_run, *TWO, "scores")
    assert cli.main(["report", str(run)]) == 0
    assert capsys.readouterr().out == f"report: {run / 'report.html'}\n"
    target = tmp_path / "kept"
    (target / "html").mkdir(parents=True)
    (target / "html" / "07_old.html").touch()
    (target / "html" / "mine.html").touch()
    assert cli.main(["report", str(run), "--to", str(target)]) == 0
    names = {p.stem for p in (run / "notebooks").glob("*.ipynb")}
    assert {p.stem for p in (target / "html").iterdir()} == names | {"mine"}
    assert (target / "report.html").read_text() == (run / "report.html").read_text()


def test_folder_that_is_no_run_is_refused_in_a_line(tmp_path, capsys):
    assert cli.main(["report", str(tmp_path)]) == 2
    assert "is no run folder" in capsys.readouterr().err and not list(tmp_path.iterdir())
    assert cli.main(["report", str(tmp_path / "nowhere")]) == 2
    assert "nowhere is missing" in capsys.readouterr().err


def test_changed_checkpoint_is_told_from_what_its_json_describes(smoke_run, tmp_path):
    run = small_run(tmp_path / "run", smoke_run, "run.json", "checkpoints")
    with (run / "checkpoints" / "lora.safetensors").open("ab") as f:
        f.write(b"x")
    text = words(write_report(run).read_text(encoding="utf-8"))
    assert text.count("is not what its JSON says") == 1
