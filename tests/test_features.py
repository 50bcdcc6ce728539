"""Do fakes differ alike whatever they show: the statistics recover what was planted, and draw photographs, not crops."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sddlib import SDDError
from sddlib.concepts import cluster_photographs, column_labels, embed, label_photographs
from sddlib.data import Crops, Sample
from sddlib.features import (
    agreement,
    angles,
    beside_chance,
    comparable,
    consistency,
    contrast,
    draw_photographs,
    interval,
    noise_free,
    products,
    shuffled,
)
from sddlib.figures_features import concept_gallery, forest, polar

C, EACH, D, CROPS = 4, 8, 60, 2
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


def read(F: np.ndarray, weights=ONCE, samples=TWINS):
    return consistency({"": F}, samples, CONCEPTS, ["gan"], weights)[""]["gan"]


def test_agreement_is_1_for_shifted_copies_whatever_the_content():
    F = planted(np.random.default_rng(0), 1.0, 0.0)
    assert np.allclose([read(F).plain, read(F).corrected], 1)


def test_agreement_is_minus_1_for_two_concepts_that_move_apart():
    photos = {p: c for p, c in CONCEPTS.items() if c < 2}
    F = LABEL[:, None] * np.where(CONCEPT == 0, 1.0, -1.0)[:, None] * np.eye(1, D)
    found = consistency({"": F}, TWINS, photos, ["gan"], np.ones((1, len(photos))))[""]["gan"]
    assert np.allclose([found.plain, found.corrected], -1)


@pytest.mark.parametrize("cosine", [0.0, 0.5, 1.0])
def test_corrected_agreement_recovers_a_planted_value_where_the_plain_one_is_too_small(cosine):
    rng = np.random.default_rng(1)
    found = [read(planted(rng, cosine, 2.0)) for _ in range(60)]
    plain, corrected = (np.mean([getattr(r, name) for r in found]) for name in ("plain", "corrected"))
    assert corrected == pytest.approx(cosine, abs=0.05)
    assert plain < 0.75 * cosine or cosine == 0


def test_noisier_space_does_not_look_less_consistent_after_the_correction():
    rng, weights = np.random.default_rng(2), draw_photographs(CONCEPTS, TWINS, 200, 0)
    quiet, loud = planted(rng, 0.8, 0.5), planted(rng, 0.8, 2.5)
    quiet, loud = (read(F, weights) for F in (quiet, loud))
    assert quiet.plain[0] - loud.plain[0] > 0.2
    _, low, high = interval(quiet.corrected - loud.corrected)
    assert low < 0 < high


def test_interval_of_a_difference_covers_the_planted_one():
    rng, weights, hits = np.random.default_rng(3), draw_photographs(CONCEPTS, TWINS, 200, 0), 0
    for _ in range(60):
        a, b = read(planted(rng, 0.9, 1.0), weights), read(planted(rng, 0.5, 1.0), weights)
        _, low, high = interval(a.corrected - b.corrected)
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
    found = read(F, draw_photographs(CONCEPTS, TWINS, 2000, 0))
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
    assert np.allclose(read(F, weights).G, repeated.G) and np.allclose(read(F, weights).plain, repeated.plain)


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
    assert np.allclose(found["a"]["gan"].corrected, found["b"]["vae"].corrected)


def test_only_the_same_crops_are_compared():
    F = planted(np.random.default_rng(9), 0.5, 1.0)
    keep = [i for i, s in enumerate(TWINS) if s.label == 0 or s.path.stem.endswith("_0")]  # fakes of crop 0 alone
    both = [i for i, s in enumerate(TWINS) if s.path.stem.endswith("_0")]
    one, other = (read(F[rows], samples=[TWINS[i] for i in rows]) for rows in (keep, both))
    assert np.allclose(one.G, other.G)


def test_without_twins_means_of_reals_and_fakes_are_compared():
    rng = np.random.default_rng(10)
    label = np.arange(400) % 2
    samples = [sample(f"p{i}", 0, y) for i, y in enumerate(label)]
    concepts = {f"p{i}": i // 200 for i in range(400)}
    concept = np.arange(400) // 200
    F = rng.normal(size=(400, D)) + label[:, None] * directions(0.5)[concept]
    data = contrast(F, samples, "gan", list(concepts))
    G, lengths = products(data, np.ones((1, 400)), concept)
    d = [F[(concept == c) & (label == 1)].mean(0) - F[(concept == c) & (label == 0)].mean(0) for c in (0, 1)]
    assert np.allclose(G[0], np.array(d) @ np.array(d).T)
    for c in (0, 1):
        fakes, reals = (F[(concept == c) & (label == y)] for y in (1, 0))
        apart = [(X @ X.T)[~np.eye(len(X), dtype=bool)].mean() for X in (fakes, reals)]  # pairs of different photographs
        assert lengths[0, c] == pytest.approx(sum(apart) - 2 * fakes.mean(0) @ reals.mean(0))
    assert (draw_photographs(concepts, samples, 9, 0)[:, label == 1].sum(1) == 200).all()  # fakes are drawn among fakes


def test_random_concepts_agree_and_keep_their_sizes():
    F = planted(np.random.default_rng(11), 0.2, 1.0)
    concept = np.array(list(CONCEPTS.values()))
    dealt = shuffled(concept, 400, 0)
    assert (np.sort(dealt, 1) == concept).all() and (dealt != concept).any()
    by_chance = consistency({"": F}, TWINS, CONCEPTS, ["gan"], np.ones((400, len(concept))), dealt)[""]["gan"]
    mean, p = beside_chance(read(F).corrected[0], by_chance.corrected)
    assert mean == pytest.approx(1, abs=0.06) and p < 0.01
    assert np.isnan(beside_chance(np.nan, by_chance.corrected)).all() and np.isnan(beside_chance(1.0, np.full(3, np.nan))).all()


def test_differences_lost_in_noise_have_no_direction_and_no_interval():
    G = np.eye(2)[None]
    assert np.isnan(agreement(G, np.array([[-1.0, 1.0]]))[1]).all()
    assert np.isnan(interval(np.array([0.5, np.nan, np.nan]))[1:]).all()
    with pytest.raises(SDDError, match="one concept"):
        agreement(np.ones((1, 1, 1)), np.ones((1, 1)))


def test_omega_is_measured_against_the_other_concepts_only():
    omega, length = angles(np.diag([1.0, 4.0, 9.0]))
    assert np.allclose(np.degrees(omega), 90) and np.allclose(length, [1, 2, 3])
    assert np.allclose(angles(np.ones((3, 3)))[0], 0, atol=1e-6)
    noisy = read(planted(np.random.default_rng(12), 0.9, 2.0))
    assert np.nanmean(noise_free(noisy)[0]) < angles(noisy.G[0])[0].mean()  # noise opens the angles


@pytest.mark.parametrize("how", ["standard", "whitened", "none"])
def test_spaces_become_comparable(how):
    F = planted(np.random.default_rng(13), 0.5, 1.0)
    same = comparable(F, LABEL == 0, how)
    assert same[LABEL == 0].var(0).sum() == pytest.approx(1)
    assert np.allclose(read(comparable(7 * F + 3, LABEL == 0, how)).G, read(same).G)
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
    fig, data = polar(found, {"seen": ["gan"], "unseen": ["vae"]})
    points = {tuple(line.get_xydata()[0].round(9)) for ax in fig.axes for line in ax.lines if len(line.get_xdata()) == 1}
    assert points == {tuple(np.round(p, 9)) for pair in data.values() for p in zip(*pair, strict=True)}
    fig, data = forest(found, {"gan"}, len(CONCEPTS))
    wanted = interval(found["CNN"]["vae"].corrected - found["CLIP"]["vae"].corrected)
    assert data["vae", "difference"] == data["mean of unseen", "difference"] == wanted
    photos = [Sample(tmp_path / f"{p}.png", 0, "camera", "camera", "test", p) for p in CONCEPTS]
    for s in photos:
        Image.new("RGB", (8, 8)).save(s.path)
    fig, data = concept_gallery(photos, CONCEPTS, columns=4)
    assert {p: c for c, members in data.items() for p in members} == CONCEPTS
    assert sum(len(ax.images) for ax in fig.axes) == 4 * C
