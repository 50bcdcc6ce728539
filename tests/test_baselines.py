"""The paper's baselines: each has the property its paper states, and all keep the promises of one interface."""

import copy
import csv
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from sddlib import SDDError
from sddlib.__main__ import main
from sddlib.baselines import BASELINES, baseline
from sddlib.baselines.base import Baseline
from sddlib.baselines.cooccurrence import Cooccurrence, cooccurrence
from sddlib.baselines.freqspec import FreqSpec, spectrum
from sddlib.baselines.npr import NPR, relations
from sddlib.baselines.patchfor import PatchFor
from sddlib.baselines.univfd import UnivFD, UnivFDNearest
from sddlib.crops import Crops
from sddlib.data import Sample, cut, decode, normalised
from sddlib.evaluate import score_samples
from sddlib.paper import read_tables
from sddlib.recipes import load_scorer

SIZE = 32
CLIP = {"backbone": "tiny", "weights": "random"}
SMALL = {kind: {"width": 4} for kind in ("cnnspot", "cnnspot_half", "patchfor", "cooccurrence", "freqspec", "npr")} | {
    "fatformer": {"width": 8}
}
SMALL |= {kind: {"width": 4, "side": 16, "steps": 1, "cache": ""} for kind in ("dire", "fakeinversion")}
each = pytest.mark.parametrize("kind", BASELINES)


def make(kind: str, **options) -> Baseline:
    cls = baseline(kind)
    torch.manual_seed(0)
    return cls(SIZE, **((CLIP if cls.on_clip else {}) | SMALL.get(kind, {}) | options))


@pytest.fixture(scope="module")
def samples(tmp_path_factory) -> dict[str, list[Sample]]:
    """Soft blocks, and the same with a checkerboard on top, as upsampling leaves it."""
    folder, rng, made = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0), {"train": [], "val": []}
    for i in range(24):
        base = rng.integers(60, 200, (5, 5, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
        for label, name in ((0, "camera"), (1, "gan")):
            path = folder / name / f"{i}_0.png"
            path.parent.mkdir(exist_ok=True)
            Image.fromarray((base + 40 * label * (np.indices((40, 40)).sum(0) % 2)[..., None]).astype(np.uint8)).save(path)
            split = "train" if i < 16 else "val"
            made[split].append(Sample(path, label, name, name, split, f"photo{i}"))
    return made


def fitted(kind: str, samples, seed: int = 0, **changes) -> tuple[Baseline, dict]:
    model = make(kind)
    config = model.config(seed, **{"epochs": 1, "batch": 8, **changes})
    return model, model.fit(samples["train"], samples["val"], config, log=lambda _: None)


@pytest.fixture(scope="module")
def trained(samples) -> dict[str, tuple[Baseline, dict]]:
    return {kind: fitted(kind, samples) for kind in BASELINES}


def inputs(model: Baseline, samples) -> torch.Tensor:
    return torch.stack([model.prepare(cut(decode(s.path), SIZE)) for s in samples])


# Properties that the papers state


def test_npr_is_zero_on_flat_pictures_and_on_those_enlarged_by_repeating_pixels():
    small = torch.randn(2, 3, 8, 8)
    assert relations(torch.full((1, 3, 8, 8), 0.7)).abs().max() == 0
    assert relations(small.repeat_interleave(2, 2).repeat_interleave(2, 3)).abs().max() == 0
    assert relations(small).abs().max() > 0
    assert relations(small.repeat_interleave(4, 2).repeat_interleave(4, 3), block=4).abs().max() == 0


def test_npr_is_each_pixel_minus_the_top_left_one_of_its_block():
    x = torch.arange(16.0).view(1, 1, 4, 4)
    assert relations(x)[0, 0].tolist() == [[0, 1, 0, 1], [4, 5, 4, 5], [0, 1, 0, 1], [4, 5, 4, 5]]
    with pytest.raises(SDDError, match="cannot be cut into blocks of 2 px"):
        relations(torch.zeros(1, 3, 7, 8))


def test_a_cooccurrence_matrix_sums_to_the_pixel_pairs_and_says_which_stand_side_by_side():
    pixels = np.random.default_rng(0).integers(0, 256, (10, 14, 3), dtype=np.uint8)
    counts = cooccurrence(pixels)
    assert counts.shape == (3, 256, 256) and (counts.sum((1, 2)) == 10 * 13).all()
    left, right = pixels[4, 6, 1], pixels[4, 7, 1]
    pairs = (pixels[:, :-1, 1] == left) & (pixels[:, 1:, 1] == right)
    assert counts[1, left, right] == pairs.sum() > 0
    assert cooccurrence(np.full((4, 4, 3), 9, np.uint8))[:, 9, 9].tolist() == [12, 12, 12]


def test_upsampling_by_zeros_repeats_the_spectrum_and_shifts_leave_it_alone():
    rng = np.random.default_rng(0)
    small, large = rng.random((8, 8, 3)), np.zeros((16, 16, 3))
    large[::2, ::2] = small
    s = np.fft.ifftshift(spectrum(large), axes=(1, 2))
    for rows in (slice(0, 8), slice(8, 16)):
        for columns in (slice(0, 8), slice(8, 16)):
            assert np.allclose(s[:, rows, columns], np.fft.ifftshift(spectrum(small), axes=(1, 2)))
    assert np.allclose(spectrum(np.roll(large, (3, 5), (0, 1))), spectrum(large), atol=1e-9)
    assert spectrum(np.ones((8, 8, 1)))[0].argmax() == 4 * 8 + 4  # frequency 0 in the middle


def test_freqspec_reads_spectra_between_minus_one_and_one_also_of_flat_pictures():
    model = FreqSpec(SIZE, 4)
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8))
    x = model.prepare(noise)
    assert x.amin((1, 2)).tolist() == [-1] * 3 and np.allclose(x.amax((1, 2)), 1)
    assert model.prepare(Image.new("RGB", (SIZE, SIZE))).isfinite().all()


