"""Two processes compute what one computes on the whole batch."""

import socket
import subprocess
import sys

import easy
import pytest
import torch
from elsewhere import Elsewhere

from sddlib import SDDError, parallel
from sddlib.crops import TwinBatches
from sddlib.data import read_manifest
from sddlib.evaluate import read_scores
from sddlib.optim import TrainConfig
from sddlib.parallel import BatchNorm2d, average_gradients, everyones, from_first, join, rank, together, world
from sddlib.profiles import ROOT
from sddlib.recipes import subset


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("easy")
    easy.easy_set(path, n_val=11)  # odd: two processes hold unequal shares of the validation set
    return path


def launch(world: int, folder, jobs: list[dict], said) -> None:
    """`easy.work` in so many processes, as a launcher starts them. said: the folder for what they say on stderr."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    seen = [easy.environment(r, world, port) for r in range(world)]
    every = [Elsewhere(said / f"rank{r}", easy.work, folder, jobs, environment=env) for r, env in enumerate(seen)]
    try:
        codes = [process.wait() for process in every]
    finally:  # none waits for one that is dead
        for process in every:
            process.process.kill()
    assert not any(codes), "\n".join(process.err.read_text() for process in every)


KINDS = {
    "paper": {"fields": {"lora_dropout": 0.0}},
    "parts": {"fields": {"lora_dropout": 0.0}, "config": {"accumulate": 2}},
    "lora": {"kind": "lora", "fields": {"lora_dropout": 0.0}},
    "release": {"fields": {"preset": "release", "channels": [8, 4, 1], "lora_dropout": 0.0, "attention_dropout": 0.0}},
}


@pytest.fixture(scope="module")
def outcomes(folder, tmp_path_factory):
    """(name, processes) -> {history, state}: each kind with one process and with two, and one that is to be resumed."""
    out, config = tmp_path_factory.mktemp("out"), {"epochs": 2}
    for n in (1, 2):
        jobs = [
            {**job, "config": config | job.get("config", {}), "out": str(out / f"{name}{n}.pt")} for name, job in KINDS.items()
        ]
        if n == 2:
            jobs += [{"config": config, "out": str(out / "whole2.pt"), "states": str(out / "states")}]
        launch(n, folder, jobs, out)
    sorted((out / "states").glob("state-*.pt"))[-1].unlink()  # as if killed one step before the end
    resume = {"config": config, "states": str(out / "states"), "minutes": 60}
    launch(2, folder, [{**resume, "out": str(out / "resumed2.pt")}], out)
    found = {(p.stem[:-1], int(p.stem[-1])): torch.load(p) for p in out.glob("*.pt")}
    return found | {"alone": [{**resume, "out": str(out / "alone1.pt")}]}


@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_give_the_losses_of_one_with_the_same_global_batch(kind, outcomes):
    """Dropout is off: each process draws its own. Triplets, L_r and BN must be those of the whole batch."""
    one, two = outcomes[kind, 1], outcomes[kind, 2]
    assert len(one["history"]) == len(two["history"]) == 2
    for a, b in zip(one["history"], two["history"], strict=True):
        assert a.keys() == b.keys()
        near = pytest.approx({k: a[k] for k in a if k != "seconds"}, rel=1e-3, abs=1e-6)
        assert {k: b[k] for k in a if k != "seconds"} == near
    assert one["gradients"].keys() == two["gradients"].keys()
    for name, g in one["gradients"].items():  # AdamW would hide a wrong factor
        assert torch.allclose(two["gradients"][name], g, rtol=1e-3, atol=1e-5 * g.abs().max().item() + 2e-6), name
    for name, value in one["state"].items():
        # a bias of keys, or before BN, has no gradient but rounding, which AdamW blows up to full steps; means of BN follow it
        if not name.endswith(("bias", "running_mean")):
            assert torch.allclose(two["state"][name].float(), value.float(), atol=2e-3), name


def test_two_processes_go_on_from_their_state(folder, outcomes, tmp_path):
    """Dropout is on: the state holds what each process draws next."""
    whole, resumed = outcomes["whole", 2]["state"], outcomes["resumed", 2]["state"]
    assert all(torch.equal(whole[k], resumed[k]) for k in whole)
    with pytest.raises(AssertionError, match="begun with 2 processes; go on with as many"):
        launch(1, folder, outcomes["alone"], tmp_path)


def test_parts_of_all_processes_are_the_batch_and_epochs_differ():
    class One:
        def __init__(self, i):
            self.photo, self.path = str(i), type("P", (), {"stem": str(i)})

    def pieces(parts, share):
        batches = TwinBatches([One(i) for i in range(50)], 12, torch.Generator().manual_seed(3), parts, share)
        return [list(batches), list(batches)]

    whole = pieces(1, (0, 1))
    for parts, world_ in ((3, 1), (1, 2), (2, 3)):
        every = [pieces(parts, (r, world_)) for r in range(world_)]
        for epoch in (0, 1):
            for k, batch in enumerate(whole[epoch]):
                mine = [every[r][epoch][k * parts + part] for part in range(parts) for r in range(world_)]
                assert sum(mine, []) == batch and len({len(m) for m in mine}) == 1
    assert whole[0] != whole[1]
    assert TrainConfig(batch=12, accumulate=2).part(3) == 2
    with pytest.raises(SDDError, match="batch 12 cannot be cut into 2 parts for 4 processes"):
        TrainConfig(batch=12, accumulate=2).part(4)


def test_a_loss_that_is_no_number_in_one_process_ends_all_with_its_images(folder, tmp_path):
    jobs = [{"spoil": 1, "out": ""}]
    with pytest.raises(
        AssertionError, match=r"(?s)the loss became nan in epoch 1, batch 1 .*the loss became nan in epoch 1, batch 1 "
    ):
        launch(2, folder, jobs, tmp_path)


def test_more_processes_than_gpus_are_refused_and_on_the_cpu_they_are_not(monkeypatch):
    for name, value in {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "ACCELERATE_USE_CPU": "false"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(SDDError, match=r"2 processes were started on a machine with 1 GPU\(s\); start one a GPU, or set ACC"):
        join()
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    parallel.check_gpus()
    monkeypatch.setenv("ACCELERATE_USE_CPU", "false")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    parallel.check_gpus()


def test_one_process_is_left_as_it_is():
    t = torch.randn(3, 2, requires_grad=True)
    assert (rank(), world(), join()) == (0, 1, (0, 1)) and together(t) is t and from_first(7) == 7 and everyones(7) == [7]
    layer, plain = BatchNorm2d(2), torch.nn.BatchNorm2d(2)
    x = torch.randn(4, 2, 3, 3)
    assert torch.equal(layer(x), plain(x)) and torch.equal(layer.running_var, plain.running_var)
    layer.weight.grad = torch.ones(2)
    average_gradients(layer.parameters())
    assert torch.equal(layer.weight.grad, torch.ones(2))


def test_launched_processes_train_and_score_together_and_leave_what_one_process_leaves(tmp_path):
    """The README's command on two CPU processes: bank, checkpoints, scores, and the notebooks that found them done."""
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command += ["-m", "sddlib", "run", "02", "03", "04", "--profile", "smoke", "--run-dir", str(tmp_path)]
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, timeout=300, env=easy.environment())
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("02_token_bank, 03_train, 04_evaluate with profile smoke, 2 processes") == 1
    assert {p.name for p in (tmp_path / "checkpoints").iterdir()} == {
        f"{kind}.{suffix}" for kind in ("sdd", "lora", "probe") for suffix in ("safetensors", "json")
    }
    said = (tmp_path / "log.txt").read_text()
    assert said.count("already trained with these settings, loaded") == 3 and said.count("saved scores of this checkpoint") == 4
    rows = read_scores(tmp_path / "scores" / "sdd.csv")
    images = subset(read_manifest(ROOT / "data" / "manifest.csv"), 2)
    assert [r["path"] for r in rows] == [str(s.path.relative_to(ROOT / "data")) for s in images if s.split != "train"]
