"""HTML that is escaped by construction: `tag` escapes every child that is no `Html`, so data cannot become markup."""

from html import escape
from pathlib import Path

from .figures import FAKE, METHODS, REAL

# What a page may do, whatever has got into it: show its own style and pictures, and nothing else
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; form-action 'none'; base-uri 'none'"
VOID = ("br", "img", "meta", "wbr")  # elements without an end


class Html(str):
    """Text that is markup already."""


def raw(value) -> Html:
    """A value as markup: an `Html` as it is, any other one escaped; lone surrogates of file names become "?"."""
    return value if isinstance(value, Html) else Html(escape(str(value).encode("utf-8", "replace").decode()))


def join(*children) -> Html:
    """Children one after the other; lists are opened, None is nothing."""
    flat = [join(*child) if isinstance(child, (list, tuple)) else raw(child) for child in children if child is not None]
    return Html("".join(flat))


def tag(name: str, /, *children, **attributes) -> Html:
    """An element. `class_` and `aria_label` are written class and aria-label; an attribute that is None or False is left out,
    one that is True has no value."""
    words = [name]
    for key, value in attributes.items():
        if value is not None and value is not False:
            key = key.rstrip("_").replace("_", "-")
            words.append(key if value is True else f'{key}="{raw(value)}"')
    start = f"<{' '.join(words)}>"
    return Html(start if name in VOID else f"{start}{join(*children)}</{name}>")


def table(head: list[Html], body: list[Html], caption, **attributes) -> Html:
    """A table that scrolls sideways in a frame of its own, which the keyboard reaches; head, body: rows."""
    inner = tag("table", tag("caption", tag("span", caption)), tag("thead", head), tag("tbody", body), **attributes)
    return tag("div", inner, class_="scroll", tabindex=0, role="region", aria_label=caption)


def breakable(name: str) -> Html:
    """A file-like name that may break after each underscore."""
    return join(*[x for part in name.split("_") for x in ("_", tag("wbr"), part)][2:])


def colours() -> Html:
    """The figures' colours as CSS variables. SDD's black turns light on a dark page, and so does the blue of reals."""
    methods = {key: colour for key, (_, colour) in METHODS.items()}
    light = {"real": REAL, "fake": FAKE, **methods}
    dark = {"real": "#56B4E9", "fake": "#F0864A", "sdd": "#F2F2F2"}
    lines = ["".join(f"--{key}:{colour};" for key, colour in theme.items()) for theme in (light, dark)]
    return Html(f":root{{{lines[0]}}}@media (prefers-color-scheme:dark){{:root{{{lines[1]}}}}}")


def page(title: str, body: Html) -> str:
    """A whole page: one file, nothing loaded from anywhere, light and dark by the reader's setting."""
    css = Html((Path(__file__).parent / "report.css").read_text(encoding="utf-8"))
    head = [
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", title),
        tag("style", colours(), css),
    ]
    return f"<!doctype html>\n{tag('html', tag('head', head), tag('body', body), lang='en')}\n"