@pytest.mark.parametrize("stages", [1, 2])
def test_a_patch_logit_sees_its_receptive_field_and_nothing_else(stages):
    model, x = PatchFor(96, 4, stages).eval(), torch.randn(1, 3, 96, 96, requires_grad=True)
    patches = model(x).patches
    middle = patches.shape[1] // 2
    patches[0, middle, middle].backward()
    touched = (x.grad[0].abs().sum(0) > 0).nonzero()
    assert (touched.amax(0) - touched.amin(0) + 1).tolist() == [model.receptive_field] * 2
    assert model.receptive_field == {1: 19, 2: 47}[stages]


def test_patchfor_averages_its_patches_trains_each_and_draws_them():
    model, x, y = PatchFor(SIZE, 4).eval(), torch.randn(2, 3, SIZE, SIZE), torch.tensor([0, 1])
    out = model(x)
    assert torch.allclose(out.logit, out.patches.mean((1, 2)))
    each_patch = [torch.nn.functional.softplus(p if label == 0 else -p).mean() for p, label in zip(out.patches, y, strict=True)]
    assert torch.allclose(model.loss(x, y)["total"], torch.stack(each_patch).mean())
    heat = model.train().heat_map(x)
    assert heat.shape == out.patches.shape and torch.allclose(heat, torch.sigmoid(out.patches)) and not heat.requires_grad


def test_univfd_trains_nothing_of_clip_and_its_logit_is_linear_in_the_embedding(samples, trained):
    model, facts = trained["univfd"]
    fresh = make("univfd")
    for name, w in fresh.backbone.state_dict().items():
        assert torch.equal(w, model.backbone.state_dict()[name])
    x = inputs(model, samples["val"])
    out = model(x)
    assert torch.allclose(out.logit, (out.features @ model.head.weight[0] + model.head.bias), atol=1e-6)
    assert torch.allclose(out.features, fresh.eval().backbone.embed(fresh.backbone(x)[:, 0]), atol=1e-5)
    assert facts["chosen"]["C"] > 0


