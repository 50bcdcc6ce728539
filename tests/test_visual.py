"""What is shown of a detector is what decides: features, maps at planted places, one colour scale, failures included."""

import numpy as np
import pytest
import torch
from models import enliven
from sklearn.metrics import roc_auc_score

from sddlib import SDDError, figures_visual, recipes, visual, visual_stats
from sddlib.backbone import Backbone
from sddlib.data import read_manifest
from sddlib.detector import Detector
from sddlib.evaluate import score_samples, write_csv
from sddlib.presets import get_preset
from sddlib.profiles import ROOT
from sddlib.recipes import load_scorer
from sddlib.weights import TINY, load_backbone

D, SIZE, G = TINY["vision_cfg"]["width"], 64, 4
SMALL = {"M": 10, "width": 32, "heads": 4, "channels": (4, 6, 8), "F_low": 12}
ABOUT = {"backbone": "tiny", "weights": "random", "seed": 0}


def make(name: str = "paper", **changes) -> Detector:
    """A detector in eval mode whose every part says something."""
    torch.manual_seed(0)
    preset = get_preset(name, **{**SMALL, **changes})
    backbone = Backbone(load_backbone("tiny", "random"), SIZE, preset.norm)
    model = enliven(Detector(backbone, torch.randn(preset.M, D), preset))
    backbone.merge_lora()
    return model.eval()


def images(n: int = 3) -> torch.Tensor:
    return torch.randn(n, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))


def state(model) -> tuple:
    """What looking at a model must not change."""
    hooks = sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())
    return hooks, [p.requires_grad for p in model.parameters()], [p.grad is None for p in model.parameters()]


@pytest.fixture(scope="module")
def samples():
    """One test photograph: three reals and two fakes of each generator."""
    return [s for s in recipes.subset(read_manifest(ROOT / "data" / "manifest.csv"), 1) if s.split == "test"]


@pytest.fixture(scope="module")
def rows(samples):
    return score_samples(make(), samples, ROOT / "data")


# --- features and D_s


def test_features_times_head_weights_are_the_logit_and_the_logit_is_the_saved_score(samples, rows):
    model = make()
    read = visual.readings(model, samples, batch=4)
    logit = read.features @ model.head.weight.detach()[0].numpy() + model.head.bias.item()
    np.testing.assert_allclose(logit, read.logit, atol=1e-5)
    assert read.features.shape == (len(samples), 12 + D) and read.logit.std() > 1e-3
    assert visual.check_scores(rows, read.logit) < 1e-6


def test_D_s_is_read_in_its_place_and_beside_the_size_of_the_tokens(samples):
    model = make()
    read = visual.readings(model, samples, batch=4)
    with torch.no_grad():
        out = model(visual.crops(model, samples[5:6]))
    error = (out.Re - out.V_H)[0].abs().mean(1).reshape(G, G)  # patch i stands in row i // g
    np.testing.assert_allclose(read.D_s[5], error, atol=1e-5)
    assert read.V_H[5] == pytest.approx(out.V_H.abs().mean().item(), abs=1e-5)


def test_whether_every_patch_is_rebuilt_as_the_same_token_is_read(samples):
    """Eq. 5-8 as they are, near uniform attention, rebuild one token an image; with residuals every patch has its own."""
    alike = visual.readings(make(), samples, batch=4)
    assert alike.Re_spread.max() < 1e-5 < alike.Re.std(0).mean()
    model = make(residual="tokens")
    read = visual.readings(model, samples, batch=4)
    with torch.no_grad():
        Re = model(visual.crops(model, samples[5:6])).Re[0]
    np.testing.assert_allclose(read.Re[5], Re.mean(0), atol=1e-5)
    assert read.Re_spread[5] == pytest.approx(np.std(Re.numpy(), 0, ddof=1).mean(), rel=1e-3) and read.Re_spread.min() > 1e-2


@pytest.mark.parametrize("name", ["sdd-mini", "sdd-field"])
def test_shipped_detectors_rebuild_one_token_a_picture_as_the_readme_says(name, samples):
    read = visual.readings(load_scorer(ROOT / "data" / "checkpoints" / f"{name}.safetensors"), samples[:6])
    assert read.Re_spread.max() < 1e-5 < 1e-2 < read.Re.std(0).mean()


