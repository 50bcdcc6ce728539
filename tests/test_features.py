"""Do fakes differ alike whatever they show: the statistics recover what was planted, and draw photographs, not crops."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from trees import picture

from sddlib import SDDError
from sddlib.__main__ import main
from sddlib.concepts import (
    cluster_photographs,
    column_labels,
    complete,
    draw_photographs,
    embed,
    folder_labels,
    label_photographs,
    shuffled,
    sides,
    split_photographs,
)
from sddlib.crops import Crops
from sddlib.data import Sample
from sddlib.features import (
    agreement,
    angles,
    beside_chance,
    comparable,
    consistency,
    contrast,
    interval,
    products,
)
from sddlib.figures_features import concept_gallery, forest, polar
from sddlib.places import place

C, EACH, D, CROPS = 4, 8, 60, 2
STRANGERS = (("gan", 1), ("gan", 0), ("vae", 1), ("vae", 0))
CONCEPTS = {f"{c}-{i}": c for c in range(C) for i in range(EACH)}


def sample(photo: str, crop: int, label: int, generator: str = "gan") -> Sample:
    name = generator if label else "camera"
    return Sample(Path(f"{name}/{photo}_{crop}.png"), label, name, name, "test", photo)


def twins(generators=("gan",)) -> list[Sample]:
    """CROPS real crops of every photograph, and each of them by every generator."""
    made = [("camera", 0), *((g, 1) for g in generators)]
    return [sample(photo, crop, label, g) for g, label in made for photo in CONCEPTS for crop in range(CROPS)]


TWINS = twins()
LABEL = np.array([s.label for s in TWINS])
CONCEPT = np.array([CONCEPTS[s.photo] for s in TWINS])
ONCE = np.ones((1, len(CONCEPTS)))


def directions(cosine: float) -> np.ndarray:
    """(C, D) unit vectors whose pairs have this cosine."""
    own = np.eye(C, D, 1)
    return np.sqrt(cosine) * np.eye(1, D) + np.sqrt(1 - cosine) * own


def planted(rng, cosine: float, noise: float) -> np.ndarray:
    """Features of TWINS: content that twins share, the concept's direction on fakes, and noise of this length a photograph."""
    content = dict(zip(((s.photo, s.path.stem) for s in TWINS), rng.normal(size=(len(TWINS), D)), strict=True))
    jitter = dict(zip(CONCEPTS, rng.normal(scale=noise / D**0.5, size=(len(CONCEPTS), D)), strict=True))
    F = np.stack([content[s.photo, s.path.stem] + s.label * jitter[s.photo] for s in TWINS])
    return F + LABEL[:, None] * directions(cosine)[CONCEPT]


def read(F: np.ndarray, weights=ONCE, samples=TWINS, **options):
    return consistency({"": F}, samples, CONCEPTS, ["gan"], weights, **options)[""]


def agreed(*arguments, **options) -> np.ndarray:
    return agreement(read(*arguments, **options), ["gan"])


def test_agreement_is_1_for_shifted_copies_whatever_the_content():
    F = planted(np.random.default_rng(0), 1.0, 0.0)
    assert np.allclose([read(F)["gan"].plain, agreed(F)], 1)


def test_agreement_is_1_where_only_the_length_of_differences_varies():
    rng = np.random.default_rng(0)
    length = dict(zip(CONCEPTS, rng.uniform(0.2, 3, len(CONCEPTS)), strict=True))
    F = planted(rng, 1.0, 0.0) + np.outer([s.label * length[s.photo] for s in TWINS], np.eye(1, D))
    assert agreed(F) == pytest.approx(1)


def test_agreement_is_minus_1_for_two_concepts_that_move_apart():
    photos = {p: c for p, c in CONCEPTS.items() if c < 2}
    F = LABEL[:, None] * np.where(CONCEPT == 0, 1.0, -1.0)[:, None] * np.eye(1, D)
    found = consistency({"": F}, TWINS, photos, ["gan"], np.ones((1, len(photos))))[""]
    assert np.allclose([found["gan"].plain, agreement(found, ["gan"])], -1)


