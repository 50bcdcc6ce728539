"""Training: it learns, repeats itself bit for bit, hands back its best epoch, and refuses what cannot be trained."""

from dataclasses import replace

import easy
import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from sddlib import SDDError, train
from sddlib.backbone import Backbone
from sddlib.baselines.lora import LinearOutput, LoraLinear
from sddlib.baselines.probe import LinearProbe
from sddlib.crops import Crops
from sddlib.data import Sample
from sddlib.detector import Detector
from sddlib.optim import TRAINING, TrainConfig, parameter_groups, trainable
from sddlib.presets import get_preset
from sddlib.randomness import seed_everything
from sddlib.training import Training, validate
from sddlib.weights import load_backbone

PRESET = get_preset("paper", M=10, width=32, heads=4, channels=(4, 6, 8), F_low=12, lora_dropout=0.1)


@pytest.fixture(scope="module")
def samples(tmp_path_factory) -> dict[str, list[Sample]]:
    return easy.easy_set(tmp_path_factory.mktemp("easy"))


def detector(seed: int = 0) -> Detector:
    seed_everything(seed)
    return Detector(Backbone(load_backbone("tiny", "random"), 64), torch.randn(10, 64), PRESET)


def quiet(_line: str) -> None:
    pass


def run(model: nn.Module, samples, log=quiet, **changes) -> list[dict]:
    config = TrainConfig(**{"epochs": 3, "batch": 8, "lr": 2e-3, "patience": 9, **changes})
    history = train.train(model, samples["train"], samples["val"], config, 64, log)
    model.cpu()  # which is where tests look at it
    return history


@pytest.mark.parametrize("kind", ["sdd", "lora"])
def test_training_lowers_the_loss_and_separates_an_easy_set(kind, samples):
    seed_everything(0)
    model = detector() if kind == "sdd" else LoraLinear(Backbone(load_backbone("tiny", "random"), 64), PRESET)
    history = run(model, samples, epochs=8)
    assert history[-1]["total"] < 0.7 * history[0]["total"]
    assert min(h["val_bce"] for h in history) < 0.45 and max(h["val_acc"] for h in history) > 0.9
    assert not model.training


def test_history_holds_every_term_an_epoch(samples):
    lines = []
    history = run(detector(), samples, lines.append, epochs=2)
    assert len(lines) == 2
    for h in history:
        assert {"epoch", "total", "bce", "tri", "r", "val_bce", "val_acc", "lr", "seconds"} <= set(h)
        assert h["total"] == pytest.approx(h["bce"] + PRESET.lambda_tri * h["tri"] + PRESET.lambda_r * h["r"], rel=1e-5)


def test_training_is_repeatable_bit_for_bit_for_a_seed(samples):
    def outcome(seed: int, **changes):
        model = detector()
        torch.rand(17), np.random.rand(3)  # what was drawn before does not matter
        history = run(model, samples, epochs=2, seed=seed, **changes)
        return model.state_dict(), [{k: v for k, v in h.items() if k != "seconds"} for h in history]

    (one, history), (again, same), (other, _) = outcome(0), outcome(0, keep=False), outcome(1)
    assert history == same
    assert all(torch.equal(one[k], again[k]) for k in one)
    assert not torch.equal(one["head.weight"], other["head.weight"])


def test_each_seed_has_its_own_order_of_batches(samples):
    """Its own crops are not enough: which images share a batch changes triplets and batch statistics."""
    orders = [
        [list(b) for b in Training(detector(), samples["train"], samples["val"], TrainConfig(batch=8, seed=s), 64).batches]
        for s in (0, 0, 1)
    ]
    assert orders[0] == orders[1] != orders[2]


