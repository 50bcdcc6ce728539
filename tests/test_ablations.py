"""Ablations: variants change what they say, a sweep goes on where it stood, differences come from saved scores alone."""

import copy
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

from sddlib import SDDError, ablations
from sddlib.ablations import VARIANTS, Store, check_variants, find_stores, parameters_of, settings_of, sweep
from sddlib.backbone import Backbone
from sddlib.chance import half_width, pooled_spread, spread_of_one
from sddlib.data import Sample, read_manifest
from sddlib.detector import Detector
from sddlib.effects import effects, effects_table, part_strengths, verdict
from sddlib.evaluate import score_paths, table, write_csv
from sddlib.figures import style
from sddlib.figures_ablations import effect_bars, path_bars, repeat_points
from sddlib.intervals import mean_draws
from sddlib.interventions import PATHS, interventions, partners
from sddlib.presets import Preset, get_preset
from sddlib.profiles import ROOT
from sddlib.recipes import subset
from sddlib.repeats import counted, find_repeats, runs_of, twice, twice_table
from sddlib.runs import write_json
from sddlib.weights import load_backbone

MANIFEST = ROOT / "data" / "manifest.csv"


# --- variants


def test_every_variant_is_a_preset_that_can_be_and_differs_from_all_others():
    made = [(v.kind, get_preset(v.preset, **v.fields)) for v in VARIANTS.values()]
    assert len(set(made)) == len(VARIANTS) and made[0] == ("sdd", Preset())


def test_the_issue_of_every_comparison_is_there():
    fields = {name: v.fields for name, v in VARIANTS.items()}
    assert VARIANTS["lora"].kind == "lora" and fields["no_sts"] == {"bank": "random"}
    assert {fields[n]["weight"] for n in fields if "weight" in fields[n]} == {"abs", "square"}
    assert {"random", "noise", "none"} <= {f.get("bank") for f in fields.values()}
    assert {v.preset for v in VARIANTS.values()} == {"paper", "release"}
    assert fields["printed"] == {"reconstruction": "printed"} and fields["dropout_0.8"] == {"lora_dropout": 0.8}
    assert fields["L_r_all"] == {"r_over": "all"} and {4, 8} <= {f.get("lora_blocks") for f in fields.values()}


def test_a_variant_is_trained_with_the_settings_of_the_profiles_own_training():
    values = parameters_of("no_sts", 2, "mini", {"limit": 5})
    assert (values["epochs"], values["batch"], values["scratch"], values["seed"], values["limit"]) == (3, 16, 4.0, 2, 5)
    assert values["preset_fields"] == {"bank": "random"} and not values["intervene"]
    smoke = parameters_of("release", 0, "smoke", {})
    assert smoke["preset_fields"]["M"] == 32  # a profile's sizes win
    assert settings_of(values) != settings_of(values | {"epochs": 2}) and settings_of(values) == settings_of(dict(values))


def test_what_a_sweep_cannot_do_is_refused_in_one_sentence(tmp_path):
    with pytest.raises(SDDError, match="there is no variant 'no_stss'; near it are no_sts"):
        check_variants(["no_stss"])
    for overrides, said in (
        ({"epohcs": 2}, "'epohcs' is no parameter of variant"),
        ({"seed": 2}, "seed is what a sweep sets"),
    ):
        with pytest.raises(SDDError, match=said):
            sweep(["sdd"], [0], "smoke", overrides, tmp_path, tmp_path)
    assert not list(tmp_path.iterdir())


# --- the sweep and its store


