"""Sweeps: every run once, none lost; what is done stays, what was killed goes on, what failed says why and waits."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import Future
from pathlib import Path

import nbformat
import psutil
import pytest
import yaml
from nbformat.v4 import new_code_cell, new_notebook

from sddlib import SDDError, attempts, pools, profiles, sweeps
from sddlib import __main__ as cli
from sddlib.grids import read_grid
from sddlib.registry import Registry, claim, held, state_of

ROOT = Path(__file__).parent.parent
TINY = [
    'seed = 0\nwait = ""\ncure = ""\nkill = False\nrun_dir = ""',
    """
import json, os, signal, time
from pathlib import Path

folder = Path(run_dir)
with (folder / "executed.txt").open("a") as f:
    f.write(f"{os.environ.get('OMP_NUM_THREADS')}\\n")
while wait and not Path(wait).exists():
    time.sleep(0.02)
if kill and not Path(cure).exists():
    os.kill(os.getppid(), signal.SIGKILL)
assert not cure or Path(cure).exists(), f"seed {seed} is ill"
(folder / "metrics").mkdir(exist_ok=True)
(folder / "metrics" / "90_tiny.json").write_text(json.dumps({"mean_ap_unseen": seed / 8, "peak_rss_mb": 1}))
""",
]
BANK = [
    'seed = 0\nimage_size = 112\npreset = "paper"\npreset_fields = {}\nrun_dir = ""',
    """
import json
from pathlib import Path
import torch
from sddlib.bank import build_bank
from sddlib.presets import get_preset

torch.manual_seed(seed)
chosen = get_preset(preset, **preset_fields)
tokens = torch.randn(image_size, image_size) @ torch.randn(image_size, 48)
bank = build_bank([lambda: iter([tokens])], chosen.M, chosen.reference, chosen.interval, seed)
found = {"mean_ap_unseen": float(bank.js.mean()), "ap_seen": torch.get_num_threads() / 64, "peak_rss_mb": 1}
(Path(run_dir) / "metrics").mkdir(exist_ok=True)
(Path(run_dir) / "metrics" / "91_bank.json").write_text(json.dumps(found))
""",
]


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """A copy of this repository whose runs/ is its own, with two quick notebooks: 90 does as it is told, 91 samples a bank."""
    root = tmp_path_factory.mktemp("sweeps")
    shutil.copytree(ROOT / "sddlib", root / "sddlib")
    shutil.copytree(ROOT / "notebooks", root / "notebooks", ignore=shutil.ignore_patterns(".*"))
    for name, (parameters, body) in {"90_tiny": TINY, "91_bank": BANK}.items():
        first = new_code_cell(parameters, metadata={"tags": ["parameters"]})
        spec = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
        nbformat.write(new_notebook(cells=[first, new_code_cell(body)], metadata=spec), root / "notebooks" / f"{name}.ipynb")
    return root


@pytest.fixture
def here(repository, monkeypatch):
    """sddlib of this process at work in the copy: starting Python anew takes longer than a quick run."""
    monkeypatch.setattr(attempts, "ROOT", repository)
    monkeypatch.setattr(profiles, "NOTEBOOKS", repository / "notebooks")
    monkeypatch.setattr(sweeps, "RUNS", repository / "runs")
    monkeypatch.setattr(pools, "CONNECT", 120)
    monkeypatch.setenv("PYTHONPATH", str(repository))
    for name in attempts.THREADS:
        monkeypatch.delenv(name, raising=False)
    return repository


def environment(root: Path, **more: str) -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if k not in attempts.THREADS} | {"PYTHONPATH": str(root)} | more


def start(root: Path, *arguments, **more: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "sddlib", "sweep", *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=root, env=environment(root, **more), **pipes)


def grid_file(folder: Path, name: str, **sections) -> Path:
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump({"notebooks": ["90"], "profile": "smoke"} | sections, sort_keys=False))
    return path


def executed(root: Path, name: str) -> dict[int, int]:
    """Seed -> how often its run was executed."""
    found = {}
    for folder in (root / "runs" / name).iterdir():
        seed = json.loads((folder / "run.json").read_text())["seed"]
        found[seed] = len((folder / "executed.txt").read_text().splitlines())
    return found


def states(root: Path, name: str) -> dict[str, str]:
    """Run (without its id) -> state, as the registry and the folders have it."""
    latest, torn = Registry(root / "runs" / "index.jsonl").read()
    assert not torn
    mine = {run: record for run, record in latest.items() if record["sweep"] == name}
    return {run.split("/")[1].rpartition("_")[0]: state_of(record, root / "runs" / run) for run, record in mine.items()}


def until(condition, seconds: float = 240):
    """Wait for a condition and return its value."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)
    return value


