"""Processes of their own that need not import torch and sddlib anew: they fork from a server that has done so, once.

The server (`multiprocessing`'s) has never computed anything, so what it forks is as good as a fresh interpreter.
"""

import os
import sys
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path

CONTEXT = get_context("forkserver")
CONTEXT.set_forkserver_preload(["sddlib.launch"])  # imports what a training or scoring process imports


class Elsewhere:
    """`function(*args)` in a process that inherits `environment` instead of this one's. function: of a module's top level.

    What it writes to stdout and stderr is kept in the two files; an exception is a traceback in the second and exit code 1.
    """

    def __init__(self, said: Path, function: Callable, *args, environment: dict[str, str] | None = None):
        self.out, self.err = said.with_suffix(".out"), said.with_suffix(".err")
        work = (str(self.out), str(self.err), dict(environment or os.environ), function, args)
        self.process = CONTEXT.Process(target=_perform, args=work)
        self.process.start()

    def send(self, signal: int) -> None:
        os.kill(self.process.pid, signal)

    def running(self) -> bool:
        return self.process.is_alive()

    def wait(self, timeout: float = 300) -> int:
        """Its exit code; minus the number of the signal that has ended it. One that takes too long is killed: an error."""
        self.process.join(timeout)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
            raise TimeoutError(f"{timeout} s were not enough; stderr: {self.err.read_text()}")
        return self.process.exitcode


def _perform(out: str, err: str, environment: dict[str, str], function: Callable, args: tuple) -> None:
    for number, path in ((1, out), (2, err)):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, number)
        os.close(file)
    sys.stdout, sys.stderr = os.fdopen(1, "w", buffering=1, closefd=False), os.fdopen(2, "w", buffering=1, closefd=False)
    os.environ.clear()
    os.environ.update(environment)
    function(*args)