@pytest.fixture
def called(monkeypatch):
    """A template that scores at once: by the name of its run folder, so that what belongs to what can be told."""
    calls = []

    def execute(name, values, run_dir, say):
        calls.append((run_dir.name, values["seed"]))
        if ("break", run_dir.name) in calls:
            raise SDDError("killed")
        held_out = [s for s in subset(read_manifest(MANIFEST), values["limit"]) if s.split != "train"]
        (run_dir / "scores").mkdir(parents=True, exist_ok=True)
        files = ["scores"] + list(PATHS) * values["intervene"]
        for k, stem in enumerate(files):
            rows = []
            for i, s in enumerate(held_out):
                facts = {"label": s.label, "generator": s.generator, "family": s.family, "split": s.split, "photo": s.photo}
                score = (len(calls) * 31 + k * 7 + i * 13) % 97 / 97
                rows.append({"path": s.path.relative_to(MANIFEST.parent).as_posix(), "score": score, **facts})
            write_csv(rows, run_dir / "scores" / f"{stem}.csv")
        write_json(run_dir / "metrics" / "variant.json", {"seconds": 1.0, "dev_ap": 0.5})

    monkeypatch.setattr(ablations, "execute", execute)
    return calls


def run_sweep(names, seeds, folder, limit: int = 2, **overrides):
    return sweep(names, seeds, "smoke", {"limit": limit, **overrides}, folder / "store", folder / "work", say=lambda _: None)


def test_a_killed_sweep_goes_on_where_it_stood(called, tmp_path):
    called.append(("break", "no_sts-seed0"))
    with pytest.raises(SDDError, match="killed"):
        run_sweep(["sdd", "lora", "no_sts"], [0], tmp_path)
    called.clear()
    assert run_sweep(["sdd", "lora", "no_sts"], [0], tmp_path) == 1
    assert called == [("no_sts-seed0", 0)]
    assert run_sweep(["sdd", "lora", "no_sts"], [0], tmp_path) == 0


def changed(monkeypatch, name: str) -> None:
    """From here on a variant means something else: its settings differ, and those that all share do not."""
    monkeypatch.setitem(VARIANTS, name, replace(VARIANTS[name], fields={"lora_dropout": 0.1}))


def test_a_variant_is_made_again_for_other_settings_and_replaces_its_old_columns_only(called, tmp_path, monkeypatch):
    run_sweep(["sdd", "lora"], [0], tmp_path)
    store = Store(tmp_path / "store", "smoke", 0)
    before = store.columns()[1]
    assert list(before) == ["sdd", *(f"sdd:{n}" for n in sorted(PATHS)), "lora"]
    changed(monkeypatch, "sdd")
    assert run_sweep(["sdd"], [0], tmp_path) == 1
    after = store.columns()[1]
    assert after["lora"] == before["lora"] and set(after) == set(before) and len(called) == 3


def test_a_sweep_that_would_mix_settings_is_refused_before_anything_is_trained(called, tmp_path):
    run_sweep(["sdd", "lora"], [0], tmp_path)
    kept = Store(tmp_path / "store", "smoke", 0).csv.read_bytes()
    with pytest.raises(
        SDDError, match=r"holds lora trained with epochs \d+, this sweep has 2; give -p epochs=\d+ or another --out"
    ):
        run_sweep(["sdd"], [0], tmp_path, epochs=2)
    with pytest.raises(SDDError, match=r"holds \w+ trained with limit 2, this sweep has 1; give -p limit=2 or another"):
        run_sweep(["sdd"], [3], tmp_path, limit=1)
    assert Store(tmp_path / "store", "smoke", 0).csv.read_bytes() == kept and len(called) == 2
    assert run_sweep(["sdd", "lora"], [0], tmp_path, epochs=2) == 2  # nothing stays that was trained otherwise


def test_variants_that_were_trained_differently_are_not_compared(called, tmp_path):
    run_sweep(["sdd", "lora"], [0], tmp_path)
    store = Store(tmp_path / "store", "smoke", 0)
    facts = store.facts()
    write_json(store.json, facts | {"sdd": facts["sdd"] | {"common": facts["sdd"]["common"] | {"epochs": 9}}})
    with pytest.raises(SDDError, match="holds variants that were trained differently"):
        store.runs(MANIFEST, 2)


