"""RUN/report.html: one self-contained page of a run's results, and beside it a page of each executed notebook."""

from pathlib import Path

from . import SDDError
from .disk import replaced
from .executed import DONE, Places, read_executed
from .markup import Html, join, page, tag
from .notebook_page import notebook_page
from .report import NAMES
from .report_facts import abouts, optional_json, run_facts
from .report_results import differences, generators, headline, lead, read_results
from .report_sections import (
    SHOWN,
    TROUBLE,
    Contents,
    figures_section,
    key_figures,
    limits_section,
    notebooks_section,
    part,
    provenance_section,
    verb,
)


def read_contents(run_dir: Path) -> Contents:
    """All that a report needs; a missing or broken part is kept as the sentence that the page says of it."""
    if not any((run_dir / name).exists() for name in ("run.json", "notebooks", "scores")):
        raise SDDError(
            f"{run_dir} is no run folder: it has no run.json, notebooks or scores; name one of `python -m sddlib run`"
        )
    places = Places(run_dir)
    executed, broken = read_executed(run_dir, places)
    try:
        results, why = read_results(run_dir), ""
    except TROUBLE as e:
        results, why = None, places.hide(str(e))
    return Contents(run_dir, places, executed, broken, results, why)


def write_report(run_dir: Path, target: Path | None = None) -> Path:
    """Write report.html and html/NOTEBOOK.html into the run folder, or into `target`; returns the path of the report.

    The pages link one another by relative paths and load nothing else, so that the folder can be moved. SDDError where
    run_dir is no run folder; whatever of a run is missing, the page says so.
    """
    contents, target = read_contents(run_dir), target or run_dir
    places = contents.places
    (target / "html").mkdir(parents=True, exist_ok=True)
    names = [e.name for e in contents.executed]
    for old in (target / "html").glob("[0-9][0-9]_*.html"):
        if old.stem not in names:
            old.unlink()  # of a notebook that this run does not have
    for executed, before, after in zip(contents.executed, ["", *names], [*names[1:], ""], strict=False):
        try:
            text = notebook_page(executed, before, after)
        except TROUBLE as e:
            text = page(executed.title, tag("p", f"This notebook cannot be shown: {places.hide(str(e))}", class_="alarm"))
        save(target / "html" / f"{executed.name}.html", text)
    save(target / "report.html", report_page(contents))
    return target / "report.html"


def save(path: Path, text: str) -> None:
    with replaced(path) as part:
        part.write_text(text, encoding="utf-8")


def report_page(contents: Contents) -> str:
    """The page as text."""
    sections = [
        ("results", "Results", results_section),
        ("figures", "Six figures" if len(key_figures(contents.run_dir)) == SHOWN else "Figures", figures_section),
        ("limits", "What this does not show", limits_section),
        ("notebooks", "Notebooks", notebooks_section),
        ("provenance", "What ran on what", provenance_section),
    ]
    links = tag("nav", [tag("a", title, href=f"#{key}") for key, title, _ in sections], aria_label="on this page")
    parts = [tag("section", tag("h2", title), part(contents, make), id=key) for key, title, make in sections]
    over = tag("p", "sddlib · a run of the Semantic Discrepancy-aware Detector (SDD)", class_="over")
    top = tag("header", over, tag("h1", "Real photograph or generated image?"), part(contents, answer), part(contents, alarms))
    return page("Run report: real photograph or generated image?", join(top, links, tag("main", parts)))


def answer(contents: Contents) -> Html:
    """The result in a sentence or two and the run in a line."""
    facts = dict(run_facts(contents.run_dir, contents.executed))
    words = [f"profile {facts['Profile']}", f"seed {facts['Seed']}", facts["Started"], facts["Time"]]
    chips = tag("ul", [tag("li", contents.places.hide(w)) for w in words], class_="chips")
    return join(lead(contents.run_dir, contents.results) if contents.results else None, chips)


def alarms(contents: Contents) -> Html:
    """What went wrong, and whether the run's numbers mean anything."""
    notes = [
        tag("p", tag("a", f"{e.name}", href=f"html/{e.name}.html"), f" {verb(e)}: {e.reason}", class_="alarm")
        for e in contents.executed
        if e.state != DONE
    ]
    notes += [
        tag("p", f"{name}: its executed copy cannot be read ({why})", class_="alarm") for name, why in contents.broken.items()
    ]
    if any(about.get("weights") == "random" for about in abouts(contents.run_dir).values()):
        notes.append(tag("p", "The backbone of this run has random weights: its numbers mean nothing.", class_="alarm"))
    return join(notes)


def results_section(contents: Contents) -> Html:
    if not contents.results:
        return tag("p", f"No results: {contents.no_results}", class_="missing")
    found = contents.results
    note = (
        "Average precision (AP) and AUROC judge the ranking: 1 means that every fake is scored above every photograph. "
        "Accuracy judges verdicts at the threshold that was fitted on validation images. Intervals draw photographs again, "
        "each with all its crops and fakes; the spread between training seeds is not in them."
    )
    return join(part(contents, stale), headline(found), differences(found), tag("p", note, class_="note"), generators(found))


def stale(contents: Contents) -> Html:
    """An alarm for scores that another checkpoint gave than the one that lies here now, as both their records say."""
    old = []
    for method, about in abouts(contents.run_dir).items():
        scored = optional_json(contents.run_dir / "scores" / f"{method}.json").get("settings", {}).get("checkpoint")
        if scored and scored != about.get("sha256"):
            old.append(NAMES[method])
    if not old:
        return Html()
    return tag("p", f"The scores of {', '.join(old)} are not of the checkpoints here: run 04_evaluate again.", class_="alarm")
