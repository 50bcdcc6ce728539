"""Thousands of broken files: none stops a scoring, none hangs it, none fills the memory, and every one has its row."""

import time
import warnings

import fuzz
import pytest
from files import corpus

from sddlib import SDDError, evaluate
from sddlib.data import IMAGE_SUFFIXES
from sddlib.pictures import open_content

ROOM = 2000  # MiB that decoding may take at once: MAX_PIXELS of 16 bytes


def test_two_thousand_broken_files_are_each_scored_or_refused_in_one_sentence(tmp_path):
    """That no file is lost, hangs or says anything is checked inside; a failure names the file, which its seed makes again."""
    found = fuzz.run(range(2000), 0, tmp_path)
    assert found.files == 2002  # and a whole one in each round
    assert found.decoded > 400 and sum(found.reasons.values()) > 800 and len(found.reasons) > 10
    assert found.peak[0] - found.before < ROOM, found.peak


def test_whole_files_of_every_suffix_and_mode_are_decoded():
    whole = list(corpus())
    assert {suffix for _, suffix, _ in whole} == IMAGE_SUFFIXES and len({what for what, _, _ in whole}) == len(whole)
    for what, _, data in whole:
        picture, _, size = open_content(data)
        assert sorted(picture.size) == sorted(size) == [40, 48] and picture.mode == "RGB", what


def test_a_number_and_a_seed_make_the_same_file_again():
    assert fuzz.made(17, 3) == fuzz.made(17, 3) != fuzz.made(17, 4)
    every = [fuzz.made(i, 0)[0] for i in range(2000)]
    assert all(any(f"-{mutator.__name__}" in name for name in every) for mutator in fuzz.MUTATORS)
    assert all(any(f"-{what}-" in name for name in every) for what, _, _ in corpus())


def hang(path):
    while time.process_time():
        pass


def refuse(path):
    raise SDDError("two\nlines")


def speak(path):
    warnings.warn("a word", stacklevel=1)
    raise SDDError("no")


@pytest.mark.parametrize(
    "instead, said",
    [
        (hang, r"-bmp_.*bmp takes more than 0.2 s"),
        (refuse, r"-bmp_.*reason 'two\\nlines'"),
        (speak, r"something was said on stderr: a word"),
    ],
    ids=["hang", "lines", "word"],
)
def test_a_hang_a_word_and_a_bad_reason_are_faults(instead, said, monkeypatch, tmp_path):
    """Of the BMP files, all others being scored as they are."""
    opened = evaluate.open_image
    monkeypatch.setattr(fuzz, "LIMIT", 0.2)
    monkeypatch.setattr(evaluate, "open_image", lambda path: (instead if str(path).endswith(".bmp") else opened)(path))
    with pytest.raises(fuzz.Fault, match=said):
        fuzz.run(range(60), 0, tmp_path)