def test_broken_stores_are_said_to_be(called, tmp_path):
    run_sweep(["sdd", "lora"], [0], tmp_path)
    store = Store(tmp_path / "store", "smoke", 0)
    header, first, *others = store.csv.read_text().splitlines()
    for text in ("1.5", "nan", "abc", ""):
        row = ",".join([*first.split(",")[:-1], text])
        store.csv.write_text("\n".join([header, row, *others]) + "\n")
        with pytest.raises(SDDError, match=f"lora has '{text}' for .*, which is no score in 0..1; sweep it again"):
            store.runs(MANIFEST, 2)
    store.csv.write_text("\n".join(line.rpartition(",")[0] for line in (header, first, *others)) + "\n")
    assert run_sweep(["sdd", "lora"], [0], tmp_path) == 1  # what has facts and no scores is not there
    store.json.unlink()
    with pytest.raises(SDDError, match="has no smoke_seed0.json beside it that says how it was made"):
        store.runs(MANIFEST, 2)


def test_a_variant_replaced_by_a_killed_call_counts_as_not_made(called, tmp_path, monkeypatch):
    """Killed after the new scores and before their facts: the old facts must not vouch for them."""
    run_sweep(["sdd", "lora"], [0], tmp_path)
    store, original = Store(tmp_path / "store", "smoke", 0), ablations.write_json

    def killed(path, value):
        if path == store.json and "lora" in value and value["lora"].get("seconds"):
            raise KeyboardInterrupt
        original(path, value)

    changed(monkeypatch, "lora")
    monkeypatch.setattr(ablations, "write_json", killed)
    with pytest.raises(KeyboardInterrupt):
        run_sweep(["lora"], [0], tmp_path)
    assert set(store.facts()) == {"sdd"}


def test_nothing_an_earlier_call_left_is_taken_for_the_new_ones(called, tmp_path):
    left = tmp_path / "work" / "lora-seed0" / "scores"
    left.mkdir(parents=True)
    (left / "old.csv").write_text("path\n")
    run_sweep(["lora"], [0], tmp_path)
    assert set(Store(tmp_path / "store", "smoke", 0).columns()[1]) == {"lora"}


def test_stored_scores_keep_every_digit(called, tmp_path):
    run_sweep(["lora"], [0], tmp_path)
    rows = Store(tmp_path / "store", "smoke", 0).runs(MANIFEST, 2)["lora"]
    assert {r["score"] for r in rows} <= {k / 97 for k in range(97)}


def test_scores_without_their_facts_do_not_count(called, tmp_path):
    """A run killed between the two files leaves scores whose settings nobody knows."""
    run_sweep(["sdd", "lora"], [0], tmp_path)
    store = Store(tmp_path / "store", "smoke", 0)
    write_json(store.json, {"lora": store.facts()["lora"]})
    assert set(store.runs(MANIFEST, 2)) == {"lora"}
    assert run_sweep(["sdd", "lora"], [0], tmp_path) == 1


def test_stored_scores_come_back_with_what_the_manifest_says(called, tmp_path):
    run_sweep(["lora"], [3], tmp_path)
    (store,) = find_stores(tmp_path / "store", "smoke")
    rows = store.runs(MANIFEST, 2)["lora"]
    known = {s.path.relative_to(MANIFEST.parent).as_posix(): s for s in subset(read_manifest(MANIFEST), 2)}
    assert store.seed == 3 and rows
    for row in rows:
        s = known[row["path"]]
        assert (row["label"], row["generator"], row["split"], row["photo"]) == (s.label, s.generator, s.split, s.photo)
    assert len({row["score"] for row in rows}) > 10
    with pytest.raises(SDDError, match="is not in manifest.csv"):
        store.runs(MANIFEST, 1)
    with pytest.raises(SDDError, match="holds other images than this sweep scores"):
        store.add("sdd", {"sdd": [{"path": "other.webp", "score": 0.5}]}, {})


