"""Trials of the baselines: resumable, kept in small files that say what made them, ranked with intervals beside SDD."""

import json
import os
import shutil
import sys
from dataclasses import replace
from functools import cache
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from scores import make

import sddlib.__main__ as cli
from sddlib import SDDError, figures_baselines
from sddlib.baselines import BASELINES
from sddlib.baselines import trials as module
from sddlib.baselines.base import Baseline, Output
from sddlib.baselines.kept import write_scores
from sddlib.baselines.standing import beside_paper, cost_table, paper_means, ranking_table, same_order, standing, title
from sddlib.baselines.trials import Trials, check_kinds, keep_run, profile_trials, read_trials, sweep
from sddlib.data import read_csv
from sddlib.fitting import PRACTICAL, read_job
from sddlib.metrics import fit_threshold
from sddlib.profiles import ROOT, all_parameters, read_json
from sddlib.recipes import load_scorer
from sddlib.report import NAMES
from sddlib.runs import write_json

MANIFEST = ROOT / "data" / "manifest.csv"


def trials_in(folder, **changes) -> Trials:
    sizes = {"limit": 2, "image_size": 32, "changes": {"epochs": 1, "batch": 4}, "options": {"npr": {"width": 4}}}
    source = {"backbone": "tiny", "weights": "random"}
    return Trials(MANIFEST, "smoke", folder=folder / "kept", work=folder / "work", source=source, **{**sizes, **changes})


def quiet(_) -> None:
    """Says nothing."""


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> Trials:
    trials = trials_in(tmp_path_factory.mktemp("trials"))
    assert sweep(["npr"], [0, 1], trials, say=quiet) == 2
    return trials


def test_what_is_there_with_the_same_settings_is_not_made_again(done):
    said = []
    before = done.file("npr", 0).stat().st_mtime_ns
    assert sweep(["npr"], [0, 1], done, say=said.append) == 0
    assert said == ["npr, seed 0: is there", "npr, seed 1: is there"] and done.file("npr", 0).stat().st_mtime_ns == before
    assert done.seeds("npr") == [0, 1] and done.seeds("univfd") == []


def test_other_settings_train_again_and_a_checkpoint_without_scores_is_only_scored(tmp_path, monkeypatch):
    trials = trials_in(tmp_path)
    sweep(["npr"], [0], trials, say=quiet)
    digest = read_json(trials.file("npr", 0).with_suffix(".json"))["sha256"]
    trials.file("npr", 0).unlink()
    with monkeypatch.context() as m:
        m.setattr("sddlib.baselines.npr.NPR.fit", None)  # a training would fail
        assert sweep(["npr"], [0], trials, say=quiet) == 1
    assert sweep(["npr"], [0], trials_in(tmp_path, options={"npr": {"width": 5}}), say=quiet) == 1
    assert read_json(trials.file("npr", 0).with_suffix(".json"))["sha256"] != digest


def stop_a_training(trials: Trials, monkeypatch) -> None:
    """Interrupted in the third step, with a state of every step on disk."""
    real, steps = module.States, []

    def every_step(folder, key, say):
        return real(folder, key, 0.0, say)

    loss = module.baseline("npr").loss

    def stop(self, x, y):
        steps.append(1)
        if len(steps) == 3:
            raise KeyboardInterrupt
        return loss(self, x, y)

    monkeypatch.setattr(module, "States", every_step)
    with monkeypatch.context() as m, pytest.raises(KeyboardInterrupt):
        m.setattr("sddlib.baselines.npr.NPR.loss", stop)
        sweep(["npr"], [0], trials, say=quiet)


def test_a_training_that_was_stopped_goes_on_to_the_same_scores(done, tmp_path, monkeypatch):
    trials, said = trials_in(tmp_path), []
    stop_a_training(trials, monkeypatch)
    assert sweep(["npr"], [0], trials, say=said.append) == 1
    assert any("goes on after" in text for text in said)
    facts = read_json(trials.file("npr", 0).with_suffix(".json"))
    assert facts["resumed"] and not read_json(done.file("npr", 0).with_suffix(".json"))["resumed"]
    assert trials.file("npr", 0).read_text() == done.file("npr", 0).read_text()