@pytest.mark.parametrize("cosine", [0.0, 0.5, 1.0])
def test_agreement_recovers_a_planted_value_where_the_plain_cosine_is_too_small(cosine):
    rng, plain, found = np.random.default_rng(1), [], []
    for _ in range(60):
        F = planted(rng, cosine, 2.0)
        plain.append(read(F)["gan"].plain[0])
        found.append(agreed(F)[0])
    assert np.mean(found) == pytest.approx(cosine, abs=0.05)
    assert np.mean(plain) < 0.75 * cosine or cosine == 0


def test_noisier_space_does_not_look_less_consistent():
    rng, weights = np.random.default_rng(2), draw_photographs(CONCEPTS, TWINS, 200, 0)
    quiet, loud = (read(planted(rng, 0.8, noise), weights) for noise in (0.5, 2.5))
    assert quiet["gan"].plain[0] - loud["gan"].plain[0] > 0.2
    _, low, high = interval(agreement(quiet, ["gan"]) - agreement(loud, ["gan"]))
    assert low < 0 < high


def test_interval_of_a_difference_covers_the_planted_one():
    rng, weights, hits = np.random.default_rng(3), draw_photographs(CONCEPTS, TWINS, 200, 0), 0
    for _ in range(60):
        one, other = (agreed(planted(rng, cosine, 1.0), weights, splits=(50, 2)) for cosine in (0.9, 0.5))
        _, low, high = interval(one - other)
        hits += low <= 0.4 <= high
    assert hits >= 54


def test_noise_free_length_is_the_mean_product_of_different_photographs():
    F = planted(np.random.default_rng(4), 0.5, 2.0)
    data = contrast(F, TWINS, "gan", list(CONCEPTS))
    G, lengths = products(data, ONCE, np.array(list(CONCEPTS.values())))
    block = data.gram[:EACH, :EACH]
    assert lengths[0, 0] == pytest.approx(block[~np.eye(EACH, dtype=bool)].mean())
    assert G[0, 0, 0] == pytest.approx(block.mean()) and lengths[0, 0] < G[0, 0, 0]


def test_lengths_are_not_inflated_by_photographs_drawn_twice():
    F = planted(np.random.default_rng(5), 0.5, 3.0)
    found = read(F, draw_photographs(CONCEPTS, TWINS, 2000, 0))["gan"]
    measured = np.diagonal(found.G, axis1=1, axis2=2)
    assert (measured[1:].mean(0) > 1.2 * measured[0]).all()
    assert np.allclose(found.lengths[1:].mean(0), found.lengths[0], atol=0.15 * measured[0].mean())


def test_a_draw_is_the_benchmark_in_which_its_photographs_stand_as_often():
    F = planted(np.random.default_rng(6), 0.5, 1.0)
    weights = draw_photographs(CONCEPTS, TWINS, 1, 7)[1:]
    rows, samples, concepts = [], [], {}
    for photo, times in zip(CONCEPTS, weights[0].astype(int), strict=True):
        for t in range(times):
            concepts[f"{photo}#{t}"] = CONCEPTS[photo]
            for i, s in enumerate(TWINS):
                if s.photo == photo:
                    rows.append(i)
                    samples.append(sample(f"{photo}#{t}", s.path.stem[-1], s.label))
    repeated = consistency({"": F[rows]}, samples, concepts, ["gan"], np.ones((1, len(concepts))))[""]["gan"]
    drawn = read(F, weights)["gan"]
    assert np.allclose(drawn.G, repeated.G) and np.allclose(drawn.plain, repeated.plain)


def test_halves_share_no_photograph_and_take_every_drawn_one():
    weights, concept = draw_photographs(CONCEPTS, TWINS, 300, 0), np.array(list(CONCEPTS.values()))
    first = split_photographs(weights, concept, sides(CONCEPTS, TWINS), 0)
    for c in range(C):
        drawn, mine = weights[:, concept == c] > 0, first[:, concept == c]
        one, other = (mine & drawn).sum(1), (~mine & drawn).sum(1)
        assert (abs(one - other) <= 1).all() and one.min() >= 1 and other.min() >= 1
    assert 0.4 < (first[weights > 0]).mean() < 0.6 and (first[1] != first[2]).any()