# --- effects


def scores(shift: float, seed: int) -> list[dict]:
    """A scores file of 20 photographs, two unseen generators and a seen one; fakes score higher by `shift`."""
    rng, rows = np.random.default_rng(seed), []
    for split in ("val", "test"):
        for photo in range(20):
            names = ("camera", "gan") if split == "val" else ("camera", "gan", "new", "other")
            for name in names:
                facts = {"path": f"{split}{name}{photo}", "family": name, "split": split, "photo": f"{split}{photo}"}
                score = 1 / (1 + np.exp(-rng.normal() - shift * (name != "camera")))
                rows.append({**facts, "generator": name, "label": int(name != "camera"), "score": float(score)})
    return rows


def level(rows: list[dict], key: str = "mean_ap_unseen") -> float:
    return table(rows)[1][key]


def test_a_difference_is_the_mean_over_all_trainings_of_a_variant_minus_that_of_sdd():
    runs = [{"sdd": scores(0.5, k), "good": scores(3.0, k)} for k in (0, 1)] + [{"sdd": scores(0.5, 2), "bad": scores(0, 2)}]
    found = effects(runs, draws=200)
    for name, of in (("good", runs[:2]), ("bad", runs[2:])):
        for metric, key in (("ap", "mean_ap_unseen"), ("acc", "mean_acc_unseen")):
            each = [level(run[name], key) for run in of]
            base = np.mean([level(run["sdd"], key) for run in runs])
            assert list(found[name][f"{metric}_each"].values()) == pytest.approx(each) and found[name]["trainings"] == len(of)
            assert found[name][f"{metric}_difference"][0] == pytest.approx(np.mean(each) - base)
            assert found[name][metric] - found["sdd"][metric] == pytest.approx(np.mean(each) - base)
    assert found["good"]["acc_sd"] == pytest.approx(np.std([level(r["good"], "mean_acc_unseen") for r in runs[:2]], ddof=1))
    assert np.isnan(found["bad"]["ap_sd"]) and found["sdd"]["ap_difference"] == (0.0, 0.0, 0.0)
    assert found["good"]["photographs"] == 20 and found["good"]["chance"] == 0.5 and found["sdd"]["trainings"] == 3
    assert verdict(found["good"]) == verdict(found["good"], "acc") == "better"
    text = effects_table(found, {n: n for n in found})
    assert re.search(r"good +good +2 .* better", text) and "nan" not in text and "AP - SDD" in text
    assert f"{found['good']['acc_difference'][0]:+.3f}" in effects_table(found, {n: n for n in found}, "acc")


def test_an_interval_holds_the_chance_of_photographs_and_that_of_training():
    runs = [{"sdd": scores(0.5, k), "good": scores(1.0, k + 9), "other": scores(1.0, k + 5)} for k in range(3)]
    found = effects(runs, draws=300)
    spread, free = pooled_spread(found[n]["ap_each"].values() for n in found)
    drawn = mean_draws({(n, k): run[n] for k, run in enumerate(runs) for n in run}, 300, np.random.default_rng(0))
    mine, base = (np.mean([drawn[n, k] for k in range(3)], 0) for n in ("good", "sdd"))
    trained = spread * np.sqrt(2 / 3)
    error = np.hypot(np.std((mine - base)[1:]), trained)
    mid, low, high = found["good"]["ap_difference"]
    df = 6 * (error / trained) ** 4  # Satterthwaite, with the photographs' part known
    assert free == 6 and (high - low) / 2 == pytest.approx(stats.t.ppf(0.975, df) * error) == half_width(error, df)
    least, most = found["good"]["ap_among"]
    assert (most - least) / 2 == pytest.approx(stats.t.ppf(1 - 0.05 / 4, df) * error)
    assert (least + most) / 2 == pytest.approx(mid)
    alone = effects(runs[:1], draws=300)["good"]
    photographs = np.std((drawn["good", 0] - drawn["sdd", 0])[1:])
    assert alone["ap_difference"][2] - alone["ap_difference"][0] == pytest.approx(1.96 * photographs, rel=1e-3)
    assert alone["one_training"] and alone["ap_among"] is None and verdict(alone) == "one training"


