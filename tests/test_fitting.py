"""A job from a notebook's parameters: what makes a checkpoint another one, what does not, and that a stopped one goes on."""

from dataclasses import asdict, replace
from types import SimpleNamespace

import pytest
import torch
from trees import univfd

from sddlib import SDDError, fitting
from sddlib.fitting import fit, job_bank, new_model, read_job
from sddlib.optim import TRAINING
from sddlib.profiles import ROOT, all_parameters
from sddlib.resume import States


def quiet(_line: str) -> None:
    pass


def make(folder, **changes):
    p = SimpleNamespace(**all_parameters("smoke", "03_train", {"epochs": 2, "force": False, "save_minutes": 0.0, **changes}))
    return read_job(p, ROOT / p.manifest, p.weights, folder)


def test_what_changes_only_time_and_memory_makes_no_other_checkpoint(tmp_path):
    job = make(tmp_path)
    for practical in ({"workers": 1}, {"checkpointing": True}, {"save_minutes": 1.0}):
        assert make(tmp_path, **practical).settings == job.settings
    for other in (
        {"lr": 1e-5},
        {"seed": 1},
        {"augment": 0.5},
        {"train_images": 8},
        {"accumulate": 2},
        {"preset_fields": {"M": 9}},
    ):
        assert make(tmp_path, **other).settings != job.settings, other


def test_fewer_training_images_leave_validation_and_the_benchmarks_hash_alone(tmp_path):
    job, small = make(tmp_path), make(tmp_path, train_images=8)
    assert len(small.train_set) == 8 and sum(s.label for s in small.train_set) == 4
    assert small.val_set == job.val_set and small.samples == job.samples and small.facts["data"] == job.facts["data"]
    assert job.chosen == [s for s in job.samples if s.split in ("train", "val")]


def test_classes_are_those_of_the_training_folders_alone(tmp_path):
    """All 19 sets of UnivFD are still tested, and the benchmark's hash is that of all classes."""
    root = tmp_path / "univfd"
    univfd(root)
    facts = {"manifest": str(root), "layout": "univfd", "limit": 0}
    every, some = (make(tmp_path, **facts, classes=classes) for classes in ([], ["car"]))
    assert {s.path.parent.parent.name for s in some.chosen} == {"car"} < {s.path.parent.parent.name for s in every.chosen}
    assert some.samples == every.samples and some.facts["data"] == every.facts["data"] and some.settings != every.settings
    with pytest.raises(SDDError, match="no images of class 'unicorn'"):
        make(tmp_path, **facts, classes=["car", "unicorn"])


@pytest.mark.parametrize("split, label, said", [("train", "1", "train has no fake"), ("val", "0", "val has no real")])
def test_one_class_only_is_refused_before_anything_is_computed(tmp_path, split, label, said):
    rows = ["path,label,generator,split"]
    for part in ("train", "val"):
        rows += [f"{part}{k}.png,{k},{('camera', 'gan')[int(k)]},{part}" for k in "01" if (part, k) != (split, label)]
    (tmp_path / "m.csv").write_text("\n".join(rows) + "\n")
    with pytest.raises(SDDError, match=f"split {said} images; training needs both classes there"):
        make(tmp_path, manifest=str(tmp_path / "m.csv"), limit=0)


def test_a_model_is_loaded_the_second_time_and_no_state_is_left(tmp_path, capsys):
    job = make(tmp_path)
    bank = job_bank(job, torch.device("cpu"))
    one = fit(job, "sdd", bank, quiet)
    assert not (tmp_path / "checkpoints" / "sdd.states").exists()
    other = fit(make(tmp_path), "sdd", job_bank(job, torch.device("cpu")), quiet)
    assert "already trained with these settings, loaded" in capsys.readouterr().out
    assert all(torch.equal(v, other.state_dict()[k]) for k, v in one.state_dict().items())
    assert other.about["classes"] == [] and other.about["generators"] == ["realesrgan_x4plus"]


def test_a_stopped_job_goes_on_and_force_starts_anew(tmp_path, monkeypatch):
    whole = fit(make(tmp_path / "whole"), "lora", log=quiet)
    save = States.save

    def stop(self, step, state):
        save(self, step, state)
        raise KeyboardInterrupt

    monkeypatch.setattr(States, "save", stop)
    job = make(tmp_path / "stopped")
    with pytest.raises(KeyboardInterrupt):
        fit(job, "lora", log=quiet)
    monkeypatch.undo()
    said = []
    resumed = fit(job, "lora", log=said.append)
    assert said[0].startswith("memory of training in each ") and said[1].startswith("goes on after epoch 0, step 1 of")
    assert all(torch.equal(v, resumed.state_dict()[k]) for k, v in whole.state_dict().items())
    again = []
    fit(replace(job, force=True), "lora", log=again.append)
    assert again[1].startswith("epoch 1")


def test_a_new_model_is_the_same_for_the_same_seed(tmp_path):
    job = make(tmp_path)
    bank = job_bank(job, torch.device("cpu"))
    for kind in ("sdd", "lora", "probe"):
        one, two = (new_model(job, kind, bank).state_dict() for _ in range(2))
        assert all(torch.equal(one[k], two[k]) for k in one)
    assert not torch.equal(
        new_model(replace(job, config=replace(job.config, seed=1)), "lora").head.weight, new_model(job, "lora").head.weight
    )


def test_bank_that_others_cannot_read_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(fitting, "save_bank", lambda *_: None)
    with pytest.raises(SDDError, match="put the run folder where all processes see it"):
        job_bank(make(tmp_path), torch.device("cpu"))


def test_profile_release_trains_as_the_authors_code_does(tmp_path):
    """Rates, stop and transforms of TRAINING["release"], which notebook 05 shows, and its batch."""
    univfd(tmp_path)
    p = SimpleNamespace(**all_parameters("release", "03_train", {"manifest": str(tmp_path)}))
    config, wanted = asdict(read_job(p, tmp_path, p.weights, tmp_path).config), asdict(TRAINING["release"])
    free = ("workers", "checkpointing")  # means, not choices of theirs
    assert {k: v for k, v in config.items() if k not in free} == {k: v for k, v in wanted.items() if k not in free}
