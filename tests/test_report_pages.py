"""The pages of a report: they need nothing, fit a phone, escape what they show, and name no place of the machine."""

import re
import shutil
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_output, new_raw_cell
from pages import Parsed, notebook, read

from sddlib.executed import Places, describe
from sddlib.markup import tag
from sddlib.mathml import FORMULA, mathml, with_math
from sddlib.notebook_page import markdown, notebook_page
from sddlib.runs import write_json

ROOT = Path(__file__).parent.parent
LOADS = ("src", "href", "srcset", "poster", "data", "action")


@pytest.fixture
def pages(smoke_run) -> dict[str, Parsed]:
    """The report and the pages beside it, as the run left them."""
    folder = smoke_run.dir
    return {str(p.relative_to(folder)): read(p) for p in (folder / "report.html", *sorted((folder / "html").glob("*.html")))}


def test_pages_load_nothing_and_link_only_what_is_there(pages, smoke_run):
    assert len(pages) > 5
    for name, page in pages.items():
        assert not {"script", "link", "iframe", "object", "embed", "base"} & {n for n, _ in page.tags}, name
        here = (smoke_run.dir / name).parent
        for element, attributes in page.tags:
            for key in set(LOADS) & set(attributes):
                target = attributes[key].partition("#")[0]
                if element == "a" and target.startswith("https://"):
                    continue  # a notebook's own link, which loads nothing by itself
                inside = attributes[key].startswith(("data:image/webp", "#")) or (here / target).is_file()
                assert inside and not target.startswith("/"), f"{name}: {element} {key}={attributes[key][:80]}"
        text = (smoke_run.dir / name).read_text(encoding="utf-8")
        assert not re.search(r"@import|url\(|<[^>]* on\w+=", text)


def test_pages_are_whole_html_with_language_title_headings_and_alternative_texts(pages):
    for name, page in pages.items():
        assert not page.problems and not page.open, f"{name}: {page.problems} {page.open}"
        assert page.of("html") == [{"lang": "en"}] and page.of("title") and page.of("main")
        assert [m["content"] for m in page.of("meta") if m.get("name") == "viewport"] == ["width=device-width, initial-scale=1"]
        assert all(len(image["alt"]) > 20 for image in page.of("img")), name
        levels = [int(n[1]) for n, _ in page.tags if re.fullmatch(r"h[1-6]", n)]
        assert levels[0] == 1 and levels.count(1) == 1
        assert all(after - before <= 1 for before, after in zip(levels, levels[1:], strict=False)), f"{name}: {levels}"
    report = pages["report.html"]
    assert len(report.of("caption")) == 3 == len(report.of("table"))
    ids = [a["id"] for _, a in report.tags if "id" in a]
    assert len(ids) == len(set(ids))


def test_pages_show_no_path_of_this_machine(smoke_run):
    for path in (smoke_run.dir / "report.html", *(smoke_run.dir / "html").glob("*.html")):
        text = re.sub(r"base64,[^\"]*", "", path.read_text(encoding="utf-8"))
        for place in (str(ROOT), str(smoke_run.dir), str(Path.home()), sys.prefix, str(smoke_run.dir.parent)):
            assert place + "/" not in text and f'{place}"' not in text, f"{path.name} shows {place}"
        assert not re.search(r"(?<![\w/.…~])/(home|root|work|tmp|Users|usr)/", text), path.name