def test_scores_of_another_checkpoint_are_refused(rows):
    logit = np.array([np.log(r["score"] / (1 - r["score"])) for r in rows])
    assert visual.check_scores(rows, logit) < 1e-6
    logit[3] += 0.1
    for wrong in (logit, np.full(len(rows), np.nan)):
        with pytest.raises(SDDError, match="run notebook 04_evaluate again"):
            visual.check_scores(rows, wrong)


def test_a_run_is_opened_by_what_03_and_04_left_and_else_names_the_notebook_to_run(tmp_path, rows):
    for folder in ("checkpoints", "scores"):
        (tmp_path / folder).mkdir()
    with pytest.raises(SDDError, match=r"no checkpoints/sdd.safetensors; run notebook 03_train in it first"):
        visual.open_run(tmp_path)
    make().save(tmp_path / "checkpoints" / "sdd.safetensors", ABOUT)
    with pytest.raises(SDDError, match=r"no scores/sdd.csv; run notebook 04_evaluate in it first"):
        visual.open_run(tmp_path)
    write_csv(rows, tmp_path / "scores" / "sdd.csv")
    model, read = visual.open_run(tmp_path)
    assert not model.training and [r["path"] for r in read] == [r["path"] for r in rows]
    make(reconstruction="none").save(tmp_path / "checkpoints" / "sdd.safetensors", ABOUT)
    with pytest.raises(SDDError, match="this SDD has no reconstruction"):
        visual.open_run(tmp_path)


# --- CAM


def test_pixel_map_of_a_planted_model_points_to_the_planted_place():
    """Every filter and every weight is positive, so that evidence for fake lies where the image is bright."""
    model, x = make(), torch.zeros(1, 3, SIZE, SIZE)
    x[0, :, 40:56, 8:24] = 1
    with torch.no_grad():
        for stage in model.enhancement.stages:
            stage.conv[0].weight.fill_(0.1)
            stage.deconv[0].weight.zero_()
            for norm in (stage.conv[1], stage.deconv[1]):
                norm.running_mean.zero_()
                norm.running_var.fill_(1)
            stage.deconv[1].bias.fill_(1)  # the guide is 1 everywhere
        model.enhancement.project.weight.fill_(0.1)
        model.head.weight[:, :12] = 0.1
    found = visual.cam(model, x, "pixels")
    row, column = np.unravel_index(found.map[0].argmax(), (SIZE, SIZE))
    assert 40 <= row < 56 and 8 <= column < 24
    assert found.map[0, :24, 40:].max() == 0  # the far corner


def test_token_map_of_a_planted_model_points_to_the_planted_patch():
    """The tower passes patches on unmixed until the last block, where CLS takes the mean of all tokens; the head reads one
    channel of it. So the map is that channel at `ln_1`, over the number of tokens."""
    model, k = make(norm="none"), 7
    v = model.backbone.visual
    with torch.no_grad():
        for t in (v.conv1.weight, v.positional_embedding, v.class_embedding, model.head.weight):
            t.zero_()
        v.conv1.weight[k] = 1
        for block in model.backbone.blocks:
            for linear in (*(getattr(block.attn, n).base_layer for n in ("q", "k", "v", "out")), block.mlp.c_proj):
                linear.weight.zero_()
                linear.bias.zero_()
        for name in ("v", "out"):
            getattr(model.backbone.blocks[-1].attn, name).base_layer.weight.copy_(torch.eye(D))
        model.head.weight[0, 12 + k] = 1
    x = torch.zeros(2, 3, SIZE, SIZE)
    x[0, :, 16:32, 32:48] = x[1, :, 48:, :16] = 1  # patches (1, 2) and (3, 0)
    kept = []
    hook = model.backbone.blocks[-1].ln_1.register_forward_hook(lambda _m, _i, out: kept.append(out.detach()))
    found = visual.cam(model, x, "tokens")
    hook.remove()
    expected = kept[0][:, 1:, k].reshape(2, G, G).numpy() / (G * G + 1)
    np.testing.assert_allclose(found.raw, expected, atol=1e-5)
    assert [divmod(int(m.argmax()), G) for m in found.raw] == [(1, 2), (3, 0)]
    assert found.map[0, 16:32, 32:48].max() == found.map[0].max() and found.map[1, 48:, :16].max() == found.map[1].max()


