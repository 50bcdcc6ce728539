"""The token bank: a true Jensen-Shannon divergence, a sampling that a slow reference confirms, training reals only."""

import itertools
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import numpy as np
import pytest
import torch
from elsewhere import CONTEXT
from PIL import Image
from scipy.spatial.distance import jensenshannon

from sddlib import SDDError
from sddlib.backbone import Backbone
from sddlib.bank import build_bank, js_divergence, reference_token, sample_by_js
from sddlib.data import Sample
from sddlib.detector import real_tokens
from sddlib.weights import load_backbone


def tokens(n: int = 200, D: int = 64, scale: float = 2.0, seed: int = 0) -> torch.Tensor:
    return scale * torch.randn(n, D, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("scale", [0.01, 1.0, 5.0, 50.0])
def test_js_lies_in_0_1_and_agrees_with_scipy(scale):
    t, r = tokens(scale=scale), tokens(1, scale=scale, seed=9)[0]
    js = js_divergence(t, r)
    p, q = torch.softmax(t.double(), -1).numpy(), torch.softmax(r.double(), -1).numpy()
    expected = np.array([jensenshannon(row, q, base=2) ** 2 for row in p])
    assert js.min() >= 0 and js.max() <= 1
    np.testing.assert_allclose(js.numpy(), expected, atol=2e-6)
    np.testing.assert_allclose(js_divergence(t.double(), r.double()).numpy(), expected, atol=1e-12)


def test_js_is_symmetric():
    a, b = tokens(20), tokens(20, seed=1)
    forth = torch.cat([js_divergence(x[None], y) for x, y in zip(a, b, strict=True)])
    back = torch.cat([js_divergence(y[None], x) for x, y in zip(a, b, strict=True)])
    assert forth.min() > 0.01
    assert torch.allclose(forth, back, atol=1e-6)


def test_js_of_a_token_with_itself_is_0_and_ignores_what_softmax_ignores():
    t = tokens(50)
    assert max(js_divergence(row[None], row).item() for row in t) < 1e-6
    assert max(js_divergence(row[None] + 7, row).item() for row in t) < 1e-6  # softmax(x + c) = softmax(x)


def test_js_of_disjoint_distributions_is_1():
    a, b = torch.full((2, 8), -1e4), torch.full((8,), -1e4)
    a[:, 0], b[1] = 1e4, 1e4
    assert torch.equal(js_divergence(a, b), torch.ones(2))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_js_stays_finite_for_extreme_logits(dtype):
    t = tokens(20).to(dtype)
    t[:, 0], t[:, 1] = 1e4, -1e4
    t[3] = 1e4
    t[4] = -1e4
    js = js_divergence(t, t[5])
    assert torch.isfinite(js).all() and js.min() >= 0 and js.max() <= 1
    assert js[5] < 1e-6 and js[3] > 0.5


def test_js_leaves_its_inputs_alone():
    t, r = tokens().double(), tokens(1)[0].double()
    before = t.clone(), r.clone()
    js_divergence(t, r)
    assert torch.equal(t, before[0]) and torch.equal(r, before[1])


def sample_slowly(js: np.ndarray, M: int, interval: str) -> tuple[list[int], list[bool]]:
    """Eq. 2 read aloud: a loop over the segments, then one over those that held nothing."""
    low, high = (min(js), max(js)) if interval == "observed" else (0.0, 1.0)
    target = [low + (high - low) * i / M for i in range(1, M + 1)]
    target[-1] = max(high, max(js))
    chosen, empty = [None] * M, [False] * M
    for j in range(M):
        inside = [i for i, v in enumerate(js) if v <= target[j] and (j == 0 or v > target[j - 1])]
        if inside:
            chosen[j] = min(inside, key=lambda i: (target[j] - js[i], i))
        else:
            empty[j] = True
    for j in range(M):
        if empty[j]:
            free = [i for i in range(len(js)) if i not in chosen]
            # the nearest; of two as near the lower; of equals the first
            chosen[j] = min(free, key=lambda i: (abs(js[i] - target[j]), js[i], i))
    return chosen, empty


def cases() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "spread": rng.random(60),
        "bunched": np.concatenate([0.1 + 0.01 * rng.random(30), 0.8 + 0.01 * rng.random(10)]),
        "ties": rng.integers(0, 5, 40) / 8,  # eighths: distances are exact, so ties are ties
        "all equal": np.full(12, 0.25),
        "narrow": 0.4 + 1e-4 * rng.random(50),
        "with both ends": np.concatenate([[0.0, 1.0], rng.random(20)]),
    }