def test_a_cut_path_is_held_against_the_same_training_uncut():
    """Three detectors of very different levels, each hardly better than itself cut: trainings apart, it would not be seen."""
    runs = [{"sdd": scores(shift, k), "sdd:cut": scores(shift - 0.1, k)} for k, shift in enumerate((0.3, 1.5, 3.0))]
    found = effects(runs, draws=100)
    each = [level(run["sdd:cut"]) - level(run["sdd"]) for run in runs]
    mid, low, high = found["sdd:cut"]["ap_difference"]
    assert mid == pytest.approx(np.mean(each)) and found["sdd:cut"]["ap_among"] is None and not found["sdd:cut"]["one_training"]
    apart = effects([{n.replace(":", "_"): rows for n, rows in run.items()} for run in runs], draws=100)["sdd_cut"]
    assert apart["ap_difference"][0] == pytest.approx(mid)
    assert high - low < 0.3 * (apart["ap_difference"][2] - apart["ap_difference"][1])
    assert effects(runs[:1], draws=50)["sdd:cut"]["one_training"]


def test_a_comparison_can_start_from_another_variant():
    runs = [{"sdd": scores(0.5, k), "good": scores(3.0, k)} for k in (0, 1)]
    one, other = effects(runs, draws=50), effects(runs, draws=50, base="good")
    assert other["sdd"]["ap_difference"] == pytest.approx([-one["good"]["ap_difference"][i] for i in (0, 2, 1)])
    assert effects(runs, draws=20, base="absent") == {}


def test_where_training_held_every_generator_effects_are_over_these():
    seen = {
        name: [r for r in scores(shift, 0) if r["generator"] in ("camera", "gan")] for name, shift in (("sdd", 1), ("good", 3))
    }
    found = effects([seen], draws=50)
    summary = table(seen["good"])[1]
    assert found["good"]["over"] == "seen" and effects([{"sdd": scores(1, 0)}], draws=20)["sdd"]["over"] == "unseen"
    assert "over seen generators" in effect_bars(found, {"good": "any"}, verdict, "")[0].axes[0].get_xlabel()
    assert "over seen generators" in path_bars(found, {"good": "whole"}, "")[0].axes[0].get_xlabel()
    assert (found["good"]["ap"], found["good"]["acc"]) == pytest.approx((summary["mean_ap_seen"], summary["mean_acc_seen"]))
    assert found["good"]["ap_difference"][0] == pytest.approx(found["good"]["ap"] - found["sdd"]["ap"])


def test_nothing_written_on_the_figures_is_cut_off():
    style()
    runs = [{"sdd": scores(0.5, k), **{n: scores(1.0, k + 1) for n in VARIANTS if n != "sdd"}} for k in (0, 1)]
    found = effects(runs, draws=20)
    few = {name: found[name] for name in ("sdd", "lora", "no_sts")}
    title = "What a change to SDD does to AP on unseen generators (REDUCED sweep, shows nothing)"
    groups = {name: v.group for name, v in VARIANTS.items() if name != "sdd"}
    paths = {"sdd": "as trained", "lora": "the enhancer guided by the D_s of an image of the other class"}
    pairs = {"two_cores": [("sdd", 0, 0.8, 0.81)], "again": [("sdd", 0, 0.8, 0.8), ("lora", 0, 0.79, 0.8)]}
    figures = effect_bars(found, groups, verdict, title), effect_bars(few, groups, verdict, title), path_bars(few, paths, title)
    for fig, _ in (*figures, repeat_points(pairs, "unseen", 50, "The same training, made twice")):
        assert fig.get_suptitle()
        fig.draw_without_rendering()
        for text in (*fig.texts, fig.axes[0].xaxis.label, *fig.axes[0].get_yticklabels()):
            box = text.get_window_extent()
            assert box.width and fig.bbox.containsx(box.x0) and fig.bbox.containsx(box.x1), text.get_text()
    assert figures[0][1]["lora"] == (*found["lora"]["ap_difference"], *found["lora"]["ap_among"])
    assert figures[2][1]["as trained"] == list(found["sdd"]["ap_each"].values())