def test_univfd_embeds_where_the_accelerator_is(samples, monkeypatch):
    def stop(features, crops, device):
        raise SDDError(f"embeds on {device}")

    monkeypatch.setattr("sddlib.baselines.univfd.pick_device", lambda: torch.device("meta"))
    monkeypatch.setattr("sddlib.baselines.univfd.embed", stop)
    with pytest.raises(SDDError, match="embeds on meta"):
        fitted("univfd", samples)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_univfd_loads_the_published_linear_head(suffix, tmp_path):
    from safetensors.torch import save_file

    model = UnivFD(SIZE, **CLIP).eval()
    head = {"weight": torch.randn(1, 32), "bias": torch.randn(1)}
    file = tmp_path / f"fc_weights{suffix}"
    (torch.save if suffix == ".pth" else save_file)(head, file)
    model.load_head(file)
    x = torch.randn(3, 3, SIZE, SIZE)
    assert torch.allclose(model(x).logit, (model.features(x) @ head["weight"].T + head["bias"])[:, 0], atol=1e-6)
    model.save(tmp_path / "univfd.safetensors", {"threshold": 0.5})  # as the README has it
    Image.new("RGB", (SIZE, SIZE), (90, 60, 30)).save(tmp_path / "picture.png")
    call = ["score", str(tmp_path / "picture.png"), "--out", str(tmp_path / "out.csv")]
    assert main([*call, "--checkpoint", str(tmp_path / "univfd.safetensors")]) == 0
    (row,) = csv.DictReader((tmp_path / "out.csv").open())
    assert float(row["score"]) == pytest.approx(model.score(Image.open(tmp_path / "picture.png")), abs=1e-6)
    torch.save({"weight": torch.randn(1, 768), "bias": torch.randn(1)}, tmp_path / "large.pth")
    with pytest.raises(SDDError, match=r"\(1, 768\).* not a head for embeddings of 32"):
        model.load_head(tmp_path / "large.pth")
    with pytest.raises(SDDError, match="UnivFD's linear head needs the weights file"):
        model.load_head(tmp_path / "none.pth")


def test_nearest_neighbour_calls_a_training_picture_what_it_is(samples):
    model = UnivFDNearest(SIZE, **CLIP, crops=1)
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(10, 32)), np.array([0, 1] * 5)
    model.fit_features(X, y, X, y)
    model.features = lambda x: x
    out = model.eval()(torch.from_numpy(3.0 * X).float())
    assert ((out.logit > 0).numpy() == y).all()
    with pytest.raises(SDDError, match="k = 6 neighbours cannot be found among 5 pictures"):
        UnivFDNearest(SIZE, 6, **CLIP).fit_features(X, y, X, y)


def test_k_neighbours_are_averaged():
    model = UnivFDNearest(SIZE, 2, **CLIP)
    model.reals, model.fakes = torch.eye(3), torch.tensor([[0.6, 0.8, 0.0], [0.0, 0.0, 1.0]])
    model.features = lambda x: x
    assert model(torch.tensor([[2.0, 0.0, 0.0]])).logit.item() == pytest.approx(100 * (0.6 / 2 - 1 / 2))


# One interface


@each
def test_a_batch_gives_a_logit_each_and_every_learned_weight_a_gradient(kind, samples, trained):
    model = copy.deepcopy(trained[kind][0]).train()  # BN statistics of the shared one stay
    x, y = inputs(model, samples["train"][:8]), torch.tensor([s.label for s in samples["train"][:8]])
    assert model(x).logit.shape == (8,)
    learned = [p for p in model.parameters() if p.requires_grad]
    if learned:
        model.loss(x, y)["total"].backward()
        assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.abs().max() > 0 for p in learned)


@each
def test_a_fitted_baseline_comes_back_from_its_file_with_equal_scores(kind, samples, trained, tmp_path):
    model = trained[kind][0]
    path = tmp_path / f"{kind}.safetensors"
    model.save(path, {"threshold": 0.5, "seed": 0})
    for again in (baseline(kind).load(path), load_scorer(path)):
        assert not again.training and again.options == model.options and again.about["threshold"] == 0.5
        x = inputs(model, samples["val"])
        assert torch.equal(again(inputs(again, samples["val"])).logit, model.eval()(x).logit)


@each
def test_scores_are_the_same_alone_among_others_and_through_evaluate(kind, samples, trained):
    model, root = trained[kind][0], samples["val"][0].path.parent
    rows = score_samples(model, samples["val"][:4], root, batch=3)
    assert [model.score(s.path) for s in samples["val"][:4]] == pytest.approx([r["score"] for r in rows], abs=1e-5)
    assert all(r["error"] == "" for r in rows)