def test_a_batch_in_parts_has_the_gradient_of_the_whole(samples, monkeypatch):
    """Of the mean over its images; AdamW alone would hide a factor."""
    found = {}
    for parts in (1, 2, 4):
        seed_everything(0)
        model = LoraLinear(Backbone(load_backbone("tiny", "random"), 64), PRESET.with_fields(lora_dropout=0.0))
        work = Training(model, samples["train"], samples["val"], TrainConfig(batch=8, accumulate=parts, schedule="plateau"), 64)
        monkeypatch.setattr(work.optimizer, "step", lambda: None)
        model.train()
        work.do_step([batch for batch, _ in zip(work.loader, range(parts), strict=False)])
        found[parts] = model.head.weight.grad.clone()
    assert found[1].abs().max() > 1e-3
    torch.testing.assert_close(found[2], found[1])
    torch.testing.assert_close(found[4], found[1])


def test_workers_change_nothing(samples):
    states = []
    for workers in (0, 2):
        model = detector()
        run(model, samples, epochs=2, workers=workers)
        states.append(model.state_dict())
    assert all(torch.equal(states[0][k], states[1][k]) for k in states[0])


class Script(nn.Module):
    """A model whose validation losses are written down: epoch n has offset[n], and a parameter and a buffer tell the epoch."""

    def __init__(self, offsets):
        super().__init__()
        self.w = nn.Parameter(torch.zeros(()))
        self.register_buffer("epoch", torch.zeros(()))
        self.frozen = nn.Parameter(torch.ones(()), requires_grad=False)
        self.offsets = offsets

    def train(self, mode: bool = True):
        if mode:
            with torch.no_grad():
                self.epoch += 1
                self.w.fill_(float(self.epoch))
        return super().train(mode)

    def forward(self, x):
        right = torch.tensor(self.offsets[int(self.epoch) - 1])
        return LinearOutput(right.expand(len(x)), x)  # all labels 1 in these tests: a larger logit is a lower loss

    def loss(self, x, y):
        return {"total": 0 * self.w}


@pytest.fixture
def fakes(samples):
    return {k: [s for s in v if s.label] for k, v in samples.items()}


@pytest.mark.parametrize("offsets, patience, best, ran", [
    ([0.0, 3.0, 1.0, 2.0, 2.5], 9, 2, 5),
    ([0.0, 1.0, 2.0, 3.0, 4.0], 2, 5, 5),
    ([3.0, 1.0, 2.0, 2.5, 9.0], 3, 1, 4),
    ([0.0, 3.0, 1.0, 9.0, 1.0], 1, 2, 3),
    ([1.0, 1.0, 1.0, 1.0, 1.0], 2, 1, 3),
])  # fmt: skip
def test_best_epoch_is_restored_and_patience_counts_epochs_without_a_lower_loss(offsets, patience, best, ran, fakes):
    model = Script(offsets)
    history = run(model, fakes, epochs=5, batch=4, patience=patience)
    assert len(history) == ran
    assert model.epoch == best and not model.training
    assert model.w.item() == pytest.approx(best, abs=1e-2)  # an optimiser step of zero gradient moves it by decay at most


def test_plateau_divides_the_rate_by_ten_until_it_is_below_the_floor(fakes):
    """Improves in epochs 1-2, then never: two bad epochs a step down, 1e-5 -> 1e-6 -> 1e-7, which ends it."""
    history = run(Script([0.0, 1.0] + [0.5] * 20), fakes, epochs=20, batch=4, lr=1e-5, schedule="plateau", patience=2)
    assert [h["lr"] for h in history] == pytest.approx([1e-5, 1e-5, 1e-5, 1e-6, 1e-6, 1e-7])
    with pytest.raises(SDDError, match="schedule 'step' is unknown"):
        TrainConfig(schedule="step")


def test_release_is_trained_as_its_code_does():
    config, printed = TRAINING["release"], TRAINING["paper"]
    assert (config.lr, config.batch, config.weight_decay, config.schedule, config.floor) == (1e-5, 32, 5e-4, "plateau", 1e-6)
    assert (config.resize, config.scratch) == (512, 1.0)
    assert (printed.lr, printed.batch, printed.resize) == (1e-4, 32, 0)


