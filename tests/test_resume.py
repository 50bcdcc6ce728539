"""A training that is killed at any step goes on to the same weights, bit for bit; what is broken or foreign is left aside."""

import os
import signal
from pathlib import Path

import easy
import pytest
import torch
from elsewhere import Elsewhere
from kills import reached, when_reached

from sddlib import SDDError, training
from sddlib.optim import TrainConfig
from sddlib.randomness import random_state, set_random_state
from sddlib.resume import States, stop_requests
from sddlib.train import train
from sddlib.training import validate


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("easy")
    easy.easy_set(path)
    return path


@pytest.fixture(scope="module")
def samples(folder):
    return easy.easy_set_again(folder)


def quiet(_line: str) -> None:
    pass


class Stop(Exception):
    pass


class StopsAfter(States):
    """States after every step; the training ends with an error once so many are written: what a kill does."""

    def __init__(self, folder, count: int, key: str = "key"):
        super().__init__(folder, key, 0.0, quiet)
        self.count = count

    def save(self, step, state):
        super().save(step, state)
        self.count -= 1
        if self.count == 0:
            raise Stop


def run(samples, states=None, kind="sdd", log=quiet, fields=None, **changes):
    model = easy.new_model(kind, **(fields or {}))
    history = train(model, samples["train"], samples["val"], TrainConfig(**{**easy.CONFIG, **changes}), 64, log, states)
    return model.state_dict(), [{k: v for k, v in row.items() if k != "seconds"} for row in history]


def same(one, other) -> bool:
    return one[1] == other[1] and all(torch.equal(one[0][k], other[0][k]) for k in one[0])


@pytest.mark.parametrize("schedule", ["cosine", "plateau"])
def test_resume_equals_uninterrupted_at_every_step(schedule, samples, tmp_path):
    """3 epochs of 3 steps: in the middle of an epoch, at its last step, in the last epoch; twice in a row."""
    changes = {"schedule": schedule, "patience": 2, "lr": 2e-3, "augment": 0.5}
    whole = run(samples, **changes)
    for stop in (1, 3, 5, 9):
        where = tmp_path / f"{schedule}{stop}"
        with pytest.raises(Stop):
            run(samples, StopsAfter(where, stop), **changes)
        if stop == 1:
            with pytest.raises(Stop):
                run(samples, StopsAfter(where, 3), **changes)
        torch.rand(5)
        assert same(run(samples, States(where, "key", 0.0, quiet), **changes), whole), stop


def test_resume_equals_uninterrupted_with_parts_and_workers(samples, tmp_path):
    changes = {"accumulate": 2, "workers": 2}
    whole = run(samples, **changes)
    with pytest.raises(Stop):
        run(samples, StopsAfter(tmp_path, 4), **changes)
    assert same(run(samples, States(tmp_path, "key", 0.0, quiet), **changes), whole)


def test_resume_equals_uninterrupted_for_the_release_and_for_lora(samples, tmp_path):
    for kind, fields in (("lora", {}), ("sdd", {"preset": "release", "channels": (8, 4, 1)})):
        whole = run(samples, kind=kind, fields=fields)
        with pytest.raises(Stop):
            run(samples, StopsAfter(tmp_path / kind, 4), kind=kind, fields=fields)
        assert same(run(samples, States(tmp_path / kind, "key", 0.0, quiet), kind=kind, fields=fields), whole)


def test_best_epoch_before_the_kill_is_still_the_best_after_it(samples, tmp_path, monkeypatch):
    """A validation loss that rises with every batch: the best epoch is the first, and only the state knows its weights."""

    def rising(model, loader, device):
        _, z, y = validate(model, loader, device)
        return float(next(b for n, b in model.named_buffers() if n.endswith("num_batches_tracked"))), z, y

    monkeypatch.setattr(training, "validate", rising)
    whole = run(samples)
    assert min(whole[1], key=lambda row: row["val_bce"])["epoch"] == 1
    with pytest.raises(Stop):
        run(samples, StopsAfter(tmp_path, 8))
    assert same(run(samples, States(tmp_path, "key", 0.0, quiet)), whole)


