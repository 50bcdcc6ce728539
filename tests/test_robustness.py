"""Perturbations are the same every time, scored once on the same part of the test set; a planted JPEG detector is found out."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from sddlib import SDDError, robustness, robustness_stats
from sddlib.baselines.lora import LinearOutput
from sddlib.data import Sample, decode, normalised, read_manifest, to_input
from sddlib.evaluate import write_csv
from sddlib.perturb import CHANGES, Perturbation, jpeg, resize, webp
from sddlib.profiles import ROOT, parameters
from sddlib.report import NAMES
from sddlib.robustness import (
    EQUAL,
    GRID,
    NATIVE,
    REAL,
    UNSEEN,
    families,
    fixed_subset,
    score_grid,
    unseen_families,
    with_native,
)
from sddlib.robustness_store import Evidence, gather, read_store, score_of, store_settings, text_of, write_store

JPEGS = [name for name in GRID if name.startswith("jpeg")]


class Brightness(nn.Module):
    """Scores a crop by its mean; counts the images it has seen."""

    def __init__(self, kind: str = "sdd", digest: str = "a"):
        super().__init__()
        self.kind, self.about = kind, {"sha256": 64 * digest}
        self.image_size, self.prepare, self.seen = 16, normalised, 0

    def forward(self, x):
        self.seen += len(x)
        return LinearOutput(x.mean((1, 2, 3)), x)


@pytest.fixture
def picture() -> Image.Image:
    smooth = np.random.default_rng(0).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return Image.fromarray(smooth).resize((40, 30), Image.BICUBIC)


@pytest.fixture
def samples(tmp_path) -> list[Sample]:
    """Five photographs a split; validation and test have a generator that test alone does not share."""
    rng, made = np.random.default_rng(0), []
    for split, makers in (("val", ["old"]), ("test", ["old", "new_a", "new_b", "other"])):
        for photo in range(5):
            for generator in ["camera", *makers]:
                for crop in range(3 if generator == "camera" else 2):
                    path = tmp_path / "data" / split / f"{photo}_{generator}_{crop}.png"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    Image.fromarray(rng.integers(0, 256, (20, 24, 3), dtype=np.uint8)).save(path)
                    label, family = int(generator != "camera"), generator.split("_")[0]
                    made.append(Sample(path, label, generator, family, split, f"{split}{photo}"))
    return made


@pytest.fixture
def models(monkeypatch) -> dict[str, Brightness]:
    made = {m: Brightness(m) for m in NAMES}
    monkeypatch.setattr(robustness, "load_scorer", lambda path: made[path.stem])
    return made


def rows(scores: dict[str, list[float]]) -> list[dict]:
    """camera or generator -> scores, the i-th image of each showing photograph i; each generator is a family."""
    return [
        {"path": f"{g}/{i}", "photo": f"p{i}", "label": int(g != "camera"), "generator": g, "family": g, "score": s}
        for g, values in scores.items()
        for i, s in enumerate(values)
    ]


def planted(native: list[dict], perturbed: list[dict], **others) -> dict:
    """A grid of one method in which every JPEG column is `perturbed`."""
    return {"sdd": {NATIVE: native, **dict.fromkeys(JPEGS, perturbed), **others}}


@pytest.mark.parametrize("name", GRID)
def test_a_perturbation_is_the_same_every_time_and_leaves_its_input_alone(name, picture):
    before = picture.copy()
    once, again = GRID[name](picture), GRID[name](picture)
    assert once.mode == "RGB" and once.tobytes() == again.tobytes()
    assert picture.tobytes() == before.tobytes()
    assert once.size != before.size or once.tobytes() != before.tobytes()


def test_the_grid_is_what_users_ask_for():
    steps = {what: sorted(s for p in GRID.values() if len(p.steps) == 1 for w, s in p.steps if w == what) for what in CHANGES}
    assert (steps["jpeg"][0], steps["jpeg"][-2:]) == (30, [95, 96]) and EQUAL in GRID
    assert (steps["blur"][0], steps["blur"][-1]) == (1, 4) and (steps["resize"][0], steps["resize"][-1]) == (0.5, 1.5)
    assert len(steps["webp"]) >= 2
    chains = [p for p in GRID.values() if len(p.steps) > 1]
    assert chains and all({what for what, _ in p.steps} == set(CHANGES) for p in chains)


def test_lower_quality_changes_more_and_steps_come_one_after_the_other(picture):
    def moved(changed):
        return np.abs(np.asarray(changed).astype(int) - np.asarray(picture).astype(int)).mean()

    assert moved(jpeg(picture, 95)) < moved(jpeg(picture, 30)) and moved(webp(picture, 80)) < moved(webp(picture, 10))
    chain = Perturbation("both", (("blur", 2), ("jpeg", 30)))
    assert chain(picture).tobytes() == CHANGES["jpeg"](CHANGES["blur"](picture, 2), 30).tobytes()
    assert chain(picture).tobytes() != Perturbation("turned", chain.steps[::-1])(picture).tobytes()


def test_resizing_scales_both_sides_and_leaves_a_pixel(picture):
    assert resize(picture, 0.5).size == (20, 15) and resize(picture, 1.5).size == (60, 45)
    assert resize(Image.new("RGB", (1, 1)), 0.5).size == (1, 1)


def test_what_cannot_be_done_is_one_sentence():
    with pytest.raises(SDDError, match="no 'sharpen'; there are jpeg, webp, blur, resize"):
        Perturbation("x", (("sharpen", 1),))
    with pytest.raises(SDDError, match="webp 80 cannot be done to 17000x2 pixels"):
        GRID["webp80"](Image.new("RGB", (17000, 2)))


def test_the_part_that_is_perturbed_has_every_family_on_the_same_photographs(samples):
    part = fixed_subset(samples, 3)
    assert part == fixed_subset(samples, 3) == [s for s in samples if s in part]
    assert {s.photo for s in part} == {"test0", "test2", "test4"}
    count = {g: sum(s.generator == g for s in part) for g in ("camera", "old", "new_a", "new_b", "other")}
    assert (count["camera"], count["old"], count["other"], count["new_a"] + count["new_b"]) == (6, 3, 3, 3)
    assert all(s.split == "test" for s in part) and len(fixed_subset(samples, 0)) == 55
    assert len({s.path.name[-5] for s in part if s.generator == "other"}) == 2, "crops take turns"
    whole = fixed_subset(samples, 5)
    assert {s.generator for s in whole if s.family == "new"} == {"new_a", "new_b"}


def test_mini_is_perturbed_on_as_many_photographs_as_the_notebook_says():
    photographs = parameters("08_robustness")["photographs"]
    part = fixed_subset(read_manifest(ROOT / "data" / "manifest.csv"), photographs)
    assert len({s.photo for s in part}) == photographs
    by_family = {f: sum(s.family == f for s in part) for f in {s.family for s in part}}
    assert by_family.pop("camera") == 2 * photographs and by_family.pop("gan_rrdb") == 2 * photographs
    assert set(by_family.values()) == {photographs}
    assert len({s.generator for s in part if s.label}) == 11


def test_a_score_is_that_of_the_perturbed_picture_and_is_made_once(samples, models, tmp_path):
    part, said = fixed_subset(samples, 2), []
    grid = score_grid(tmp_path, part, tmp_path / "data", say=said.append)
    assert list(grid) == list(NAMES) and list(grid["sdd"]) == list(GRID) and sum("scoring" in t for t in said) == 3 * len(GRID)
    for name in ("resize0.5", "blur4", "strong"):
        x = to_input(GRID[name](decode(part[1].path)), 16)
        assert grid["sdd"][name][1]["score"] == pytest.approx(torch.sigmoid(x.mean()).item(), abs=1e-6)
    made = models["sdd"].seen
    assert made == len(part) * len(GRID)
    assert score_grid(tmp_path, part, tmp_path / "data") == grid and models["sdd"].seen == made


def test_only_what_is_not_scored_yet_is_scored(samples, models, tmp_path):
    part = fixed_subset(samples, 2)
    score_grid(tmp_path, part, tmp_path / "data")
    (tmp_path / "robustness" / "lora" / "blur2.csv").unlink()
    before = {m: model.seen for m, model in models.items()}
    score_grid(tmp_path, part, tmp_path / "data")
    assert {m: model.seen - before[m] for m, model in models.items()} == {"sdd": 0, "lora": len(part), "probe": 0}
    models["probe"].about = {"sha256": 64 * "b"}
    score_grid(tmp_path, part, tmp_path / "data")
    assert models["probe"].seen == 2 * before["probe"] and models["sdd"].seen == before["sdd"]


def test_changed_steps_under_an_old_name_are_scored_again(samples, models, tmp_path, monkeypatch):
    part = fixed_subset(samples, 2)
    old = score_grid(tmp_path, part, tmp_path / "data")
    monkeypatch.setitem(robustness.GRID, "blur4", Perturbation("blur4", (("resize", 0.2),)))
    new = score_grid(tmp_path, part, tmp_path / "data")
    assert new["sdd"]["blur4"] != old["sdd"]["blur4"] and new["sdd"]["blur2"] == old["sdd"]["blur2"]


def test_native_scores_stand_in_front_image_by_image():
    native = {"sdd": rows({"camera": [0.1, 0.2], "a": [0.7, 0.8]})}
    grid = with_native({"sdd": {"blur1": [native["sdd"][3] | {"score": 0.3}, native["sdd"][0]]}}, native)
    assert list(grid["sdd"]) == [NATIVE, "blur1"] and [r["score"] for r in grid["sdd"][NATIVE]] == [0.8, 0.1]
    with pytest.raises(SDDError, match="lack elsewhere"):
        with_native({"sdd": {"blur1": [{"path": "elsewhere"}]}}, native)


def test_families_hold_their_reals_and_seen_generators_stand_apart():
    made = rows({"camera": [0.1], "old": [0.5], "new": [0.6]})
    for r in made:
        r["family"] = "one" if r["label"] else "camera"
    found = families(made, {"old"})
    assert {k: [r["generator"] for r in v] for k, v in found.items()} == {
        "one (seen)": ["camera", "old"],
        "one": ["camera", "new"],
    }
    assert unseen_families(found) == ["one"]
    with pytest.raises(SDDError, match="no fakes of an unseen generator"):
        unseen_families({"one (seen)": []})
    made = rows({"camera": [0.1, 0.2], "a": [0.5], "b": [0.6]})
    made[0]["generator"] = "a"  # a real that stands against one generator only
    assert {f: [r["path"] for r in part] for f, part in families(made, set()).items()} == {
        "a": ["camera/0", "camera/1", "a/0"],
        "b": ["camera/1", "b/0"],
    }


def test_shares_are_counted_at_the_given_threshold_and_averaged_over_families():
    native = rows({"camera": [0.1, 0.2, 0.6, 0.3], "a": [0.7] * 4, "b": [0.7, 0.1, 0.1, 0.1], "old": [0.9] * 4})
    found = robustness_stats.shares_right(planted(native, native), {"sdd": 0.65}, {"old"}, 30, 0)
    assert found["sdd", NATIVE, REAL][0] == 1.0 and found["sdd", NATIVE, UNSEEN][0] == pytest.approx((1 + 0.25) / 2)
    assert found["sdd", NATIVE, "old (seen)"] == pytest.approx((1, 0.025**0.25, 1))  # no error among four photographs
    low = robustness_stats.shares_right(planted(native, native), {"sdd": 0.25}, {"old"}, 30, 0)["sdd", NATIVE, REAL]
    assert low[0] == 0.5 and low[1] < 0.5 < low[2]


def test_a_planted_jpeg_detector_is_found_out():
    lossless, compressed = {"camera": [0.1] * 6, "a": [0.1] * 6}, {"camera": [0.9] * 6, "a": [0.9] * 6}
    grid = planted(rows(lossless), rows(compressed))
    sided, change = robustness_stats.one_sided(grid, JPEGS, set(), 20, 0)
    assert sided["reals"]["sdd", EQUAL][0] == 0.0 and sided["fakes"]["sdd", EQUAL][0] == 1.0
    assert sided["both"]["sdd", EQUAL][0] == 0.5 and change["fakes"]["sdd", EQUAL][0] == 0.5
    ranks = robustness_stats.rankings(grid, set(), 20, 0)
    one_class = [(sided[who]["sdd", n], change[who]["sdd", n]) for who in ("reals", "fakes") for n in JPEGS]
    said = robustness_stats.compression_verdict(ranks["auroc"]["sdd", EQUAL], ranks["change"]["sdd", EQUAL], one_class)
    assert said.startswith("YES")


def test_a_detector_that_ignores_compression_is_cleared():
    native = rows({"camera": [0.1, 0.2, 0.3, 0.4], "a": [0.35, 0.7, 0.8, 0.9]})
    grid = planted(native, native)
    sided, change = robustness_stats.one_sided(grid, JPEGS, set(), 20, 0)
    ranks = robustness_stats.rankings(grid, set(), 20, 0)
    one_class = [(sided[who]["sdd", n], change[who]["sdd", n]) for who in ("reals", "fakes") for n in JPEGS]
    assert all(moved == (0, 0, 0) for _, moved in one_class)
    said = robustness_stats.compression_verdict(ranks["auroc"]["sdd", EQUAL], ranks["change"]["sdd", EQUAL], one_class)
    assert said.startswith("NO:")


GOOD, SAME, WORSE, BETTER = (0.8, 0.7, 0.9), (0.0, -0.1, 0.1), (-0.1, -0.2, -0.05), (0.1, 0.05, 0.2)


@pytest.mark.parametrize(
    "equalised, lost, one_class, answer",
    [
        (GOOD, SAME, [((0.3, 0.2, 0.4), WORSE)], "YES"),
        ((0.6, 0.5, 0.7), WORSE, [(GOOD, BETTER)], "PERHAPS"),
        ((0.4, 0.3, 0.45), SAME, [((0.4, 0.3, 0.45), SAME)], "PERHAPS"),  # below chance, whoever is compressed: nothing turned
        (GOOD, WORSE, [(GOOD, WORSE), (GOOD, BETTER)], "NOT ONLY"),
        (GOOD, WORSE, [(GOOD, WORSE), ((0.6, 0.45, 0.7), WORSE)], "NO: .*wipes out"),
        (GOOD, SAME, [(GOOD, WORSE), (GOOD, SAME)], "NO: .*nothing sure"),
    ],
)
def test_the_answer_follows_the_intervals(equalised, lost, one_class, answer):
    assert re.match(answer, robustness_stats.compression_verdict(equalised, lost, one_class))


def test_a_shift_is_measured_in_the_distance_of_the_classes_and_by_class():
    def score(z):
        return 1 / (1 + np.exp(-z))

    native = rows({"camera": [score(-1)] * 5, "a": [score(3)] * 5})
    moved = rows({"camera": [score(1)] * 5, "a": [score(2)] * 5})
    for unreadable in moved[:2]:
        unreadable["score"] = None
    found = robustness_stats.shifts(planted(native, moved), [EQUAL], 20, 0)
    assert found["sdd", EQUAL, 0][0] == pytest.approx(0.5) and found["sdd", EQUAL, 1][0] == pytest.approx(-0.25)


def test_changes_are_paired_and_a_lead_is_sdds():
    native = rows({"camera": [0.1, 0.2, 0.3, 0.4], "a": [0.35, 0.7, 0.8, 0.9]})
    worse = rows({"camera": [0.5] * 4, "a": [0.5] * 4})
    grid = {"sdd": {NATIVE: native, "blur1": worse}, "probe": {NATIVE: worse, "blur1": worse}}
    ranks = robustness_stats.rankings(grid, set(), 50, 0)
    assert ranks["change"]["sdd", NATIVE] == (0, 0, 0) and ranks["change"]["sdd", "blur1"][2] < 0
    assert ranks["lead"]["probe", NATIVE][0] == pytest.approx(ranks["auroc"]["sdd", NATIVE][0] - 0.5)
    table = robustness_stats.grid_table(
        robustness_stats.shares_right(grid, {"sdd": 0.5, "probe": 0.5}, set(), 20, 0), ranks, grid
    )
    assert "SDD AUROC" in table and table.splitlines()[2].startswith("blur1")


def stored(samples: list[Sample], models, tmp_path: Path) -> tuple[Path, Evidence, dict, list[Sample]]:
    """Committed scores of the samples, one of which could not be read."""
    root, part = tmp_path / "data", fixed_subset(samples, 3)
    grid = score_grid(tmp_path, part, root)
    native = {m: [row_of(s, root, i / 200) for i, s in enumerate(samples)] for m in NAMES}
    native["sdd"][0]["score"] = None
    evidence = Evidence(native, with_native(grid, native), {m: 64 * "a" for m in NAMES}, samples, "")
    settings = store_settings(samples, part, root)
    write_store(tmp_path / "store", evidence, settings, "seed 0, profile test")
    return tmp_path / "store", evidence, settings, part


def row_of(s: Sample, root: Path, score: float) -> dict:
    facts = {k: getattr(s, k) for k in ("label", "generator", "family", "split", "photo")}
    return {**facts, "path": s.path.relative_to(root).as_posix(), "score": score, "error": ""}


def manifest_of(samples: list[Sample], root: Path) -> Path:
    lines = [{k: v for k, v in row_of(s, root, 0).items() if k not in ("score", "error")} for s in samples]
    write_csv(lines, root / "manifest.csv", lines[0])
    return root / "manifest.csv"


@pytest.mark.parametrize("score", [1e-14, 0.3, 0.999999999])
def test_a_stored_logit_keeps_scores_near_0_and_1_apart(score):
    assert score_of(text_of(score)) == pytest.approx(score, rel=1e-4)
    assert 1 - score_of(text_of(score)) == pytest.approx(1 - score, rel=1e-4)
    assert text_of(None) == "" and score_of("") is None


def test_committed_scores_come_back_as_they_were(samples, models, tmp_path):
    folder, evidence, settings, _ = stored(samples, models, tmp_path)
    native, grid, about = read_store(folder, settings)
    assert about["note"] == "seed 0, profile test" and about["checkpoints"]["sdd"] == 64 * "a"
    for was, now in ((evidence.native, native), (evidence.grid, with_native(grid, native))):
        assert list(was) == list(now)
        flat = [
            [r for m in e for r in (e[m] if isinstance(e[m], list) else [x for n in e[m].values() for x in n])]
            for e in (was, now)
        ]
        for a, b in zip(*flat, strict=True):
            assert (a["path"], a["label"], a["photo"], a["split"]) == (b["path"], b["label"], b["photo"], b["split"])
            assert a["score"] == b["score"] if a["score"] is None else a["score"] == pytest.approx(b["score"], abs=1e-4)


def test_a_run_without_checkpoints_shows_committed_scores_and_says_whose(samples, models, tmp_path):
    folder, *_ = stored(samples, models, tmp_path)
    source = manifest_of(samples, tmp_path / "data")
    found = gather(tmp_path / "empty", source, "manifest", 0, 3, folder)
    assert "COMMITTED" in found.said and "seed 0, profile test" in found.said and found.checkpoints["sdd"] == 64 * "a"
    assert len(found.grid["sdd"]) == len(GRID) + 1 and len(found.native["sdd"]) == len(samples)
    with pytest.raises(SDDError, match="force = True, but the run folder has no checkpoints"):
        gather(tmp_path / "empty", source, "manifest", 0, 3, folder, force=True)


@pytest.mark.parametrize("limit, photographs", [(0, 2), (3, 3)])
def test_committed_scores_of_other_images_are_refused(limit, photographs, samples, models, tmp_path):
    folder, *_ = stored(samples, models, tmp_path)
    with pytest.raises(SDDError, match="of other .*images; run 03_train in this run folder first"):
        gather(tmp_path / "empty", manifest_of(samples, tmp_path / "data"), "manifest", limit, photographs, folder)


def test_committed_scores_that_were_edited_or_are_absent_are_refused(samples, models, tmp_path):
    folder, _, settings, _ = stored(samples, models, tmp_path)
    with (folder / "perturbed.csv").open("a") as f:
        f.write("x,blur1,0,0,0\n")
    with pytest.raises(SDDError, match="perturbed.csv is not the file that about.json describes"):
        read_store(folder, settings)
    facts = json.loads((folder / "about.json").read_text())
    (folder / "about.json").write_text(json.dumps({k: v for k, v in facts.items() if k != "files"}))
    with pytest.raises(SDDError, match="are broken"):
        read_store(folder, settings)
    with pytest.raises(SDDError, match="holds no committed scores"):
        read_store(tmp_path / "nowhere", settings)


def test_committed_scores_of_mini_are_of_this_benchmark_and_grid():
    folder, samples = ROOT / parameters("08_robustness")["scores"], read_manifest(ROOT / "data" / "manifest.csv")
    held = [s for s in samples if s.split in ("val", "test")]
    part = fixed_subset(held, parameters("08_robustness")["photographs"])
    native, grid, about = read_store(folder, store_settings(held, part, ROOT / "data"))
    assert set(native) == set(grid) == set(NAMES) and "seed 0" in about["note"] and "mini" in about["note"]
    for method in NAMES:
        assert len(native[method]) == len(held) and all(len(rows) == len(part) for rows in grid[method].values())
        assert all(0 < r["score"] < 1 for rows in (native[method], *grid[method].values()) for r in rows)
    assert sum(file.stat().st_size for file in folder.iterdir()) < 1.5e6