def test_pixel_map_adds_up_to_what_F_low_gives_to_the_logit():
    model, x = make(), images(5)
    found = visual.cam(model, x, "pixels", batch=2)
    with torch.no_grad():
        share = model(x).F_low @ model.head.weight[0, :12]
        constant = model.enhancement.project.bias @ model.head.weight[0, :12]
    np.testing.assert_allclose(found.raw.sum((1, 2)), share - constant, atol=1e-5)


@pytest.mark.parametrize("branch", visual.BRANCHES)
@pytest.mark.parametrize("name, changes", [("paper", {}), ("release", {"channels": (4, 6, 1)}), ("paper", {"head": "mlp"})])
def test_no_map_is_zero_everywhere_and_each_stands_with_its_own_magnitude(name, changes, branch):
    model, x = make(name, **changes), images(4)
    found = visual.cam(model, x, branch)
    assert found.raw.any((1, 2)).all() and found.map.shape == (4, SIZE, SIZE)
    assert ((found.peak > 0) == (found.map.max((1, 2)) > 0.9)).all()
    np.testing.assert_allclose(found.peak, np.maximum(found.raw, 0).max((1, 2)))
    alone = visual.cam(model, x[2:3], branch)
    np.testing.assert_allclose(alone.raw[0], found.raw[2], atol=1e-5)


def test_a_map_without_evidence_for_fake_is_empty_and_says_so():
    model, x = make(), images(2)
    with torch.no_grad():
        model.enhancement.project.weight.abs_()
        model.head.weight[:, :12] = -1
    found = visual.cam(model, x, "pixels")
    assert (found.raw < 0).any() and not found.map.any() and not found.peak.any()


def test_a_map_without_guided_enhancer_still_has_both_branches():
    model, x = make(reconstruction="none"), images(2)
    assert all(visual.cam(model, x, branch).raw.any((1, 2)).all() for branch in visual.BRANCHES)


@pytest.mark.parametrize("branch", visual.BRANCHES)
def test_looking_changes_neither_scores_nor_hooks_nor_gradients(branch):
    model, x = make(), images()
    with torch.inference_mode():
        before = model(x).logit
    as_it_was = state(model)
    visual.cam(model, x, branch)
    visual.stage_maps(model, x)
    with torch.inference_mode():
        assert torch.equal(model(x).logit, before)
    assert state(model) == as_it_was and not x.requires_grad


@pytest.mark.parametrize("branch", visual.BRANCHES)
def test_an_error_within_is_not_swallowed_and_leaves_no_hook(branch, monkeypatch):
    def fails(_self, _output):
        raise IndexError("planted")

    monkeypatch.setattr(visual.BinaryClassifierOutputTarget, "__call__", fails)
    model = make()
    as_it_was = state(model)
    with pytest.raises(IndexError, match="planted"):
        visual.cam(model, images(), branch)
    assert state(model) == as_it_was


# --- the enhancer's stages


def test_stage_maps_are_the_stages_outputs():
    model, x = make(), images()
    with torch.no_grad():
        D_s, at = model(x).D_s, x
        for stage, found in zip(model.enhancement.stages, visual.stage_maps(model, x), strict=True):
            at = stage(at, D_s)
            np.testing.assert_allclose(found, at.mean(1), atol=1e-6)


def test_stage_maps_of_the_release_are_its_fused_stages_and_its_last_convolution():
    model, x = make("release", channels=(4, 6, 1)), images()
    found = visual.stage_maps(model, x)
    assert [m.shape for m in found] == [(3, 32, 32), (3, 16, 16), (3, 8, 8)]
    with torch.no_grad():
        F_1 = model.enhancement.convs[0](x)
        fused = F_1 + F_1 * (model.enhancement.deconvs[0](model(x).D_s) * F_1 - F_1).square()
    np.testing.assert_allclose(found[0], fused.mean(1), atol=1e-5)