# --- grid files -------------------------------------------------------------------------------------------------------------


def test_grid_is_the_product_of_its_lists_then_the_listed_runs(tmp_path):
    sections = {"notebooks": ["02", "03"], "fixed": {"epochs": 2}, "grid": {"seed": [0, 1], "lr": [3e-4, "5e-4"]}}
    grid = read_grid(grid_file(tmp_path, "g", **sections, runs=[{"preset": "release", "lr": 1e-5}]))
    assert grid.notebooks == ["02_token_bank", "03_train"]
    varied = [{"seed": s, "lr": lr} for s in (0, 1) for lr in (3e-4, 5e-4)] + [{"preset": "release", "lr": 1e-5}]
    assert [run.varied for run in grid.runs] == varied
    assert all(run.overrides["epochs"] == 2 for run in grid.runs)
    ids = [run.id for run in grid.runs]
    ids = [run.id for run in grid.runs]
    assert [run.name for run in grid.runs][:2] == [f"seed-0_lr-0.0003_{ids[0]}", f"seed-0_lr-0.0005_{ids[1]}"]


@pytest.mark.parametrize(
    "sections, named",
    [
        ({"grid": {"sede": [1]}}, "'sede' is no parameter of 03_train; near it are seed"),
        ({"fixed": {"epohcs": 1}, "grid": {"seed": [1]}}, "'epohcs' is no parameter of 03_train"),
        ({"runs": [{"seed": 1}, {"sed": 1}]}, "'sed' is no parameter of 03_train"),
        ({"gird": {"seed": [1]}}, "'gird' is unknown; near it are grid"),
        ({"grid": {"seed": [1, -1]}}, "seed = -1 lies outside"),
        ({"grid": {"epochs": ["two"]}}, "epochs = 'two' is not of type int"),
        ({"grid": {"preset": ["papre"]}}, "preset 'papre' is unknown"),
        ({"grid": {"seed": 1}}, "grid has seed: 1; give a list"),
        ({"grid": {"seed": []}}, "give a list"),
        ({"grid": [1]}, "grid must hold `parameter: value` lines"),
        ({"runs": [1]}, "runs must be a list of combinations"),
        ({}, "has no run"),
        ({"grid": {"seed": [1, 1]}}, "have the same settings"),
        ({"grid": {"seed": [0]}, "runs": [{}]}, "have the same settings"),
        ({"grid": {"seed": [1]}, "fixed": {"seed": 2}}, "'seed' is fixed and varied"),
        ({"grid": {"run_dir": ["x"]}}, "leave run_dir out"),
        ({"notebooks": [3], "grid": {"seed": [1]}}, "names in quotes"),
        ({"notebooks": None, "grid": {"seed": [1]}}, "names in quotes"),
        ({"notebooks": ["03_trian"], "grid": {"seed": [1]}}, "no notebook '03_trian'"),
        ({"profile": "smok", "grid": {"seed": [1]}}, "no profile 'smok'"),
    ],
)
def test_mistake_in_a_grid_is_named(tmp_path, sections, named):
    with pytest.raises(SDDError, match=named):
        read_grid(grid_file(tmp_path, "g", **({"notebooks": ["03"]} | sections)))