def test_sigkill_and_sigterm_lose_nothing(folder, tmp_path):
    """Real processes: one killed with SIGKILL, one told to stop with SIGTERM, one left to end, and then one undisturbed."""

    def start(name: str, *jobs: dict) -> Elsewhere:
        return Elsewhere(tmp_path / name, easy.work, folder, jobs)

    states, config = tmp_path / "states", {"epochs": 16}
    job = {"out": str(tmp_path / "resumed.pt"), "states": str(states), "config": config}
    killed = start("killed", job)
    when_reached(2, states, killed)
    killed.send(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    before = reached(states)
    told = start("told", job)
    when_reached(before + 2, states, told)
    told.send(signal.SIGTERM)
    assert told.wait() == 1 and "its state is kept in" in told.err.read_text()
    assert not (tmp_path / "resumed.pt").exists() and before < reached(states) < 48
    assert start("ends", job, {"out": str(tmp_path / "whole.pt"), "config": config}).wait() == 0
    one, other = (torch.load(tmp_path / f"{name}.pt") for name in ("whole", "resumed"))
    assert all(torch.equal(one["state"][k], other["state"][k]) for k in one["state"])


def test_ctrl_c_ends_after_the_step_and_keeps_it_whatever_the_minutes(samples, tmp_path):
    def interrupt(losses):
        return lambda x, y: (os.kill(os.getpid(), signal.SIGINT), losses(x, y))[1]

    whole = run(samples)
    model = easy.new_model()
    model.loss = interrupt(model.loss)
    states = States(tmp_path, "key", 60.0, quiet)
    with pytest.raises(KeyboardInterrupt, match="stopped in epoch 1 after step 1 of 3, its state is kept in"):
        train(model, samples["train"], samples["val"], TrainConfig(**easy.CONFIG), 64, quiet, states)
    assert [p.name for p in states.files()] == ["state-key-000000001.pt"]
    said = []
    assert same(run(samples, States(tmp_path, "key", 60.0, quiet), log=said.append), whole)
    assert said[0] == "goes on after epoch 0, step 1 of 3"


def test_second_request_to_stop_interrupts_at_once_and_handlers_come_back():
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), stop_requests() as asked:
        assert not asked()
        os.kill(os.getpid(), signal.SIGINT)
        assert asked()
        os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_sigterm_after_ctrl_c_cuts_no_step(samples):
    """What a Jupyter server sends to a kernel that it shuts down."""
    with stop_requests() as asked:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGTERM):
            os.kill(os.getpid(), number)
        assert asked()


@pytest.mark.parametrize("epoch", [1, 3])
def test_ctrl_c_while_validating_keeps_the_epoch(samples, tmp_path, epoch):
    """In the last epoch too, when all is computed but the result not yet handed over."""
    whole, model, states = run(samples), easy.new_model(), States(tmp_path, "key", 60.0, quiet)
    evaluate = model.eval
    model.eval = lambda: (os.kill(os.getpid(), signal.SIGINT) if next(calls) == epoch else None, evaluate())[1]
    calls = iter(range(1, 9))
    with pytest.raises(KeyboardInterrupt, match=f"stopped in epoch {epoch + 1} after step 0 of 3, its state is kept"):
        train(model, samples["train"], samples["val"], TrainConfig(**easy.CONFIG), 64, quiet, states)
    assert same(run(samples, States(tmp_path, "key", 60.0, quiet)), whole)