def test_a_picture_that_makes_no_sense_is_refused_in_one_sentence(samples):
    without, no_guide = make(enhancement="none"), make(reconstruction="none")
    for call, said in (
        (lambda: visual.cam(without, images(), "pixels"), "no enhancer"),
        (lambda: visual.stage_maps(without, images()), "no enhancer"),
        (lambda: visual.readings(no_guide, samples), "no reconstruction"),
        (lambda: visual.cam(make(), images(), "token"), "CAM branch 'token' is unknown; use 'tokens' or 'pixels'"),
    ):
        with pytest.raises(SDDError, match=said) as caught:
            call()
        assert "\n" not in str(caught.value)
    assert visual.cam(without, images(), "tokens").raw.any((1, 2)).all()


# --- numbers


def test_t_SNE_is_the_same_for_the_same_seed_and_refuses_what_cannot_be_drawn():
    features = np.random.default_rng(0).normal(size=(40, 6))
    one, other = (visual_stats.plane(features, 5.0, 250, 0) for _ in range(2))
    assert one.shape == (40, 2) and np.array_equal(one, other)
    for perplexity, iterations, said in ((40.0, 250, "perplexity 40.0"), (0.0, 250, "perplexity 0.0"), (5.0, 10, "iterations")):
        with pytest.raises(SDDError, match=said):
            visual_stats.plane(features, perplexity, iterations, 0)


def test_separation_is_high_for_distant_classes_and_at_chance_for_none():
    rng, labels = np.random.default_rng(0), np.tile([0, 1], 40)
    photos = [f"p{i // 4}" for i in range(80)]
    noise = rng.normal(size=(80, 10))
    for shift, silhouette, probe in ((20, (0.8, 1), (0.99, 1)), (0, (-0.1, 0.1), (0.3, 0.7))):
        found = visual_stats.separation(noise + shift * labels[:, None], noise[:, :2], labels, photos)
        assert silhouette[0] <= found["silhouette"] <= silhouette[1] and probe[0] <= found["probe"] <= probe[1]
        assert abs(found["silhouette_plane"]) < 0.1  # of the plane, which knows nothing of the shift here


def test_probe_cannot_recognise_a_photograph_again():
    """Images of a photograph look alike and share a label: with one on both sides of a fold the probe would be right."""
    rng = np.random.default_rng(0)
    photo = np.repeat(np.arange(30), 6)
    labels = rng.permutation(np.tile([0, 1], 15))[photo]
    features = rng.normal(size=(30, 200))[photo] + 0.01 * rng.normal(size=(180, 200))
    assert visual_stats.separation(features, features[:, :2], labels, list(photo))["probe"] < 0.75
    alone = visual_stats.separation(features, features[:, :2], labels, list(range(180)))
    assert alone["probe"] > 0.95
    with pytest.raises(SDDError, match="at least two photographs"):
        visual_stats.separation(features, features[:, :2], labels, ["one"] * 180)


def test_likeness_is_1_for_one_pattern_and_0_for_maps_of_their_own():
    rng = np.random.default_rng(0)
    pattern = rng.random((12, 12))
    assert visual_stats.likeness(np.stack([pattern, 3 * pattern + 1, pattern - 2])) == pytest.approx(1)
    own = rng.random((40, 12, 12))
    assert abs(visual_stats.likeness(own)) < 0.05
    assert visual_stats.likeness(np.stack([pattern, np.ones((12, 12)), 2 * pattern])) == pytest.approx(1)
    with pytest.raises(SDDError, match="fewer than two maps"):
        visual_stats.likeness(np.ones((4, 3, 3)))