def test_grid_files_that_are_none_are_named(tmp_path):
    for text, named in (
        ("notebooks: [", "not valid YAML"),
        ("[" * 5000, "not valid YAML"),
        ("- 1", "must hold `name: value` lines"),
        ("", "must hold"),
    ):
        (tmp_path / "g.yaml").write_text(text)
        with pytest.raises(SDDError, match=named):
            read_grid(tmp_path / "g.yaml")
    with pytest.raises(SDDError, match="is missing"):
        read_grid(tmp_path / "none.yaml")
    for name in ("latest", ".hidden"):
        with pytest.raises(SDDError, match="rename the file"):
            read_grid(grid_file(tmp_path, name, notebooks=["03"], grid={"seed": [1]}))


def test_mistake_is_refused_before_any_folder_exists(here, tmp_path, capsys):
    grid = grid_file(tmp_path, "wrong", grid={"seed": [0], "wiat": ["x"]})
    assert cli.main(["sweep", str(grid)]) == 2
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1 and "'wiat' is no parameter of 90_tiny; near it are wait" in said
    assert not (here / "runs").exists() or not (here / "runs" / "wrong").exists()


def test_example_grid_is_three_seeds_of_the_main_job():
    grid = read_grid(ROOT / "notebooks" / "grids" / "seeds.yaml")
    assert grid.profile == "mini" and grid.notebooks == ["02_token_bank", "03_train", "04_evaluate"]
    assert [run.varied for run in grid.runs] == [{"seed": 0}, {"seed": 1}, {"seed": 2}]


def test_identity_follows_profile_values_and_data_not_how_they_were_given(tmp_path):
    def ids(**sections) -> list[str]:
        return [run.id for run in read_grid(grid_file(tmp_path, "g", **({"notebooks": ["03"]} | sections))).runs]

    (tmp_path / "own.yaml").write_text("common: {limit: 2}\n03_train: {epochs: 1}\n")
    first = ids(profile="own.yaml", grid={"seed": [0, 1]})
    assert len(set(first)) == 2
    assert ids(profile="own.yaml", fixed={"epochs": 1}, grid={"seed": [0, 1]}) == first
    (tmp_path / "own.yaml").write_text("common: {limit: 2}\n03_train: {epochs: 2}\n")
    assert not set(ids(profile="own.yaml", grid={"seed": [0, 1]})) & set(first)
    manifest = tmp_path / "manifest.csv"
    manifest.write_text("one")
    given = {"profile": "own.yaml", "fixed": {"manifest": str(manifest)}, "grid": {"seed": [0]}}
    before = ids(**given)
    manifest.write_text("two")
    assert ids(**given) != before
    assert ids(**given, notebooks=["02", "03"]) != ids(**given)


# --- registry and claims ----------------------------------------------------------------------------------------------------


def test_latest_line_of_a_run_wins_and_a_torn_one_is_named(tmp_path):
    registry = Registry(tmp_path / "runs" / "index.jsonl")
    assert registry.read() == ({}, [])
    registry.append("g/a", "started", attempt="1")
    registry.append("g/b", "done", attempt="2")
    with registry.path.open("ab") as file:
        file.write(b'{"run": "g/a", "event": "do')
    assert registry.latest("g/a")["event"] == "started" and registry.read()[1] == [3]
    registry.append("g/a", "failed", attempt="1", error="why")
    latest, torn = registry.read()
    assert (latest["g/a"]["event"], latest["g/b"]["event"], torn) == ("failed", "done", [3])
    assert latest["g/a"]["pid"] == os.getpid() and latest["g/a"]["host"] and latest["g/a"]["time"]
    with registry.path.open("ab") as file:
        file.write(b'[]\n{"run": 1, "event": "done"}\n{"run": "g/a", "event": "dnoe"}\n')
    assert registry.read()[1] == [3, 5, 6, 7] and registry.latest("g/a")["event"] == "failed"


def test_lines_of_several_processes_stay_whole(tmp_path):
    code = "import sys; from pathlib import Path; from sddlib.registry import Registry\n"
    code += "for i in range(40): Registry(Path(sys.argv[1])).append(f'{sys.argv[2]}/{i}', 'done', filler='x' * 9000)"
    path = tmp_path / "index.jsonl"
    writers = [subprocess.Popen([sys.executable, "-c", code, path, str(i)], env=environment(ROOT)) for i in range(3)]
    assert [w.wait() for w in writers] == [0, 0, 0]
    latest, torn = Registry(path).read()
    assert len(latest) == 120 and not torn


