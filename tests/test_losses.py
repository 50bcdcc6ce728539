"""The three losses: L_r sees no fake, the triplet loss is its definition, and Eq. 16 is their weighted sum."""

import math
from functools import partial
from types import SimpleNamespace

import pytest
import torch

from sddlib.losses import reconstruction_loss, sdd_loss, triplet_loss
from sddlib.presets import get_preset

Y = torch.tensor([0, 1, 0, 1, 1, 0])


def batch(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(6, 4, 5, generator=g).requires_grad_(), torch.randn(6, 4, 5, generator=g).requires_grad_()


def test_L_r_is_the_mean_over_reals_of_each_images_mse():
    Re, V_H = batch()
    expected = sum(torch.nn.functional.mse_loss(Re[i], V_H[i]) for i in (0, 2, 5)) / 3
    torch.testing.assert_close(reconstruction_loss(Re, V_H, Y), expected)


@pytest.mark.parametrize("detach", [True, False])
def test_L_r_sees_no_fake(detach):
    Re, V_H = batch()
    loss = reconstruction_loss(Re, V_H, Y, detach)
    gradients = torch.autograd.grad(loss, (Re, V_H), allow_unused=True)
    assert not gradients[0][Y == 1].any() and gradients[0][Y == 0].abs().min() > 0
    if detach:
        assert gradients[1] is None
    else:
        assert not gradients[1][Y == 1].any() and gradients[1][Y == 0].abs().min() > 0
    with torch.no_grad():
        Re[Y == 1] *= 100
        V_H[Y == 1] = -7
    assert torch.equal(reconstruction_loss(Re, V_H, Y, detach), loss)


def test_L_r_of_a_batch_without_reals_is_0_and_harmless():
    Re, V_H = batch()
    loss = reconstruction_loss(Re, V_H, torch.ones(6, dtype=torch.long))
    loss.backward()
    assert loss == 0 and not Re.grad.any()


def test_L_r_over_all_images_is_the_mean_of_both_classes_means():
    Re, V_H = batch()
    of_fakes = reconstruction_loss(Re, V_H, 1 - Y)  # as many fakes as reals
    torch.testing.assert_close(reconstruction_loss(Re, V_H, Y, over="all"), (reconstruction_loss(Re, V_H, Y) + of_fakes) / 2)


@pytest.mark.parametrize("over, kept", [("all", slice(None)), ("reals", [0, 2, 5])])
def test_L_r_by_the_frobenius_norm_is_the_release_written_out(over, kept):
    Re, V_H = batch()
    expected = torch.linalg.vector_norm((Re - V_H)[kept]) / (len(Re[kept]) * 4)
    torch.testing.assert_close(reconstruction_loss(Re, V_H, Y, over=over, norm="frobenius"), expected)
    loss = reconstruction_loss(Re, V_H, torch.ones_like(Y), norm="frobenius")
    loss.backward()
    assert loss < 1e-15 and not Re.grad.any()


def triplets_slowly(f: torch.Tensor, y: torch.Tensor, margin: float) -> float:
    terms = []
    for a in range(len(y)):
        for p in range(len(y)):
            for n in range(len(y)):
                if p != a and y[p] == y[a] and y[n] != y[a]:
                    d_p, d_n = (math.dist(f[a].tolist(), f[k].tolist()) for k in (p, n))
                    terms.append(max(0.0, d_p - d_n + margin))
    return sum(terms) / len(terms) if terms else 0.0


@pytest.mark.parametrize("margin", [0.0, 0.5, 8.0])
def test_triplet_loss_is_the_triple_loop(margin):
    f = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    assert triplet_loss(f, Y, margin).item() == pytest.approx(triplets_slowly(f, Y, margin), abs=1e-5)


def test_triplet_loss_worked_by_hand():
    f = torch.tensor([[0.0, 0.0], [3.0, 4.0], [0.0, 6.0]])  # real, real, fake
    # a=0: d_p 5, d_n 6; a=1: d_p 5, d_n sqrt(13)
    expected = (max(0, 5 - 6 + 2) + max(0, 5 - math.sqrt(13) + 2)) / 2
    assert triplet_loss(f, torch.tensor([0, 0, 1]), 2.0).item() == pytest.approx(expected, abs=1e-6)


def test_triplet_loss_vanishes_for_classes_far_apart_and_exceeds_the_margin_for_swapped_ones():
    f = torch.tensor([[0.0], [0.1], [100.0], [100.1]])
    assert triplet_loss(f, torch.tensor([0, 0, 1, 1]), 8.0) == 0
    assert triplet_loss(f, torch.tensor([0, 1, 1, 0]), 8.0) > 8


@pytest.mark.parametrize("y", [[0, 0, 0], [1, 1, 1], [0, 1]])
def test_triplet_loss_without_triplets_is_0_and_harmless(y):
    f = torch.randn(len(y), 3, requires_grad=True)
    loss = triplet_loss(f, torch.tensor(y), 8.0)
    loss.backward()
    assert loss == 0 and not f.grad.any()


def test_duplicate_features_give_no_nan_gradient():
    f = torch.ones(6, 3, requires_grad=True)
    loss = triplet_loss(f, Y, 8.0)
    loss.backward()
    assert loss.item() == pytest.approx(8.0) and torch.isfinite(f.grad).all()
    mixed = torch.tensor([[1.0, 2], [1, 2], [0, 0], [1, 2], [3, 1], [3, 1]], requires_grad=True)
    triplet_loss(mixed, Y, 8.0).backward()
    assert torch.isfinite(mixed.grad).all() and mixed.grad.abs().max() > 0


def test_triplet_distances_keep_their_digits_far_from_the_origin():
    """The quick way to all distances, by matrix product, loses them."""
    f = torch.randn(6, 3, generator=torch.Generator().manual_seed(0)) * 0.01
    shifted = (f.double() + 100).float()
    assert triplet_loss(shifted, Y, 0.01).item() == pytest.approx(triplets_slowly(shifted, Y, 0.01), abs=1e-6)


def test_total_is_Eq_16_and_lambdas_weigh_their_own_terms():
    Re, V_H = batch()
    logit, F_low = torch.randn(6), torch.randn(6, 3)
    out = SimpleNamespace(logit=logit, F_low=F_low, Re=Re, V_H=V_H)
    preset = get_preset("paper", lambda_bce=1.2, lambda_tri=0.3, lambda_r=0.07)
    losses = sdd_loss(out, Y, preset, partial(triplet_loss, margin=1.5))
    p = torch.sigmoid(logit.double())
    bce = -torch.where(Y == 1, p, 1 - p).log().mean()  # label 1 is fake and P(fake) = sigmoid(logit)
    assert losses["bce"].item() == pytest.approx(bce.item(), abs=1e-6)
    assert losses["tri"].item() == pytest.approx(triplets_slowly(F_low, Y, 1.5), abs=1e-5)
    torch.testing.assert_close(losses["r"], reconstruction_loss(Re, V_H, Y))
    expected = 1.2 * losses["bce"] + 0.3 * losses["tri"] + 0.07 * losses["r"]
    torch.testing.assert_close(losses["total"], expected)


def test_preset_decides_whether_the_target_of_L_r_is_detached():
    for detach in (True, False):
        Re, V_H = batch()
        out = SimpleNamespace(logit=torch.zeros(6), F_low=torch.zeros(6, 3), Re=Re, V_H=V_H)
        preset = get_preset("paper", detach_target=detach)
        sdd_loss(out, Y, preset, partial(triplet_loss, margin=8.0))["total"].backward()
        assert (V_H.grad is None) == detach


def test_without_reconstruction_there_is_no_L_r():
    _, V_H = batch()
    out = SimpleNamespace(logit=torch.randn(6), F_low=torch.randn(6, 3), Re=None, V_H=V_H)
    losses = sdd_loss(out, Y, get_preset("paper"), partial(triplet_loss, margin=8.0))
    assert set(losses) == {"total", "bce", "tri"}
    torch.testing.assert_close(losses["total"], losses["bce"] + 0.222 * losses["tri"])
