"""How much is read, at most, of a file that may come from anybody, and what it may claim: looked at before it is read, so that
no file can fill the memory. Of pictures, `pictures` says it.
"""

import os
import stat
from pathlib import Path

import yaml

from . import SDDError

MIB = 2**20
JSON = 64 * MIB  # UnivFD's bank names 360,000 files in 16 MB; as Python objects no JSON takes more than 25 times its size
YAML = MIB
CSV = 256 * MIB  # a manifest of 2.7 million images
CELLS = 30_000_000  # of a CSV, named ones: each is a Python object, and a header of a million names makes every row as long
TENSORS = 16 * 1024 * MIB  # the largest CLIP, with its text tower in single precision, takes 10 GiB
PNG = 64 * MIB  # a figure of a run
SIDE = 1024  # px of an `image_size`: positions, and tokens with them, grow with its square


def check_size(path: str | Path, limit: int) -> None:
    """Refuse what is no regular file (a pipe would be waited for) or has more than `limit` bytes. An OSError for what is not
    there."""
    found = os.stat(path)
    if not stat.S_ISREG(found.st_mode):
        raise SDDError(f"{path} is no regular file; name another")
    if found.st_size > limit:
        raise SDDError(
            f"{path} has {found.st_size / MIB:.1f} MiB, and of such a file at most {limit // MIB} are read; name another"
        )


class Plain(yaml.SafeLoader):
    """YAML without aliases: ten lines of them stand for more than any memory holds, once something writes them out."""

    def compose_node(self, parent, index):
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError(f"it has an alias, *{self.peek_event().anchor}; write out what that stands for")
        return super().compose_node(parent, index)


def parse_yaml(text: str):
    """The value of a YAML text, of plain types only. Errors are yaml's, ValueError and RecursionError."""
    return yaml.load(text, Plain)


def read_yaml(path: Path):
    """`parse_yaml` of a file."""
    check_size(path, YAML)
    return parse_yaml(path.read_text(encoding="utf-8"))


def is_name(text: str) -> bool:
    """Whether a text names one file or folder and cannot lead out of the folder that this is put in."""
    return text not in ("", ".", "..") and not {"/", "\\", "\0"} & set(text)