def test_too_few_draws_and_paths_without_their_detector_are_refused():
    with pytest.raises(SDDError, match="5 draws of photographs say nothing of their chance; give 20 or more"):
        effects([{"sdd": scores(1, 0)}], draws=5)
    with pytest.raises(SDDError, match="sdd:cut is there without the scores of its detector uncut"):
        effects([{"sdd": scores(1, 0)}, {"sdd:cut": scores(1, 0)}], draws=20)


def test_without_sdd_there_is_nothing_to_compare_with():
    assert effects([{"alone": scores(1, 1)}], draws=20) == {}


def test_verdicts_need_the_whole_interval_on_one_side_alone_and_among_all_changes():
    spans = ((0.1, 0.01, 0.2), (-0.1, -0.2, -0.01), (0.1, -0.01, 0.2))
    among = {None: "", (-0.3, -0.001): "", (0.001, 0.3): "", (-0.3, 0.3): "perhaps "}
    for together, before in among.items():
        told = [verdict({"one_training": False, "ap_difference": d, "ap_among": together}) for d in spans]
        assert told == [f"{before}better", f"{before}worse", "undecided"]
    effect = {"one_training": False, "acc_difference": spans[0], "ap_among": (0.01, 0.2), "acc_among": (-0.1, 0.2)}
    assert verdict(effect, "acc") == "perhaps better"
    assert verdict({"one_training": True, "ap_difference": spans[0], "ap_among": None}) == "one training"


def test_the_spread_of_training_is_taken_from_all_groups_and_its_interval_is_students():
    base, one = [0.80, 0.82, 0.87, 0.85], [0.79, 0.84, 0.81]
    spread, free = pooled_spread([base, one, [0.7]])
    half = half_width(spread * np.sqrt(1 / 4 + 1 / 3), free)
    expected = stats.ttest_ind(one, base).confidence_interval(0.95)
    assert free == 5 and 2 * half == pytest.approx(expected.high - expected.low)
    wider = stats.ttest_ind(one, base).confidence_interval(1 - 0.05 / 5)
    assert 2 * half_width(spread * np.sqrt(1 / 4 + 1 / 3), free, 5) == pytest.approx(wider.high - wider.low)
    assert pooled_spread([[0.7], [0.8]])[1] == 0 and np.isnan(pooled_spread([[0.7]])[0])
    rng = np.random.default_rng(0)
    assert spread_of_one(rng.normal(0, 0.02, 20_000) - rng.normal(0, 0.02, 20_000)) == pytest.approx(0.02, rel=0.02)


def test_parts_of_the_logit_are_told_from_scores_with_one_part_held():
    """A head that adds T_CLS's part and a quiet F_low's, which is the same negated, a fifth of it pixels."""
    rng, run = np.random.default_rng(0), {n: scores(1, 0) for n in ("sdd", *(f"sdd:{p}" for p in PATHS))}
    for i, r in enumerate(run["sdd"]):
        T_CLS = 3.0 * (r["label"] + rng.normal(0, 0.2))
        tokens, pixels = -0.25 * T_CLS, rng.normal(0, 0.1)
        z = {"sdd": T_CLS + tokens + pixels, "sdd:T_CLS_only": T_CLS + 1, "sdd:F_low_only": tokens + pixels - 2}
        z |= {"sdd:pixels_flat": T_CLS + tokens + 0.3, "sdd:D_s_swapped": 0.0}
        for name, value in z.items():
            run[name][i]["score"] = float(1 / (1 + np.exp(-value)))
    found = part_strengths(run)
    assert found["T_CLS"] > 0.99 and found["F_low"] < 0.01 and found["alike"] < -0.95 and 0.95 < found["without_pixels"] < 1
    assert found["louder"] == pytest.approx(4, rel=0.1)
    run["sdd"][0]["score"] = None  # a picture that could not be read
    run["sdd:F_low_only"][1]["score"] = 1.0  # which no logit can be of
    assert all(np.isfinite(v) for v in part_strengths(run).values())