def test_restored_detector_scores_as_its_best_epoch_did(samples):
    """A rate far too high after a good start: the weights that come back must reproduce the best validation loss."""
    model = detector()
    history = run(model, samples, epochs=4, lr=2e-2)
    best = min(h["val_bce"] for h in history)
    loader = DataLoader(Crops(samples["val"], 64, train=False), 32)
    with torch.inference_mode():  # at once, as training left it: nothing scored before may linger
        x, y, _ = next(iter(loader))
        z = model(x).logit
    assert nn.functional.binary_cross_entropy_with_logits(z, y.float()).item() == pytest.approx(best, abs=1e-6)
    assert validate(model, loader, torch.device("cpu"))[0] == pytest.approx(best, abs=1e-6)


def test_rate_rises_then_falls_to_zero(samples, monkeypatch):
    rates = []
    step = torch.optim.AdamW.step

    def watch(self, *a, **k):
        rates.append([g["lr"] for g in self.param_groups])
        return step(self, *a, **k)

    monkeypatch.setattr(torch.optim.AdamW, "step", watch)
    history = run(detector(), samples, epochs=4, lr=1e-3, warmup=0.25)
    first = [r[0] for r in rates]
    assert all(len(set(r)) == 1 for r in rates) and len(first) == 12
    assert first[:3] == pytest.approx([1e-3 / 3, 2e-3 / 3, 1e-3]) and first[3] == pytest.approx(1e-3)
    assert all(a > b for a, b in zip(first[3:], first[4:], strict=False))
    assert history[-1]["lr"] == pytest.approx(0, abs=1e-12)


def test_new_modules_learn_at_their_own_rate():
    model = detector()
    groups = parameter_groups(model, TrainConfig(lr=1e-3, scratch=4.0))
    rate = {id(p): g["lr"] for g in groups for p in g["params"]}
    found = {n: rate[id(p)] for n, p in trainable(model).items()}
    assert {n for n, r in found.items() if r == 1e-3} == {n for n in found if "lora_" in n}
    assert set(found.values()) == {1e-3, 4e-3}


def test_decay_spares_biases_and_norms(samples, monkeypatch):
    seen = []
    original = torch.optim.AdamW.__init__
    monkeypatch.setattr(torch.optim.AdamW, "__init__", lambda self, g, **k: (seen.extend(g), original(self, g, **k))[1])
    model = detector()
    run(model, samples, epochs=1, weight_decay=0.3)
    assert {g["weight_decay"] for g in seen} == {0.3, 0.0}
    ids = {id(p) for g in seen if not g["weight_decay"] for p in g["params"]}
    names = {n for n, p in trainable(model).items() if id(p) in ids}
    assert names == {
        n for n in trainable(model) if n.endswith("bias") or ".ln" in n or n.endswith((".conv.1.weight", ".deconv.1.weight"))
    }
    assert sum(len(g["params"]) for g in seen) == len(trainable(model))


def test_what_cannot_be_trained_is_refused(samples):
    for missing in ("train", "val"):
        with pytest.raises(SDDError, match="both the train and the val split"):
            run(detector(), {**samples, missing: []})
    with pytest.raises(SDDError, match="batch 25 is larger than the 24 training images"):
        run(detector(), samples, batch=25)


@pytest.mark.parametrize("part, what", [("train", "training"), ("val", "the choice of a checkpoint")])
def test_nothing_is_trained_or_chosen_on_images_of_another_split(part, what, samples):
    """One such image among many is enough, and is named."""
    model = detector()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    probe = LinearProbe(Backbone(load_backbone("tiny", "random"), 64), PRESET)
    for split in {"train", "val", "dev", "test"} - {part}:
        wrong = {**samples, part: [*samples[part][:-1], replace(samples[part][-1], split=split)]}
        said = f"{what} takes images of split {part}, and {samples[part][-1].path.name} is of split {split}; leave out"
        with pytest.raises(SDDError, match=said):
            run(model, wrong)
        with pytest.raises(SDDError, match=said):
            probe.fit(wrong["train"], wrong["val"], 64)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


