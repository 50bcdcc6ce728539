"""Reading the report's pages in tests."""

import re
from html.parser import HTMLParser
from pathlib import Path

from nbformat.v4 import new_notebook


class Parsed(HTMLParser):
    """tags: (name, attributes) in order; text: pieces, whole across <wbr>; problems: elements that are not closed."""

    def __init__(self, text: str):
        super().__init__()
        self.tags, self.text, self.open, self.problems = [], [], [], []
        self.feed(text)

    def handle_starttag(self, name, attributes):
        self.tags.append((name, dict(attributes)))
        if name not in ("meta", "img", "br", "wbr", "hr"):
            self.open.append(name)

    def handle_endtag(self, name):
        if not self.open or self.open.pop() != name:
            self.problems.append(name)

    def handle_data(self, data):
        if self.tags[-1:] and self.tags[-1][0] == "wbr" and self.text:
            self.text[-1] += data
        elif self.open and self.open[-1] not in ("style", "script"):
            self.text.append(data)

    def of(self, name: str) -> list[dict]:
        return [attributes for found, attributes in self.tags if found == name]


def read(path: Path) -> Parsed:
    return Parsed(path.read_text(encoding="utf-8"))


def words(html: str) -> str:
    """The text of a piece of HTML."""
    return " ".join(Parsed(html).text)


def rows(html: str, name: str) -> list[list[str]]:
    """The body rows of the table of class `name` as texts."""
    (body,) = re.findall(rf'<table class="{name}">.*?<tbody>(.*?)</tbody>', html, re.S)
    return [
        [words(c).strip() for c in re.findall(r"<t[hd].*?</t[hd]>", row, re.S)]
        for row in re.findall(r"<tr.*?</tr>", body, re.S)
    ]


def notebook(*cells, finished: bool = True, **metadata):
    facts = {"start_time": "2026-01-02T03:04:05+00:00", "end_time": "2026-01-02T03:05:05+00:00" if finished else None}
    return new_notebook(cells=list(cells), metadata={"papermill": facts | {"duration": 60.0 if finished else None}, **metadata})
