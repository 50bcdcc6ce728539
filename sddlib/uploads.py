"""Pictures that come through the browser: from the file dialog or dropped on a field, each a name and the file's content."""

import base64
import json
from pathlib import PurePath

from PIL import Image

from . import SDDError
from .pictures import open_content

LIMIT = (
    7_000_000  # bytes of a dropped file: it travels as text, a third longer, and Jupyter's connection carries 10 MiB at once
)

# Written by hand because nothing can be dropped on a FileUpload: the file goes as text into the Textarea beside the field.
DROP = f"""<div class="drop" ondragover="event.preventDefault(); event.stopPropagation()"
 ondrop="event.preventDefault(); event.stopPropagation();
  const file = event.dataTransfer.files[0], box = this.closest('.sdd-open').querySelector('textarea');
  const send = facts => {{ box.value = JSON.stringify(facts);
    for (const kind of ['input', 'change']) box.dispatchEvent(new Event(kind, {{bubbles: true}})); }};
  if (!file) return;
  if (file.size > {LIMIT}) {{ send({{name: file.name, size: file.size}}); return; }}
  const reader = new FileReader();
  reader.onload = () => send({{name: file.name, content: reader.result.split(',')[1] || ''}});
  reader.readAsDataURL(file);">or drop an image here</div>"""


def uploaded(value) -> tuple[str, bytes]:
    """(name, content) of the first file of a FileUpload's value (ipywidgets 8: a tuple of dicts)."""
    return value[0]["name"], bytes(value[0]["content"])


def dropped(text: str) -> tuple[str, bytes]:
    """(name, content) of a file that DROP has written as text, or an SDDError that says why not."""
    try:
        facts = json.loads(text)
        name, content = str(facts["name"]), facts.get("content")
        if content is not None:
            return name, base64.b64decode(content, validate=True)
        size = facts["size"] / 1e6
    except (ValueError, KeyError, TypeError):
        raise SDDError("what was dropped is no file that the browser could read; choose it with the button") from None
    raise SDDError(
        f"{name} has {size:.1f} MB and at most {LIMIT / 1e6:g} MB can be dropped; name its path in the parameter `image`"
    )


def picture_of(name: str, content: bytes) -> tuple[str, Image.Image]:
    """(name without folders, RGB picture), decoded as any file here: upright, on white, one sentence for what is no image."""
    short = PurePath(name.replace("\\", "/")).name or "unnamed"
    try:
        return short, open_content(content)[0]
    except SDDError as e:
        raise SDDError(f"{short}: {e}") from None