def test_claim_is_one_process_and_ends_with_it_however_it_ends(tmp_path):
    code = "import sys, time; from pathlib import Path; from sddlib.registry import claim\n"
    code += "with claim(Path(sys.argv[1])) as mine: print(mine, flush=True); time.sleep(60)"
    owner = subprocess.Popen([sys.executable, "-c", code, tmp_path], stdout=subprocess.PIPE, text=True, env=environment(ROOT))
    assert owner.stdout.readline() == "True\n"
    with claim(tmp_path) as mine:
        assert not mine
    assert held(tmp_path)
    assert state_of({"event": "started"}, tmp_path) == "running"
    owner.kill()
    owner.communicate()
    assert not held(tmp_path)
    assert state_of({"event": "started"}, tmp_path) == "unfinished"
    with claim(tmp_path) as mine:
        assert mine


def test_run_whose_results_are_gone_counts_as_not_started(tmp_path):
    assert state_of({"event": "done"}, tmp_path) == "not started"
    (tmp_path / "summary.json").touch()
    assert state_of({"event": "done"}, tmp_path) == "done"
    assert state_of({"event": "started"}, tmp_path / "gone") == "not started"
    assert not (tmp_path / "gone").exists()


# --- sweeps on this machine -------------------------------------------------------------------------------------------------


def test_failed_run_stops_no_other_is_reported_and_run_again_on_demand(here, tmp_path, capsys):
    def sweep(*arguments) -> tuple[int, str]:
        return cli.main(["sweep", str(grid), *arguments]), capsys.readouterr().out

    cure = tmp_path / "cure"
    grid = grid_file(tmp_path, "ill", runs=[{"seed": 1, "kill": True, "cure": str(cure)}, {"seed": 3}])
    code, out = sweep("--jobs", "2")
    table = out.split("\n\n")[-1]
    assert code == 1 and "its process was killed (SIGKILL), most likely for want of memory" in table
    done = next(line for line in table.splitlines() if line.startswith("ill/seed-3"))
    assert " done " in done and "0.375" in done
    (finished,) = (here / "runs" / "ill").glob("seed-3*")
    before = (finished / "summary.json").stat().st_mtime_ns
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert (finished / "executed.txt").read_text() == f"{max(1, cores // 2)}\n"
    cure.touch()
    code, out = sweep()
    assert code == 1 and executed(here, "ill") == {1: 1, 3: 1} and out.count("--retry runs it again") == 1
    assert sorted(states(here, "ill").values()) == ["done", "failed"]
    code, out = sweep("--retry")
    assert code == 0 and executed(here, "ill") == {1: 2, 3: 1}
    assert sweep("--list") == (0, "\n" + out.split("\n\n")[-1])
    assert (finished / "summary.json").stat().st_mtime_ns == before


def test_sweep_killed_in_the_middle_goes_on_where_it_stood(here, tmp_path, capsys):
    gate = tmp_path / "gate"
    grid = grid_file(tmp_path, "killed", runs=[{"seed": 1}, {"seed": 2, "wait": str(gate)}])
    process = start(here, grid)
    (finished,) = until(lambda: list((here / "runs" / "killed").glob("seed-1*/summary.json")))
    (marker,) = until(lambda: list((here / "runs" / "killed").glob("seed-2*/executed.txt")))
    before, name = finished.stat().st_mtime_ns, f"killed/{marker.parent.name}"
    run = psutil.Process(Registry(here / "runs" / "index.jsonl").latest(name)["pid"])
    below = [run, *run.children(recursive=True)]
    assert len(below) > 1 and held(marker.parent)
    process.kill()
    process.communicate()
    psutil.wait_procs(below, timeout=60)
    assert not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in below)
    assert list(states(here, "killed").values()) == ["done", "unfinished"]
    gate.touch()
    assert cli.main(["sweep", str(grid)]) == 0, capsys.readouterr()
    assert executed(here, "killed") == {1: 1, 2: 2} and finished.stat().st_mtime_ns == before


