"""The little TeX of the notebooks as MathML, which browsers draw by themselves: no script, no font, no network."""

import re

from . import SDDError
from .markup import Html, tag

SIGNS = {"lvert": "|", "rvert": "|", "le": "≤", "ge": "≥", "ne": "≠", "in": "∈", "cdot": "·", "times": "×", "to": "→"}
SIGNS |= {"sum": "∑", "prod": "∏", "pm": "±", "mid": "|", "lVert": "‖", "rVert": "‖", "approx": "≈", "infty": "∞", "odot": "⊙"}
GREEK = "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi pi rho sigma tau phi chi psi omega".split()
LETTERS = dict(zip(GREEK, "αβγδεζηθικλμνξπρστφχψω", strict=True))
LETTERS |= {"Delta": "Δ", "Sigma": "Σ", "Omega": "Ω", "Phi": "Φ", "ell": "ℓ"}
WORDS = ("mathrm", "text", "operatorname", "mathbf", "mathcal")  # their argument is set upright
ACCENTS = {"hat": "^", "bar": "¯", "tilde": "~"}
TOKEN = re.compile(r"\\[a-zA-Z]+|\\[,;: ]|[A-Za-z]+|\d+(?:\.\d+)?|\S")
FORMULA = re.compile(r"(`+)[\s\S]*?\1|(?<![\\$])\$(?![\s$])([^$\n]+?)(?<![\s\\])\$(?![\d$])")


def with_math(markdown: str) -> str:
    """Markdown with each $formula$ outside of `code` as MathML; one that is not understood is shown as code, as written."""

    def drawn(match: re.Match) -> str:
        tex = match[2]
        if tex is None:
            return match[0]
        try:
            return mathml(tex).replace("|", "&#124;")  # a bar would end a cell of a Markdown table
        except SDDError:
            return tag("code", tex).replace("|", "&#124;")

    return FORMULA.sub(drawn, markdown)


def mathml(tex: str) -> Html:
    """One inline formula. SDDError for a command that is not among those of the notebooks."""
    tokens = TOKEN.findall(tex)[::-1]
    items = row(tokens, until=None)
    return tag("math", tag("mrow", items), aria_label=tex)


def row(tokens: list[str], until: str | None) -> list[Html]:
    """Items up to the token `until`, which is taken too; tokens are a stack."""
    items = []
    while tokens:
        token = tokens.pop()
        if token == until:
            return items
        if token in ("_", "^", "'"):
            if not items:
                raise SDDError(f"a formula begins with {token!r}; write what it belongs to")
            items.append(scripts(items.pop(), token, tokens))
        else:
            items.append(item(token, tokens))
    if until:
        raise SDDError(f"a formula lacks {until!r}; close it")
    return items


def scripts(base: Html, token: str, tokens: list[str]) -> Html:
    """base with the script that `token` announces and one of the other kind, if that follows."""
    found = {}
    while token in ("_", "^", "'"):
        part = tag("mo", "′") if token == "'" else argument(tokens)
        found.setdefault("_" if token == "_" else "^", []).append(part)
        token = tokens.pop() if tokens and tokens[-1] in ("_", "^", "'") else ""
    parts = [tag("mrow", found[key]) for key in ("_", "^") if key in found]
    return tag({"_": "msub", "^": "msup", "^_": "msubsup"}["".join(sorted(found))], base, parts)


def argument(tokens: list[str]) -> Html:
    """The next token or {group} as one item."""
    if not tokens:
        raise SDDError("a formula ends where an argument belongs; complete it")
    return item(tokens.pop(), tokens)


def item(token: str, tokens: list[str]) -> Html:
    """One item of a row: a letter, a number, a sign, a {group} or a command with its arguments."""
    if token == "{":
        return tag("mrow", row(tokens, "}"))
    if token[0].isalpha():
        return tag("mi", token)
    if token[0].isdigit():
        return tag("mn", token)
    command = token[1:]
    if token[0] != "\\":
        return tag("mo", "−" if token == "-" else token)
    if command in LETTERS:
        return tag("mi", LETTERS[command])
    if command in SIGNS:
        return tag("mo", SIGNS[command])
    if command in (",", ";", ":", " "):
        return tag("mspace", width="0.25em")
    if command == "frac":
        return tag("mfrac", argument(tokens), argument(tokens))
    if command == "sqrt":
        return tag("msqrt", argument(tokens))
    if command in WORDS:
        return argument(tokens)
    if command in ACCENTS:
        return tag("mover", argument(tokens), tag("mo", ACCENTS[command]), accent="true")
    if command == "left" and tokens:
        opening, inner = tokens.pop(), row(tokens, "\\right")
        if not tokens:
            raise SDDError("a formula has \\right without a bracket; complete it")
        return tag("mrow", tag("mo", opening), inner, tag("mo", tokens.pop()))
    raise SDDError(f"the TeX command {token} is unknown; use one of sddlib/mathml.py")
