"""What notebooks hand to each other: whole photographs, banks and models that are made once and never mixed up."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from sddlib import SDDError, recipes
from sddlib.baselines.probe import LinearProbe
from sddlib.data import Sample, data_hash, read_manifest
from sddlib.presets import get_preset
from sddlib.profiles import ROOT

SOURCE = {"backbone": "tiny", "weights": "random", "image_size": 64}
PRESET = get_preset("paper", M=16)


@pytest.fixture(scope="module")
def samples():
    return recipes.subset(read_manifest(ROOT / "data" / "manifest.csv"), 1)


def test_subset_takes_whole_photographs_with_every_generator(samples):
    whole = read_manifest(ROOT / "data" / "manifest.csv")
    assert {(s.split, s.generator) for s in samples} == {(s.split, s.generator) for s in whole}
    photos = {s.photo for s in samples}
    assert len(photos) == 3 and samples == [s for s in whole if s.photo in photos]
    assert recipes.subset(whole, 0) == whole


def test_subset_without_a_complete_photograph_is_refused():
    half = [Sample("a", 0, "camera", "camera", "test", "x"), Sample("b", 1, "g", "f", "test", "y")]
    with pytest.raises(SDDError, match="no photograph of split test has a fake of every generator"):
        recipes.subset(half, 1)


def test_a_model_is_not_tested_on_another_benchmark_than_its_own(samples):
    model = LinearProbe(recipes.encoder(SOURCE, PRESET.norm), PRESET)
    model.about = {"data": data_hash([s for split in ("train", "val") for s in samples if s.split == split])}
    recipes.check_trained_on(model, samples)
    with pytest.raises(SDDError, match="probe checkpoint was trained on other images"):
        recipes.check_trained_on(model, samples[1:])


def test_bank_is_the_same_from_its_file_and_refused_for_other_settings(samples, tmp_path):
    bank = recipes.sample_bank(recipes.encoder(SOURCE, PRESET.norm), samples, PRESET, 0)
    settings = recipes.bank_settings(samples, PRESET, 0, SOURCE)
    path = tmp_path / "bank.safetensors"
    recipes.save_bank(bank, path, settings, samples, ROOT / "data")
    loaded = recipes.load_bank(path, settings)
    assert torch.equal(loaded.f_s, bank.f_s) and np.array_equal(loaded.index, bank.index) and loaded.empty == bank.empty
    assert recipes.load_bank(path, settings | {"seed": 1}) is None
    assert recipes.load_bank(tmp_path / "none.safetensors", settings) is None


def test_a_bank_is_drawn_from_training_reals_whatever_else_a_benchmark_holds(samples):
    """Fakes, validation and test change neither the bank nor what is said of where it came from."""
    reals = recipes.training_reals(samples)
    assert len(reals) < len(samples) and all(s.split == "train" and s.label == 0 for s in reals)
    whole, alone = (recipes.sample_bank(recipes.encoder(SOURCE, PRESET.norm), part, PRESET, 0) for part in (samples, reals))
    assert torch.equal(whole.f_s, alone.f_s) and np.array_equal(whole.index, alone.index)
    assert recipes.bank_settings(samples, PRESET, 0, SOURCE) == recipes.bank_settings(reals, PRESET, 0, SOURCE)
    with pytest.raises(SDDError, match="training reals and there are none"):
        recipes.sample_bank(recipes.encoder(SOURCE, PRESET.norm), [s for s in samples if s not in reals], PRESET, 0)


def test_a_bank_file_of_another_benchmark_is_not_taken(samples, tmp_path, capsys):
    """Other images, the same images of other photographs, and test images that a file of the same name holds."""
    bank = recipes.sample_bank(recipes.encoder(SOURCE, PRESET.norm), samples, PRESET, 0)
    path, mine = tmp_path / "bank.safetensors", recipes.bank_settings(samples, PRESET, 0, SOURCE)
    tested = [replace(s, split="train") for s in samples if s.split == "test" and s.label == 0]
    others = {"images": tested, "photos": [replace(s, photo=f"x{s.photo}") for s in samples]}
    others["data"] = [replace(s, path=s.path.with_name(f"x{s.path.name}")) for s in samples]
    for named, other in others.items():
        recipes.save_bank(bank, path, recipes.bank_settings(other, PRESET, 0, SOURCE), other, ROOT / "data")
        capsys.readouterr()
        assert recipes.load_bank(path, mine) is None, named
        assert "bank.safetensors: was made with another" in capsys.readouterr().out
        again = recipes.shared_bank(
            tmp_path / named, recipes.encoder(SOURCE, PRESET.norm), samples, PRESET, 0, SOURCE, ROOT / "data"
        )
        assert torch.equal(again.f_s, bank.f_s)


def test_trainings_with_one_bank_share_its_file_and_others_have_their_own(samples, tmp_path, monkeypatch):
    backbone, sampled = recipes.encoder(SOURCE, PRESET.norm), []
    original = recipes.sample_bank
    monkeypatch.setattr(recipes, "sample_bank", lambda *a: (sampled.append(1), original(*a))[1])
    make = [tmp_path / "banks", backbone, samples]
    one, same = (recipes.shared_bank(*make, PRESET, 0, SOURCE, ROOT / "data") for _ in range(2))
    assert len(sampled) == 1 and torch.equal(one.f_s, same.f_s)
    other = recipes.shared_bank(*make, PRESET.with_fields(bank="random"), 0, SOURCE, ROOT / "data")
    assert len(sampled) == 2 and not torch.equal(one.f_s, other.f_s)


def test_a_bank_that_does_not_fit_in_memory_is_the_same(samples, monkeypatch):
    backbone = recipes.encoder(SOURCE, PRESET.norm)
    held = recipes.sample_bank(backbone, samples, PRESET, 0)
    monkeypatch.setattr(recipes, "HELD", 0)
    assert torch.equal(recipes.sample_bank(backbone, samples, PRESET, 0).f_s, held.f_s)


def test_a_preset_without_a_bank_has_an_empty_one_that_its_file_keeps(samples, tmp_path):
    preset = get_preset("paper", bank="none")
    bank = recipes.sample_bank(recipes.encoder(SOURCE, preset.norm), samples, preset, 0)
    settings = recipes.bank_settings(samples, preset, 0, SOURCE)
    recipes.save_bank(bank, tmp_path / "b.safetensors", settings, samples, ROOT / "data")
    assert recipes.load_bank(tmp_path / "b.safetensors", settings).f_s.shape == (0, 64)
    assert recipes.load_bank(tmp_path / "b.safetensors", recipes.bank_settings(samples, PRESET, 0, SOURCE)) is None


def test_model_is_trained_once_for_the_same_settings_and_again_for_others(tmp_path):
    made = []

    def make():
        made.append(1)
        return LinearProbe(recipes.encoder(SOURCE, PRESET.norm), PRESET), {**SOURCE, "threshold": 0.5}

    path = tmp_path / "probe.safetensors"
    for settings, force, times in (({"lr": 1}, False, 1), ({"lr": 1}, False, 1), ({"lr": 2}, False, 2), ({"lr": 2}, True, 3)):
        model = recipes.trained("probe", path, settings, make, force)
        assert len(made) == times and model.about["settings"] == settings


def test_checkpoint_of_any_kind_is_loaded_as_what_it_is(tmp_path):
    model = LinearProbe(recipes.encoder(SOURCE, PRESET.norm), PRESET)
    model.save(tmp_path / "m.safetensors", SOURCE)
    assert isinstance(recipes.load_scorer(tmp_path / "m.safetensors"), LinearProbe)
    with pytest.raises(SDDError, match="is missing"):
        recipes.load_scorer(tmp_path / "other.safetensors")
    about = json.loads((tmp_path / "m.json").read_text())
    (tmp_path / "m.json").write_text("{")
    with pytest.raises(SDDError, match="m.json is broken"):
        recipes.load_scorer(tmp_path / "m.safetensors")
    (tmp_path / "m.json").write_text(json.dumps(about | {"kind": "oracle"}))
    with pytest.raises(SDDError, match="of no kind that is known here"):
        recipes.load_scorer(tmp_path / "m.safetensors")
