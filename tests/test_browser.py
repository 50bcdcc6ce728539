"""09_explore as a person uses it: Lab with its token, a real browser, an upload, a slider; and the same under voila.

Screenshots stay in SDDLIB_SCREENSHOTS, or in runs/screenshots.
"""

import base64
import importlib.util
import json
import time

import numpy as np
import pytest
from browser import FLAGS, SHOTS, Person, copy_of_explorer, find_chromium, free_port, lab_command, lab_options, server, token
from PIL import Image

from sddlib import history


@pytest.fixture(scope="module")
def chromium():
    if importlib.util.find_spec("playwright") is None:
        pytest.skip("playwright is not installed (pip install -e .[test]), so nobody opens the notebook in a browser")
    path = find_chromium()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as tool:
        browser = tool.chromium.launch(executable_path=path, args=FLAGS.split())
        yield browser
        browser.close()


@pytest.fixture
def page(chromium):
    page = chromium.new_page(viewport={"width": 1440, "height": 1250})
    yield page
    Person(page).shoot("last")  # what was on the screen when a test ended, or failed
    page.close()


@pytest.fixture
def mine(tmp_path):
    """A picture of one's own, large enough for a window to move in, with bytes that would be known again."""
    path = tmp_path / "holiday.png"
    Image.fromarray(np.random.default_rng(5).integers(0, 256, (150, 200, 3), dtype=np.uint8)).save(path)
    return path


def test_a_person_opens_lab_uploads_a_picture_moves_a_slider_and_saves(smoke_run, page, mine, tmp_path):
    port, word, before = free_port(), token(), len(list(SHOTS.glob("*.png")))
    notebook = copy_of_explorer(tmp_path / "notebooks", smoke_run.dir)
    with server([*lab_command(), *lab_options(port, word)], tmp_path, port, tmp_path / "lab.log"):
        assert page.goto(f"http://127.0.0.1:{port}/lab/tree/09_explore.ipynb").url.split("?")[0].endswith("/login")
        person = Person(page)
        person.run_all(f"http://127.0.0.1:{port}/lab/tree/09_explore.ipynb?token={word}")
        start = person.score()
        person.choose(mine)
        uploaded = person.rest("holiday.png")
        assert uploaded != start and person.rows() == 2
        person.shoot("lab-uploaded")
        person.slide("JPEG quality", "End")
        page.wait_for_function("old => document.querySelector('.sdd-explorer .score').innerText !== old", arg=uploaded)
        page.wait_for_function("() => document.querySelectorAll('.sdd-explorer .history tr').length === 4")
        assert "JPEG 5" in person.widget.locator(".history").inner_text()
        person.shoot("lab-slid")
        broken = tmp_path / "broken.jpg"
        broken.write_bytes(b"no picture")
        person.drop(broken)
        assert "broken.jpg: not an image file" in person.widget.locator(".wrong").inner_text() and person.rows() == 3
        person.drop(mine.rename(tmp_path / "dropped.png"))
        person.rest("dropped.png")
        page.get_by_role("button", name="Save as CSV").click()
        person.widget.get_by_text("download explored.csv").wait_for()
        person.shoot("lab-saved")
        page.keyboard.press("Control+s")
        saved = await_saved(notebook)
    assert len((smoke_run.dir / history.NAME).read_text().splitlines()) == 1 + 4
    assert len(list(SHOTS.glob("lab-*.png"))) >= 3 and len(list(SHOTS.glob("*.png"))) >= before
    assert "widgets" not in saved["metadata"]
    text = notebook.read_text()
    content = base64.b64encode((tmp_path / "dropped.png").read_bytes()).decode()
    assert not any(content[at : at + 40] in text for at in range(0, len(content) - 40, 40))
    assert "holiday.png" not in text and "not kept in this notebook" in text


def await_saved(path) -> dict:
    """The notebook once Lab has written its outputs."""
    for _ in range(240):
        found = json.loads(path.read_text() or "{}")
        outputs = [o for c in found.get("cells", []) for o in c.get("outputs", [])]
        if any("application/vnd.jupyter.widget-view+json" in o.get("data", {}) for o in outputs):
            return found
        time.sleep(0.25)
    pytest.fail("Lab did not save the notebook")


def test_the_same_works_under_voila(smoke_run, page, mine, tmp_path):
    if importlib.util.find_spec("voila") is None:
        pytest.skip("voila is not installed (pip install -e .[voila])")
    port, word = free_port(), token()
    notebook = copy_of_explorer(tmp_path / "notebooks", smoke_run.dir)
    arguments = ["-m", "voila", str(notebook), "--no-browser", f"--port={port}", f"--token={word}"]
    with server(arguments, tmp_path, port, tmp_path / "voila.log"):
        person = Person(page)
        page.goto(f"http://127.0.0.1:{port}/?token={word}", wait_until="commit")  # the page comes as the cells run
        person.widget.locator(".big").wait_for()
        person.choose(mine)
        uploaded = person.rest("holiday.png")
        person.slide("blur", "End")
        page.wait_for_function("old => document.querySelector('.sdd-explorer .score').innerText !== old", arg=uploaded)
        page.wait_for_function("() => document.querySelectorAll('.sdd-explorer .history tr').length === 4")
        person.widget.scroll_into_view_if_needed()
        person.shoot("voila-slid")
        assert not page.get_by_text("Traceback").count()