def test_two_sweeps_at_once_run_each_run_once(here, tmp_path):
    gate = tmp_path / "gate"
    grid, said = grid_file(tmp_path, "twice", grid={"seed": [1, 2]}, fixed={"wait": str(gate)}), []
    other = start(here, grid)
    until(lambda: list((here / "runs").glob("twice/seed-1*/executed.txt")))
    opener = threading.Thread(
        target=lambda: until(lambda: list((here / "runs").glob("twice/seed-2*/executed.txt"))) and gate.touch()
    )
    opener.start()
    rows = sweeps.sweep(read_grid(grid), here / "runs", say=said.append)
    opener.join()
    out, err = other.communicate(timeout=240)
    assert other.returncode == 0, err
    assert [row["state"] for row in rows] == ["done", "done"] and executed(here, "twice") == {1: 1, 2: 1}
    assert any(f"another process is at it (process {rows[0]['record']['pid']} on " in line for line in said)
    assert out.split("\n\n")[-1].strip() == sweeps.table(rows)


def test_ctrl_c_ends_the_runs_and_the_rest_is_not_started(here, tmp_path, capsys):
    grid = grid_file(tmp_path, "stopped", grid={"seed": [1, 2]}, fixed={"wait": str(tmp_path / "never")})
    process = start(here, grid)
    (marker,) = until(lambda: list((here / "runs" / "stopped").glob("seed-1*/executed.txt")))
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=240)
    assert process.returncode == 130 and "stopped by the user; what was computed is kept in" in err
    assert len(err.splitlines()) == 1 and not held(marker.parent)
    assert cli.main(["sweep", str(grid), "--list"]) == 1
    words = [line.split()[1:3] for line in capsys.readouterr().out.splitlines()[2:]]
    assert words == [["unfinished", "1"], ["not", "started"]]


@pytest.mark.parametrize(
    "arguments, named",
    [
        ([], "name a grid file to run"),
        (["GRID", "--jobs", "0"], "--jobs 0"),
        (["GRID", "--jobs", "2", "--scheduler", "x"], "give one"),
        (["--list", "--retry"], "--list runs nothing"),
        (["nowhere.yaml"], "nowhere.yaml is missing"),
    ],
)
def test_wrong_use_is_one_line(arguments, named, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sweeps, "RUNS", tmp_path / "runs")
    grid = grid_file(tmp_path, "g", notebooks=["03"], grid={"seed": [1]})
    assert cli.main(["sweep", *(str(grid) if a == "GRID" else a for a in arguments)]) == 2
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1 and named in said and not (tmp_path / "runs").exists()


