"""The parts of `09_explore`'s widget: what can be moved and chosen, where what is found is shown. What it does: `widgets`."""

from pathlib import Path
from types import SimpleNamespace

import ipywidgets as w

from .data import Sample
from .tiles import STYLE
from .uploads import DROP

OWN = -1  # in the menu of pictures: the one that was uploaded or named
QUALITIES = [("none", 0), *((str(q), q) for q in range(100, 0, -5))]
PRIVATE = (
    "<small>An image that you choose stays in the kernel's memory: Jupyter does not write it into the notebook when you save. "
    "(If you have turned on <i>Save Jupyter widget state in notebooks</i> in Lab's settings, which is off by default, the "
    "small pictures above are saved with it.) The CSV holds its name and numbers, no pixels.</small>"
)


def sliders() -> dict[str, w.Widget]:
    """A slider for every field of `edits.Edits`."""
    look = {"style": {"description_width": "92px"}, "layout": w.Layout(width="280px")}
    made = {
        "jpeg": w.SelectionSlider(options=QUALITIES, value=0, description="JPEG quality", **look),
        "blur": w.FloatSlider(0, min=0, max=4, step=0.1, description="blur, px", readout_format=".1f", **look),
    }
    percent = (("resize", "resize to, %", 25, 200, 100), ("crop", "crop to, %", 20, 100, 100))
    percent += (("left", "window x, %", 0, 100, 50), ("top", "window y, %", 0, 100, 50))
    for name, text, low, high, value in percent:
        made[name] = w.IntSlider(value, low, high, description=text, **look)
    return made


def labels(samples: list[Sample], seen: list[str]) -> list[tuple[str, int]]:
    """(text, index) of the bundled pictures for a menu."""
    kinds = ["real" if not s.label else "fake, seen generator" if s.generator in seen else "fake, unseen" for s in samples]
    return [(f"{s.path.stem} | {s.generator} ({kind})", i) for i, (s, kind) in enumerate(zip(samples, kinds, strict=True))]


def controls(checkpoints: dict[str, Path], first: Path, picture: int) -> SimpleNamespace:
    """All widgets, not yet joined to anything. checkpoints: name -> file, first: the one chosen; picture: index of the sample
    chosen, or OWN. shown: HTML by name; box: the whole."""
    plain = {"style": {"description_width": "80px"}, "layout": w.Layout(width="410px")}
    c = SimpleNamespace(sliders=sliders(), drop=w.Textarea(layout=w.Layout(display="none")))
    c.checkpoint = w.Dropdown(options=list(checkpoints.items()), value=first, description="checkpoint", **plain)
    c.picture = w.Dropdown(options=[("", picture)], value=picture, description="picture", **plain)
    c.upload = w.FileUpload(accept="image/*", description="Choose an image", layout=w.Layout(width="200px"))
    c.branch = w.ToggleButtons(options=["tokens"], style={"button_width": "68px"}, layout=w.Layout(width="auto"))
    c.reset, c.save = w.Button(description="Undo all changes"), w.Button(description="Save as CSV")
    c.shown = {name: w.HTML() for name in ("message", "card", "maps", "near", "table", "saved", "private")}
    c.box = _layout(c)
    return c


def _layout(c: SimpleNamespace) -> w.Widget:
    shown = c.shown
    for panel in shown.values():
        panel.add_class("sdd")
    shown["private"].value = PRIVATE
    opened = w.HBox([c.upload, w.HTML(DROP), c.drop])
    opened.add_class("sdd-open")
    moved = w.VBox([*c.sliders.values(), c.reset, w.HTML("<b>CAM at</b>"), c.branch], layout=w.Layout(min_width="290px"))
    seen = w.VBox([shown["card"], shown["maps"], shown["near"]])
    history = w.VBox([w.HBox([w.HTML("<b>What was looked at</b>"), c.save, shown["saved"]]), shown["table"]])
    top = w.HBox([w.VBox([c.checkpoint, c.picture]), w.VBox([opened, shown["message"]])])
    body = w.HBox([moved, seen], layout=w.Layout(margin="8px 0"))
    box = w.VBox([w.HTML(STYLE), top, body, history, shown["private"]])
    box.add_class("sdd-explorer")
    return box
