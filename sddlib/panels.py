"""The panels of `09_explore` as HTML: verdict and expected errors, maps, nearest bank tokens. Text from outside is escaped."""

from functools import lru_cache
from html import escape
from pathlib import Path

import numpy as np

from .data import decode, to_input
from .explore import Look, Near, Subject, bundled_errors, error_rates
from .figures import FAKE, REAL
from .tiles import as_bytes, bar, boxed, framed, heat, over, pixels_of, rows_html, tile, uri
from .verdicts import verdict
from .visual import Cam

END = 10  # logits at which the score's axis ends
TICKS = (0.001, 0.03, 0.5, 0.97, 0.999)
NOTE = "The threshold was fitted on these validation images, so others fare worse;<br>fakes of unseen generators far worse."


def shown(score: float) -> str:
    """A probability with the digits that move."""
    if 1e-3 <= score <= 1 - 1e-3:
        return f"{score:.4f}"
    return f"{score:.1e}" if score < 0.5 else f"1 - {1 - score:.1e}"


def card(look: Look, subject: Subject) -> str:
    """Verdict, score and the errors to expect."""
    found = verdict(look.score, subject.threshold)
    colour, side = (FAKE, "above") if found == "fake" else (REAL, "not above")
    ticks = "".join(f'<span style="left:{_place(p):.1f}%">{p:g}</span>' for p in TICKS)
    marks = f'<u style="left:{_place(subject.threshold):.1f}%"></u><i style="left:{_place(look.score):.1f}%"></i>'
    return (
        f'<div class="card" style="border-color:{colour}"><div><div class="big" style="color:{colour}">{found.upper()}</div>'
        f'<div>P(fake) <b class="score">{shown(look.score)}</b></div><div class="axis">{ticks}{marks}</div>'
        f"<small>{side} the threshold {subject.threshold:.4g} (dotted)</small></div><div>{expected(subject)}</div></div>"
    )


def _place(p: float) -> float:
    """Where a probability stands on the axis, in % of its length; the axis is even in logits."""
    logit = np.log(max(p, 1e-12)) - np.log(max(1 - p, 1e-12))
    return float(np.clip(50 + 50 * logit / END, 0, 100))


def expected(subject: Subject) -> str:
    """The errors to expect at the threshold: of validation as the checkpoint says, of the examples as counted."""
    lines = [["errors to expect", "wrong", "rate [95 %]"]]
    for r in error_rates(subject.model.about):
        what = "reals called fake" if r["of"] == "reals" else "fakes of the seen generator missed"
        rate = f"{r['wrong'] / r['n']:.1%} [{r['low']:.1%}, {r['high']:.1%}]"
        lines.append([f"validation: {what}", f"{r['wrong']} of {r['n']}", rate])
    if len(lines) == 1:
        lines.append(["validation: this checkpoint does not say", "", ""])
    for group, (wrong, n) in bundled_errors(subject).items():
        what = "called fake" if group == "reals" else "missed"
        lines.append([f"examples: {group} {what}", f"{wrong} of {n}", f"{wrong / n:.0%}"])
    return f"{rows_html(lines)}<small>{NOTE}</small>"


def maps(look: Look, subject: Subject, cam: Cam | None = None, branch: str = "tokens") -> str:
    """The picture, what the detector saw of it, D_s, CAM. cam: of this look at `branch`, or None while it is not there yet."""
    seen, (w, h) = pixels_of(look.x[0]), look.picture.size
    tiles = [tile(framed(look.picture, look.window), f"picture, {w}x{h} px; framed: what is scored")]
    tiles.append(tile(as_bytes(seen), f"what the detector sees, {len(seen)}x{len(seen)} px"))
    if look.D_s is None:
        tiles.append(f"<figure><figcaption>a {escape(subject.model.kind)} checkpoint has no D_s</figcaption></figure>")
    else:
        scale = bar("viridis", "0", f"{subject.bright:.2f} and above")
        tiles.append(tile(heat(look.D_s, subject.bright), f"D_s, mean {look.D_s.mean():.3f}; means of {usual(subject)}", scale))
    if cam is None:
        tiles.append(tile(as_bytes(0.35 * seen), f"CAM ({branch}) follows when you rest", bar("inferno", "none", "")))
    else:
        peak = float(cam.peak[0])
        said = f"peak {peak:.2g} logits a position" if peak > 0 else "empty: nothing speaks for fake"
        scale = bar("inferno", "none", "its peak")
        tiles.append(tile(over(seen, cam.map[0]), f"CAM towards fake ({branch}): {said}", scale))
    return f'<div class="row">{"".join(tiles)}</div>'


def usual(subject: Subject) -> str:
    """The mean D_s of the bundled reals and fakes, to compare one picture's with."""
    parts = []
    for label, name in enumerate(("reals", "fakes")):
        values = [r["D_s"] for r in subject.examples if r["sample"].label == label and r["D_s"] is not None]
        if values:
            parts.append(f"{len(values)} {name} {min(values):.2f}-{max(values):.2f}")
    return "the examples: " + ", ".join(parts)


def near(look: Look, subject: Subject) -> str:
    """The most discrepant patches, each followed by its nearest bank tokens."""
    if not look.near:
        return f"<div>A {escape(subject.model.kind)} checkpoint of this kind has no bank of real tokens.</div>"
    lines, seen, g = [], pixels_of(look.x[0]), subject.model.backbone.g
    for row in look.near:
        line, column = divmod(row.patch, g)
        own = _small(uri(boxed(seen, row.patch, g)), f"D_s {row.D_s:.2f}", f"row {line + 1}, column {column + 1} of {g}x{g}")
        lines.append(f'<div class="near">{own}<div class="to">&rarr;</div>{_tokens(row, subject)}</div>')
    if subject.origins:
        where = "the photographs' patches that they are tokens of"
    else:
        where = "by their numbers, since nothing here tells which photographs they come from"
    head = f"The most discrepant patches and, nearest to each, real tokens of the bank: {where}."
    note = f"Number of {len(subject.model.f_s)}, by rising divergence; distance in spreads of the bank."
    return f'<div class="head"><b>{head}</b> <small>{note}</small></div>{"".join(lines)}'


def _tokens(row: Near, subject: Subject) -> str:
    found, backbone = [], subject.model.backbone
    for j, distance in zip(row.index, row.distance, strict=True):
        source, said = "", f"token {j + 1}"
        if subject.origins:
            origin = subject.origins[j]
            source = _patch(subject.root / origin.file, origin.patch, backbone.image_size, backbone.g)
            said = f"{origin.file}, patch {origin.patch + 1}" + ("" if source else " (the image is not here)")
        found.append(_small(source, f"#{j + 1}, {distance:.2f}", said))
    return "".join(found)


@lru_cache(maxsize=1024)
def _patch(path: Path, patch: int, size: int, g: int) -> str:
    """The address of a photograph's patch within its surroundings; "" where the photograph is not here."""
    return uri(boxed(pixels_of(to_input(decode(path), size)), patch, g)) if path.is_file() else ""


def _small(source: str, caption: str, title: str) -> str:
    picture = f'<img src="{source}">' if source else '<div class="none">not here</div>'
    return f'<figure title="{escape(title)}">{picture}<figcaption>{escape(caption)}</figcaption></figure>'
