"""Bars: time left for what takes long, and silence where nobody looks."""

import os
import sys
from types import SimpleNamespace

import psutil
import pytest

from sddlib import progress
from sddlib.runner import kernel_environment


@pytest.fixture
def bars(monkeypatch):
    """What tqdm is asked for, in an environment that says nothing."""
    asked, real = [], progress.tqdm

    def watched(iterable, **options):
        asked.append(options)
        return real(iterable, **options)

    monkeypatch.setattr(progress, "tqdm", watched)
    for name in (progress.HEADLESS, "RANK"):
        monkeypatch.delenv(name, raising=False)
    progress.headless.cache_clear()
    yield asked
    progress.headless.cache_clear()


def test_progress_is_quiet_without_a_terminal(capsys, bars):
    assert list(progress.progress(range(3))) == [0, 1, 2]
    assert capsys.readouterr() == ("", "")
    assert [bar.get("disable") for bar in bars] == [None]  # tqdm looks for a terminal itself


@pytest.mark.parametrize(
    "parent, hidden",
    [("jupyter-lab", None), ("/usr/bin/papermill", True), ("/home/papermill/jupyter-lab", None), ("jupyter-nbconvert", True)],
)
def test_a_kernel_draws_bars_only_where_a_page_looks_at_them(monkeypatch, bars, parent, hidden):
    monkeypatch.setitem(sys.modules, "ipykernel", sys)
    monkeypatch.setattr(psutil.Process, "parent", lambda self: SimpleNamespace(cmdline=lambda: ["python", parent, "x.ipynb"]))
    assert list(progress.progress(range(3), desc="x")) == [0, 1, 2] and bars[0]["disable"] is hidden


def test_kernels_of_a_run_and_other_processes_than_the_first_draw_none(monkeypatch, bars):
    with kernel_environment():
        assert list(progress.progress(iter("ab"), 2)) == ["a", "b"]
    assert progress.HEADLESS not in os.environ
    progress.headless.cache_clear()
    monkeypatch.setenv("RANK", "1")
    assert list(progress.progress([1])) == [1] and [bar["disable"] for bar in bars] == [True, True]


def test_a_bar_says_how_long_it_still_takes_once_it_takes_long(bars):
    list(progress.progress(range(3)))
    assert bars[0]["total"] == 3 and 0 < bars[0]["delay"] <= 5 and "bar_format" not in bars[0]
