"""figures/explorer.png anew: `python tests/shoot_explorer.py [IMAGE] [PNG]` opens 09_explore in Lab, shipped checkpoint."""

import sys
import tempfile
from pathlib import Path

from browser import FLAGS, ROOT, Person, copy_of_explorer, find_chromium, free_port, lab_command, lab_options, server, token
from playwright.sync_api import sync_playwright

IMAGE = ROOT / "data" / "mini" / "test" / "realesrgan_x4plus" / "monument-mountrushmore_0.webp"


def shoot(image: Path, target: Path) -> None:
    """Upload the image, compress it, take that back, and photograph the explorer."""
    with tempfile.TemporaryDirectory() as name, sync_playwright() as tool:
        folder, port, word = Path(name), free_port(), token()
        copy_of_explorer(folder / "notebooks", folder / "run")
        arguments = [*lab_command(), *lab_options(port, word)]
        with server(arguments, folder, port, folder / "lab.log", "mini"):
            browser = tool.chromium.launch(executable_path=find_chromium(), args=FLAGS.split())
            page = browser.new_page(viewport={"width": 1400, "height": 1080})
            person = Person(page)
            person.run_all(f"http://127.0.0.1:{port}/lab/tree/09_explore.ipynb?token={word}")
            page.locator(".Toastify button", has_text="No").first.click()
            page.keyboard.press("Control+b")
            person.choose(image)
            person.rest(image.name)
            person.slide("JPEG quality", "End")
            page.wait_for_function("() => document.querySelectorAll('.sdd-explorer .history tr').length === 4")
            page.get_by_role("button", name="Undo all changes").click()
            page.wait_for_function("() => document.querySelectorAll('.sdd-explorer .history tr').length === 5")
            page.get_by_text("pixels", exact=True).last.click()
            person.widget.get_by_text("CAM towards fake (pixels)").wait_for()
            person.widget.scroll_into_view_if_needed()
            page.screenshot(path=target)
            browser.close()


if __name__ == "__main__":
    shoot(*map(Path, (sys.argv[1:] + [IMAGE, ROOT / "figures" / "explorer.png"][len(sys.argv) - 1 :])))