def test_degrees_of_freedom_count_for_the_chance_of_training_alone():
    """Where training hardly moves AP, its few degrees of freedom must not widen the interval of the photographs."""
    runs = [{"sdd": scores(0.5, 0), "good": scores(1.0, 9)}, {"sdd": scores(0.5, 0), "good": scores(1.0, 9)}]
    runs[1]["good"][-1]["score"] *= 0.999
    found = effects(runs, draws=300)["good"]
    alone = effects(runs[:1], draws=300)["good"]
    width, of_photographs = (e["ap_difference"][2] - e["ap_difference"][1] for e in (found, alone))
    assert width == pytest.approx(of_photographs, rel=0.05)


# --- repeats


def put(folder, seed: int, columns: dict, settings: str = "s", common: dict | None = None) -> Store:
    """A store of mini whose variants are all made from the test images of the manifest."""
    store = Store(folder, "mini", seed)
    for name, rows in columns.items():
        store.add(name, {name: rows}, {"settings": settings, "common": common or {}, "device": "a card"})
    return store


def test_repeated_trainings_are_found_paired_and_counted(tmp_path):
    samples, rng = [s for s in read_manifest(MANIFEST) if s.split in ("val", "test")], np.random.default_rng(0)

    def rows(shift: float) -> list[dict]:
        paths = [str(s.path.relative_to(MANIFEST.parent)) for s in samples]
        return [
            {"path": p, "score": float(rng.uniform() / 2 + shift * s.label / 2)} for p, s in zip(paths, samples, strict=True)
        ]

    same = rows(0.5)
    first = [put(tmp_path, 0, {"sdd": rows(0.2), "lora": same}), put(tmp_path, 1, {"sdd": rows(0.2)})]
    again = [put(tmp_path / "again", 0, {"sdd": rows(0.3), "lora": same}), put(tmp_path / "again", 7, {"sdd": rows(0.2)})]
    put(tmp_path / "longer", 1, {"sdd": rows(0.9)}, "others", {"epochs": 9})
    (tmp_path / "empty").mkdir()
    assert [*find_repeats(tmp_path, "mini")] == ["again", "longer"] and find_repeats(tmp_path, "full") == {}
    pairs = twice(first, again, MANIFEST)
    assert [row[:2] for row in pairs] == [("sdd", 0), ("lora", 0)] and pairs[1][2] == pairs[1][3]
    assert twice(first, find_stores(tmp_path / "longer", "mini"), MANIFEST) == []  # trained with other settings
    line = twice_table({"again": pairs}).splitlines()[1]
    change = pairs[0][3] - pairs[0][2]
    assert line.split() == ["again", "1", "lora", "1", *(f"{v:.3f}" for v in (change, abs(change), abs(change) / 2**0.5))]
    assert twice_table({"same": pairs[1:]}).splitlines()[1].split() == ["same", "1", "lora", "0"]
    every = counted(first, tmp_path, ["again", "absent"], "mini")
    assert [[*store.facts()] for store in every] == [["sdd", "lora"], ["sdd"], ["sdd", "lora"], ["sdd"]]
    runs, left_out = runs_of(every, MANIFEST)
    assert left_out == ["lora, seed 0"]
    assert [[*run] for run in runs] == [["sdd", "lora"], ["sdd"], ["sdd"], ["sdd"]]  # LoRA came out the same
    with pytest.raises(SDDError, match="sdd was trained with other settings than elsewhere"):
        counted(first, tmp_path, ["longer"], "mini")
    for wrong in ("again", ["again", "again"]):
        with pytest.raises(SDDError, match="is no list of different folders"):
            counted(first, tmp_path, wrong, "mini")
    assert counted([], tmp_path, ["again"], "mini") == []
    few = put(tmp_path / "few", 3, {"sdd": rows(0.2)[:-1]})
    with pytest.raises(SDDError, match="holds other images than the stores before it"):
        runs_of([*first, few], MANIFEST)


