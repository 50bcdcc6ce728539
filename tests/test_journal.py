"""The journal of a scoring: what was killed goes on with --resume to the CSV of one go, and never mixes with another."""

import json
import os
from pathlib import Path

import easy
import kills
import pytest
from few import BATCH, copied, make, score
from kills import DONE

from sddlib import journal, verdicts
from sddlib.evaluate import iter_scores


@pytest.fixture(scope="module")
def few(tmp_path_factory) -> Path:
    return make(tmp_path_factory.mktemp("few"))


EARLIER = ",".join(verdicts.COLUMNS) + "\nan earlier result\n"


class Killed(BaseException):
    """What nothing catches."""


def killed(few: Path, out: Path, rows: int, monkeypatch, *options: str, how: type[BaseException] = Killed) -> Path:
    """The journal of a scoring that was killed when it had scored so many rows."""

    def some(model, files, batch):
        for number, row in enumerate(iter_scores(model, files, batch)):
            if number == rows:
                raise how
            yield row

    with monkeypatch.context() as patch:
        patch.setattr(verdicts, "iter_scores", some)
        if how is KeyboardInterrupt:
            assert score(few, out, *options) == 130
        else:
            with pytest.raises(how):
                score(few, out, *options)
    return kills.journal_of(out)


@pytest.mark.parametrize("rows, kept", [(0, 0), (3, 0), (4, 4), (11, 8), (20, 20), (22, 22)])
def test_resume_takes_whole_batches_only_and_says_how_many_rows(few, tmp_path, monkeypatch, capsys, rows, kept):
    out = tmp_path / "v.csv"
    killed(few, out, rows, monkeypatch) if rows < 22 else killed_before_writing(few, out, monkeypatch)
    assert not out.exists()
    seen = []
    monkeypatch.setattr(verdicts, "iter_scores", lambda m, files, b: (seen.extend(files), iter_scores(m, files, b))[1])
    capsys.readouterr()
    assert score(few, out, "--resume") == DONE
    said = capsys.readouterr().out
    assert (f"{kept} of 22 rows taken" if kept else f"no rows in {out}.journal, so all 22 files are scored") in said
    assert len(seen) == 22 - kept and out.read_bytes() == (few / "whole.csv").read_bytes()
    assert [p.name for p in tmp_path.iterdir()] == ["v.csv"]


def killed_before_writing(few: Path, out: Path, monkeypatch) -> None:
    def never(*_):
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(verdicts, "write_out", never)
        score(few, out)


def test_a_torn_last_line_and_what_follows_a_changed_byte_are_scored_again(few, tmp_path, monkeypatch, capsys):
    out = tmp_path / "v.csv"
    content = killed(few, out, 15, monkeypatch).read_bytes()
    lines = content.splitlines(keepends=True)
    assert len(lines) == 4  # the head and three batches
    changed = lines[2].replace(b"0.", b"1.", 1)
    for text, kept in ((content[:-1], 8), (content[:-30], 8), (content + lines[3][:9], 12), (lines[0] + lines[1] + changed, 4)):
        kills.journal_of(out).write_bytes(text)
        capsys.readouterr()
        assert score(few, out, "--resume") == DONE
        assert f"{kept} of 22 rows taken from {out}.journal, a torn line left out" in capsys.readouterr().out
        assert out.read_bytes() == (few / "whole.csv").read_bytes()


def test_what_a_torn_line_has_left_is_gone_when_a_resumed_scoring_is_killed_too(few, tmp_path, monkeypatch, capsys):
    out = tmp_path / "v.csv"
    file = killed(few, out, 9, monkeypatch)
    file.write_bytes(file.read_bytes() + b"x" * 10_000)
    capsys.readouterr()
    killed(few, out, 8, monkeypatch, "--resume")  # of the fourteen that are left
    assert f"8 of 22 rows taken from {out}.journal, a torn line left out" in capsys.readouterr().out
    assert score(few, out, "--resume") == DONE
    assert f"16 of 22 rows taken from {out}.journal\n" in capsys.readouterr().out
    assert out.read_bytes() == (few / "whole.csv").read_bytes()