class Broken(Script):
    def __init__(self, where):
        super().__init__([1.0])
        self.where = where

    def forward(self, x):
        return LinearOutput(torch.full((len(x),), float("nan" if self.where == "validation" else 0)), x)

    def loss(self, x, y):
        return {"total": self.w * float("nan" if self.where == "training" else 0)}


@pytest.mark.parametrize("where", ["training", "validation"])
def test_a_loss_that_is_not_finite_is_an_error(where, fakes):
    with pytest.raises(SDDError, match="loss became nan in epoch 1"):
        run(Broken(where), fakes, epochs=1, batch=4)


def test_a_loaded_detector_trains_further_in_all_its_parts(samples, tmp_path):
    model = detector()
    run(model, samples, epochs=1)
    model.save(tmp_path / "m.safetensors", {"backbone": "tiny", "weights": "random"})
    loaded = Detector.load(tmp_path / "m.safetensors")
    before = {n: p.detach().clone() for n, p in trainable(loaded).items()}
    assert any("lora_A" in n for n in before)
    run(loaded, samples, epochs=1)
    assert [n for n, p in trainable(loaded).items() if torch.equal(p, before[n])] == []


def test_probe_learns_the_easy_set_and_its_head_is_the_chosen_regression(samples):
    seed_everything(0)
    probe = LinearProbe(Backbone(load_backbone("tiny", "random"), 64), PRESET)
    assert set(trainable(probe)) == {"head.weight", "head.bias"}
    chosen = probe.fit(samples["train"], samples["val"], 64)
    probe.cpu()
    bce, z, y = validate(probe, DataLoader(Crops(samples["val"], 64, train=False), 5), torch.device("cpu"))
    assert bce == pytest.approx(chosen["val_bce"], abs=1e-4) and ((z > 0) == y).mean() == chosen["val_acc"]
    assert chosen["val_acc"] > 0.9
    with torch.no_grad():
        x = next(iter(DataLoader(Crops(samples["val"], 64, train=False), 4)))[0]
        assert torch.allclose(probe.features(x).norm(dim=1), torch.ones(4))


def test_probe_sees_the_crops_of_a_trained_detectors_first_epochs(samples, monkeypatch):
    seen = []
    probe = LinearProbe(Backbone(load_backbone("tiny", "random"), 64), PRESET)
    embed = probe.embed_samples
    monkeypatch.setattr(
        probe, "embed_samples", lambda crops, workers: (seen.append(torch.stack([c[0] for c in crops])), embed(crops))[1]
    )
    probe.fit(samples["train"], samples["val"], 64, views=2, seed=5)
    for epoch in range(2):
        crops = Crops(samples["train"], 64, train=True, seed=5)
        crops.epoch = epoch
        assert torch.equal(seen[epoch], torch.stack([c[0] for c in crops]))


def test_progress_starts_what_it_counts_once(samples):
    started = []

    class Watched(DataLoader):
        def __iter__(self):
            started.append(1)
            return super().__iter__()

    loader = Watched(Crops(samples["val"], 64, train=False), 5)
    assert len(list(train.progress(loader))) == 3 and started == [1]


def test_bfloat16_trains_nearly_alike_and_scores_are_computed_in_float32(samples):
    exact, quick = detector(), detector()
    for model, precision in ((exact, "float32"), (quick, "bfloat16")):
        history = run(model, samples, epochs=2, precision=precision)
        assert history[-1]["bce"] < history[0]["bce"]
    x = torch.stack([image for image, _, _ in Crops(samples["val"], 64, train=False)])
    with torch.inference_mode():
        tokens = quick.backbone(x)
        quick.backbone.precision = torch.float32
        assert torch.equal(quick.backbone(x), tokens) and tokens.dtype == torch.float32
    moved = {n: (p, dict(exact.named_parameters())[n]) for n, p in trainable(quick).items()}
    assert any(not torch.equal(a, b) for a, b in moved.values())  # it was bfloat16 indeed
    quick.backbone.train().precision = torch.bfloat16
    assert quick.backbone(x).dtype == torch.float32
    with pytest.raises(SDDError, match="precision 'half' is unknown"):
        TrainConfig(precision="half")
