"""CNNSpot, the small ResNet under it, and the augmentation keep their promises."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.models import resnet18, resnet50

from sddlib import SDDError
from sddlib.baselines.cnnspot import CNNSpot
from sddlib.baselines.resnet import SmallResNet
from sddlib.perturb import Augment, blur, jpeg

ALWAYS = Augment(blur_prob=1.0, jpeg_prob=1.0)


@pytest.fixture
def picture() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8))


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1] * 4)


def test_stages_are_those_of_resnet18():
    ours = [tuple(w.shape) for w in SmallResNet(3, 64).stages.state_dict().values()]
    theirs = [tuple(w.shape) for k, w in resnet18(weights=None).state_dict().items() if k.startswith("layer")]
    assert ours == theirs


def test_logit_is_one_linear_layer_on_the_features(batch):
    model = CNNSpot(32, 4).eval()
    out = model(batch[0])
    assert out.logit.shape == (8,) and out.features.shape == (8, 32)
    assert torch.allclose(out.features, model.features(batch[0]))
    assert torch.allclose(out.logit, out.features @ model.net.head.weight[0] + model.net.head.bias)
    with pytest.raises(SDDError, match="width 0"):
        CNNSpot(32, 0)


def test_first_filters_start_without_a_mean_and_so_see_no_brightness():
    assert SmallResNet(3, 4).stem[0].weight.mean((2, 3)).abs().max() < 1e-6
    assert SmallResNet(3, 4, centred=False).stem[0].weight.mean((2, 3)).abs().max() > 1e-3


def test_a_file_of_imagenet_weights_makes_it_a_resnet50_that_starts_there(tmp_path, batch, picture):
    state = resnet50(weights=None).state_dict()
    torch.save(state, tmp_path / "r50.pth")
    model = CNNSpot(32, weights=str(tmp_path / "r50.pth"))
    assert not torch.equal(model.net.body.conv1.weight, state["conv1.weight"])
    model.start(model.options["weights"])
    for name, w in model.net.body.state_dict().items():
        assert torch.equal(w, state[name])
    assert model.eval()(batch[0]).features.shape == (8, 2048)
    pixel = np.asarray(picture)[0, 0] / 255  # normalised as ImageNet's
    assert np.allclose(model.prepare(picture)[:, 0, 0], (pixel - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225], atol=1e-5)


def test_other_weights_leave_a_small_one_that_started_from_none(tmp_path):
    CNNSpot(32, 4).save(tmp_path / "c.safetensors", {})
    assert not CNNSpot.load(tmp_path / "c.safetensors", weights="elsewhere.safetensors").options["weights"]


def test_wrong_or_missing_imagenet_weights_are_one_sentence(tmp_path):
    with pytest.raises(SDDError, match="CNNSpot needs the weights file .*nowhere.pth', which is missing"):
        CNNSpot(32, weights="nowhere.pth").fit([], [], None)
    torch.save(resnet18(weights=None).state_dict(), tmp_path / "r18.pth")
    with pytest.raises(SDDError, match="does not hold torchvision's ResNet-50"):
        CNNSpot(32, weights=str(tmp_path / "r18.pth")).start(str(tmp_path / "r18.pth"))


def test_blur_and_jpeg_do_what_they_say(picture):
    pixels = np.asarray(picture, float)
    assert np.asarray(blur(picture, 2.0), float).std() < 0.5 * pixels.std()
    assert blur(picture, 0) is picture
    loss = [np.abs(np.asarray(jpeg(picture, q), float) - pixels).mean() for q in (95, 50, 10)]
    assert 0 < loss[0] < loss[1] < loss[2]


def test_augmentation_hits_its_share_of_pictures_and_spares_the_others_bit_for_bit(picture):
    rng = np.random.default_rng(5)
    spared = [Augment(jpeg_prob=0.3)(picture, rng) is picture for _ in range(400)]
    assert abs(np.mean(spared) - 0.7) < 0.06


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