@each
def test_none_chooses_its_settings_on_test_images_or_learns_from_validation(kind, samples):
    test = [replace(s, split="test") for s in samples["val"]]
    with pytest.raises(SDDError, match="the choice of a checkpoint takes images of split val"):
        fitted(kind, {**samples, "val": test})
    with pytest.raises(SDDError, match="training takes images of split train"):
        fitted(kind, {**samples, "train": samples["train"] + samples["val"]})


@each
def test_the_same_seed_fits_the_same_model_and_facts_are_plain(kind, samples, trained):
    model, facts = trained[kind]
    json.dumps(facts)
    other, _ = fitted(kind, samples)
    for name, w in model.own_state().items():
        assert torch.allclose(w, other.own_state()[name], atol=1e-5), name


@each
def test_names_options_and_reference_are_told(kind):
    cls, model = baseline(kind), make(kind)
    assert cls.kind == kind and cls.title and cls.reference
    assert cls.paper in {c.method for c in read_tables()} | {""}
    json.dumps(model.options)
    again = cls(SIZE, **model.options)
    assert {k: v.shape for k, v in again.state_dict().items()} == {k: v.shape for k, v in model.state_dict().items()}


@each
def test_what_is_frozen_is_not_stored(kind, trained):
    stored = trained[kind][0].own_state()
    assert not [name for name in stored if name.startswith("backbone.visual.conv1")]
    assert stored


@pytest.mark.parametrize("kind", ["cnnspot", "patchfor", "npr", "freqspec"])
def test_a_visible_trace_is_learned_in_the_common_loop(kind, samples):
    _, facts = fitted(kind, samples, epochs=8, lr=5e-3, patience=8)
    assert min(row["val_bce"] for row in facts["history"]) < 0.55  # a coin: 0.693


def test_an_unknown_kind_a_foreign_file_and_bad_sizes_are_one_sentence(tmp_path, trained):
    with pytest.raises(SDDError, match="there is no baseline 'nrp'"):
        baseline("nrp")
    path = tmp_path / "x.safetensors"
    trained["npr"][0].save(path, {})
    with pytest.raises(SDDError, match="holds a 'npr' model, not a 'patchfor' one"):
        PatchFor.load(path)
    for size in (4, 32.0):
        with pytest.raises(SDDError, match="is no number of pixels"):
            NPR(size)
    about = json.loads(path.with_suffix(".json").read_text())
    path.with_suffix(".json").write_text(json.dumps(about | {"options": about["options"] | {"width": 5}}))
    with pytest.raises(SDDError, match="does not fit its own description"):
        NPR.load(path)
    with pytest.raises(SDDError, match="checkpoint file .* is missing"):
        NPR.load(tmp_path / "none.safetensors")


def test_another_clip_than_the_one_it_was_trained_on_is_refused(tmp_path, trained):
    path = tmp_path / "u.safetensors"
    trained["univfd"][0].save(path, {})
    about = json.loads(path.with_suffix(".json").read_text())
    path.with_suffix(".json").write_text(json.dumps(about | {"fingerprint": "0" * 16}))
    with pytest.raises(SDDError, match="trained on other weights than 'random'"):
        UnivFD.load(path)
    with pytest.raises(SDDError, match="No weights at .*none.safetensors"):
        UnivFD(SIZE, backbone="tiny", weights=str(tmp_path / "none.safetensors"))


def test_views_limit_training_to_that_many_crops_an_image_each_prepared_once(samples):
    asked = []

    def read(crop):
        asked.append(crop)
        return normalised(crop)

    crops, seen = Crops(samples["train"], SIZE, train=True, keep=True, read=read, views=2), []
    for crops.epoch in range(5):
        seen.append(crops[0][0])
    assert torch.equal(seen[0], seen[2]) and torch.equal(seen[1], seen[3]) and not torch.equal(seen[0], seen[1])
    assert len(asked) == 2
    plain = Crops(samples["train"], SIZE, train=True, keep=True)
    plain.epoch = 1
    assert torch.equal(plain[0][0], seen[1])


def test_cooccurrence_reads_crops_of_any_size_as_256_by_256():
    assert Cooccurrence(48, 4).prepare(Image.new("RGB", (48, 48), (7, 7, 7))).shape == (3, 256, 256)