def test_force_starts_a_stopped_training_anew(tmp_path, monkeypatch):
    trials, said = trials_in(tmp_path), []
    stop_a_training(trials, monkeypatch)
    assert sweep(["npr"], [0], trials, True, said.append) == 1
    assert not any("goes on after" in text for text in said)
    assert not read_json(trials.file("npr", 0).with_suffix(".json"))["resumed"]


def test_kept_files_say_scores_by_path_and_what_made_them(done):
    runs, facts = read_trials(done, ["npr"])
    assert len(runs) == 2 and set(facts) == {("npr", 0), ("npr", 1)}
    rows = runs[0]["npr"]
    assert {r["split"] for r in rows} == {"val", "test"} and all(0 < r["score"] < 1 for r in rows)
    model = load_scorer(done.work / "npr-seed0.safetensors")
    assert model.score(MANIFEST.parent / rows[3]["path"]) == pytest.approx(rows[3]["score"], abs=1e-5)
    known = facts["npr", 0]
    assert known["parameters"] == known["learned"] == sum(p.numel() for p in model.parameters())
    assert known["settings"]["options"]["width"] == 4 and known["settings"]["config"]["epochs"] == 1 and known["seed"] == 0
    assert (
        known["ms_image"] > 0 and known["train_seconds"] > 0 and known["versions"]["torch"] == torch.__version__.split("+")[0]
    )
    assert known["threshold"] == model.about["threshold"] and model.about["generators"] == ["realesrgan_x4plus"]
    assert done.file("npr", 0).stat().st_size < 100 * len(rows)


def test_a_tenth_is_one_file_and_one_line(tmp_path, monkeypatch):
    """The class that notebook 07 shows, as a file of its own: trained, kept, ranked and loaded like the nine."""
    cells = json.loads((ROOT / "notebooks" / "07_baselines.ipynb").read_text())["cells"]
    (shown,) = (text for text in map("".join, (c["source"] for c in cells)) if text.startswith("class Sharpness(Baseline)"))
    tenth = ModuleType("sddlib.baselines.sharpness")
    vars(tenth).update({"np": np, "torch": torch, "Image": Image, "Baseline": Baseline, "Output": Output})
    exec(shown, vars(tenth))
    monkeypatch.setitem(sys.modules, tenth.__name__, tenth)
    monkeypatch.setitem(BASELINES, "sharpness", "sharpness.Sharpness")
    trials = trials_in(tmp_path)
    assert check_kinds([])[-1] == "sharpness" and sweep(["sharpness"], [0], trials, say=quiet) == 1
    runs, facts = read_trials(trials, ["sharpness"])
    ranked = standing(runs, draws=20)
    assert "sharpness" in ranking_table(ranked) and cost_table(facts).splitlines()[1].split()[:2] == ["sharpness", "7"]
    assert load_scorer(trials.work / "sharpness-seed0.safetensors").kind == "sharpness"


def test_different_seeds_are_different_trainings(done):
    runs, _ = read_trials(done, ["npr"])
    assert [r["score"] for r in runs[0]["npr"]] != [r["score"] for r in runs[1]["npr"]]


def test_scores_of_another_benchmark_are_refused(done, tmp_path):
    with pytest.raises(SDDError, match="holds other images than this manifest"):
        read_trials(Trials(MANIFEST, "smoke", 3, 32, done.folder, tmp_path), ["npr"])


def copied(done: Trials, folder) -> Trials:
    return replace(done, folder=shutil.copytree(done.folder, folder / "kept"))


def test_scores_of_the_same_files_with_other_labels_are_refused(done, tmp_path):
    trials = copied(done, tmp_path)
    record = trials.file("npr", 1).with_suffix(".json")
    facts = read_json(record)
    write_json(record, facts | {"settings": facts["settings"] | {"images": "0" * 64}})
    with pytest.raises(SDDError, match="seed1_npr.csv holds other images than this manifest"):
        read_trials(trials, ["npr"])


