"""Rows as aligned text: no more than this, so that a light command can print a table."""


def printable(text) -> str:
    """A text from outside, such as a file's name, on one line that does nothing to a terminal, whatever it is made of."""
    text = str(text)
    return text if text.isprintable() else ascii(text)[1:-1]


def columns(rows: list[list], right_from: int = 1) -> str:
    """Rows of values as aligned text, the first row being the header."""
    texts = [[f"{v:.3f}" if isinstance(v, float) else printable(v) for v in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    aligned = [
        [t.ljust(w) if i < right_from else t.rjust(w) for i, (t, w) in enumerate(zip(row, widths, strict=True))]
        for row in texts
    ]
    return "\n".join("  ".join(row).rstrip() for row in aligned)
