"""The parts of a run's report below its results: figures, limits, notebooks, what ran on what."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from . import SDDError
from .executed import DONE, FAILED, Executed, Places
from .limits import PNG, check_size
from .markup import Html, breakable, join, table, tag
from .notebook_page import image, markdown
from .profiles import notebook_names
from .report_facts import abouts, count, data_facts, file_facts, minutes, optional_json, run_facts, settings, versions
from .report_results import Results, number

SHOWN = 6
TROUBLE = (SDDError, OSError, ValueError, LookupError, TypeError, AttributeError)  # what broken files of a run lead to
FIGURES = {  # the key figures: the first six that a run has. name -> (its question, what is drawn, for who does not see it)
    "ap_by_generator": (
        "Which generators are caught?",
        "Bars: average precision of each method for each test generator, and the mean over the unseen ones with its interval.",
    ),
    "scores_sdd": (
        "What would a verdict be worth?",
        "Histograms of SDD's scores, a row for the photographs and one for each generator; a dashed line is the threshold.",
    ),
    "gallery": (
        "What do the generators do to a picture?",
        "A grid of small crops: a row for each of a few photographs, a column for the camera and for each generator.",
    ),
    "discrepancy_boxes": (
        "Do real photographs show no discrepancy?",
        "Boxes of the mean discrepancy of an image, for the photographs and for the fakes of each generator.",
    ),
    "discrepancy_maps": (
        "Where in an image is the discrepancy?",
        "Eight crops, errors among them, each above its map of the discrepancy over the patches.",
    ),
    "direction_agreement": (
        "Do fakes differ in the same way whatever they show?",
        "Intervals of the agreement of real-fake differences between concepts, for a CNN and for CLIP, by generator.",
    ),
    "feature_planes": (
        "Do the features fall into two clusters?",
        "Scatter plots, one for each generator: t-SNE of the classifier's features of real and fake images.",
    ),
    "training_curves": ("Does it learn?", "Curves: terms of the training loss and the validation loss by epoch."),
    "coverage": ("Does the token bank cover what is real?", "Distances of unseen real tokens from their nearest bank token."),
    "js_histogram": ("Which tokens stand for real?", "Histogram of all real tokens by divergence, and the chosen ones below."),
    "similarity": ("Does the backbone know anything?", "Histograms of the similarity of crops of one and of two photographs."),
}


@dataclass
class Contents:
    """What a report is made from. failures: what could not be read, for the reader; results: None without scores."""

    run_dir: Path
    places: Places
    executed: list[Executed]
    broken: dict[str, str]
    results: Results | None
    no_results: str


def part(contents: Contents, make: Callable[..., Html], *arguments) -> Html:
    """What make(contents, *arguments) gives; where that fails, the sentence that says so, for the rest must still be seen."""
    try:
        return make(contents, *arguments)
    except TROUBLE as e:
        said = contents.places.hide(" ".join(str(e).split()) or type(e).__name__)
        return tag("p", f"This part cannot be shown: {said}", class_="alarm")


def verb(executed: Executed) -> str:
    return {DONE: "done", FAILED: "failed"}.get(executed.state, "did not finish")


def key_figures(run_dir: Path) -> list[str]:
    return [name for name in FIGURES if (run_dir / "figures" / f"{name}.png").is_file()][:SHOWN]


def figures_section(contents: Contents) -> Html:
    """Each key figure with its question, the sentence that its notebook says below it, and a link there."""
    names = key_figures(contents.run_dir)
    if not names:
        return tag("p", "This run has made none of the key figures.", class_="missing")
    return join([part(contents, figure, name) for name in names])


def figure(contents: Contents, name: str) -> Html:
    """One key figure; without its notebook the words for who does not see it stand below it."""
    question, alt = FIGURES[name]
    captions = {figure: (e.name, text) for e in contents.executed for figure, text in e.captions.items()}
    notebook, text = captions.get(name, ("", ""))
    link = tag("p", "From ", tag("a", notebook, href=f"html/{notebook}.html")) if notebook else None
    said = markdown(text) if text else Html(tag("p", alt))
    file = contents.run_dir / "figures" / f"{name}.png"
    check_size(file, PNG)
    png = file.read_bytes()
    try:
        picture = image(png, alt, 150)
    except SDDError as e:
        raise SDDError(f"figures/{name}.png: {e}") from None
    drawing = tag("div", picture, class_="figure", tabindex=0, role="group", aria_label=f"Figure: {question}")
    return tag("figure", tag("h3", question), drawing, tag("figcaption", said, link), id=name)


def limits_section(contents: Contents) -> Html:
    """In plain words what must not be read into the numbers."""
    abouts_, results = abouts(contents.run_dir), contents.results
    about = next(iter(abouts_.values()), {})
    trained = ", ".join(map(str, about.get("generators", []))) or "their training generators"
    size = f"crops of {about['image_size']} pixels" if "image_size" in about else "small crops"
    items = [
        f"A score is no proof. These detectors learned from {trained} on {size}. Of a picture from the web, made by another "
        "generator, resized, compressed or edited, they prove nothing, and this page does not either.",
    ]
    if results:
        over, chosen = results.means
        families = len({line["family"] for line in chosen})
        photographs = len({r["photo"] for r in next(iter(results.rows.values())) if r["split"] == "test"})
        items += [
            f"The means are over {count(len(chosen), 'generator')} of {count(families, 'family')}, {over} in training, and "
            f"over {count(photographs, 'photograph')}. Other generators and other pictures give other numbers.",
            "This is one training seed. Runs of several seeds side by side: python -m sddlib seeds RUN RUN RUN.",
            "AP depends on how many fakes stand against how many photographs; compare it only where these are the same.",
        ]
    items.append("Each notebook ends with limits of its own.")
    return tag("ul", [tag("li", text) for text in items])


def notebooks_section(contents: Contents) -> Html:
    """Each executed notebook: its question, a link to its page, what it found."""
    blocks = []
    for e in contents.executed:
        link = tag("a", e.title, href=f"html/{e.name}.html")
        state = tag("span", f"{e.name} · {minutes(e.seconds) if e.state == DONE else verb(e)}", class_="state")
        found = tag("details", tag("summary", "Findings"), tag("pre", e.findings, tabindex=0)) if e.findings else None
        blocks.append(tag("li", tag("h3", link), state, found, class_=e.state))
    cards = tag("ol", blocks, class_="cards") if blocks else tag("p", "No notebook has run.", class_="missing")
    return join(cards, part(contents, absent_notebooks))


def absent_notebooks(contents: Contents) -> Html:
    """The notebooks that this run should have executed and has not, and those that it was not asked for."""
    names = {e.name for e in contents.executed} | set(contents.broken)
    known = set(optional_json(contents.run_dir / "run.json").get("parameters") or {})
    lost = [tag("p", f"{name} belongs to this run and has not run.", class_="missing") for name in sorted(known - names)]
    others = [name for name in notebook_names() if name not in names | known]
    return join(lost, tag("p", f"Not part of this run: {', '.join(others)}.", class_="note") if others else None)


def provenance_section(contents: Contents) -> Html:
    """Run, data, settings, versions; the files that were made with their SHA-256."""
    groups = {"Run": run_facts, "Data": data_facts, "Detectors": settings, "Versions": versions}
    blocks = [tag("div", tag("h3", title), part(contents, facts_list, facts)) for title, facts in groups.items()]
    return join(tag("div", blocks, class_="facts"), part(contents, files_table))


def facts_list(contents: Contents, facts: Callable[..., list[tuple[str, str]]]) -> Html:
    """A group of facts as names and values, without paths of the machine."""
    more = {run_facts: [contents.executed], data_facts: [contents.results.rows if contents.results else {}]}
    found = facts(contents.run_dir, *more.get(facts, []))
    pairs = [join(tag("dt", breakable(name)), tag("dd", contents.places.hide(value))) for name, value in found]
    return tag("dl", pairs) if pairs else tag("p", "Not recorded.", class_="missing")


def files_table(contents: Contents) -> Html:
    """The token bank and the checkpoints, a line each."""
    body = []
    for f in file_facts(contents.run_dir):
        cells = [f["what"], f["file"], f["size"], *(number(f[k]) for k in ("threshold", "validation AP"))]
        foreign = None if f["agrees"] else tag("b", " is not what its JSON says")
        hashed = tag("td", tag("code", f["sha256"]), foreign)
        body.append(tag("tr", tag("th", cells[0], scope="row"), [tag("td", c) for c in cells[1:]], hashed))
    if not body:
        return tag("p", "No token bank and no checkpoints in this run.", class_="missing")
    names = ("", "file", "size", "threshold", "validation AP", "SHA-256")
    head = [tag("tr", [tag("th", n, scope="col") for n in names])]
    return table(head, body, "Token bank and checkpoints", class_="files")