def test_bootstrap_keeps_photographs_whole_and_concepts_at_their_size():
    weights = draw_photographs(CONCEPTS, TWINS, 300, 0)
    concept = np.array(list(CONCEPTS.values()))
    assert (weights[0] == 1).all() and (weights == weights.round()).all()
    for c in range(C):
        mine = weights[:, concept == c]
        assert (mine.sum(1) == EACH).all() and ((mine > 0).sum(1) >= 2).all()
    assert np.array_equal(weights, draw_photographs(CONCEPTS, TWINS, 300, 0))
    assert not np.array_equal(weights, draw_photographs(CONCEPTS, TWINS, 300, 1))
    with pytest.raises(SDDError, match="single photograph"):
        draw_photographs({"0-0": 0, "1-0": 1}, TWINS, 1, 0)


def test_all_spaces_and_generators_see_the_same_draw():
    samples, F = twins(("gan", "vae")), planted(np.random.default_rng(8), 0.5, 1.0)
    F = np.concatenate([F, F[LABEL == 1]])  # vae makes what gan makes
    found = consistency({"a": F, "b": F}, samples, CONCEPTS, ["gan", "vae"], draw_photographs(CONCEPTS, samples, 50, 0))
    assert np.allclose(agreement(found["a"], ["gan"]), agreement(found["b"], ["vae"]))


def test_only_the_same_crops_are_compared():
    F = planted(np.random.default_rng(9), 0.5, 1.0)
    keep = [i for i, s in enumerate(TWINS) if s.label == 0 or s.path.stem.endswith("_0")]  # fakes of crop 0 alone
    both = [i for i, s in enumerate(TWINS) if s.path.stem.endswith("_0")]
    one, other = (read(F[rows], samples=[TWINS[i] for i in rows]) for rows in (keep, both))
    assert np.allclose(one["gan"].G, other["gan"].G)