@pytest.mark.parametrize(
    "text, shown",
    [
        (f"File {ROOT}/sddlib/runs.py:12", "File sddlib/runs.py:12"),
        (f"\x1b[32m{ROOT}/sddlib/runs.py\x1b[39m", "\x1b[32msddlib/runs.py\x1b[39m"),
        (f"in {ROOT}", "in ."),
        (f"{ROOT}-other/x/y", "…/y"),
        ('"/data/here/runs/one"', '"runs/one"'),
        ("/data/here/data/manifest.csv", "data/manifest.csv"),
        ("/tmp/ipykernel_12/34.py:1: UserWarning", "…/34.py:1: UserWarning"),
        ("[/home/bob/a.png, '/mnt/b/c.png']", "[…/a.png, '…/c.png']"),
        ("PATH=/opt/x/bin:/opt/y/bin", "PATH=…/bin:…/bin"),
        ("file:///home/bob/a.png", "file://…/a.png"),
        (r"C:\Users\bob\a.png", r"…\a.png"),
        ("https://example.org/a/b, real/fake, 1/2, a // b", "https://example.org/a/b, real/fake, 1/2, a // b"),
        ('f"{folder}/figures/{name}"', 'f"{folder}/figures/{name}"'),
    ],
)
def test_paths_are_shown_from_the_repository_on_or_by_their_end(text, shown, tmp_path):
    write_json(tmp_path / "run.json", {"parameters": {"03_train": {"run_dir": "/data/here/runs/one"}}})
    assert Places(tmp_path).hide(text) == shown


def test_widgets_and_active_outputs_are_replaced_by_words():
    view, bar = "application/vnd.jupyter.widget-view+json", "Fold: 50%|#    | 1/2 [00:00<00:00, 2.0it/s]"
    datas = [
        {view: {"model_id": "a"}, "text/plain": bar},
        {view: {"model_id": "b"}, "text/plain": "VBox(children=(FileUpload(),))"},
        {"text/html": "<script>x()</script>", "text/plain": "plain words"},
        {"application/javascript": "x()", "text/plain": "more words"},
        {"text/html": "<table><tr><td>kept</td></tr></table>", "text/plain": "not this"},
        {"text/html": "<meta http-equiv=refresh content=0><form action=b>asks</form>"},
        {"text/html": "<b formaction='javascript:x()'>alone</b>"},
    ]
    cell = new_code_cell("show()", outputs=[new_output("display_data", data) for data in datas])
    state = {"application/vnd.jupyter.widget-state+json": {"state": {}, "version_major": 2, "version_minor": 0}}
    page = Parsed(notebook_page(describe("09_explore", notebook(new_markdown_cell("# What?"), cell, widgets=state)), "", ""))
    text = " ".join(page.text)
    assert not page.of("script")
    assert "plain words" in text and "more words" in text and "kept" in text and "not this" not in text
    assert not page.of("form") and not page.of("b") and "asks" in text and "alone" in text
    assert text.count("an interactive control") == 1 and "VBox" not in text and "it/s" not in text


def test_pages_may_run_and_load_nothing_whatever_has_got_into_them():
    page = Parsed(notebook_page(describe("09_explore", notebook(new_markdown_cell("# What?"))), "", ""))
    (policy,) = [m["content"] for m in page.of("meta") if m.get("http-equiv") == "Content-Security-Policy"]
    rules = dict(rule.split(maxsplit=1) for rule in policy.split("; "))
    assert (
        rules["default-src"] == rules["form-action"] == "'none'" and rules["img-src"] == "data:" and "script-src" not in rules
    )


@pytest.mark.parametrize("make", [new_markdown_cell, new_raw_cell])
@pytest.mark.parametrize("tag", ["<script>x()</script>", "<img src=a.png onerror=x()>", "<a href='javascript:x()'>y</a>"])
def test_active_markup_in_text_cells_is_shown_as_text(make, tag):
    cells = new_markdown_cell("# What?"), make(f"Before **bold** {tag} after"), new_markdown_cell("a<br>b, one = 3")
    page = Parsed(notebook_page(describe("09_explore", notebook(*cells)), "", ""))
    assert not page.of("script") and not page.of("img") and len(page.of("a")) == 1 and not page.problems
    assert "x()" in " ".join(page.text) and "x()" in markup_text(tag)


def markup_text(tag: str) -> str:
    """A caption on the report's own page."""
    page = Parsed(markdown(f"Caption {tag}"))
    assert not page.of("script") and not page.of("img") and not page.of("a")
    return " ".join(page.text)


