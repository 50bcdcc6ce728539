"""The CNNSpot-style baseline and its augmentation keep their promises."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.models import resnet18

from sddlib import SDDError
from sddlib.baselines.cnnspot import CNNSpot
from sddlib.data import Sample
from sddlib.optim import TrainConfig
from sddlib.perturb import Augment, blur, jpeg
from sddlib.randomness import seed_everything
from sddlib.train import train

ALWAYS = Augment(blur_prob=1.0, jpeg_prob=1.0)


@pytest.fixture
def picture() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8))


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1] * 4)


def test_stages_are_those_of_resnet18():
    ours = [tuple(w.shape) for w in CNNSpot(64).stages.state_dict().values()]
    theirs = [tuple(w.shape) for k, w in resnet18(weights=None).state_dict().items() if k.startswith("layer")]
    assert ours == theirs


def test_logit_is_one_linear_layer_on_the_features(batch):
    model = CNNSpot(4).eval()
    out = model(batch[0])
    assert out.logit.shape == (8,) and out.features.shape == (8, 32)
    assert torch.allclose(out.features, model.features(batch[0]))
    assert torch.allclose(out.logit, out.features @ model.head.weight[0] + model.head.bias)
    with pytest.raises(SDDError, match="width 0"):
        CNNSpot(0)


def test_every_weight_gets_a_gradient_and_first_filters_start_without_a_mean(batch):
    model = CNNSpot(4, ALWAYS).train()
    assert model.stem[0].weight.mean((2, 3)).abs().max() < 1e-6
    model.loss(*batch)["total"].backward()
    assert all(w.grad is not None and w.grad.abs().max() > 0 for w in model.parameters())


def test_augmentation_falls_on_training_only_and_spares_pictures_bit_for_bit(batch):
    x, y = batch
    model = CNNSpot(4, Augment(blur_prob=0.5), seed=3)
    changed = (model.augmented(x) != x).flatten(1).any(1)
    assert changed.any() and not changed.all()
    with torch.no_grad():
        model.augment = ALWAYS
        bce = torch.nn.functional.binary_cross_entropy_with_logits
        assert torch.equal(model.eval().loss(x, y)["total"], bce(model(x).logit, y.float()))
        frozen = CNNSpot(4, ALWAYS).train()
        state = {k: v.clone() for k, v in frozen.state_dict().items()}
        augmented = frozen.loss(x, y)["total"]
        frozen.load_state_dict(state)
        assert not torch.equal(augmented, bce(frozen(x).logit, y.float()))


def test_augmentation_is_the_same_for_the_same_seed_and_blind_to_the_class(batch):
    x, y = batch
    first, again, other = (CNNSpot(4, Augment(0.5, 3.0, 0.5), seed).augmented(x) for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
    model = CNNSpot(4, Augment(jpeg_prob=0.3), seed=5)
    hit = torch.stack([(model.augmented(x) != x).flatten(1).any(1).float() for _ in range(200)]).mean(0)
    assert abs(hit[y == 0].mean() - hit[y == 1].mean()) < 0.06 and abs(hit.mean() - 0.3) < 0.04


def test_training_with_the_common_loop_learns_a_visible_trace(tmp_path):
    rng, samples = np.random.default_rng(0), []
    for i in range(24):
        base = rng.integers(60, 200, (4, 4, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
        for label, name in ((0, "camera"), (1, "gan")):
            path = tmp_path / name / f"{i}_0.png"
            path.parent.mkdir(exist_ok=True)
            grid = 40 * label * (np.indices((32, 32)).sum(0) % 2)[..., None]  # a checkerboard, as upsampling leaves
            Image.fromarray((base + grid).astype(np.uint8)).save(path)
            samples.append(Sample(path, label, name, name, "train" if i < 16 else "val", f"photo{i}"))
    parts = [[s for s in samples if s.split == split] for split in ("train", "val")]
    histories = []
    for _ in range(2):
        seed_everything(0)
        model = CNNSpot(4, Augment(0.1, 1.0, 0.1))
        histories.append(train(model, *parts, TrainConfig(epochs=8, batch=8, lr=5e-3, patience=8), 32, log=lambda _: None))
    assert min(row["val_bce"] for row in histories[0]) < 0.3
    assert [r["val_bce"] for r in histories[0]] == [r["val_bce"] for r in histories[1]]


def test_blur_and_jpeg_do_what_they_say(picture):
    pixels = np.asarray(picture, float)
    assert np.asarray(blur(picture, 2.0), float).std() < 0.5 * pixels.std()
    assert blur(picture, 0) is picture
    loss = [np.abs(np.asarray(jpeg(picture, q), float) - pixels).mean() for q in (95, 50, 10)]
    assert 0 < loss[0] < loss[1] < loss[2]


def test_one_setting_of_the_augmentation_does_not_shift_the_draws_of_another(picture):
    for augment in (Augment(), ALWAYS):
        rng = np.random.default_rng(0)
        changed = augment(picture, rng)
        assert rng.random() == np.random.default_rng(0).random(5)[4]
        assert (changed is picture) == (augment == Augment())


@pytest.mark.parametrize("wrong", [{"blur_prob": 1.5}, {"jpeg_prob": -0.1}, {"blur_sigma": -1.0}, {"jpeg_low": 0}])
def test_impossible_augmentation_is_refused(wrong):
    with pytest.raises(SDDError, match="is impossible"):
        Augment(**wrong)