def test_without_twins_means_of_reals_and_fakes_are_compared():
    rng = np.random.default_rng(10)
    label = np.arange(400) % 2
    samples = [sample(f"p{i}", 0, y) for i, y in enumerate(label)]
    concepts = {f"p{i}": i // 200 for i in range(400)}
    concept = np.arange(400) // 200
    F = rng.normal(scale=0.5, size=(400, D)) + label[:, None] * directions(0.5)[concept]
    data = contrast(F, samples, "gan", list(concepts))
    G, lengths = products(data, np.ones((1, 400)), concept)
    d = [F[(concept == c) & (label == 1)].mean(0) - F[(concept == c) & (label == 0)].mean(0) for c in (0, 1)]
    assert np.allclose(G[0], np.array(d) @ np.array(d).T)
    for c in (0, 1):
        fakes, reals = (F[(concept == c) & (label == y)] for y in (1, 0))
        apart = [(X @ X.T)[~np.eye(len(X), dtype=bool)].mean() for X in (fakes, reals)]  # pairs of different photographs
        assert lengths[0, c] == pytest.approx(sum(apart) - 2 * fakes.mean(0) @ reals.mean(0))
    weights = draw_photographs(concepts, samples, 9, 0)
    assert (weights[:, label == 1].sum(1) == 200).all()  # fakes are drawn among fakes
    assert agreement(consistency({"": F}, samples, concepts, ["gan"], weights)[""], ["gan"])[0] == pytest.approx(0.5, abs=0.15)


def test_random_concepts_agree_and_keep_their_sizes():
    F = planted(np.random.default_rng(11), 0.2, 1.0)
    concept = np.array(list(CONCEPTS.values()))
    dealt = shuffled(concept, np.zeros(len(concept), int), 400, 0)
    assert (np.sort(dealt, 1) == concept).all() and (dealt != concept).any()
    by_chance = agreed(F, np.ones(dealt.shape), dealt=dealt, splits=(4, 4))
    mean, p = beside_chance(agreed(F)[0], by_chance)
    assert mean == pytest.approx(1, abs=0.03) and p < 0.01
    assert np.isnan(beside_chance(np.nan, by_chance)).all() and np.isnan(beside_chance(1.0, np.full(3, np.nan))).all()


def test_differences_lost_in_noise_have_no_direction_and_no_interval():
    noise = np.random.default_rng(12).normal(size=(len(TWINS), D))
    found = agreed(noise, draw_photographs(CONCEPTS, TWINS, 100, 0))
    assert np.isnan(found[0]) and np.isnan(interval(found)).all()
    assert np.isnan(interval(np.r_[0.5, np.full(10, np.nan), np.ones(90)])[1:]).all()
    assert interval(np.r_[0.5, np.nan, np.ones(99)]) == (0.5, 1, 1)
    with pytest.raises(SDDError, match="one concept"):
        consistency({"": noise}, TWINS, dict.fromkeys(CONCEPTS, 0), ["gan"], ONCE)


def test_omega_is_measured_against_the_other_concepts_only():
    assert np.allclose(np.degrees(angles(np.diag([1.0, 4.0, 9.0])[None])), 90)
    assert np.allclose(angles(np.ones((1, 3, 3))), 0, atol=1e-6)
    directions = np.array([[1.0, 0], [1, 0], [0, 2]])
    assert np.allclose(np.degrees(angles((directions @ directions.T)[None])), [[np.degrees(np.arctan(2))] * 2 + [90]])


@pytest.mark.parametrize("how", ["standard", "whitened", "none"])
def test_spaces_become_comparable(how):
    F = planted(np.random.default_rng(13), 0.5, 1.0)
    same = comparable(F, LABEL == 0, how)
    assert same[LABEL == 0].var(0).sum() == pytest.approx(1)
    assert np.allclose(read(comparable(7 * F + 3, LABEL == 0, how))["gan"].G, read(same)["gan"].G)
    if how == "standard":  # neither units of features nor dead ones matter
        scaled = np.hstack([F * np.geomspace(0.01, 100, D), np.ones((len(F), 1))])
        assert np.allclose(comparable(scaled, LABEL == 0), same)
    with pytest.raises(SDDError, match="scaling 'other'"):
        comparable(F, LABEL == 0, "other")


def test_clusters_hold_whole_photographs_and_small_ones_are_dissolved():
    centres = {0: 0.0, 1: 10.0, 2: 11.5}
    photos = [(f"{c}-{i}", c) for c, n in ((0, 6), (1, 6), (2, 2)) for i in range(n)]
    samples = [sample(p, crop, label) for p, _ in photos for crop in range(2) for label in (0, 1)]
    where = dict(photos)
    F = np.array([[centres[where[s.photo]] + 100 * s.label] for s in samples])  # the fakes' features do not matter
    found = cluster_photographs(F, samples, 3, 0, least=1)
    assert list(found) == [p for p, _ in photos] and len(set(found.values())) == 3
    merged = cluster_photographs(F, samples, 3, 0, least=3)
    assert sorted(set(merged.values())) == [0, 1] and merged["2-0"] == merged["1-0"] != merged["0-0"]
    with pytest.raises(SDDError, match="14 real photographs cannot make 15 concepts"):
        cluster_photographs(F, samples, 15, 0)


def test_reals_and_fakes_of_each_generator_without_twins_are_drawn_halved_and_dealt_out_apart():
    """Else a half could hold no fake of some generator."""
    made = [(g, y, c, i) for g in ("gan", "vae") for y in (0, 1) for c in (0, 1) for i in range(4)]
    samples = [Sample(Path(f"{g}{y}{c}{i}.png"), y, g, g, "test", f"{g}{y}{c}{i}") for g, y, c, i in made]
    concepts = {s.photo: c for s, (_, _, c, _) in zip(samples, made, strict=True)}
    concept, side = np.array(list(concepts.values())), sides(concepts, samples)
    assert np.unique(side).tolist() == [0, 1, 2, 3] and (np.bincount(side) == 8).all()
    weights = draw_photographs(concepts, samples, 50, 0)
    first = split_photographs(np.ones((50, len(side))), concept, side, 0)
    dealt = shuffled(concept, side, 50, 0)
    for kind in range(4):
        assert (first[:, (side == kind) & (concept == 0)].sum(1) == 2).all() and (dealt[:, side == kind].sum(1) == 4).all()
        assert (weights[:, (side == kind) & (concept == 1)].sum(1) == 4).all()
    assert len({tuple(row) for row in dealt}) > 10
    assert set(sides({"a": 0}, [sample("a", 0, 0), sample("a", 0, 1), sample("a", 0, 1, "vae")])) == {0}


def test_reals_of_another_generator_stand_against_it_alone():
    samples = [Sample(Path(f"{i}.png"), y, g, g, "test", str(i)) for i, (g, y) in enumerate(STRANGERS)]
    F = np.eye(len(samples), D)
    data = contrast(F, samples, "gan", [s.photo for s in samples])
    assert sorted(zip(data.photo.tolist(), data.side.tolist(), strict=True)) == [(0, 1), (1, -1)]


def test_fakes_without_a_photograph_join_the_nearest_cluster():
    reals = [sample(f"r{i}", 0, 0) for i in range(8)]
    fakes = [sample(f"f{i}", 0, 1) for i in range(4)]
    F = np.array([[0.0]] * 4 + [[10.0]] * 4 + [[1.0], [2.0], [7.0], [30.0]])
    found = cluster_photographs(F, reals + fakes, 2, 0, least=2)
    near, far = found["r0"], found["r7"]
    assert near != far and [found[f"f{i}"] for i in range(4)] == [near, near, far, far] and len(found) == 12


def test_folders_inside_a_class_or_around_it_say_what_is_shown_and_a_generators_own_does_not():
    """On what the layouts make of these places."""
    for layout, names in (
        ("univfd", {"test/progan/car/1_fake/a.png": "car", "test/biggan/0_real/b.png": ""}),
        ("folder", {"test/gan/fake/car/a.png": "car", "test/gan/real/cat/c.png": "cat", "test/gan/real/c.png": ""}),
    ):
        facts = [place(layout, tuple(name.split("/")[:-1])) for name in names]
        samples = [Sample(Path(name), *known, name) for name, known in zip(names, facts, strict=True)]
        assert folder_labels(samples, layout) == names
    with pytest.raises(SDDError, match="set layout, or name a manifest column"):
        folder_labels(samples, "manifest")


def test_generators_that_lack_a_concept_are_left_out_with_the_photographs_that_serve_them_alone():
    made = [(g, y, c, i) for g in ("gan", "half", "thin") for y in (0, 1) for c in (0, 1) for i in range(2)]
    made = [m for m in made if m[:3] != ("half", 0, 1) and m != ("thin", 1, 1, 0)]  # no reals of concept 1; one fake of it
    samples = [Sample(Path(f"{g}{y}{c}{i}.png"), y, g, g, "test", f"{g}{y}{c}{i}") for g, y, c, i in made]
    concepts = {s.photo: c for s, (_, _, c, _) in zip(samples, made, strict=True)}
    left, kept = complete(concepts, samples)
    assert kept == ["gan"] and left == {photo: c for photo, c in concepts.items() if photo.startswith("gan")}
    assert complete(CONCEPTS, twins(("gan", "vae"))) == (CONCEPTS, ["gan", "vae"])  # one photograph serves both sides
    lone = [s for s in twins(("gan", "vae")) if s.generator != "vae" or CONCEPTS[s.photo]]
    assert complete(CONCEPTS, lone) == (CONCEPTS, ["gan"])


def test_notebook_reads_concepts_from_the_folders_of_a_benchmark_without_twins(tmp_path):
    """Through papermill: any labelled folder, real and fake images of their own."""
    for split, generators in (("train", ("gan",)), ("val", ("gan",)), ("test", ("gan", "vae"))):
        for generator in generators:
            for side in ("real", "fake"):
                for concept in ("car", "cat"):
                    for i in range(6):
                        picture(tmp_path / "set" / split / generator / side / concept / f"{i}.png", (64, 64))
    values = {"manifest": tmp_path / "set", "layout": "folder", "concepts": "folder", "limit": 0}
    given = [word for name, value in values.items() for word in ("-p", f"{name}={value}")]
    assert main(["run", "01", "--profile", "smoke", "--run-dir", str(tmp_path / "run"), *given]) == 0
    found = json.loads((tmp_path / "run" / "metrics" / "01_feature_statistics.json").read_text())
    assert found["concepts"] == 2


def test_labels_make_concepts_where_enough_photographs_share_them(tmp_path):
    manifest = tmp_path / "manifest.csv"
    manifest.write_text("path,photo,concept\na.png,a,cat\nb.png,b,cat\nc.png,c,dog\nd.png,d,\ne.png,e,\n")
    labels = column_labels(manifest, "concept")
    assert label_photographs(labels, least=2) == {"a": 0, "b": 0}
    with pytest.raises(SDDError, match="no column 'class'"):
        column_labels(manifest, "class")


def test_embedding_keeps_the_order_of_samples(tmp_path):
    samples = []
    for i in range(5):
        path = tmp_path / f"{i}.png"
        Image.new("RGB", (8, 8), (40 * i,) * 3).save(path)
        samples.append(Sample(path, 0, "camera", "camera", "test", str(i)))
    F = embed(lambda x: x.mean((2, 3)), Crops(samples, 8, train=False), torch.device("cpu"), batch=2)
    assert F.shape == (5, 3) and F.dtype == np.float64 and (np.diff(F[:, 0]) > 0).all()


def test_figures_show_what_they_return(tmp_path):
    samples, rng = twins(("gan", "vae")), np.random.default_rng(14)
    F = planted(rng, 0.5, 1.0)
    F = np.concatenate([F, 1.5 * F[LABEL == 1] - 0.5 * F[LABEL == 0]])  # vae moves half as far again
    spaces = {"CNN": F, "CLIP": F + rng.normal(scale=0.1, size=F.shape)}
    found = consistency(spaces, samples, CONCEPTS, ["gan", "vae"], draw_photographs(CONCEPTS, samples, 50, 0))
    dealt = shuffled(np.array(list(CONCEPTS.values())), sides(CONCEPTS, samples), 20, 0)
    chance = consistency(spaces, samples, CONCEPTS, ["gan", "vae"], np.ones(dealt.shape), dealt)
    fig, data = polar(found, chance, {"seen": ["gan"], "unseen": ["vae"]}, len(CONCEPTS))
    points = {tuple(line.get_xydata()[0].round(9)) for ax in fig.axes for line in ax.lines if len(line.get_xdata()) == 1}
    wanted = [(space, g) for space in spaces for g in ("gan", "vae")]
    assert points == {tuple(np.round(p, 9)) for key in wanted for p in zip(*data[key], strict=True)}
    assert data["CNN", "seen"] == np.percentile(angles(chance["CNN"]["gan"].G), 95)
    fig, data = forest(found, {"gan"}, len(CONCEPTS))
    wanted = interval(agreement(found["CNN"], ["vae"]) - agreement(found["CLIP"], ["vae"]))
    assert data["vae", "difference"] == data["all unseen", "difference"] == wanted
    photos = [Sample(tmp_path / f"{p}.png", 0, "camera", "camera", "test", p) for p in CONCEPTS]
    for s in photos:
        Image.new("RGB", (8, 8)).save(s.path)
    fig, data = concept_gallery(photos, CONCEPTS, columns=4)
    assert {p: c for c, members in data.items() for p in members} == CONCEPTS
    assert sum(len(ax.images) for ax in fig.axes) == 4 * C
