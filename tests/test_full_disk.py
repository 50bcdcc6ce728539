"""A full disk and a read-only folder leave earlier results whole, and what was computed can be gone on from."""

import os
import tempfile
from pathlib import Path

import easy
import kills
import matplotlib.pyplot as plt
import pytest
from elsewhere import Elsewhere
from few import BATCH, call, copied, make, score
from kills import DONE

from sddlib import SDDError
from sddlib import __main__ as cli
from sddlib.ablations import Store
from sddlib.baselines.kept import write_scores
from sddlib.evaluate import write_csv
from sddlib.recipes import load_scorer
from sddlib.runs import Run, write_json
from sddlib.verdicts import COLUMNS

EARLIER = ",".join(COLUMNS) + "\nan earlier result\n"


@pytest.fixture(scope="module")
def few(tmp_path_factory) -> Path:
    return make(tmp_path_factory.mktemp("few"))


def limited(arguments: list, limit: int) -> None:
    """Score while the system takes no file of more than `limit` bytes: what a write to a full disk meets."""
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    kills.score(arguments)


@pytest.mark.skipif(os.name == "nt", reason="needs a limit on the size of files")
@pytest.mark.parametrize("limit, named", [(900, "v.csv.journal cannot be written"), (1900, "v.csv cannot be written")])
def test_a_full_disk_leaves_the_earlier_csv_and_what_is_scored(few, tmp_path, limit, named):
    out = tmp_path / "v.csv"
    out.write_text(EARLIER)
    full = Elsewhere(tmp_path / "full", limited, call(few, out), limit)
    assert full.wait() == 2
    error = full.err.read_text()
    assert len(error.splitlines()) == 1 and named in error and "free space and go on with --resume" in error
    assert out.read_text() == EARLIER
    kept = kills.journalled(out, BATCH)
    assert 0 < kept < 22 if limit == 900 else kept >= 22
    assert sorted(p.name for p in tmp_path.iterdir() if p.stem != "full") == ["v.csv", "v.csv.journal"]
    assert score(few, out, "--resume") == DONE and out.read_bytes() == (few / "whole.csv").read_bytes()


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


def unprivileged(arguments: list) -> None:
    """Score as somebody whom permissions bind, which they do not root."""
    from sddlib import recipes  # noqa: F401  what a scoring imports, while it may read it for sure

    if os.geteuid() == 0:
        os.seteuid(65534)
    kills.score(arguments)


@pytest.mark.skipif(os.name == "nt", reason="needs permissions of Unix")
def test_a_read_only_folder_is_one_sentence_before_anything_is_computed_and_keeps_what_it_has(tmp_path):
    with tempfile.TemporaryDirectory() as name:  # not below tmp_path, which is for its owner alone
        folder = Path(name)
        arguments = [kills.pictures(folder / "pictures", 3, 0), "--checkpoint", kills.checkpoint(folder)]
        (folder / "v.csv").write_text(EARLIER)
        before = content(folder)
        folder.chmod(0o555)
        try:
            done = Elsewhere(tmp_path / "said", unprivileged, [*arguments, "--out", folder / "v.csv"])
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
