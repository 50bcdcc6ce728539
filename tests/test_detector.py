"""The detector whole: what learns and what does not, scores that depend on the image alone, and files that come back equal."""

import json

import numpy as np
import pytest
import torch
from models import enliven
from PIL import Image
from safetensors.torch import load, load_file, save_file

from sddlib import SDDError, weights
from sddlib.backbone import Backbone
from sddlib.baselines.lora import LoraLinear
from sddlib.baselines.probe import LinearProbe
from sddlib.data import decode, to_input
from sddlib.detector import Detector
from sddlib.embedded import sha256
from sddlib.evaluate import score_paths
from sddlib.losses import triplet_loss
from sddlib.presets import get_preset
from sddlib.weights import TINY, load_backbone

D, SIZE = TINY["vision_cfg"]["width"], 64
SMALL = {"M": 10, "width": 32, "heads": 4, "channels": (4, 6, 8), "F_low": 12}
ABOUT = {"backbone": "tiny", "weights": "random", "seed": 0}
KINDS = [Detector, LoraLinear, LinearProbe]


def make(kind=Detector, size: int = SIZE, seed: int = 0, **changes):
    """A detector in eval mode whose every part says something."""
    torch.manual_seed(seed)
    preset = get_preset("paper", **{**SMALL, **changes})
    backbone = Backbone(load_backbone("tiny", "random"), size, preset.norm)
    model = kind.build(backbone, preset, {"f_s": torch.randn(preset.M, D)})
    return enliven(model).eval()


def images(n: int = 6, size: int = SIZE, seed: int = 1) -> torch.Tensor:
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def file(tmp_path):
    return tmp_path / "model.safetensors"


# --- what learns


def test_forward_is_encoder_reconstruction_enhancement_head():
    model, x = make(), images(2)
    with torch.no_grad():
        out, tokens = model(x), model.backbone(x)
        assert torch.equal(out.T_CLS, tokens[:, 0]) and torch.equal(out.V_H, tokens[:, 1:])
        assert torch.equal(out.Re, model.reconstruction(out.V_H, model.f_s))
        assert torch.equal(out.D_s.flatten(2).transpose(1, 2), (out.Re - out.V_H).abs())
        assert torch.equal(out.F_low, model.enhancement(x, out.D_s))
        logit = torch.cat([out.F_low, out.T_CLS], 1) @ model.head.weight[0] + model.head.bias
    torch.testing.assert_close(out.logit, logit)
    assert out.logit.shape == (2,) and out.D_s.shape == (2, D, 4, 4)


def test_every_declared_trainable_parameter_gets_a_gradient_from_the_whole_loss_and_no_frozen_one_does():
    """LoRA starts at B = 0, which gives every A a zero gradient; so the gradients are those after one step.

    In float64, where the rounding errors that a parameter without influence gathers (1e-18) stay far below the small
    gradients of Eq. 7's queries and keys, whose tokens are nearly alike at the start (1e-9).
    """
    torch.manual_seed(0)
    preset = get_preset("paper", **SMALL)
    model = Detector(Backbone(load_backbone("tiny", "random"), SIZE), torch.randn(10, D), preset).double().train()
    declared = {n: p for n, p in model.named_parameters() if p.requires_grad}
    assert {n.split(".")[0] for n in declared} == {"backbone", "reconstruction", "enhancement", "head"}
    optimizer = torch.optim.AdamW(declared.values(), 1e-3)
    x, y = images().double(), torch.tensor([0, 1, 0, 1, 1, 0])
    model.loss(x, y)["total"].backward()
    assert {n for n, p in declared.items() if not p.grad.any()} == {n for n in declared if "lora_A" in n}
    optimizer.step()
    optimizer.zero_grad()
    model.loss(x, y)["total"].backward()
    assert {n: p.grad.abs().max().item() for n, p in declared.items() if p.grad.abs().max() < 1e-12} == {}
    assert [n for n, p in model.named_parameters() if n not in declared and p.grad is not None] == []