def test_what_a_process_that_was_killed_while_it_wrote_has_left_is_removed_and_nothing_else(few, tmp_path):
    for name in ("v.csv.12.part", "v.csv.journal.34.part", "v.csv.mine.part", "v.csv.part", "w.csv.12.part"):
        (tmp_path / name).touch()
    assert score(few, tmp_path / "v.csv") == DONE
    assert sorted(p.name for p in tmp_path.iterdir()) == ["v.csv", "v.csv.mine.part", "v.csv.part", "w.csv.12.part"]


@pytest.mark.parametrize("score_", [float("nan"), 7.0, "0.5", None, True])
def test_rows_that_no_scoring_writes_are_scored_again(score_, few, tmp_path, monkeypatch, capsys):
    out = tmp_path / "v.csv"
    file = killed(few, out, 9, monkeypatch)
    head, first, second = file.read_bytes().splitlines(keepends=True)
    rows = journal.unsealed(second)
    rows[0][0] = score_
    file.write_bytes(head + first + journal.sealed(json.dumps(rows)))
    capsys.readouterr()
    assert score(few, out, "--resume") == DONE
    assert f"4 of 22 rows taken from {out}.journal" in capsys.readouterr().out
    assert out.read_bytes() == (few / "whole.csv").read_bytes()


@pytest.mark.parametrize("change", [{"batch": 0}, {"batch": "4"}, {"count": None}, {"machine": 1}, {"version": None}])
def test_a_head_that_no_scoring_writes_is_refused(change, few, tmp_path, monkeypatch, capsys):
    file = killed(few, tmp_path / "v.csv", 9, monkeypatch)
    head, *rest = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(journal.sealed(json.dumps(journal.unsealed(head) | change)) + b"".join(rest))
    capsys.readouterr()
    assert score(few, tmp_path / "v.csv", "--resume") == 2
    assert "is no journal of `score`" in capsys.readouterr().err


def test_a_pipe_in_the_place_of_the_journal_is_not_waited_for(few, tmp_path, capsys):
    os.mkfifo(tmp_path / "v.csv.journal")
    assert score(few, tmp_path / "v.csv", "--resume") == 2
    assert "is no regular file" in capsys.readouterr().err


def touched(few: Path) -> None:
    os.utime(few / "pictures" / "000" / "000000.png", ns=(1, 1))


def longer(few: Path) -> None:
    file = few / "pictures" / "000" / "000000.png"
    times = file.stat()
    file.write_bytes(file.read_bytes() + b"\0")
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))


def one_more(few: Path) -> None:
    (few / "pictures" / "z.png").touch()


def other_checkpoint(few: Path) -> None:
    about = {"backbone": "tiny", "weights": "random", "threshold": 0.5}
    easy.new_model(seed=1).save(few / "tiny.safetensors", about)


@pytest.mark.parametrize(
    "change, said",
    [
        (touched, "other files, or files that have changed since"),
        (longer, "other files, or files that have changed since"),
        (one_more, "other files, or files that have changed since"),
        (other_checkpoint, "another checkpoint"),
        ("batch", "another --batch"),
        ("version", "another version of sddlib"),
    ],
)
@pytest.mark.parametrize("options", [(), ("--resume",)])
def test_rows_of_another_scoring_are_neither_taken_nor_thrown_away(few, tmp_path, monkeypatch, capsys, change, said, options):
    mine, out = copied(few, tmp_path / "few"), tmp_path / "v.csv"
    out.write_text(EARLIER)
    before = killed(mine, out, 9, monkeypatch).read_bytes()
    if callable(change):
        change(mine)
    elif change == "version":
        monkeypatch.setattr(journal, "__version__", "0.0.1")
    capsys.readouterr()
    assert score(mine, out, *options, batch=BATCH + (change == "batch")) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1 and f"holds 8 of 22 rows of a scoring that was stopped, of {said}; finish" in error
    assert kills.journal_of(out).read_bytes() == before and out.read_text() == EARLIER