@pytest.mark.parametrize("interval", ["observed", "unit"])
@pytest.mark.parametrize("case", cases())
def test_sampling_agrees_with_a_slow_reference(case, interval):
    js = cases()[case]
    for M in (1, 2, 8, len(js) // 2, len(js)):
        index, empty = sample_by_js(js, M, interval)
        expected_index, expected_empty = sample_slowly(js, M, interval)
        assert index.tolist() == expected_index and empty.tolist() == expected_empty
        assert len(set(index.tolist())) == M


@pytest.mark.parametrize("interval", ["observed", "unit"])
def test_a_bank_of_all_tokens_takes_every_token_once(interval):
    js = cases()["bunched"]
    assert sorted(sample_by_js(js, len(js), interval)[0]) == list(range(len(js)))


def test_no_token_is_missed_at_the_ends_of_the_observed_interval():
    """Rounding of low + (high - low) * M / M must not lose the largest token: try many intervals."""
    rng = np.random.default_rng(1)
    for _ in range(200):
        js = rng.random(rng.integers(2, 9)) * rng.random()
        assert int(np.argmax(js)) in sample_by_js(js, int(rng.integers(1, len(js) + 1)))[0]


def stream(t: torch.Tensor, n: int, cuts: int = 1) -> list:
    """The tokens as `cuts` shares, each in chunks of n."""
    return [partial(torch.split, part, n) for part in t.tensor_split(cuts)]


@pytest.mark.parametrize("reference, interval", list(itertools.product(["mean", "random"], ["observed", "unit"])))
def test_bank_is_independent_of_chunk_size(reference, interval):
    t = tokens(500)
    whole = build_bank(stream(t, 500), 40, reference, interval, seed=3)
    for n in (1, 7, 64, 499):
        bank = build_bank(stream(t, n), 40, reference, interval, seed=3)
        np.testing.assert_array_equal(bank.index, whole.index)
        assert torch.equal(bank.f_s, whole.f_s) and bank.empty == whole.empty
        np.testing.assert_allclose(bank.js_all, whole.js_all, atol=1e-6)


@pytest.mark.parametrize("reference", ["mean", "random"])
def test_bank_is_independent_of_shares_and_of_the_processes_that_work_on_them(reference):
    t = tokens(500)
    t[100:140] = t[7]  # equal tokens: the first in the stream is taken, whichever share it lies in
    whole = build_bank(stream(t, 64), 40, reference, seed=3)
    with ProcessPoolExecutor(2, CONTEXT) as pool:
        for cuts, run in ((2, map), (3, pool.map), (7, map)):
            bank = build_bank(stream(t, 50, cuts), 40, reference, seed=3, run=run)
            np.testing.assert_array_equal(bank.index, whole.index)
            assert torch.equal(bank.f_s, whole.f_s) and torch.equal(bank.reference, whole.reference)


def test_an_empty_share_changes_nothing():
    t = tokens(60)
    bank = build_bank([*stream(t, 9), lambda: iter([])], 10)
    assert torch.equal(bank.f_s, build_bank(stream(t, 60), 10).f_s)


def test_the_reference_is_the_same_whatever_the_order_of_adding():
    """Sums of floats depend on their order; these are integers."""
    t = tokens(4000, D=8, scale=30.0)
    sums = {tuple(reference_token(stream(t, n, cuts), "mean", 0).tolist()) for n, cuts in ((1, 1), (13, 3), (4000, 1))}
    assert len(sums) == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sampling_leaves_the_tokens_as_they_were_and_keeps_no_chunk_alive(dtype):
    t = tokens(100).to(dtype)
    before = t.clone()
    bank = build_bank(stream(t, 9), 10, "mean")
    assert torch.equal(t, before)
    assert bank.f_s.untyped_storage().nbytes() == bank.f_s.nbytes and torch.equal(bank.f_s, t[bank.index].float())


def test_random_and_noise_banks_are_what_they_are_called():
    t = tokens(300) + torch.arange(64.0)
    banks = {kind: build_bank(stream(t, 41), 100, seed=1, kind=kind) for kind in ("js", "random", "noise")}
    assert torch.equal(banks["random"].f_s, t[banks["random"].index]) and len(set(banks["random"].index)) == 100
    assert not np.array_equal(banks["random"].index, np.sort(banks["js"].index))
    assert not np.array_equal(banks["random"].index, build_bank(stream(t, 41), 100, seed=2, kind="random").index)
    noise = banks["noise"].f_s
    assert torch.cdist(noise, t).min() > 1
    assert (noise.mean(0) - t.mean(0)).abs().max() < 1.5 and (noise.std(0) / t.std(0) - 1).abs().max() < 0.5
    with pytest.raises(SDDError, match="bank 'best' is unknown"):
        build_bank(stream(t, 41), 100, kind="best")


def test_bank_holds_the_tokens_that_its_indices_name_in_order_of_divergence():
    t = tokens(300)
    bank = build_bank(stream(t, 41), 30)
    assert torch.equal(bank.f_s, t[bank.index])
    np.testing.assert_array_equal(bank.js, bank.js_all[bank.index])
    np.testing.assert_array_equal(bank.js_all, js_divergence(t, bank.reference).numpy())
    assert bank.empty == sample_by_js(bank.js_all, 30)[1].sum()


def test_reference_is_the_mean_or_one_real_token_that_follows_the_seed():
    t = tokens(100)
    assert torch.allclose(reference_token(stream(t, 9), "mean", 0), t.mean(0), atol=1e-6)
    drawn = [reference_token(stream(t, 9), "random", seed) for seed in (0, 0, 1)]
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])
    assert all((t == d).all(1).any() for d in drawn)