def test_formulas_are_drawn_by_the_browser_or_shown_as_written():
    assert "<msub><mi>D</mi><mrow><mi>s</mi></mrow></msub>" in mathml("D_s")
    assert "<mfrac><mrow><mi>p</mi><mo>+</mo><mi>q</mi></mrow><mn>2</mn></mfrac>" in mathml(r"\frac{p+q}2")
    assert "<msubsup>" in mathml("x_i^2") and "<mo>′</mo>" in mathml("F'") and "<mo>≤</mo>" in mathml(r"a \le b")
    assert with_math("a `$x$` b, 5 $ and 6 $") == "a `$x$` b, 5 $ and 6 $"
    assert with_math(r"$\unknown{x}$ $x_$ $(\left($") == r"<code>\unknown{x}</code> <code>x_</code> <code>(\left(</code>"
    assert "|" not in with_math(r"| $\lvert x \rvert$".replace("|", "", 1))


def test_every_formula_of_the_notebooks_is_understood():
    count = 0
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        for cell in nbformat.read(path, 4).cells:
            if cell.cell_type == "markdown":
                for match in FORMULA.finditer(cell.source):
                    count += match[2] is not None and bool(mathml(match[2]))
    assert count > 20


def test_tags_escape_text_and_attributes():
    assert tag("a", "<b>", title='"&') == '<a title="&quot;&amp;">&lt;b&gt;</a>'
    assert tag("p", ["x", None, tag("b", "y")], class_=None, hidden=True) == "<p hidden>x<b>y</b></p>"
    assert tag("p", "caf\udce9") == "<p>caf?</p>"


def test_rendered_copy_in_the_repository_is_whole_small_and_without_paths():
    folder = ROOT / "figures" / "report"
    files = [p for p in folder.rglob("*") if p.is_file()]
    assert sum(p.stat().st_size for p in files) < 6e6 and {p.suffix for p in files} == {".html"}
    report = read(folder / "report.html")
    linked = {a["href"] for a in report.of("a") if a["href"].startswith("html/")}
    assert len(linked) >= 7 and linked == {str(p.relative_to(folder)) for p in (folder / "html").iterdir()}
    for path in files:
        text = re.sub(r"base64,[^\"]*", "", path.read_text(encoding="utf-8"))
        assert not re.search(r"(?<![\w/.…~])/(home|root|work|tmp|Users|usr)/", text), path.name
        assert not Parsed(text).of("script") and not Parsed(text).of("link")


@pytest.fixture(scope="module")
def browser():
    """A real Chromium, or the reason why there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install -e '.[test]'")
    with playwright.sync_playwright() as p:
        own = Path(p.chromium.executable_path)
        names = ("chromium", "chromium-browser", "google-chrome", "chrome")
        found = str(own) if own.is_file() else next(filter(None, map(shutil.which, names)), None)
        if not found:
            pytest.skip("needs Chromium: `playwright install chromium`, or the system's")
        quiet = ["--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"]
        opened = p.chromium.launch(executable_path=found, args=["--no-sandbox", "--disable-gpu", "--disable-quic", *quiet])
        yield opened
        opened.close()


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_fit_a_desktop_and_a_phone_in_a_browser(width, scheme, browser, smoke_run):
    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
    view, asked, said = context.new_page(), [], []
    view.on("request", lambda request: asked.append(request.url))
    view.on("console", lambda message: said.append(message.text))
    paths = [smoke_run.dir / "report.html", *sorted((smoke_run.dir / "html").glob("*.html"))]
    for path in paths:
        view.goto(path.resolve().as_uri())
        assert view.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{path.name} is too wide"
        assert view.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 0 && i.alt)")
        assert view.evaluate("[...document.images].every(i => i.clientWidth >= 300)"), f"{path.name} has tiny figures"
        dark = view.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).every(c => c < 64)")
        assert dark == (scheme == "dark")
    assert [url for url in asked if not url.startswith("data:")] == [path.resolve().as_uri() for path in paths] and not said
    context.close()