def test_without_resume_the_rows_of_this_very_scoring_are_not_thrown_away(few, tmp_path, monkeypatch, capsys):
    out = tmp_path / "v.csv"
    before = killed(few, out, 9, monkeypatch).read_bytes()
    assert score(few, out) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1 and "go on with --resume, or delete the file to start afresh" in error
    assert kills.journal_of(out).read_bytes() == before and not out.exists()
    kills.journal_of(out).unlink()
    killed(few, out, 2, monkeypatch)  # no batch is whole: nothing to lose, nothing to ask
    assert score(few, out) == DONE and out.read_bytes() == (few / "whole.csv").read_bytes()


def test_verdicts_of_a_resumed_scoring_are_those_of_its_own_threshold(few, tmp_path, monkeypatch):
    assert score(few, tmp_path / "one.csv", "--threshold", "0.1") == DONE
    killed(few, tmp_path / "v.csv", 9, monkeypatch)
    assert score(few, tmp_path / "v.csv", "--resume", "--threshold", "0.1") == DONE
    assert (tmp_path / "v.csv").read_bytes() == (tmp_path / "one.csv").read_bytes() != (few / "whole.csv").read_bytes()


def test_a_file_that_only_has_the_name_of_a_journal_is_left_alone(few, tmp_path, capsys):
    mine = kills.journal_of(tmp_path / "v.csv")
    for text in ("", "mine", "[]\n", '{"journal": "x"}\n', '{"journal": "sddlib score"}\n'):
        mine.write_text(text)
        for options in ((), ("--resume",)):
            assert score(few, tmp_path / "v.csv", *options) == 2
            assert "is no journal of `score`; move it away" in capsys.readouterr().err
            assert mine.read_text() == text and [*tmp_path.iterdir()] == [mine]


def test_other_libraries_or_threads_are_said(few, tmp_path, monkeypatch, capsys):
    file = killed(few, tmp_path / "v.csv", 9, monkeypatch)
    head, rest = file.read_bytes().split(b"\n", 1)
    other = json.loads(head[9:]) | {"machine": "torch 1 on an abacus"}
    file.write_bytes(journal.sealed(json.dumps(other)) + rest)
    assert score(few, tmp_path / "v.csv", "--resume") == DONE
    assert "made by torch 1 on an abacus, the others by torch" in capsys.readouterr().out


@pytest.mark.parametrize("rows", [3, 8, 11])
def test_ctrl_c_keeps_the_rows_in_the_csv_and_resume_goes_on(few, tmp_path, monkeypatch, capsys, rows):
    out = tmp_path / "v.csv"
    killed(few, out, rows, monkeypatch, how=KeyboardInterrupt)
    assert f"{rows} of 22 rows are in {out}; --resume goes on" in capsys.readouterr().out
    lines = (few / "whole.csv").read_bytes().splitlines(keepends=True)
    assert out.read_bytes() == b"".join(lines[: rows + 1])
    assert score(few, out, "--resume") == DONE and out.read_bytes() == (few / "whole.csv").read_bytes()


def test_ctrl_c_between_a_batch_and_the_next_writes_no_row_twice(few, tmp_path, monkeypatch):
    add = journal.Journal.add

    def interrupted(self, rows):
        add(self, rows)
        if self.done == 8:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(journal.Journal, "add", interrupted)
        assert score(few, tmp_path / "v.csv") == 130
    assert (tmp_path / "v.csv").read_bytes().splitlines() == (few / "whole.csv").read_bytes().splitlines()[:9]


def test_a_journal_that_is_removed_while_it_is_in_use_loses_no_row(few, tmp_path, monkeypatch):
    out = tmp_path / "v.csv"

    def removed(model, files, batch):
        for number, row in enumerate(iter_scores(model, files, batch)):
            if number == 9:
                kills.journal_of(out).unlink()
            yield row

    monkeypatch.setattr(verdicts, "iter_scores", removed)
    assert score(few, out) == DONE and out.read_bytes() == (few / "whole.csv").read_bytes()
