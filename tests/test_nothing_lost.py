"""Nothing is lost: a kill at any moment, a second process, a full disk and a read-only folder leave what was there, and what was
killed goes on to the same result. Short forms; `make soak` runs the long ones."""

import json
import os
import shutil
import signal
import tempfile
import time
from pathlib import Path

import easy
import kills
import matplotlib.pyplot as plt
import numpy as np
import pytest
from elsewhere import Elsewhere
from filelock import FileLock

from sddlib import SDDError, ablations, journal, verdicts
from sddlib import __main__ as cli
from sddlib.ablations import Store
from sddlib.baselines import trials
from sddlib.baselines.trials import write_scores
from sddlib.data import read_csv
from sddlib.evaluate import iter_scores, write_csv
from sddlib.recipes import load_scorer
from sddlib.runs import Run, new_run_dir, write_json

BATCH = 4


@pytest.fixture(scope="module")
def few(tmp_path_factory) -> Path:
    """Twenty-two pictures, one of them broken, a checkpoint, and what one go says of them."""
    folder = tmp_path_factory.mktemp("few")
    kills.pictures(folder / "pictures", 22, 0)
    kills.checkpoint(folder)
    assert score(folder, folder / "whole.csv") == 0
    return folder


def score(few: Path, out: Path, *options, batch: int = BATCH) -> int:
    call = ["score", few / "pictures", "--checkpoint", few / "tiny.safetensors", "--batch", batch, "--out", out, *options]
    return cli.main([*map(str, call)])


class Killed(BaseException):
    """What nothing catches."""


def killed(few: Path, out: Path, rows: int, monkeypatch, how: type[BaseException] = Killed, **options) -> Path:
    """The journal of a scoring that was killed when it had scored so many rows."""

    def some(model, files, batch):
        for number, row in enumerate(iter_scores(model, files, batch)):
            if number == rows:
                raise how
            yield row

    with monkeypatch.context() as patch:
        patch.setattr(verdicts, "iter_scores", some)
        if how is KeyboardInterrupt:
            assert score(few, out, **options) == 130
        else:
            with pytest.raises(how):
                score(few, out, **options)
    return kills.journal_of(out)


# --- the short forms


def test_a_scoring_killed_at_random_points_and_resumed_gives_the_csv_of_one_go_byte_for_byte(tmp_path):
    call = [kills.pictures(tmp_path / "pictures", 300, 0), "--checkpoint", kills.checkpoint(tmp_path)]
    whole = Elsewhere(tmp_path / "whole", kills.score, [*call, "--out", tmp_path / "whole.csv", "--batch", 8])
    assert whole.wait() == 0, whole.err.read_text()
    out = tmp_path / "out.csv"
    rows = kills.score_through_kills(call, out, 300, 8, 3, np.random.default_rng(0))
    assert rows == sorted(rows) and out.read_bytes() == (tmp_path / "whole.csv").read_bytes()
    errors = [bool(row["error"]) for row in read_csv(out)]
    assert len(errors) == 300 and 10 <= sum(errors) <= 15
    assert not [*tmp_path.glob("out.csv.*")]


def test_a_training_killed_at_random_points_ends_with_the_weights_of_an_undisturbed_one_bit_for_bit(tmp_path):
    steps, resumed, whole = kills.train_through_kills(tmp_path, 8, 3, np.random.default_rng(0))
    assert len(steps) == 3 and steps[-1] > 0 and kills.same_weights(resumed, whole)


def test_memory_does_not_grow_with_the_images_that_are_scored(tmp_path):
    call = [kills.pictures(tmp_path / "pictures", 2000, 0), "--checkpoint", kills.checkpoint(tmp_path)]
    series = kills.rss_while_scoring(call, tmp_path / "out.csv", 16)
    assert kills.growth(series, 2000) <= 0.05, series


