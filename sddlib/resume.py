"""A training's whole state on disk, so that it goes on after a kill as if nothing had been; each state has its checksum."""

import hashlib
import io
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from . import SDDError
from .checkpoints import UNPICKLING, check_packed
from .disk import replaced
from .limits import TENSORS, check_size

KEPT = 2  # states: the one before is there if the last is not whole


class States:
    """The states of one training in a folder.

    key: says which training it is, by its first 8 letters; states of another are not taken. minutes: from one state to the
    next; 0: every step.
    """

    def __init__(self, folder: Path, key: str, minutes: float = 5.0, say: Callable[[str], None] = print):
        self.folder, self.key, self.minutes, self.say = folder, key, minutes, say
        self.last = time.monotonic()

    def files(self) -> list[Path]:
        """Those of this training, oldest first."""
        return sorted(self.folder.glob(f"state-{self.key[:8]}-*.pt"))

    def due(self) -> bool:
        return time.monotonic() - self.last >= 60 * self.minutes

    def save(self, step: int, state: dict) -> None:
        """Write the state after `step` steps in all: whole or not at all. state: tensors, plain values. Error: a full disk."""
        payload = io.BytesIO()
        torch.save(state, payload)
        digest = hashlib.sha256(payload.getbuffer()).hexdigest()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with replaced(self.folder / f"state-{self.key[:8]}-{step:09d}.pt") as part, part.open("wb") as f:
                f.write(f"{digest}\n".encode())
                f.write(payload.getbuffer())
        except OSError as e:
            left = self.files()[-1:]
            kept = f"{left[0].name} is kept" if left else "nothing was kept before"
            raise SDDError(
                f"the state of step {step} cannot be written to {self.folder} ({e}); free space there and start again ({kept})"
            ) from None
        for old in self.files()[:-KEPT]:
            old.unlink()
        self.last = time.monotonic()

    def load(self) -> dict | None:
        """The newest state that is whole, or None where there is none of this training; what is left aside is said."""
        for path in self.folder.glob("*.part"):
            path.unlink()  # of a process that was killed while it wrote
        if foreign := set(self.folder.glob("state-*.pt")) - set(self.files()):
            self.say(f"{len(foreign)} states in {self.folder.name} are of trainings with other settings: left aside")
        for path in reversed(self.files()):
            check_size(path, TENSORS)
            digest, _, payload = path.read_bytes().partition(b"\n")
            if hashlib.sha256(payload).hexdigest().encode() != digest:
                self.say(f"{path.name} is not whole: deleted")
                path.unlink()
                continue
            return read_state(path, io.BytesIO(payload))
        return None

    def clear(self) -> None:
        """Delete them and those of other settings: a training has ended and its result is kept elsewhere."""
        for path in (*self.folder.glob("state-*.pt"), *self.folder.glob("*.part")):
            path.unlink()
        if self.folder.is_dir() and not any(self.folder.iterdir()):
            self.folder.rmdir()


def read_state(path: Path, payload: io.BytesIO) -> dict:
    """The tensors and plain values that a state holds; the checksum says that it is whole, not whose it is. Whatever else is in
    it is not opened, which is an SDDError. path: for that."""
    try:
        check_packed(payload)
        payload.seek(0)
        return torch.load(payload, map_location="cpu", weights_only=True)
    except UNPICKLING:
        raise SDDError(
            f"{path} holds more than tensors and plain values, so it is not opened; delete it and start the training again"
        ) from None


@contextmanager
def stop_requests() -> Iterator[Callable[[], bool]]:
    """While inside, Ctrl-C and SIGTERM are only noted, so that a step is never cut in two; a second Ctrl-C interrupts.

    Yields a function that says whether one has come. Only the main thread can take signals; elsewhere none is noted.
    """
    came: list[int] = []

    def note(number, _frame):
        if number == signal.SIGINT and number in came:
            raise KeyboardInterrupt
        came.append(number)

    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before = {s: signal.signal(s, note) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(came)
    finally:
        for s, handler in before.items():
            signal.signal(s, handler)
