"""What tests of the explorer need of a browser: Chromium, a Jupyter server of their own, and the moves of a person."""

import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SHOTS = Path(os.environ.get("SDDLIB_SCREENSHOTS") or ROOT / "runs" / "screenshots")  # kept when the tests are over
FLAGS = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
FLAGS += " --disable-component-update --disable-sync"
PATIENCE = 300  # seconds for whatever has to appear; a busy machine is slow


def find_chromium() -> str:
    """The browser of this machine, or the test is skipped."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    found = next(filter(None, map(shutil.which, names)), None)
    if not found:
        pytest.skip(f"no Chromium on this machine (looked for {', '.join(names)}), so nobody opens the notebook in a browser")
    return found


def lab_command() -> list[str]:
    """What `make lab` runs after `python`, out of the Makefile."""
    body = re.search(r"^lab: env\n\t\$\(PY\) (.+)$", (ROOT / "Makefile").read_text(), re.M)[1]
    assert "token" not in body and "--ip" not in body, "make lab must keep Jupyter's token and stay on this machine"
    return body.split()


def copy_of_explorer(folder: Path, run: Path) -> Path:
    """09_explore in a folder of its own, with its parameters as they are but for the run folder."""
    folder.mkdir(parents=True)
    notebook = json.loads((ROOT / "notebooks" / "09_explore.ipynb").read_text())
    cell = notebook["cells"][1]
    cell["source"] = [line.replace('run_dir = ""', f"run_dir = {str(run)!r}") for line in cell["source"]]
    path = folder / "09_explore.ipynb"
    path.write_text(json.dumps(notebook))
    return path


@contextmanager
def server(arguments: list[str], folder: Path, port: int, log: Path, profile: str = "smoke"):
    """`python ARGUMENTS` in a folder that has nothing to do with the repository, without the settings of whoever runs this."""
    own = {f"{name}_DIR": str(folder / name.lower()) for name in ("JUPYTER_CONFIG", "JUPYTER_RUNTIME", "JUPYTER_DATA")}
    own |= {f"JUPYTERLAB_{name}_DIR": str(folder / name.lower()) for name in ("SETTINGS", "WORKSPACES")}
    own |= {"IPYTHONDIR": str(folder / "ipython"), "SDDLIB_PROFILE": profile}
    with log.open("w") as stream:
        process = subprocess.Popen([sys.executable, *arguments], cwd=folder, env=os.environ | own, stdout=stream, stderr=stream)
        try:
            await_port(process, port, log)
            yield
        finally:
            process.terminate()
            process.wait(30)


def await_port(process: subprocess.Popen, port: int, log: Path) -> None:
    for _ in range(4 * PATIENCE):
        assert process.poll() is None, log.read_text()[-2000:]
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5).close()
            return
        except urllib.error.HTTPError:
            return  # it answers, and refuses whoever has no token
        except OSError:
            time.sleep(0.25)
    pytest.fail(f"the server did not answer: {log.read_text()[-2000:]}")


def lab_options(port: int, word: str) -> list[str]:
    """What a test adds to `make lab`: a port, its own token, no window, and nothing is asked for outside."""
    own = [f"--ServerApp.port={port}", "--ServerApp.port_retries=0", f"--IdentityProvider.token={word}", "--no-browser"]
    own += ["--allow-root", "--LabApp.news_url=None", "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"]
    return [*own, "--LabApp.extension_manager=readonly"]


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def token() -> str:
    return secrets.token_hex(16)


class Person:
    """Somebody who looks at the explorer on a page. page: of playwright."""

    def __init__(self, page):
        self.page, self.widget = page, page.locator(".sdd-explorer").first
        page.set_default_timeout(1000 * PATIENCE)
        page.set_default_navigation_timeout(1000 * PATIENCE)

    def run_all(self, address: str) -> None:
        """Open the notebook in Lab, run all its cells, and come to rest before the explorer."""
        self.page.goto(address)
        self.page.locator(".jp-NotebookPanel .jp-Cell").first.wait_for()
        self.page.get_by_text("Python 3 (ipykernel) | Idle").wait_for()
        self.page.get_by_role("menuitem", name="Run", exact=True).click()
        self.page.get_by_text("Run All Cells", exact=True).click()
        findings = self.page.locator(".jp-OutputArea-output", has_text="an update with its CAM:")
        self.scroll_to(findings, 1500)  # the last cell's output: every cell has run
        assert not self.page.get_by_text("Traceback").count()
        self.scroll_to(self.widget.locator(".big"), -300)

    def scroll_to(self, found, step: int) -> None:
        """Turn the wheel by `step` pixels until this is on the screen: Lab draws only the cells that are near it."""
        end = time.monotonic() + PATIENCE
        while not found.is_visible():
            assert time.monotonic() < end, f"nothing to be seen of {found}"
            self.page.mouse.move(700, 700)
            self.page.mouse.wheel(0, step)
            time.sleep(0.3)
        found.scroll_into_view_if_needed()

    def score(self) -> str:
        return self.widget.locator(".score").inner_text()

    def rest(self, name: str) -> str:
        """Wait until the picture of this name is scored, CAM and all; its score."""
        self.widget.locator(".said", has_text=f"{name}: score").wait_for()
        return self.score()

    def choose(self, path: Path) -> None:
        with self.page.expect_file_chooser() as dialog:
            self.widget.locator(".widget-upload").click()
        dialog.value.set_files(path)

    def drop(self, path: Path) -> None:
        bring = (
            "([name, bytes]) => {const t = new DataTransfer(); t.items.add(new File([new Uint8Array(bytes)], name)); return t}"
        )
        files = self.page.evaluate_handle(bring, [path.name, list(path.read_bytes())])
        self.widget.locator(".drop").dispatch_event("drop", {"dataTransfer": files})

    def slide(self, name: str, key: str) -> None:
        slider = self.widget.locator(".widget-slider", has_text=name)
        slider.locator(".noUi-handle").focus()
        self.page.keyboard.press(key)

    def rows(self) -> int:
        return self.widget.locator(".history tr").count() - 1

    def shoot(self, name: str) -> None:
        SHOTS.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=SHOTS / f"{name}.png")