def test_a_folder_of_many_names_is_scanned_and_every_one_counted(tmp_path):
    found = kills.scanned(kills.names(tmp_path / "names", 5000), tmp_path / "said")
    assert (found["pictures"], found["others"]) == (4000, 1000) and found["MiB"] < 10


# --- the journal of a scoring


@pytest.mark.parametrize("rows, kept", [(0, 0), (3, 0), (4, 4), (11, 8), (20, 20), (22, 22)])
def test_resume_takes_whole_batches_only_and_says_how_many_rows(few, tmp_path, monkeypatch, capsys, rows, kept):
    out = tmp_path / "v.csv"
    killed(few, out, rows, monkeypatch) if rows < 22 else killed_before_writing(few, out, monkeypatch)
    assert not out.exists()
    seen = []
    monkeypatch.setattr(verdicts, "iter_scores", lambda m, files, b: (seen.extend(files), iter_scores(m, files, b))[1])
    capsys.readouterr()
    assert score(few, out, "--resume") == 0
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
        assert score(few, out, "--resume") == 0
        assert f"{kept} of 22 rows taken from {out}.journal, a torn line left out" in capsys.readouterr().out
        assert out.read_bytes() == (few / "whole.csv").read_bytes()


def copied(few: Path, folder: Path) -> Path:
    return Path(shutil.copytree(few, folder))


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
    out.write_text("an earlier result\n")
    before = killed(mine, out, 9, monkeypatch).read_bytes()
    if callable(change):
        change(mine)
    elif change == "version":
        monkeypatch.setattr(journal, "__version__", "0.0.1")
    capsys.readouterr()
    assert score(mine, out, *options, batch=BATCH + (change == "batch")) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1 and f"holds 8 of 22 rows of a scoring that was stopped, of {said}; finish" in error
    assert kills.journal_of(out).read_bytes() == before and out.read_text() == "an earlier result\n"


def test_without_resume_the_rows_of_this_very_scoring_are_not_thrown_away(few, tmp_path, monkeypatch, capsys):
    out = tmp_path / "v.csv"
    before = killed(few, out, 9, monkeypatch).read_bytes()
    assert score(few, out) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1 and "go on with --resume, or delete the file to start afresh" in error
    assert kills.journal_of(out).read_bytes() == before and not out.exists()
    kills.journal_of(out).unlink()
    killed(few, out, 2, monkeypatch)  # no batch is whole: nothing to lose, nothing to ask
    assert score(few, out) == 0 and out.read_bytes() == (few / "whole.csv").read_bytes()


def test_verdicts_of_a_resumed_scoring_are_those_of_its_own_threshold(few, tmp_path, monkeypatch):
    assert score(few, tmp_path / "one.csv", "--threshold", "0.1") == 0
    killed(few, tmp_path / "v.csv", 9, monkeypatch)
    assert score(few, tmp_path / "v.csv", "--resume", "--threshold", "0.1") == 0
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
    assert score(few, tmp_path / "v.csv", "--resume") == 0
    assert "made by torch 1 on an abacus, the others by torch" in capsys.readouterr().out


@pytest.mark.parametrize("rows", [3, 8, 11])
def test_ctrl_c_keeps_the_rows_in_the_csv_and_resume_goes_on(few, tmp_path, monkeypatch, capsys, rows):
    out = tmp_path / "v.csv"
    killed(few, out, rows, monkeypatch, KeyboardInterrupt)
    assert f"{rows} of 22 rows are in {out}; --resume goes on" in capsys.readouterr().out
    lines = (few / "whole.csv").read_bytes().splitlines(keepends=True)
    assert out.read_bytes() == b"".join(lines[: rows + 1])
    assert score(few, out, "--resume") == 0 and out.read_bytes() == (few / "whole.csv").read_bytes()


def test_a_journal_that_is_removed_while_it_is_in_use_loses_no_row(few, tmp_path, monkeypatch):
    out = tmp_path / "v.csv"

    def removed(model, files, batch):
        for number, row in enumerate(iter_scores(model, files, batch)):
            if number == 9:
                kills.journal_of(out).unlink()
            yield row

    monkeypatch.setattr(verdicts, "iter_scores", removed)
    assert score(few, out) == 0 and out.read_bytes() == (few / "whole.csv").read_bytes()