# --- interventions


@pytest.fixture(scope="module")
def detector():
    torch.manual_seed(0)
    preset = get_preset("paper", M=10, width=32, heads=4, channels=(4, 6, 8), F_low=12)
    backbone = Backbone(load_backbone("tiny", "random"), 64, preset.norm)
    model = Detector(backbone, torch.randn(10, backbone.D), preset).eval()
    model.head.weight.data.normal_(0, 0.5)
    for stage in model.enhancement.stages:
        stage.deconv[1].bias.data.fill_(0.3)
    return model


@pytest.fixture(scope="module")
def samples() -> list[Sample]:
    return [s for s in subset(read_manifest(MANIFEST), 2) if s.split == "val"]


def test_a_misleading_map_comes_from_the_other_class_and_another_photograph(samples):
    for s, partner in zip(samples, partners(samples), strict=True):
        assert partner.label != s.label and partner.photo != s.photo
    assert partners(samples) == partners(samples) != partners(samples, seed=1)
    with pytest.raises(SDDError, match="two photographs of each class"):
        partners([s for s in samples if s.photo == samples[0].photo])


def test_interventions_leave_the_detector_as_it_was_and_whole_is_its_score(detector, samples):
    before = copy.deepcopy(detector.state_dict())
    found = interventions(detector, samples, batch=3)
    assert set(found) == {"whole", *PATHS}
    expected = [r["score"] for r in score_paths(detector, [s.path for s in samples])]
    np.testing.assert_allclose(found["whole"], expected, atol=1e-5)
    assert all(torch.equal(v, before[k]) for k, v in detector.state_dict().items())
    for name in PATHS:
        assert np.abs(found[name] - found["whole"]).max() > 1e-6, name
        np.testing.assert_allclose(interventions(detector, samples, batch=64)[name], found[name], atol=1e-5)


def test_a_head_that_ignores_a_path_is_not_moved_by_cutting_it(detector, samples):
    deaf = copy.deepcopy(detector)
    deaf.head.weight.data[:, :12] = 0  # F_low comes first
    found = interventions(deaf, samples)
    for name in ("T_CLS_only", "D_s_swapped", "pixels_flat"):
        np.testing.assert_allclose(found[name], found["whole"], atol=1e-6)
    assert np.ptp(found["F_low_only"]) < 1e-6 < np.ptp(found["whole"])


# --- the notebook's sweep in earnest


def test_three_variants_are_swept_through_papermill(smoke_run):
    """By 05_ablations of the smoke run."""
    folder, small = smoke_run.dir / "ablations" / "2-photographs-1-epochs", {"limit": 2, "epochs": 1}
    store = Store(folder, "smoke", 0)
    facts = store.facts()
    assert set(facts) == {"sdd", "lora", "no_cfdl"}
    assert facts["sdd"]["D_s_fake"] > 0 and all("D_s_fake" not in facts[name] for name in ("lora", "no_cfdl"))
    assert set(store.columns()[1]) == {"sdd", "lora", "no_cfdl", *(f"sdd:{n}" for n in PATHS)}
    for name in facts:
        assert (folder / "runs" / f"{name}-seed0" / "notebooks" / "variant.ipynb").is_file()
        assert facts[name]["settings"] == settings_of(parameters_of(name, 0, "smoke", small))