def test_list_without_a_grid_is_over_all_sweeps_and_names_torn_lines(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sweeps, "RUNS", tmp_path)
    assert cli.main(["sweep", "--list"]) == 2 and "knows of no sweep" in capsys.readouterr().err
    registry = Registry(tmp_path / "index.jsonl")
    registry.append("a/x", "failed", varied={"seed": 1}, error="it broke")
    registry.append("b/y", "done", varied={"lr": 1e-5}, summary={"mean_ap_unseen": 0.75, "seconds": 3.2})
    (tmp_path / "b" / "y").mkdir(parents=True)
    (tmp_path / "b" / "y" / "summary.json").touch()
    with registry.path.open("ab") as file:
        file.write(b"{")
    assert cli.main(["sweep", "--list"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert "line 3 is torn" in lines[0] and lines[2].split() == ["run", "state", "seed", "lr", "mean_ap_unseen", "seconds"]
    assert lines[3].split() == ["a/x", "failed", "1"] and lines[4].split() == ["b/y", "done", "1e-05", "0.750", "3"]
    assert lines[5] == "a/x: it broke"


# --- one attempt, and the loop over them ------------------------------------------------------------------------------------


@pytest.fixture
def job(tmp_path):
    """A job of 03_train that is never really trained."""
    grid = read_grid(grid_file(tmp_path, "g", notebooks=["03"], grid={"seed": [1]}))
    (row,) = sweeps.overview(grid, tmp_path / "runs")
    return sweeps.new_job(grid, row, tmp_path / "runs")


def test_threads_are_those_of_who_started_the_sweep_else_shared(job, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")  # as a Dask worker's, which sets its own
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: range(8), raising=False)
    assert "OMP_NUM_THREADS" not in attempts.environment(job | {"threads": {}, "share": 1})
    assert attempts.environment(job | {"threads": {}, "share": 3})["OMP_NUM_THREADS"] == "2"
    assert attempts.environment(job | {"threads": {}, "share": 99})["OMP_NUM_THREADS"] == "1"
    assert attempts.environment(job | {"threads": {"OMP_NUM_THREADS": "5"}, "share": 3})["OMP_NUM_THREADS"] == "5"


def test_settings_that_changed_since_the_sweep_began_make_no_run(job):
    assert attempts.perform(job | {"overrides": {"seed": 2}}) == 0
    record = Registry(Path(job["index"])).latest(job["run"])
    assert record["event"] == "failed" and "its settings changed" in record["error"]
    assert not (Path(job["folder"]) / "run.json").exists()


def test_failure_of_any_kind_reaches_the_registry_as_one_sentence(job, monkeypatch):
    registry = Registry(Path(job["index"]))
    for error, said in (
        (SDDError("03_train stopped\nin cell"), "03_train stopped in cell"),
        (OSError(28, "full"), "OSError: "),
    ):
        monkeypatch.setattr(attempts, "run_notebooks", lambda *_, error=error: (_ for _ in ()).throw(error))
        again = (registry.latest(job["run"]) or {"attempt": ""})["attempt"]
        assert attempts.perform(job | {"again": again}) == 0
        record = registry.latest(job["run"])
        assert record["event"] == "failed" and record["error"].startswith(said) and not held(Path(job["folder"]))


def test_run_is_left_alone_while_claimed_and_after_it_ended_elsewhere(job, monkeypatch):
    monkeypatch.setattr(attempts, "run_notebooks", lambda *_: {"seconds": 1.0, "profile": "smoke"})
    registry, folder = Registry(Path(job["index"])), Path(job["folder"])
    with claim(folder):
        assert attempts.perform(job) == attempts.BUSY
    assert registry.latest(job["run"]) is None
    assert attempts.perform(job) == 0
    assert registry.latest(job["run"])["summary"] == {"seconds": 1.0}
    (folder / "summary.json").touch()
    other = job | {"attempt": "other"}
    assert attempts.perform(other) == 0 and registry.latest(job["run"])["attempt"] == job["attempt"]
    attempts.fail(registry, job, "later")
    assert attempts.perform(other) == 0 and registry.latest(job["run"])["event"] == "failed"
    assert attempts.perform(other | {"again": "an older attempt"}) == 0 and registry.latest(job["run"])["event"] == "failed"
    assert attempts.perform(other | {"again": job["attempt"]}) == 0 and registry.latest(job["run"])["event"] == "done"


def test_attempt_that_is_stopped_before_it_begins_starts_nothing(job):
    attempts.stop([job["attempt"]])
    assert attempts.attend(job) == "stopped" and not Path(job["index"]).exists() and not Path(job["folder"]).exists()


def test_job_that_comes_back_from_a_dead_worker_has_failed(job):
    registry = Registry(Path(job["index"]))
    registry.append(job["run"], "started", attempt=job["attempt"])
    assert attempts.attend(job) == "failed"
    assert registry.latest(job["run"])["error"] == attempts.DIED


def test_loop_waits_for_busy_runs_and_records_what_could_not_record_itself(job, monkeypatch):
    registry, said = Registry(Path(job["index"])), []
    jobs = [job | {"run": f"g/{name}", "folder": f"{job['folder']}-{name}", "attempt": name} for name in "abcde"]
    answers = {"a": ["busy", "busy", "failed"], "b": [OSError("no such disk")], "c": ["cancelled"], "d": ["cancelled"]}

    class KilledWorker(Exception):
        pass

    answers["e"] = [KilledWorker("long words")]
    registry.append("g/d", "started", attempt="d")

    def submit(job) -> Future:
        answer, future = answers[job["attempt"]].pop(0), Future()
        if answer == "cancelled":
            future.cancel()
            future.set_running_or_notify_cancel()
        elif isinstance(answer, Exception):
            future.set_exception(answer)
        else:
            if answer == "failed":
                attempts.fail(registry, job, "at last")
            future.set_result(answer)
        return future

    monkeypatch.setattr(sweeps, "POLL", 0.01)
    sweeps.work(jobs, pools.Pool(submit, lambda attempts: None, 2, 1), registry, said.append)
    errors = {run: record.get("error") for run, record in registry.read()[0].items()}
    assert errors["g/a"] == "at last" and errors["g/b"] == "OSError: no such disk" and "g/c" not in errors
    assert "scheduler was lost" in errors["g/d"] and errors["g/e"] == "the Dask workers that ran it died"
    assert len(said) == 5 and any(line.startswith("g/c: not started") for line in said)


# --- Dask -------------------------------------------------------------------------------------------------------------------

CLUSTER = """
import sys
from distributed import LocalCluster
if __name__ == "__main__":
    cluster = LocalCluster(n_workers=2, processes=True, threads_per_worker=1, dashboard_address=None)
    print(cluster.scheduler_address, flush=True)
    sys.stdin.read()
    cluster.close()
"""


@pytest.fixture(scope="module")
def scheduler(repository):
    """The address of a cluster of two workers that import the repository's copy."""
    pytest.importorskip("distributed")
    (repository / "cluster.py").write_text(CLUSTER)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    process = subprocess.Popen([sys.executable, "cluster.py"], cwd=repository, env=environment(repository), **pipes)
    yield process.stdout.readline().strip()
    process.stdin.close()
    process.wait(120)


def test_dask_workers_give_the_results_of_local_processes(here, scheduler, tmp_path):
    found = {}
    for name, seeds, how in (("dask", [0, 1], {"scheduler": scheduler}), ("local", [1], {"jobs": 2})):
        grid = read_grid(grid_file(tmp_path, name, notebooks=["91"], grid={"seed": seeds}))
        rows = sweeps.sweep(grid, here / "runs", **how)
        assert [row["state"] for row in rows] == ["done"] * len(seeds), sweeps.table(rows)
        found[name] = {row["varied"]["seed"]: row["record"]["summary"] for row in rows}
    times = ("seconds", "peak_rss_mb")
    dask, local = ({k: v for k, v in found[name][1].items() if k not in times} for name in found)
    assert dask == local and dask["mean_ap_unseen"] != found["dask"][0]["mean_ap_unseen"]


def test_run_of_a_worker_that_dies_has_failed_and_is_not_lost(here, scheduler, tmp_path):
    gate = tmp_path / "gate"
    grid = read_grid(grid_file(tmp_path, "death", runs=[{"seed": 1, "wait": str(gate)}]))
    registry, said = Registry(here / "runs" / "index.jsonl"), []

    def kill_worker():
        marker = until(lambda: list((here / "runs" / "death").glob("seed-1*/executed.txt")))[0]
        psutil.Process(registry.latest(f"death/{marker.parent.name}")["pid"]).parent().kill()

    threading.Thread(target=kill_worker).start()
    (row,) = sweeps.sweep(grid, here / "runs", scheduler=scheduler, say=said.append)
    assert row["state"] == "failed" and row["record"]["error"] == attempts.DIED
    assert said == [f"{row['run']}: failed: {attempts.DIED}"] and executed(here, "death") == {1: 1}


def test_dask_that_is_not_there_is_one_sentence_with_the_cure(job, tmp_path, monkeypatch):
    pytest.importorskip("distributed")
    grid = read_grid(tmp_path / "g.yaml")
    monkeypatch.setattr(pools, "CONNECT", 1)
    for address in ("tcp://127.0.0.1:9", "nonsense", "x://y"):
        with pytest.raises(SDDError, match=f"no Dask scheduler answers at '{address}'.*start one with `dask scheduler`"):
            sweeps.sweep(grid, tmp_path / "runs", scheduler=address)
        monkeypatch.setattr("distributed.Client", None)  # made with a malformed address it would hold up the exit
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(SDDError, match=r'pip install "distributed", or -e ".\[scale\]"'):
        sweeps.sweep(grid, tmp_path / "runs", scheduler="tcp://127.0.0.1:9")