@pytest.mark.parametrize("old, new", [("path,logit", "path,score"), (",-", ",x"), (",", ""), ("webp,", "webp\n,")])
def test_a_broken_kept_file_is_one_sentence(done, tmp_path, old, new):
    trials = copied(done, tmp_path)
    file = trials.file("npr", 0)
    broken = file.read_text().replace(old, new)
    assert broken != file.read_text()
    file.write_text(broken)
    with pytest.raises(SDDError, match="seed0_npr.csv or its JSON is broken"):
        read_trials(trials, ["npr"])


def test_kept_facts_without_settings_are_one_sentence(done, tmp_path):
    trials = copied(done, tmp_path)
    write_json(trials.file("npr", 0).with_suffix(".json"), {})
    with pytest.raises(SDDError, match=r"is broken \(KeyError\('settings'\)\)"):
        read_trials(trials, ["npr"])


def test_an_image_is_timed_without_the_maps_that_were_kept(tmp_path, monkeypatch):
    model, seen = SimpleNamespace(diffusion=SimpleNamespace(cache="maps")), []

    def timed(model, samples, root):
        seen.append((model.diffusion.cache, len(samples)))
        return [{"path": "a", "score": 0.5}], 1000.0 * len(seen)

    monkeypatch.setattr(module, "timed_scores", timed)
    monkeypatch.setattr(module, "model_facts", lambda model: {})
    trials = trials_in(tmp_path, limit=0)
    module.keep(model, {}, trials.file("dire", 0), trials)
    assert [cache for cache, _ in seen] == ["maps", None] and seen[1][1] == module.TIMED < seen[0][1]
    assert read_json(trials.file("dire", 0).with_suffix(".json"))["ms_image"] == 2000.0


def test_scores_near_one_stay_apart(tmp_path):
    near, file = [1 - 1e-9, 1 - 1.001e-9, 0.5, 1e-12, 1.0, None], tmp_path / "kept" / "s.csv"
    write_scores([{"path": f"{i}.png", "score": p} for i, p in enumerate(near)], file, {})
    texts = [r["logit"] for r in read_csv(file)]
    logits = [float(text) for text in texts[:-1]]
    assert texts[-1] == "" and logits[4] > logits[0] > logits[1] > logits[2] == 0
    assert np.isclose(1 / (1 + np.exp(-logits[3])), 1e-12)


def test_unknown_kinds_are_refused_and_the_rest_is_put_in_order():
    assert check_kinds(["npr", "cnnspot"]) == ["cnnspot", "npr"] and len(check_kinds([])) >= 7
    with pytest.raises(SDDError, match="there is no baseline 'dire2'"):
        check_kinds(["npr", "dire2"])