# --- two processes at once


def hold(lock: Path, ready: Path, go: Path) -> None:
    """Hold a lock from when `ready` is there to when `go` is."""
    with FileLock(lock):
        ready.touch()
        while not go.exists():
            time.sleep(0.01)


@pytest.fixture
def holding(tmp_path):
    """A function: a lock that another process holds until the test ends."""
    held = []

    def start(lock: Path) -> None:
        lock.parent.mkdir(parents=True, exist_ok=True)
        ready = tmp_path / f"ready{len(held)}"
        held.append(Elsewhere(tmp_path / f"hold{len(held)}", hold, lock, ready, tmp_path / "go"))
        while not ready.exists():
            assert held[-1].running(), held[-1].err.read_text()
            time.sleep(0.01)

    yield start
    (tmp_path / "go").touch()
    for process in held:
        assert process.wait() == 0


def test_two_scorings_with_one_out_do_not_mix(few, tmp_path, capsys):
    out = tmp_path / "v.csv"
    pictures = kills.pictures(tmp_path / "pictures", 300, 0)
    call = [pictures, "--checkpoint", few / "tiny.safetensors", "--out", out, "--batch", 4]
    first = Elsewhere(tmp_path / "first", kills.score, call)
    while not kills.journal_of(out).exists():
        assert first.running(), first.err.read_text()
        time.sleep(0.001)
    first.send(signal.SIGSTOP)  # so that it cannot end before the others begin
    try:
        assert score(few, out) == 2 and score(few, out, "--resume") == 2
    finally:
        first.send(signal.SIGCONT)
    for error in capsys.readouterr().err.splitlines():
        assert f"another process is scoring to {out}; wait for it, or name another --out" in error
    assert first.wait() == 0 and len(read_csv(out)) == 300


def folders(root: Path, ready: Path, go: Path) -> None:
    """Make run folders as soon as `go` is there."""
    ready.touch()
    while not go.exists():
        pass
    print("\n".join(new_run_dir("smoke", root).name for _ in range(20)))


def test_two_processes_that_start_in_one_second_make_run_folders_of_their_own(tmp_path):
    go, ready = tmp_path / "go", [tmp_path / f"ready{k}" for k in range(2)]
    both = [Elsewhere(tmp_path / f"said{k}", folders, tmp_path / "runs", ready[k], go) for k in range(2)]
    while not all(file.exists() for file in ready) or time.time() % 1 > 0.5:
        time.sleep(0.01)
    go.touch()
    assert [process.wait() for process in both] == [0, 0]
    one, other = (process.out.read_text().split() for process in both)
    assert len({*one, *other}) == 40 == len(list((tmp_path / "runs").iterdir()))
    assert {name[:15] for name in one} & {name[:15] for name in other}, "they did not share a second: try again"


def test_a_run_folder_where_a_process_is_at_work_is_refused_and_nothing_in_it_touched(tmp_path, holding, capsys):
    folder = tmp_path / "run"
    holding(folder / "claim.lock")
    (folder / "notebooks").mkdir()  # a report would be made of it
    for command in (["run", "00"], ["train"]):
        assert cli.main([*command, "--profile", "smoke", "--run-dir", str(folder)]) == 2
        error = capsys.readouterr().err
        assert len(error.splitlines()) == 1 and f"another process is at work in the run folder {folder}; wait" in error
    assert sorted(p.name for p in folder.iterdir()) == ["claim.lock", "notebooks"]