def scored(photos: int = 12, shift: float = 1.0, seed: int = 0) -> list[dict]:
    """Rows of a scores file: a real and a fake of two generators of every test photograph, and two validation rows."""
    rng, found = np.random.default_rng(seed), []
    for i in range(photos):
        for generator in ("camera", "seen", "new"):
            label = int(generator != "camera")
            score = 1 / (1 + np.exp(-rng.normal(shift * label)))
            row = {"path": f"{generator}/{i}", "photo": f"p{i}", "generator": generator, "label": label, "score": score}
            found.append(row | {"split": "test"})
    for label, generator in ((0, "camera"), (1, "seen")):
        found.append(
            {"path": f"val/{label}", "photo": "v", "generator": generator, "label": label, "score": 0.5, "split": "val"}
        )
    return found


def test_auroc_intervals_hold_the_estimate_and_the_mean_over_unseen():
    rows = scored(40)
    values = {r["path"]: r["score"] for r in rows if r["split"] == "test"}
    found = visual_stats.auroc_intervals(rows, values, 200, 0)
    assert list(found) == ["seen", "new", "mean of unseen"] and found["mean of unseen"] == found["new"]
    for g in ("seen", "new"):
        part = [r for r in rows if r["split"] == "test" and r["generator"] in ("camera", g)]
        estimate, low, high = found[g]
        assert estimate == pytest.approx(roc_auc_score([r["label"] for r in part], [r["score"] for r in part]))
        assert 0 < low < estimate < high < 1
    assert visual_stats.auroc_intervals(rows, values, 200, 0) == found


def test_copies_of_crops_do_not_narrow_an_interval():
    """Photographs are drawn, not images: ten copies of every crop are no more evidence than one."""
    rows = scored(20)
    copies = [r | {"path": f"{r['path']}/{k}"} for r in rows for k in range(10)]
    one, ten = (
        visual_stats.auroc_intervals(part, {r["path"]: r["score"] for r in part if r["split"] == "test"}, 300, 0)
        for part in (rows, copies)
    )
    assert one["new"] == pytest.approx(ten["new"])


def test_too_few_images_for_a_number_are_refused():
    rows = scored(1)
    with pytest.raises(SDDError, match="1 images of each class are too few"):
        visual_stats.draw([r for r in rows if r["split"] == "test"], 5, 0)
    rows = [r for r in scored(8) if r["split"] == "val" or r["label"] == 0 or r["photo"] == "p0"]
    with pytest.raises(SDDError, match="too few photographs for an interval"):
        visual_stats.auroc_intervals(rows, {r["path"]: r["score"] for r in rows if r["split"] == "test"}, 50, 0)


def test_draw_takes_as_many_of_each_class_and_the_same_for_the_same_seed():
    rows = [r for r in scored(12) if r["split"] == "test"]
    one = visual_stats.draw(rows, 5, 0)
    assert [r["label"] for r in one] == [0] * 5 + [1] * 5 and one == visual_stats.draw(rows, 5, 0)
    assert one != visual_stats.draw(rows, 5, 1)
    assert [r["label"] for r in visual_stats.draw(rows, 500, 0)] == [0] * 12 + [1] * 12


# --- examples


def test_examples_hold_the_surest_failures_of_both_classes_and_spread():
    rows = scored(12, shift=0.5)
    chosen = visual_stats.choose_examples(rows, 0.6)
    assert [r["label"] for r in chosen] == [0] * 4 + [1] * 4
    verdicts = [r["verdict"] for r in chosen]
    assert verdicts.count("FALSE ALARM") == verdicts.count("MISSED") == 2
    test = [r for r in rows if r["split"] == "test"]
    assert chosen[0]["score"] == max(r["score"] for r in test if r["label"] == 0)
    assert chosen[4]["score"] == min(r["score"] for r in test if r["label"] == 1)
    for part in (chosen[:4], chosen[4:]):
        assert len({r["photo"] for r in part}) == 4
    assert {r["generator"] for r in chosen[4:6]} == {r["generator"] for r in chosen[6:]} == {"seen", "new"}
    assert visual_stats.choose_examples(rows[::-1], 0.6) == chosen