def test_command_trains_with_the_sizes_of_a_profile(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(module, "RUNS", tmp_path / "runs")
    call = ["baselines", "npr", "--profile", "smoke", "-p", "image_size=32", "--out", str(tmp_path / "kept")]
    assert cli.main([*call, "--seeds", "3"]) == 0
    assert "npr, seed 3: validation AP" in capsys.readouterr().out
    assert (tmp_path / "kept" / "smoke_seed3_npr.csv").is_file()
    assert cli.main([*call, "--seeds", "3"]) == 0 and "0 made" in capsys.readouterr().out
    assert cli.main(["baselines", "nqr"]) == 2 and "there is no baseline 'nqr'" in capsys.readouterr().err
    assert cli.main(["baselines", "-p", "epoch=3"]) == 2 and "'epoch' is no parameter" in capsys.readouterr().err


def test_profile_mini_trains_the_settings_that_are_kept_here():
    trials = profile_trials("mini", {}, module.STORE)
    assert trials.image_size == 112 and not trials.changes and not trials.options
    files = sorted(module.STORE.glob("mini_seed*.json"))
    assert files
    for file in files:
        facts = read_json(file)
        kind, seed = file.stem.split("_", 2)[2], facts["seed"]
        now = job_settings(seed) if kind in NAMES else trials.settings(kind, seed)
        assert common(facts["settings"], now) if kind in NAMES else facts["settings"] == now, f"{file.name}: make it again"


@cache
def job_settings(seed: int) -> dict:
    """Those that 03_train trains SDD, LoRA and the probe with under profile mini."""
    p = SimpleNamespace(**all_parameters("mini", "03_train", {"seed": seed}))
    return read_job(p, ROOT / p.manifest, p.weights, ROOT).settings


def common(kept: dict, now: dict) -> bool:
    """Whether what was kept is still so: what came later, and what changes with the machine, is not compared."""
    same = {k: v for k, v in kept.items() if k not in (*PRACTICAL, "precision")}
    return all(common(v, now[k]) if isinstance(v, dict) else v == now.get(k) for k, v in same.items())


def test_kept_scores_are_of_this_benchmark_and_give_the_kept_thresholds():
    trials = profile_trials("mini", {}, module.STORE)
    runs, facts = read_trials(trials, [*NAMES, *check_kinds([])])
    assert {kind for kind, _ in facts} >= set(NAMES)
    assert len({len(rows) for run in runs for rows in run.values()}) == 1
    scored = {(kind, seed): run[kind] for seed, run in enumerate(runs) for kind in run}
    assert set(scored) == set(facts)
    for key, rows in scored.items():
        fitted = fit_threshold([r for r in rows if r["split"] == "val"])
        assert fitted == pytest.approx(facts[key]["threshold"], abs=1e-3), key


# Ranking


def runs_of(levels: dict[str, float], seeds: int = 2) -> list[dict]:
    """Made-up scores: fakes of generators a (seen) and b, ahead of the reals by a level, noise on top."""
    found = []
    for seed in range(seeds):
        found.append({})
        for kind, level in levels.items():
            rng, rows = np.random.default_rng(seed), []
            for split, names in (("val", ("a",)), ("test", ("a", "b"))):
                rows += make(0, "camera", rng.normal(0, 1, 40), split)
                for name in names:
                    rows += make(1, name, rng.normal(level, 1, 40), split)
            for i, r in enumerate(rows):
                r |= {"score": float(1 / (1 + np.exp(-r["score"]))), "photo": f"{r['split']}{i % 40}"}
            found[-1][kind] = rows
    return found


@pytest.fixture(scope="module")
def found() -> dict:
    return standing(runs_of({"npr": 0.3, "sdd": 3.0, "cnnspot": 1.0}), 100)


def test_standing_is_best_first_with_intervals_and_paired_differences_to_sdd(found):
    assert list(found) == ["sdd", "cnnspot", "npr"] and found["sdd"]["difference"] is None
    for f in found.values():
        mid, low, high = f["ap"]
        assert low <= mid <= high and f["seeds"] == 2 and mid == pytest.approx(f["mean_ap_unseen"])
    mid, low, high = found["npr"]["difference"]
    assert high < 0 and mid == pytest.approx(found["npr"]["ap"][0] - found["sdd"]["ap"][0])


def test_methods_with_fewer_seeds_or_without_sdd_are_ranked_too():
    runs = runs_of({"npr": 0.3, "sdd": 3.0})
    del runs[1]["npr"]
    found = standing(runs, 50)
    assert found["npr"]["seeds"] == 1 and np.isnan(found["npr"]["ap_sd"]) and found["npr"]["difference"]
    assert standing(runs_of({"npr": 0.3}), 50)["npr"]["difference"] is None
    assert "NPR" in ranking_table(found) and "SDD" in ranking_table(found)


def test_where_training_held_every_generator_there_is_no_ranking():
    runs = [{kind: [r for r in rows if r["generator"] != "b"] for kind, rows in run.items()} for run in runs_of({"npr": 1.0})]
    with pytest.raises(SDDError, match="no unseen generator: training held every generator of the test split"):
        standing(runs, 50)


def test_papers_means_stand_beside_ours_and_orders_are_counted(found):
    means = paper_means(["npr", "cnnspot", "lora", "univfd_nearest"])
    assert (
        means["npr"] == {1: 92.19, 2: 86.20, 3: 90.3} and means["sdd"][1] == 98.51 and set(means) == {"npr", "cnnspot", "sdd"}
    )
    text = beside_paper(found)
    assert "98.51" in text and f"{100 * found['npr']['mean_ap_unseen']:.2f}" in text
    assert same_order(found) == (2, 3)  # the paper: SDD, NPR, CNNSpot; here: SDD, CNNSpot, NPR


def test_costs_are_means_over_seeds_and_what_a_stopped_training_took_is_not_known():
    known = {"parameters": 1000, "learned": 10, "ms_image": 2.0, "train_seconds": 100.0, "train_wall": 300.0, "epochs": 4}
    facts = {
        ("npr", 0): known,
        ("npr", 1): known | {"train_seconds": 200.0},
        ("npr", 2): known | {"resumed": True, "train_seconds": 1.0, "train_wall": 1.0, "ms_image": 5.0},
        ("dire", 0): known | {"resumed": True, "maps_made": 7},
        ("fakeinversion", 0): known | {"maps_made": 7},
    }
    line, stopped, whole = (line.split() for line in cost_table(facts).splitlines()[1:])
    assert line == ["NPR", "1,000", "10", "3.0", "150", "300", "-", "4.0", "-"]
    assert whole[-1] == "7" and stopped == ["DIRE", "1,000", "10", "2.0", "-", "-", "-", "4.0", "-"]


def test_figures_return_what_they_draw(found, done):
    names = {kind: title(kind) for kind in found}
    _, data = figures_baselines.ranking(found, names, "t")
    assert data == {kind: f["ap"] for kind, f in found.items()}
    lines = [{"generator": g, "seen": g == "a", "ap": ap, "n_real": 9, "n_fake": 8} for g, ap in (("b", 0.5), ("a", 0.9))]
    fig, (generators, values) = figures_baselines.ap_matrix({"npr": lines, "sdd": lines}, names)
    assert generators == ["a", "b"] and values.tolist() == [[0.9, 0.5]] * 2 and "9 real + 8 fake" in fig.axes[0].get_title()
    samples = [s for s in done.samples() if s.split == "test"]
    pair = (next(s for s in samples if s.label == 0), next(s for s in samples if s.label == 1))
    _, drawn = figures_baselines.inputs([pair], 32, module.baseline("patchfor")(32, 4))
    assert len(drawn) == 2 and drawn[0]["crop"].shape == (32, 32, 3) and drawn[0]["PatchFor: P(generated)"].shape == (16, 16)


def test_scores_of_a_finished_run_are_kept_beside_the_baselines(smoke_run, tmp_path):
    trials = trials_in(tmp_path)
    keep_run(smoke_run.dir, trials)
    runs, facts = read_trials(trials, NAMES)
    assert (
        set(runs[0]) == set(NAMES)
        and facts["sdd", 0]["ms_image"] > 0
        and facts["sdd", 0]["train_wall"] > 0
        and "train_wall" not in facts["probe", 0]
    )
    assert facts["sdd", 0]["settings"]["backbone"] == "tiny" and facts["lora", 0]["learned"] < facts["lora", 0]["parameters"]
    assert os.path.relpath(trials.file("sdd", 0), tmp_path) == "kept/smoke_seed0_sdd.csv"


def test_scores_of_a_run_on_other_images_are_not_kept(smoke_run, tmp_path):
    trials = trials_in(tmp_path, limit=1)
    with pytest.raises(SDDError, match="sdd.csv holds other images than this manifest"):
        keep_run(smoke_run.dir, trials)
    assert not trials.folder.exists()


def test_smoke_run_ranks_every_baseline_beside_sdd(smoke_run):
    metrics = json.loads((smoke_run.dir / "metrics" / "07_baselines.json").read_text())
    assert set(metrics["baseline_ap"]) == {*NAMES, *check_kinds([])} and metrics["trained_here"]
    assert metrics["methods"] == len(metrics["baseline_ap"]) and 1 <= metrics["sdd_place"] <= metrics["methods"]