def test_a_variant_or_a_baseline_that_another_process_trains_is_refused(tmp_path, holding, monkeypatch):
    work = tmp_path / "work"
    for name in ("lora-seed0", "npr-seed0"):
        holding(work / f"{name}.lock")
    monkeypatch.setattr(ablations, "execute", None)
    monkeypatch.setattr(trials, "train_one", None)
    (work / "lora-seed0").mkdir()
    with pytest.raises(SDDError, match="another process is at lora-seed0 in .*; wait for it, or name other ones"):
        ablations.sweep(["lora"], [0], "smoke", {}, tmp_path / "store", work, say=lambda _: None)
    assert (work / "lora-seed0").is_dir()
    few = trials.Trials(trials.ROOT / "data" / "manifest.csv", "smoke", 2, 32, tmp_path / "kept", work)
    with pytest.raises(SDDError, match="another process is at npr-seed0 in"):
        trials.sweep(["npr"], [0], few, say=lambda _: None)


def put(folder: Path, name: str) -> None:
    """Add variants to a store."""
    for k in range(15):
        Store(folder, "smoke", 0).add(f"{name}{k}", {f"{name}{k}": [{"path": "a", "score": 0.5}]}, {"settings": name})


def test_a_store_that_two_processes_add_to_has_what_both_have_added(tmp_path):
    both = [Elsewhere(tmp_path / name, put, tmp_path / "store", name) for name in "ab"]
    assert [process.wait() for process in both] == [0, 0], [process.err.read_text() for process in both]
    store = Store(tmp_path / "store", "smoke", 0)
    assert set(store.facts()) == set(store.columns()[1]) == {f"{name}{k}" for name in "ab" for k in range(15)}


# --- a full disk, a read-only folder


def limited(call: list, limit: int) -> None:
    """Score while the system takes no file of more than `limit` bytes: what a write to a full disk meets."""
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    kills.score(call)


@pytest.mark.skipif(os.name == "nt", reason="needs a limit on the size of files")
@pytest.mark.parametrize("limit, named", [(900, "v.csv.journal cannot be written"), (1900, "v.csv cannot be written")])
def test_a_full_disk_leaves_the_earlier_csv_and_what_is_scored(few, tmp_path, limit, named):
    out = tmp_path / "v.csv"
    out.write_text("an earlier result\n")
    call = [few / "pictures", "--checkpoint", few / "tiny.safetensors", "--out", out, "--batch", BATCH]
    full = Elsewhere(tmp_path / "full", limited, call, limit)
    assert full.wait() == 2
    error = full.err.read_text()
    assert len(error.splitlines()) == 1 and named in error and "free space and go on with --resume" in error
    assert out.read_text() == "an earlier result\n"
    kept = kills.journalled(out, BATCH)
    assert 0 < kept < 22 if limit == 900 else kept >= 22
    assert sorted(p.name for p in tmp_path.iterdir() if p.stem != "full") == ["v.csv", "v.csv.journal"]
    assert score(few, out, "--resume") == 0 and out.read_bytes() == (few / "whole.csv").read_bytes()


def checkpoint_limited(folder: Path) -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
    easy.new_model(seed=1).save(folder / "tiny.safetensors", {"backbone": "tiny", "weights": "random"})


@pytest.mark.skipif(os.name == "nt", reason="needs a limit on the size of files")
def test_a_checkpoint_that_does_not_fit_on_the_disk_leaves_the_earlier_one(few, tmp_path):
    mine = copied(few, tmp_path / "few")
    before = content(mine)
    full = Elsewhere(tmp_path / "full", checkpoint_limited, mine)
    assert full.wait() == 1 and "cannot be written" in full.err.read_text().splitlines()[-1]
    assert content(mine) == before
    assert load_scorer(mine / "tiny.safetensors").about["threshold"] == 0.5


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def save_checkpoint(folder: Path, seed: int) -> None:
    easy.new_model("lora", seed).save(folder / "lora.safetensors", {"backbone": "tiny", "weights": "random"})


def save_scores(folder: Path, seed: int) -> None:
    write_scores([{"path": "a", "score": 1 / (2 + seed)}], folder / "npr.csv", {"seed": seed})


