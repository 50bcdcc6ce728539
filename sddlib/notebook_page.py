"""An executed notebook as one page, through nbconvert: its style is the report's, and nothing on it comes from a network."""

import base64
import copy
import io
import re
from functools import lru_cache

from nbformat import NotebookNode
from nbformat.v4 import new_output

from . import SDDError
from .executed import FAILED, Executed
from .markup import Html, join, page, tag
from .mathml import with_math
from .pictures import check_sides, one_sentence, opened

PHOTOGRAPHIC = 0.2  # bytes a pixel of a PNG above which it shows photographs
WIDGET = "application/vnd.jupyter.widget-view+json"
ACTIVE = re.compile(
    r"<\s*(script|iframe|object|embed|link|base|meta|form|style)\b|\bon\w+\s*=|\b(formaction|srcset|poster)\s*="
    r"|(src|href)\s*=\s*[\"']?((https?:)?//|javascript:)",
    re.I,
)
BACK = "← Report of the run"


def nbconvert():
    """nbconvert and its filters, or a sentence on how to get them."""
    try:
        from nbconvert import HTMLExporter
        from nbconvert.filters import markdown2html
    except ImportError as e:
        raise SDDError(f"pages of notebooks need nbconvert ({e}); install it: pip install -e '.[notebooks]'") from None
    return HTMLExporter, markdown2html


@lru_cache(maxsize=1)
def exporter():
    """The exporter without style, anchors and prompts; compiling its templates takes longer than a page."""
    made = nbconvert()[0](template_name="basic", exclude_anchor_links=True)
    made.exclude_input_prompt = made.exclude_output_prompt = True
    return made


def quiet(text: str) -> str:
    """A text of Markdown or HTML, its tags as text where one of them would run or load something."""
    return re.sub(r"<(?=[A-Za-z/!?])", "&lt;", text) if ACTIVE.search(text) else text


def markdown(text: str) -> Html:
    """Markdown of a notebook as HTML, formulas as MathML; markup that would run something is text."""
    return Html(nbconvert()[1](with_math(quiet(text))))


def smaller(png: bytes) -> tuple[bytes, tuple[int, int]]:
    """(the picture as WebP, its size in pixels): drawings without loss, photographs at quality 88."""
    with one_sentence(), opened(io.BytesIO(png)) as picture:
        check_sides(picture.size)
        size = picture.size
        way = {"quality": 88} if len(png) > PHOTOGRAPHIC * size[0] * size[1] else {"lossless": True, "quality": 60}
        out = io.BytesIO()
        picture.convert("RGBA" if "A" in picture.getbands() else "RGB").save(out, "WEBP", method=3, **way)
    return out.getvalue(), size


def image(png: bytes, alt: str, dpi: int) -> Html:
    """An <img> that carries its picture, as wide as it was drawn (`dpi` dots are an inch, which is 96 CSS pixels)."""
    data, (width, height) = smaller(png)
    source = f"data:image/webp;base64,{base64.b64encode(data).decode()}"
    return tag("img", src=source, alt=alt, width=width, height=height, style=f"--w:{round(width * 96 / dpi)}px")


def plain_outputs(cell: NotebookNode) -> None:
    """Take from a code cell, in place, what a page without scripts cannot show: widgets, of which a sentence stays, but
    progress bars, and markup that would run or load something, of which the plain text stays."""
    kept = []
    for output in cell.outputs:
        data = output.get("data", {})
        if WIDGET in data:
            if not re.search(r"%\||it/s|\?it", data.get("text/plain", "")):
                kept.append(new_output("stream", text="[an interactive control: run the notebook to use it]\n"))
            continue
        for kind in list(data):
            active = kind in ("text/html", "text/markdown", "image/svg+xml") and ACTIVE.search(data[kind])
            if active and "text/plain" not in data:
                data["text/plain"] = data[kind]
            if kind.startswith("application/") or active or kind == "text/javascript":
                del data[kind]
        kept.append(output)
    cell.outputs = kept


def prepared(executed: Executed) -> tuple[NotebookNode, list[Html]]:
    """(a copy of the notebook for nbconvert, its pictures): a mark stands for each picture until the page is there."""
    notebook, pictures = copy.deepcopy(executed.notebook), []
    notebook.metadata.pop("widgets", None)
    cells = notebook.cells
    for cell, after in zip(cells, [*cells[1:], None], strict=True):
        if cell.cell_type != "code":
            source = quiet(cell.source)
            cell.source = with_math(source) if cell.cell_type == "markdown" else source
            continue
        plain_outputs(cell)
        told = after.source if after is not None and after.cell_type == "markdown" else ""
        alt = "Figure. " + re.sub(r"[*`$#|\\{}]|\s+", " ", told)[:300].strip() if told else "Figure of the cell above"
        for output in cell.outputs:
            if png := output.get("data", {}).pop("image/png", None):
                output.data = {"text/html": f"<!--picture {len(pictures)}-->"}
                pictures.append(tag("div", image(base64.b64decode(png), alt, 100), class_="figure", tabindex=0))
    return notebook, pictures


def notebook_page(executed: Executed, before: str, after: str) -> str:
    """The page of an executed notebook. before, after: names of its neighbours, "" where there is none."""
    notebook, pictures = prepared(executed)
    body, _ = exporter().from_notebook_node(notebook)
    body = re.sub(r"<!--picture (\d+)-->", lambda m: pictures[int(m[1])], body)
    links = [tag("a", BACK, href="../report.html")]
    links += [tag("span", f"{way} ", tag("a", n, href=f"{n}.html")) for way, n in (("before:", before), ("next:", after)) if n]
    what = "This notebook failed" if executed.state == FAILED else "This notebook did not finish"
    trouble = tag("p", f"{what}: {executed.reason}", class_="alarm") if executed.reason else None
    note = tag("p", "Executed copy: code, output and figures as they were when the run made them.", class_="note")
    main = tag("main", trouble, note, Html(body), class_="notebook")
    return page(executed.title, join(tag("nav", links, aria_label="pages of this run"), main))
