"""A training's whole state on disk, so that it goes on after a kill as if nothing had been; each state has its checksum."""

import hashlib
import io
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from . import SDDError
from .disk import replaced

KEPT = 2  # states: the one before is there if the last is not whole


class States:
    """The states of one training in a folder.

    key: says which training it is; states of another are not taken. minutes: from one state to the next; 0: every step.
    """

    def __init__(self, folder: Path, key: str, minutes: float = 5.0, say: Callable[[str], None] = print):
        self.folder, self.key, self.minutes, self.say = folder, key, minutes, say
        self.last = time.monotonic()

    def files(self) -> list[Path]:
        """Oldest first."""
        return sorted(self.folder.glob("state-*.pt"))

    def due(self) -> bool:
        return time.monotonic() - self.last >= 60 * self.minutes

    def save(self, step: int, state: dict) -> None:
        """Write the state after `step` steps in all: whole or not at all. state: tensors, plain values. Error: a full disk."""
        self.folder.mkdir(parents=True, exist_ok=True)
        payload = io.BytesIO()
        torch.save(state | {"key": self.key}, payload)
        digest = hashlib.sha256(payload.getbuffer()).hexdigest()
        try:
            with replaced(self.folder / f"state-{step:09d}.pt") as part, part.open("wb") as f:
                f.write(f"{digest}\n".encode())
                f.write(payload.getbuffer())
        except OSError as e:
            left = self.files()[-1:]
            kept = f"{left[0].name} is kept" if left else "nothing was kept before"
            raise SDDError(
                f"the state of step {step} cannot be written to {self.folder} ({e.strerror}); free space there and start"
                f" again ({kept})"
            ) from None
        for old in self.files()[:-KEPT]:
            old.unlink()
        self.last = time.monotonic()

    def load(self) -> dict | None:
        """The newest state that is whole, or None where there is none of this training; what is left aside is said."""
        for path in reversed(self.files()):
            digest, _, payload = path.read_bytes().partition(b"\n")
            if hashlib.sha256(payload).hexdigest().encode() != digest:
                self.say(f"{path.name} is not whole: left aside")
                continue
            state = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
            if state.pop("key") != self.key:
                self.say(f"{path.name} is of a training with other settings: left aside")
                continue
            return state
        return None

    def clear(self) -> None:
        """Delete them: the training has ended and its result is kept elsewhere."""
        for path in self.files():
            path.unlink()
        if self.folder.is_dir() and not any(self.folder.iterdir()):
            self.folder.rmdir()


def random_state() -> dict:
    """What every source of randomness of this process would give next, as plain values and tensors."""
    name, keys, position, has_gauss, gauss = np.random.get_state()
    numpy = [name, torch.from_numpy(keys.astype(np.int64)), position, has_gauss, gauss]
    cuda = [t.clone() for t in torch.cuda.get_rng_state_all()] if torch.cuda.is_available() else []
    return {"python": random.getstate(), "numpy": numpy, "torch": torch.get_rng_state(), "cuda": cuda}


def set_random_state(state: dict) -> None:
    """Back to a `random_state`."""
    random.setstate(state["python"])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if state["cuda"]:
        torch.cuda.set_rng_state_all(state["cuda"])


@contextmanager
def stop_requests() -> Iterator[Callable[[], bool]]:
    """While inside, the first Ctrl-C (or SIGTERM) is only noted, so that a step is never cut in two; a second one interrupts.

    Yields a function that says whether one has come. Only the main thread can take signals; elsewhere none is noted.
    """
    came: list[int] = []

    def note(number, _frame):
        if came:
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
