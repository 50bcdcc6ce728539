"""Coverage: distances are the slow ones, a bank of everything leaves nothing, all ways of choosing are what they say."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from sddlib.coverage import KINDS, coverage, difference_interval, kinds_of, kmeans_bank, nearest_distance, random_bank
from sddlib.figures_bank import coverage_bars, token_plane


def tokens(n: int = 300, D: int = 6, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, D, generator=torch.Generator().manual_seed(seed))


def test_nearest_distance_is_the_smallest_of_all_in_spreads_of_the_tokens():
    t, bank = tokens(40), tokens(5, seed=1)
    spread = np.sqrt(((t - t.mean(0)) ** 2).sum(1).mean().item())
    slow = [min(float((x - b).norm()) for b in bank) / spread for x in t]
    np.testing.assert_allclose(nearest_distance(t, bank, chunk=7), slow, rtol=1e-4)
    assert nearest_distance(t, t).max() < 1e-3
    root_mean_square = np.sqrt((nearest_distance(t, t.mean(0, keepdim=True)) ** 2).mean())
    assert root_mean_square == pytest.approx(1, abs=1e-4)


def test_kinds_of_tokens_are_told_apart_by_their_divergence():
    """Two crowds at the ends of the range and three tokens between: far from the reference is not the same as sparse."""
    t = torch.cat([tokens(90) * 0.1, tokens(3, seed=1) * 0.1 + 10, tokens(7, seed=2) * 0.1 - 5])
    js = np.r_[np.linspace(0, 0.001, 90), (0.3, 0.5, 0.6), np.full(7, 0.9)]
    known = np.r_[np.linspace(0, 0.001, 12_000), 0.4, np.full(5, 0.5), np.full(7, 0.6), np.full(3347, 0.9)]  # 60 a segment
    kinds = kinds_of(js, known)
    assert np.flatnonzero(kinds["sparse"]).tolist() == [90, 91] and np.flatnonzero(kinds["furthest"]).tolist() == [
        *range(93, 100)
    ]
    assert kinds["common"].sum() == 50 and kinds["all"].all() and list(kinds) == list(KINDS)
    found = coverage(t, js, t[[*range(90), *range(93, 100)]], known)
    assert max(found["common"], found["furthest"]) < 0.01 < found["all"] < 1 < found["sparse"]
    assert "sparse" not in kinds_of(js[:90], known) and kinds_of(np.array([-0.1, 1.0]), known)["sparse"].all()


def test_a_difference_of_distances_is_drawn_by_photograph():
    rng = np.random.default_rng(0)
    photos, gap = np.repeat(np.arange(30), 50), np.repeat(rng.normal(0.1, 1, 30), 50)
    other = rng.random(1500)
    found = difference_interval(other + gap, other, photos)
    assert found[0] == pytest.approx(gap.mean()) and found == difference_interval(other + gap, other, photos)
    halfwidth = (found[2] - found[1]) / 2
    assert np.isnan(difference_interval(other[:450], other[50:500], photos[:450])[1:]).all()  # nine photographs
    assert halfwidth == pytest.approx(1.96 * gap.std() / np.sqrt(30), rel=0.15)  # 1500 tokens are 30 photographs


def test_random_banks_are_real_tokens_that_follow_the_seed_and_kmeans_covers_better_on_average():
    t = tokens()
    one, same, other = (random_bank(t, 20, seed) for seed in (0, 0, 1))
    assert torch.equal(one, same) and not torch.equal(one, other)
    assert all((t == b).all(1).any() for b in one) and len({tuple(b.tolist()) for b in one}) == 20
    centres = kmeans_bank(t, 20, 0)
    assert centres.shape == (20, 6) and nearest_distance(t, centres).mean() < nearest_distance(t, one).mean()


def test_figures_give_back_what_they_show():
    t = tokens()
    fig, data = token_plane(t, np.arange(10), np.linspace(0, 1, 300))
    assert data["all"].shape == (300, 2) and np.array_equal(data["chosen"], data["all"][:10])
    assert data["explained"][0] >= data["explained"][1] > 0 and sum(data["explained"]) < 1
    values = {way: {k: [1.0, 2.0] for k in ("all", "sparse")} for way in ("js", "random")}
    bars, given = coverage_bars(values, 10, 300)
    assert [t.get_text() for t in bars.axes[0].get_xticklabels()] == [KINDS["all"], KINDS["sparse"]]
    assert given is values and {p.get_height() for p in bars.axes[0].patches} == {1.5}
    plt.close("all")
