"""Comes before ipykernel's launcher on PYTHONPATH while tests run: a kernel that need not import torch anew.

The first kernel of a session starts a server that imports what notebooks import and never computes anything; kernels are
forked from it. What the notebook's client has started is this small process, which passes on what it is told: files,
environment, folder, signals. It ends with its kernel, its kernel ends with it, and the server with the session.
"""

import gc
import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

SOCKET, SESSION = "SDDLIB_TEST_KERNELS", "SDDLIB_TEST_SESSION"  # variables: where the server listens, process of the session
PATIENCE = 30  # seconds for the server to begin; a client gives its kernel 60
PRELOADED = ("sddlib.launch", "ipykernel.kernelapp", "ipykernel.ipkernel")  # no matplotlib: a kernel chooses its backend first


def connect(path: str) -> socket.socket | None:
    """To the server, which is started if there is none; None if it does not answer in time."""
    from filelock import FileLock, Timeout

    end = time.monotonic() + PATIENCE
    with suppress(Timeout), FileLock(f"{path}.lock", timeout=PATIENCE):
        if line := _connected(path):
            return line
        number = Path(f"{path}.pid")
        if not (number.is_file() and Path("/proc", number.read_text()).exists()):
            nothing = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}  # a pipe that it held open would never end
            with open(f"{path}.log", "w") as log:
                server = subprocess.Popen([sys.executable, __file__, path], **nothing, stderr=log, start_new_session=True)
            number.write_text(str(server.pid))
        while time.monotonic() < end:
            if line := _connected(path):
                return line
            time.sleep(0.05)
    return None


def _connected(path: str) -> socket.socket | None:
    line = socket.socket(socket.AF_UNIX)
    with suppress(OSError):
        line.connect(path)
        return line
    line.close()
    return None


def ask(line: socket.socket) -> None:
    """Have a kernel forked and stay until it has ended."""
    socket.send_fds(line, [b"k"], [0, 1, 2])
    wanted = {"argv": sys.argv, "cwd": os.getcwd(), "environment": dict(os.environ)}
    line.sendall(json.dumps(wanted).encode() + b"\n")
    kernel = int(line.makefile().readline())
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda received, _: os.kill(kernel, received))
    parent = os.getppid()
    line.settimeout(1.0)
    while os.getppid() == parent:
        try:
            if not line.recv(1):
                return
        except TimeoutError:
            continue


def serve(path: str) -> None:
    """Fork a kernel for whoever asks, until the session is over."""
    sys.path[:] = [entry for entry in sys.path if Path(entry) != Path(__file__).parent]
    for name in PRELOADED:
        __import__(name)
    gc.freeze()  # collections in kernels leave shared memory alone
    Path(path).unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        listener.settimeout(1.0)
        while Path(f"/proc/{os.environ[SESSION]}").exists():
            with suppress(ChildProcessError):  # there is none
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
            try:
                line, _ = listener.accept()
            except TimeoutError:
                continue
            if os.fork() == 0:
                listener.close()
                become_kernel(line)
            line.close()


def become_kernel(line: socket.socket) -> None:
    """In the fork: take over what the client has, and be the kernel."""
    import random
    import threading

    import numpy as np
    from ipykernel import kernelapp

    os.setsid()
    line.settimeout(None)
    _, files, *_ = socket.recv_fds(line, 1, 3)
    wanted = json.loads(line.makefile().readline())
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    os.environ.clear()
    os.environ.update(wanted["environment"])
    os.environ.pop("JPY_PARENT_PID", None)  # the parent is the server: the thread below takes the place of ipykernel's poller
    os.chdir(wanted["cwd"])
    sys.argv = wanted["argv"]
    random.seed()
    np.random.seed()
    line.sendall(f"{os.getpid()}\n".encode())
    threading.Thread(target=lambda: line.recv(1) or os._exit(1), daemon=True).start()
    kernelapp.launch_new_instance()
    os._exit(0)


def main(path: str | None) -> None:
    """A kernel from the server; a plain one if the test has taken its address away, or if the machine is too busy for it."""
    if path and (line := connect(path)):
        ask(line)
    else:
        from ipykernel import kernelapp

        kernelapp.launch_new_instance()


if __name__ == "__main__":
    address = os.environ.get(SOCKET)
    if sys.argv[1:] == [address]:
        serve(address)
    else:
        main(address)