def save_store(folder: Path, seed: int) -> None:
    Store(folder, "smoke", 0).add("lora", {"lora": [{"path": "a", "score": 1 / (2 + seed)}]}, {"settings": str(seed)})


def save_figure(folder: Path, seed: int) -> None:
    fig, ax = plt.subplots(figsize=(1, 1))
    ax.set_title(str(seed))
    Run("04_evaluate", {}, folder, "cpu").save_figure(fig, "one")
    plt.close(fig)


WRITERS = {  # what a run writes -> files that mean nothing without each other
    save_checkpoint: ({"lora.safetensors", "lora.json"},),
    save_scores: ({"npr.csv", "npr.json"},),
    save_figure: ({"figures/one.png"}, {"figures/one.svg"}),
    lambda folder, seed: write_json(folder / "summary.json", seed): ({"summary.json"},),
    lambda folder, seed: write_csv([{"path": seed}], folder / "sdd.csv"): ({"sdd.csv"},),
}


@pytest.mark.parametrize("write", WRITERS, ids=["checkpoint", "scores", "figure", "summary", "csv"])
def test_a_disk_that_is_full_at_any_write_leaves_earlier_results_whole(tmp_path, monkeypatch, write):
    """The system may say so only when it is asked whether all is on the disk."""
    write(tmp_path, 0)
    before, real = content(tmp_path), os.fsync
    for fails_at in range(9):
        calls = iter(range(9))

        def full(descriptor, calls=calls, fails_at=fails_at):
            if next(calls) == fails_at:
                raise OSError(28, "No space left on device")
            real(descriptor)

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            try:
                write(tmp_path, 1)
            except (OSError, SDDError) as e:
                assert "No space left" in str(e)
            else:
                assert next(calls) == fails_at > 0  # it was not asked so often: all is written
                break
        after = content(tmp_path)
        assert set(after) == set(before)
        for files in WRITERS[write]:
            assert len({after[name] == before[name] for name in files}) == 1, "new contents beside old ones"
        assert fails_at or after == before
    after = content(tmp_path)
    assert set(after) == set(before) and all(after[name] != before[name] for name in before)


def test_a_store_on_a_full_disk_keeps_the_scores_and_facts_that_it_has(tmp_path, monkeypatch):
    save_store(tmp_path, 0)
    before = content(tmp_path)
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space left"):
        save_store(tmp_path, 1)
    assert content(tmp_path) == before


def unprivileged(call: list) -> None:
    """Score as somebody whom permissions bind, which they do not root."""
    from sddlib import recipes  # noqa: F401  what a scoring imports, while it may read it for sure

    if os.geteuid() == 0:
        os.seteuid(65534)
    kills.score(call)


@pytest.mark.skipif(os.name == "nt", reason="needs permissions of Unix")
def test_a_read_only_folder_is_one_sentence_before_anything_is_computed_and_keeps_what_it_has(tmp_path):
    with tempfile.TemporaryDirectory() as name:  # not below tmp_path, which is for its owner alone
        folder = Path(name)
        call = [kills.pictures(folder / "pictures", 3, 0), "--checkpoint", kills.checkpoint(folder)]
        (folder / "v.csv").write_text("an earlier result\n")
        before = content(folder)
        folder.chmod(0o555)
        try:
            done = Elsewhere(tmp_path / "said", unprivileged, [*call, "--out", folder / "v.csv"])
            assert done.wait() == 2
            said = done.err.read_text()
            assert len(said.splitlines()) == 1 and "v.csv cannot be written (Permission denied); name another file" in said
            assert content(folder) == before
        finally:
            folder.chmod(0o755)


def test_a_run_folder_that_cannot_be_made_is_one_sentence(tmp_path, capsys):
    (tmp_path / "file").write_text("no folder")
    assert cli.main(["run", "00", "--profile", "smoke", "--run-dir", str(tmp_path / "file" / "run")]) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1 and "Not a directory" in error
