"""Two processes at once: neither writes into what the other is at, and what both add to has what both have added."""

import signal
import time
from pathlib import Path

import kills
import pytest
from elsewhere import Elsewhere
from few import make, score
from filelock import FileLock

from sddlib import SDDError, ablations
from sddlib import __main__ as cli
from sddlib.ablations import Store
from sddlib.baselines import trials
from sddlib.data import read_csv
from sddlib.runs import new_run_dir


@pytest.fixture(scope="module")
def few(tmp_path_factory) -> Path:
    return make(tmp_path_factory.mktemp("few"))


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
    assert first.wait() == kills.DONE and len(read_csv(out)) == 300


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