def test_examples_of_a_detector_without_errors_or_without_successes_are_complete():
    rows = [r | {"score": 0.1 + 0.8 * r["label"]} for r in scored(6)]
    right = visual_stats.choose_examples(rows, 0.5)
    assert {r["verdict"] for r in right} == {"passed", "found"} and len(right) == 8
    wrong = visual_stats.choose_examples([r | {"score": 1 - r["score"]} for r in rows], 0.5)
    assert {r["verdict"] for r in wrong} == {"FALSE ALARM", "MISSED"} and len({r["path"] for r in wrong}) == 8
    with pytest.raises(SDDError, match="3 scored test images of label 0 are fewer than the 4 examples"):
        visual_stats.choose_examples(scored(3), 0.5)


# --- figures


@pytest.fixture
def eight():
    """Examples, crops, D_s maps that differ much in size, and CAMs of which one is empty."""
    examples = visual_stats.choose_examples(scored(12), 0.5)
    maps = np.linspace(0.1, 3, 8)[:, None, None] * np.random.default_rng(0).random((8, G, G))
    raw = np.random.default_rng(1).random((8, G, G)) - np.array([2, *[0] * 7])[:, None, None]
    cam = visual.Cam(np.clip(raw, 0, None).repeat(16, 1).repeat(16, 2), raw, raw.max((1, 2)).clip(0))
    return examples, images(8).numpy(), maps, cam


def test_one_colour_scale_for_all_D_s_maps_from_zero_to_the_largest(eight):
    examples, crops, maps, _ = eight
    fig, data = figures_visual.discrepancy_maps(examples, crops, maps)
    shown = [image for ax in fig.axes for image in ax.images if image.get_array().shape == (G, G)]
    assert len(shown) == 8 and {image.get_clim() for image in shown} == {(0, maps.max())}
    assert len({image.get_cmap().name for image in shown}) == 1
    assert list(data) == [r["path"] for r in examples] and np.array_equal(list(data.values()), maps)


def test_every_cam_stands_above_its_peak_and_an_empty_one_says_so(eight):
    examples, crops, _, cam = eight
    fig, data = figures_visual.cam_overlays(examples, crops, {"tokens": cam, "pixels": cam})
    said = [ax.get_xlabel() for ax in fig.axes if ax.get_xlabel()]
    assert said == 2 * ["empty", *(f"peak {peak:.2g}" for peak in cam.peak[1:])]
    assert data["pixels"][examples[3]["path"]][1] == cam.peak[3]


def test_each_stage_has_one_colour_scale(eight):
    examples, crops, maps, _ = eight
    fig, _ = figures_visual.stage_panels(examples, crops, [maps, 7 * maps])
    limits = [image.get_clim() for ax in fig.axes for image in ax.images if image.get_array().shape == (G, G)]
    assert limits == [(0, maps.max())] * 8 + [(0, 7 * maps.max())] * 8


def test_errors_among_the_examples_are_bold(eight):
    examples, crops, maps, _ = eight
    fig, _ = figures_visual.discrepancy_maps(examples, crops, maps)
    bold = [ax.title.get_fontweight() == "bold" for ax in fig.axes[:8]]
    assert bold == [r["verdict"] in ("MISSED", "FALSE ALARM") for r in examples] and any(bold) and not all(bold)


def test_boxes_and_planes_give_back_what_they_drew():
    rng = np.random.default_rng(0)
    real, fakes = rng.random(20), {"new": rng.random(15) + 1, "seen": rng.random(15)}
    fig, data = figures_visual.discrepancy_boxes(real, fakes, {g: (0.5, 0.4, 0.6) for g in fakes}, {"seen"}, 0.9)
    labels = [t.get_text() for t in fig.axes[0].get_yticklabels()]
    assert labels == ["real, N = 20", "new, N = 15", "seen (seen), N = 15"] and list(data) == ["real", "new", "seen"]
    panel = {"points": rng.random((10, 2)), "labels": np.repeat([0, 1], 5), "silhouette": 0.1, "probe": 0.9}
    panels = {g: panel | {"seen": g == "seen"} for g in fakes}
    fig, data = figures_visual.feature_planes(panels, 30.0, 1000, 3)
    assert data is panels and [len(c.get_offsets()) for ax in fig.axes for c in ax.collections] == [5] * 4
    assert "perplexity 30, 1000 iterations, seed 3" in fig.get_suptitle() and "N = 5 of each class" in fig.get_suptitle()