def test_last_two_states_are_kept_and_a_truncated_one_is_deleted_for_the_one_before(samples, tmp_path):
    whole, said = run(samples), []
    with pytest.raises(Stop):
        run(samples, StopsAfter(tmp_path, 5))
    states = States(tmp_path, "key", 0.0, said.append)
    assert [p.name for p in states.files()] == ["state-key-000000004.pt", "state-key-000000005.pt"]
    data = states.files()[1].read_bytes()
    states.files()[1].write_bytes(data[: len(data) // 2])
    log = []
    assert same(run(samples, states, log=log.append), whole)
    assert said == ["state-key-000000005.pt is not whole: deleted"] and log[0] == "goes on after epoch 1, step 1 of 3"


def test_one_changed_byte_is_seen(tmp_path):
    states = States(tmp_path, "key", 0.0, quiet)
    states.save(1, {"w": torch.ones(100)})
    data = bytearray(states.files()[0].read_bytes())
    data[len(data) // 2] ^= 1
    states.files()[0].write_bytes(data)
    assert states.load() is None


class Trap:
    """Unpickling this writes a file."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


def test_nothing_in_a_state_runs(tmp_path):
    """Its checksum says that it is whole, not who wrote it."""
    states = States(tmp_path / "s", "key", 0.0, quiet)
    states.save(1, {"w": Trap(tmp_path / "sprung")})
    with pytest.raises(SDDError, match="holds more than tensors and plain values"):
        states.load()
    assert not (tmp_path / "sprung").exists()


def test_states_of_another_training_are_not_taken_and_do_not_displace_new_ones(samples, tmp_path):
    """They are further on; what is new must be kept beside them all the same."""
    with pytest.raises(Stop):
        run(samples, StopsAfter(tmp_path, 8, "other"))
    with pytest.raises(Stop):
        run(samples, StopsAfter(tmp_path, 2))
    said = []
    states = States(tmp_path, "key", 60.0, said.append)
    assert len(states.files()) == 2 and len(list(tmp_path.iterdir())) == 4
    assert same(run(samples, states), run(samples))
    assert said == [f"2 states in {tmp_path.name} are of trainings with other settings: left aside"]
    states.clear()
    assert not tmp_path.exists()


def test_what_a_killed_process_left_half_written_is_removed(tmp_path):
    states = States(tmp_path, "key", 0.0, quiet)
    states.save(1, {"w": torch.ones(1)})
    (tmp_path / "state-key-000000002.pt.123.part").write_bytes(b"half")
    assert states.load()["w"] == 1 and [p.name for p in tmp_path.iterdir()] == ["state-key-000000001.pt"]


SAID = r"step 3 cannot be written to .*No space left on device\); free .* \(state-key-000000002.pt is kept\)"


def test_full_disk_is_one_sentence_and_the_state_before_is_whole(samples, tmp_path, monkeypatch):
    whole, states = run(samples), StopsAfter(tmp_path, 3)
    real = os.fsync

    def full(descriptor):
        if list(tmp_path.glob("state-key-000000003.pt.*.part")):
            raise OSError(28, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SDDError, match=SAID):
        run(samples, states)
    monkeypatch.undo()
    assert [p.name for p in sorted(tmp_path.iterdir())] == ["state-key-000000001.pt", "state-key-000000002.pt"]
    assert same(run(samples, States(tmp_path, "key", 60.0, quiet)), whole)


def test_a_loss_that_is_no_number_names_the_batch_and_keeps_the_last_good_state(samples, tmp_path):
    model, calls = easy.new_model(), []
    loss = model.loss

    def spoiled(x, y):
        calls.append(1)
        found = loss(x, y)
        return {k: v * float("nan") for k, v in found.items()} if len(calls) == 5 else found

    model.loss = spoiled
    with pytest.raises(
        SDDError,
        match=r"nan in epoch 2, batch 2 \(train\d+.png, .* and 5 more\); look at .* \(state-key-000000004.pt is kept\)",
    ):
        train(
            model, samples["train"], samples["val"], TrainConfig(**easy.CONFIG), 64, quiet, States(tmp_path, "key", 0.0, quiet)
        )
    state = States(tmp_path, "key").load()
    assert (state["epoch"], state["step"]) == (1, 1)
    assert all(torch.isfinite(v).all() for v in state["model"].values())


def test_a_gradient_that_is_no_number_is_caught_before_it_spoils_the_weights(samples):
    model = easy.new_model()
    loss = model.loss

    def spoiled(x, y):
        losses = loss(x, y)
        losses["total"].register_hook(lambda g: g * float("nan"))
        return losses

    model.loss = spoiled
    with pytest.raises(SDDError, match="a gradient became nan in epoch 1, batch 1"):
        train(model, samples["train"], samples["val"], TrainConfig(**easy.CONFIG), 64, quiet)
    assert all(torch.isfinite(v).all() for v in model.state_dict().values())


def test_clear_leaves_nothing(tmp_path):
    states = States(tmp_path / "s", "key", 0.0, quiet)
    states.clear()
    states.save(1, {"w": torch.ones(1)})
    states.clear()
    assert not (tmp_path / "s").exists() and states.load() is None


def test_random_state_comes_back():
    import random

    import numpy as np

    state = random_state()
    draws = [(random.random(), np.random.rand(3).tolist(), np.random.randn(), torch.rand(2).tolist()) for _ in range(2)]
    set_random_state(state)
    assert (random.random(), np.random.rand(3).tolist(), np.random.randn(), torch.rand(2).tolist()) == draws[0]