def test_a_training_step_moves_what_is_declared_and_nothing_else():
    model = make().train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 1e-2)
    model.loss(images(), torch.tensor([0, 1, 0, 1, 1, 0]))["total"].backward()
    optimizer.step()
    moved = {k for k, v in model.state_dict().items() if not torch.equal(v, before[k])}
    trainable = {n for n, p in model.named_parameters() if p.requires_grad}
    assert trainable <= moved
    assert all("running_" in k or "num_batches" in k for k in moved - trainable)
    assert "f_s" not in moved


def test_bank_is_a_buffer_of_its_own():
    f_s = torch.randn(10, D)
    model = Detector(Backbone(load_backbone("tiny", "random"), SIZE), f_s, get_preset("paper", **SMALL))
    kept = f_s.clone()
    f_s.zero_()
    assert torch.equal(model.f_s, kept) and "f_s" in model.state_dict() and "f_s" not in dict(model.named_parameters())


def test_a_bank_that_does_not_fit_is_refused():
    for shape in ((9, D), (10, D + 1)):
        with pytest.raises(SDDError, match="the bank is"):
            Detector(Backbone(load_backbone("tiny", "random"), SIZE), torch.randn(shape), get_preset("paper", **SMALL))


def test_paper_prints_what_the_paper_prints():
    p = get_preset("paper")
    assert (p.lora_r, p.lora_alpha, p.margin, len(p.channels)) == (6, 6, 8.0, 3)
    assert (p.residual, p.lora_dropout, get_preset("paper", lora_dropout=0.8).lora_dropout) == ("none", 0.2, 0.8)
    with pytest.raises(SDDError, match="preset 'papr' is unknown"):
        get_preset("papr")
    with pytest.raises(SDDError, match="no field 'rank'"):
        get_preset("paper", rank=3)
    assert get_preset("paper").with_fields(**json.loads(json.dumps(p.as_dict()))) == p


@pytest.mark.parametrize("margin", [0.5, 20.0])
def test_margin_of_the_triplet_loss_is_the_presets(margin):
    model, x, y = make(margin=margin), images(), torch.tensor([0, 1, 0, 1, 1, 0])
    with torch.no_grad():
        torch.testing.assert_close(model.loss(x, y)["tri"], triplet_loss(model(x).F_low, y, margin))


def test_LoraLinear_is_the_same_encoder_with_a_head_on_the_CLS_token():
    lora, sdd, x = make(LoraLinear), make(), images(2)
    names = {n for n, p in lora.named_parameters() if p.requires_grad}
    assert {n for n in names if "lora_" in n} == {n for n, p in sdd.named_parameters() if p.requires_grad and "lora_" in n}
    assert {n for n in names if "lora_" not in n} == {"head.weight", "head.bias"}
    with torch.no_grad():
        expected = lora.backbone(x)[:, 0] @ lora.head.weight[0] + lora.head.bias
        torch.testing.assert_close(lora(x).logit, expected)


# --- scores depend on the image alone


@pytest.mark.parametrize("kind", KINDS)
def test_batch_order_and_batch_mates_never_change_a_score_in_eval_mode(kind):
    model, x = make(kind), images()
    with torch.inference_mode():
        scores = model(x).logit
        order = torch.tensor([4, 2, 0, 5, 1, 3])
        torch.testing.assert_close(model(x[order]).logit, scores[order], atol=1e-5, rtol=0)
        alone = torch.cat([model(x[i : i + 1]).logit for i in range(6)])
        torch.testing.assert_close(alone, scores, atol=1e-5, rtol=0)
        wild = torch.cat([x[:1], 50 * images(3, seed=9)])
        torch.testing.assert_close(model(wild).logit[0], scores[0], atol=1e-5, rtol=0)
    assert scores.std() > 1e-3  # they differ, so order would show


@pytest.mark.parametrize("kind", [Detector, LoraLinear])
def test_merging_lora_does_not_change_scores(kind):
    model, x = make(kind), images()
    with torch.inference_mode():
        before = torch.sigmoid(model(x).logit)
        model.backbone.merge_lora()
        assert (torch.sigmoid(model(x).logit) - before).abs().max() < 1e-5