def test_a_bank_that_cannot_be_is_refused_in_one_sentence():
    t = tokens(10)
    for M in (0, 11):
        with pytest.raises(SDDError, match="1 <= M <= 10"):
            build_bank(stream(t, 4), M)
    with pytest.raises(SDDError, match="interval 'whole' is unknown"):
        build_bank(stream(t, 4), 3, interval="whole")
    with pytest.raises(SDDError, match="reference token 'first' is unknown"):
        build_bank(stream(t, 4), 3, reference="first")
    for reference in ("mean", "random"):
        with pytest.raises(SDDError, match="there are none"):
            build_bank([lambda: iter([])], 3, reference)
    t[4, 2] = float("nan")
    with pytest.raises(SDDError, match="not a number"):
        build_bank(stream(t, 4), 3)


def reals(folder, n: int = 5, split: str = "train", label: int = 0) -> list[Sample]:
    rng = np.random.default_rng(n)
    samples = []
    for i in range(n):
        path = folder / f"{split}{label}{i}.png"
        Image.fromarray(rng.integers(0, 255, (70, 66, 3), dtype=np.uint8)).save(path)
        samples.append(Sample(path, label, "camera" if label == 0 else "gan", "camera", split, f"p{i}"))
    return samples


def test_real_tokens_are_the_frozen_encoders_patch_tokens_in_order(tmp_path):
    backbone, samples = Backbone(load_backbone("tiny", "random"), 64), reals(tmp_path)
    found = torch.cat(list(real_tokens(backbone, samples, batch=2)))
    assert found.shape == (5 * 16, 64)
    assert torch.allclose(found, torch.cat(list(real_tokens(backbone, samples, batch=5))), atol=1e-6)
    alone = torch.cat(list(real_tokens(backbone, samples[3:4])))
    assert torch.allclose(found[3 * 16 : 4 * 16], alone, atol=1e-6)


def test_bank_refuses_fakes_other_splits_and_an_adapted_encoder(tmp_path):
    backbone, good = Backbone(load_backbone("tiny", "random"), 64), reals(tmp_path)
    for bad in (reals(tmp_path, 1, label=1), reals(tmp_path, 1, "val"), reals(tmp_path, 1, "test")):
        with pytest.raises(SDDError, match=f"{bad[0].path.name} is not a training real"):
            build_bank([lambda bad=bad: real_tokens(backbone, good + bad)], 4)
    backbone.add_lora()
    with pytest.raises(SDDError, match="before LoRA"):
        build_bank([lambda: real_tokens(backbone, good)], 4)
