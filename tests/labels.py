"""What a saved SVG says of its axes: matplotlib names every group in it, and with `style` text stays text."""

import re
import xml.etree.ElementTree as ET
from pathlib import Path

SVG = "{http://www.w3.org/2000/svg}"
UNITS_OF_COUNT = "images|crops|photographs|tokens|reals?|fakes?|pairs|of each class|seeds|bank tokens|epochs|examples"
COUNT = re.compile(rf"\b[NM] ?= ?\d|\b\d[\d,]* ?(of \d[\d,]* )?\+? ?({UNITS_OF_COUNT})\b|\(\d+ (real|seeds?)\b")


def texts(node: ET.Element) -> list[str]:
    return [" ".join("".join(t.itertext()).split()) for t in node.iter(f"{SVG}text")]


def number(text: str) -> bool:
    """Whether a tick says a value rather than a name."""
    return bool(re.fullmatch(r"[-+−]?\d[\d.,]*( ?%)?|.*10[-−]?\d", text))


def unlabelled(path: Path) -> list[str]:
    """The axes of a figure whose ticks are numbers and that have no label."""
    found, root = [], ET.parse(path).getroot()
    assert texts(root), f"{path} holds no text: save it with the style of `figures.style`"
    for axes in root.iter(f"{SVG}g"):
        if not re.fullmatch(r"axes_\d+", axes.get("id", "")):
            continue
        for axis in axes.findall(f"{SVG}g"):
            if not axis.get("id", "").startswith("matplotlib.axis"):
                continue
            groups = axis.findall(f"{SVG}g")
            ticks = [t for g in groups if re.fullmatch(r"[xy]tick_\d+", g.get("id", "")) for t in texts(g)]
            labels = [t for g in groups if g.get("id", "").startswith("text_") for t in texts(g)]
            if any(map(number, ticks)) and not "".join(labels).strip():
                found.append(f"{path.name}: {axes.get('id')} {axis.get('id')} with ticks {', '.join(ticks[:4])} has no label")
    return found


def counted(path: Path) -> bool:
    """Whether a figure says how many of something it shows."""
    return bool(COUNT.search(" | ".join(texts(ET.parse(path).getroot()))))