@pytest.mark.parametrize("size", [32, 64, 112])
def test_any_multiple_of_the_patch_is_a_size(size):
    with torch.inference_mode():
        assert torch.isfinite(make(size=size)(images(2, size)).logit).all()


def test_scores_are_not_stale_after_training_in_place():
    """Score, train, score: the second scores are those of a model that never scored before."""
    model, x = make(), images()
    with torch.inference_mode():
        model(x)
    optimizer = torch.optim.SGD(model.reconstruction.parameters(), 0.5)
    model(x).Re.square().sum().backward()
    optimizer.step()
    fresh = make(seed=1)
    fresh.load_state_dict(model.state_dict())
    with torch.inference_mode():
        torch.testing.assert_close(model(x).logit, fresh(x).logit)


def picture(tmp_path, name: str = "a.png", mode: str = "RGB"):
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (70, 90, len(mode)), dtype=np.uint8), mode).save(tmp_path / name)
    return tmp_path / name


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_one_image_scores_alike_as_path_as_picture_and_in_a_run(tmp_path, mode):
    model, path = make(), picture(tmp_path, mode=mode)
    expected = score_paths(model, [path])[0]["score"]
    model.cpu()
    with torch.inference_mode():
        x = to_input(decode(path), SIZE)[None]
        assert torch.sigmoid(model(x).logit).item() == pytest.approx(expected, abs=1e-6)
    assert model.score(path) == pytest.approx(expected, abs=1e-6)
    assert model.score(str(path)) == pytest.approx(expected, abs=1e-6)
    assert model.score(Image.open(path)) == pytest.approx(expected, abs=1e-6)
    with pytest.raises(SDDError, match="gone.png: no such file"):
        model.score(tmp_path / "gone.png")


# --- files


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("half, slack", [(False, 1e-6), (True, 1e-3)])
def test_a_saved_model_comes_back_with_equal_scores(kind, half, slack, file):
    model, x = make(kind), images()
    model.save(file, {**ABOUT, "threshold": 0.4}, half=half)
    loaded = kind.load(file)
    with torch.inference_mode():
        difference = torch.sigmoid(model(x).logit) - torch.sigmoid(loaded(x).logit)
    assert difference.abs().max() < slack
    assert not loaded.training and loaded.about["threshold"] == 0.4 and loaded.preset == model.preset
    assert sorted(p.name for p in file.parent.iterdir()) == ["model.json", "model.safetensors"]


@pytest.mark.parametrize("kind", KINDS)
def test_saved_tensors_are_equal_and_hold_nothing_of_clip(kind, file):
    model = make(kind)
    model.save(file, ABOUT)
    stored, state = load_file(file), model.state_dict()
    assert all(torch.equal(v, state[k]) for k, v in stored.items())
    frozen = {k for k in state if k.startswith("backbone.") and "lora_" not in k}
    assert set(stored) == set(state) - frozen and not any("base_layer" in k for k in stored)
    facts = json.loads(file.with_suffix(".json").read_text())
    assert {"backbone", "weights", "preset", "version", "kind", "image_size", "fingerprint"} <= set(facts)


@pytest.mark.parametrize("kind", [Detector, LoraLinear])
def test_a_loaded_model_saves_the_same_file_again(kind, file, tmp_path):
    make(kind).save(file, ABOUT)
    loaded = kind.load(file)
    loaded.save(tmp_path / "again.safetensors", loaded.about)
    one, other = load_file(file), load_file(tmp_path / "again.safetensors")
    assert one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)
    assert file.with_suffix(".json").read_bytes() == (tmp_path / "again.json").read_bytes()


def test_loading_leaves_other_image_sizes_and_token_norms_as_they_were_saved(file):
    make(size=32, norm="none").save(file, ABOUT)
    loaded = Detector.load(file)
    assert loaded.backbone.image_size == 32 and loaded.backbone.norm == "none"


def refusal(kind, *arguments) -> str:
    with pytest.raises(SDDError) as caught:
        kind.load(*arguments)
    said = str(caught.value)
    assert "\n" not in said and len(said) < 1500
    return said


@pytest.mark.parametrize("suffix", [".safetensors", ".json"])
def test_a_missing_file_is_named(file, suffix):
    make().save(file, ABOUT)
    file.with_suffix(suffix).unlink()
    assert f"model{suffix} is missing" in refusal(Detector, file)


