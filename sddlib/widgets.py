"""The widget of `09_explore`: what happens when something is chosen or moved. What it computes lies in `explore`, what it shows
in `panels`, its parts in `controls`."""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html import escape
from pathlib import Path

from . import SDDError, history, panels
from .controls import OWN, controls, labels
from .data import Sample, decode
from .debounce import Debounced
from .edits import Edits
from .explore import cam_branches, find_checkpoints, look, open_subject, seen_by
from .uploads import dropped, picture_of, uploaded
from .visual import cam

DELAY = 0.12  # seconds without a change after which a picture is scored
REST = 0.25  # further ones after which its CAM follows and the history gets a row


class Explorer:
    """A detector to play with. box: the widget to display; subject, name, picture, looked: what it shows; rows: the history.

    checkpoint: to start with; folder: of the run, where the history is saved; samples: bundled pictures; image: path of a
    picture to start with, or None; counts: `patches` and `tokens` of `explore.look`.
    """

    def __init__(
        self, checkpoint: Path, folder: Path, samples: list[Sample], image: Path | None = None, device="cpu", **counts
    ):
        self.folder, self.samples, self.device, self.counts, self.rows = folder, samples, device, counts, []
        self.subject = open_subject(checkpoint, samples, device)
        first = image or samples[0].path
        self.name, self.picture = first.name, decode(first)
        self.own = (self.name, self.picture) if image else None
        self.c = controls(find_checkpoints(checkpoint, folder), checkpoint.resolve(), OWN if image else 0)
        self.fill_menus()
        self.box, self.soon = self.c.box, Debounced(self.refresh, DELAY)
        join(self)
        self.score()
        self.settle()

    @property
    def edits(self) -> Edits:
        return Edits(**{name: slider.value for name, slider in self.c.sliders.items()})

    def fill_menus(self) -> None:
        """Menus that depend on the checkpoint; what is chosen stays chosen."""
        chosen = self.c.picture.value
        named = labels(self.samples, seen_by(self.subject.model.about))
        self.c.picture.options = [("your picture", OWN), *named]
        self.c.picture.value = chosen
        self.c.branch.options = cam_branches(self.subject.model)

    def say(self, text: str, wrong: bool = False) -> None:
        """A line beside the menus; a mistake stands out."""
        self.c.shown["message"].value = f'<div class="{"wrong" if wrong else "said"}" role="status">{escape(text)}</div>'

    async def refresh(self) -> None:
        """The score at once, the CAM when no further change comes."""
        with told(self):
            self.score()
            await asyncio.sleep(REST)
            self.settle()

    def score(self) -> None:
        """Verdict, maps and tokens of the picture with the sliders' edits."""
        began, shown = time.perf_counter(), self.c.shown
        self.looked = look(self.subject, self.picture, self.edits, **self.counts)
        shown["card"].value, shown["near"].value = (panel(self.looked, self.subject) for panel in (panels.card, panels.near))
        shown["maps"].value = panels.maps(self.looked, self.subject, None, self.c.branch.value)
        self.seconds = time.perf_counter() - began

    def settle(self) -> None:
        """CAM of what was scored last, and its row in the history."""
        began, branch = time.perf_counter(), self.c.branch.value
        found = cam(self.subject.model, self.looked.x.to(self.device), branch)
        self.c.shown["maps"].value = panels.maps(self.looked, self.subject, found, branch)
        history.add(self.rows, history.entry(self.name, self.edits, self.looked, self.subject))
        self.c.shown["table"].value = history.table(self.rows)
        seconds = time.perf_counter() - began
        self.say(f"{self.name}: score, D_s and tokens in {self.seconds:.2f} s, CAM in {seconds:.2f} s")


@contextmanager
def told(explorer: Explorer) -> Iterator[None]:
    """A mistake inside is one sentence on the screen; what was shown before, and the history, stay."""
    try:
        yield
    except SDDError as e:
        explorer.say(str(e), wrong=True)


def join(explorer: Explorer) -> None:
    """Every control calls its function."""
    c = explorer.c

    def on(control, act: Callable[[Explorer, object], None]) -> None:
        def changed(change) -> None:
            with told(explorer):
                act(explorer, change["new"])

        control.observe(changed, "value")

    on(c.checkpoint, choose_checkpoint)
    on(c.picture, choose_picture)
    on(c.upload, take_upload)
    on(c.drop, take_drop)
    for control in (*c.sliders.values(), c.branch):
        on(control, lambda explorer, _: explorer.soon())
    for button, act in ((c.reset, undo), (c.save, save)):
        button.on_click(lambda _, act=act: act(explorer))


def choose_checkpoint(explorer: Explorer, path: Path) -> None:
    """Look with another checkpoint; one that cannot be loaded leaves the old one in place."""
    before = explorer.subject.path.resolve()
    if path == before:
        return
    explorer.say(f"loading {path.stem} ...")
    try:
        explorer.subject = open_subject(path, explorer.samples, explorer.device)
    except SDDError:
        explorer.c.checkpoint.value = before
        raise
    explorer.fill_menus()
    explorer.soon()


def choose_picture(explorer: Explorer, index: int) -> None:
    """Show a bundled picture, or again the one that was uploaded last."""
    if index == OWN and explorer.own is None:
        raise SDDError("there is no picture of yours yet; choose or drop one")
    sample = explorer.samples[index]
    explorer.name, explorer.picture = explorer.own if index == OWN else (sample.path.name, decode(sample.path))
    explorer.soon()


def take_upload(explorer: Explorer, value: tuple) -> None:
    """A file from the dialog. It is taken out of the widget first, so that no copy of it can be saved."""
    if value:
        name, content = uploaded(value)
        explorer.c.upload.value = ()
        show_own(explorer, name, content)


def take_drop(explorer: Explorer, text: str) -> None:
    """A file that was dropped; taken out of the widget first, too."""
    if text:
        explorer.c.drop.value = ""
        show_own(explorer, *dropped(text))


def show_own(explorer: Explorer, name: str, content: bytes) -> None:
    """Show a picture from the browser. One that cannot be decoded leaves everything as it is."""
    explorer.own = picture_of(name, content)
    if explorer.c.picture.value == OWN:
        choose_picture(explorer, OWN)
    else:
        explorer.c.picture.value = OWN


def undo(explorer: Explorer) -> None:
    """All sliders back to where nothing is changed."""
    for name, slider in explorer.c.sliders.items():
        slider.value = getattr(Edits(), name)


def save(explorer: Explorer) -> None:
    """The history as a file in the run folder, and as a link to download it."""
    with told(explorer):
        path = history.save(explorer.rows, explorer.folder)
        explorer.c.shown["saved"].value = f"{len(explorer.rows)} rows in {escape(str(path))}, or {history.link(explorer.rows)}"