@pytest.mark.parametrize("content", [b"", b"\x08\x00", b"nonsense" * 100, None])
def test_a_broken_file_is_named(file, content):
    make().save(file, ABOUT)
    file.write_bytes(file.read_bytes()[:-100] if content is None else content)
    assert "model.safetensors is broken" in refusal(Detector, file)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "{}", '{"kind": "sdd"}'])
def test_a_broken_description_is_named(file, text):
    make().save(file, ABOUT)
    file.with_suffix(".json").write_text(text)
    assert "model.json" in refusal(Detector, file)


def edit(file, **changes) -> None:
    facts = json.loads(file.with_suffix(".json").read_text())
    facts |= changes
    file.with_suffix(".json").write_text(json.dumps(facts))


def test_a_description_that_does_not_fit_the_tensors_is_refused(file):
    make().save(file, ABOUT)
    facts = json.loads(file.with_suffix(".json").read_text())
    for change, said in (
        ({"F_low": 13}, "does not fit"),
        ({"lora_blocks": 1}, "does not fit"),
        ({"speed": 3}, "no field 'speed'"),
        ({"channels": 3}, "preset field channels = 3"),
        ({"lora_r": "6"}, "preset field lora_r = '6'"),
        ({"lora_dropout": 5}, "preset field lora_dropout = 5"),
        ({"norm": "other"}, "preset field norm = 'other'"),
    ):
        edit(file, preset={**facts["preset"], **change})
        assert said in refusal(Detector, file)
    edit(file, preset=facts["preset"])
    state = load(file.read_bytes())  # not mapped from the file that is written over below
    for lost in ("f_s", "head.bias", "enhancement.stages.0.conv.1.running_mean"):
        save_file({k: v for k, v in state.items() if k != lost}, file, {"kind": "sdd"})
        edit(file, sha256=sha256(file))
        assert lost in refusal(Detector, file)
    save_file(state | {"backbone.visual.proj": torch.zeros(64, 32)}, file)  # must not get past the fingerprint
    edit(file, sha256=sha256(file))
    assert "backbone.visual.proj" in refusal(Detector, file)


def test_files_of_two_checkpoints_are_not_mixed(file, tmp_path):
    make().save(file, ABOUT)
    other = tmp_path / "other.safetensors"
    model = make()
    torch.nn.init.ones_(model.head.weight)
    model.save(other, ABOUT)
    file.write_bytes(other.read_bytes())
    assert "is not the file that model.json describes" in refusal(Detector, file)


def test_others_may_read_a_checkpoint(file):
    make().save(file, ABOUT)
    assert file.stat().st_mode & 0o044 == 0o044


@pytest.mark.parametrize("kind", KINDS)
def test_a_foreign_kind_is_refused(kind, file):
    make(kind).save(file, ABOUT)
    for other in set(KINDS) - {kind}:
        assert f"holds a {kind.kind!r} model, not a {other.kind!r} one" in refusal(other, file)
    assert "name the .safetensors file" in refusal(kind, file.with_suffix(".json"))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("change", [{"width": 96}, {"layers": 2}, {"layers": 4}, {"patch_size": 32}])
def test_another_architecture_is_refused(kind, change, file, monkeypatch):
    make(kind).save(file, ABOUT)
    monkeypatch.setattr(weights, "TINY", {**TINY, "vision_cfg": {**TINY["vision_cfg"], **change}})
    said = refusal(kind, file)
    assert "model.safetensors" in said


@pytest.mark.parametrize("kind", KINDS)
def test_other_weights_of_the_same_architecture_are_refused(kind, file, tmp_path):
    make(kind).save(file, ABOUT)
    save_file(load_backbone("tiny", "random", seed=0).state_dict(), tmp_path / "same.safetensors")
    save_file(load_backbone("tiny", "random", seed=1).state_dict(), tmp_path / "other.safetensors")
    kind.load(file, str(tmp_path / "same.safetensors"))
    assert "other.safetensors" in refusal(kind, file, str(tmp_path / "other.safetensors"))
