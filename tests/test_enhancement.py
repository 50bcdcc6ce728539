"""Low-level enhancement: Eq. 11-13 by hand, sides that fit exactly, and a guide that sits where the token sat."""

import math

import pytest
import torch
import torch.nn.functional as F

from sddlib import SDDError
from sddlib.enhancement import Enhancement, Stage
from sddlib.presets import get_preset


def stage(D: int = 2, c_in: int = 1, c_out: int = 1, g: int = 2, side: int = 2) -> Stage:
    """A stage in eval mode whose convolutions copy: F(n) is every second pixel, the guide is D_s summed over D."""
    made = Stage(c_in, c_out, D, g, side).eval()
    torch.nn.init.zeros_(made.conv[0].weight)
    made.conv[0].weight.data[:, :, 1, 1] = 1
    torch.nn.init.ones_(made.deconv[0].weight)
    for norm in (made.conv[1], made.deconv[1]):
        norm.eps = 1e-12  # running mean 0 and variance 1: BN is the identity; torch 2.11 refuses 0
    return made


def test_F_low_is_Eq_11_to_13_worked_by_hand():
    image = torch.zeros(1, 1, 4, 4)
    image[0, 0, ::2, ::2] = torch.tensor([[0.5, 2.0], [1.0, -3.0]])
    D_s = torch.tensor([[[[0.25, 1.0], [2.0, 4.0]], [[0.25, 0.5], [1.0, 4.0]]]])
    found = stage()(image, D_s)[0, 0]
    expected = []
    for f, d in ((0.5, 0.5), (2.0, 1.5), (1.0, 3.0), (0.0, 8.0)):  # ReLU leaves 0 of -3
        f_prime = d * f  # Eq. 11
        weight = 1 / math.exp(abs(f_prime - f))  # Eq. 12
        expected.append(f_prime + f_prime * weight)  # Eq. 13
    assert expected[0] == pytest.approx(0.25 + 0.25 * math.exp(-0.25))
    torch.testing.assert_close(found.flatten(), torch.tensor(expected))


def test_the_weight_is_1_where_the_guide_is_1_and_vanishes_where_they_disagree():
    image = torch.full((1, 1, 4, 4), 2.0)
    agree, differ = (stage(D=1)(image, torch.full((1, 1, 2, 2), d)) for d in (1.0, 30.0))
    torch.testing.assert_close(agree, torch.full_like(agree, 4.0))
    torch.testing.assert_close(differ, torch.full_like(differ, 60.0))


def test_convolutions_are_each_followed_by_batch_norm_and_relu():
    s = Stage(3, 4, 6, 2, 8).eval()
    for norm in (s.conv[1], s.deconv[1]):
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
        torch.nn.init.normal_(norm.weight)
        torch.nn.init.normal_(norm.bias)

    def bn(x, n):
        x = (x - n.running_mean[:, None, None]) / (n.running_var[:, None, None] + n.eps).sqrt()
        return (x * n.weight[:, None, None] + n.bias[:, None, None]).clamp_min(0)

    x, D_s = torch.randn(2, 3, 16, 16), torch.rand(2, 6, 2, 2)
    F_n = bn(F.conv2d(x, s.conv[0].weight, stride=2, padding=1), s.conv[1])
    F_prime = bn(F.conv_transpose2d(D_s, s.deconv[0].weight, stride=4), s.deconv[1]) * F_n
    torch.testing.assert_close(s(x, D_s), F_prime * (1 + torch.exp(-(F_prime - F_n).abs())))


@pytest.mark.parametrize("size, g, sides, strides", [(112, 7, (56, 28, 14), (8, 4, 2)), (224, 16, (112, 56, 28), (7, 4, 2))])
def test_stage_n_has_side_H_over_2_to_the_n_and_the_guide_fits_it_exactly(size, g, sides, strides):
    e = Enhancement(6, g, size, (2, 3, 4), 5, "mean", False).eval()
    seen = []
    for s in e.stages:
        s.register_forward_hook(lambda _m, _i, out: seen.append(tuple(out.shape)))
    image, D_s = torch.randn(1, 3, size, size), torch.rand(1, 6, g, g)
    assert e(image, D_s).shape == (1, 5)
    assert seen == [(1, c, s, s) for c, s in zip((2, 3, 4), sides, strict=True)]
    assert tuple(s.deconv[0].stride[0] for s in e.stages) == strides
    for s, side, stride in zip(e.stages, sides, strides, strict=True):
        assert s.deconv(D_s).shape[-1] == g * stride and abs(g * stride - side) < side / 4


@pytest.mark.parametrize("size, g", [(64, 4), (112, 7), (224, 16)])
def test_the_guide_marks_the_place_of_its_token(size, g):
    """D_s at one token only: F_low(1) is bright in that token's part of the picture and nowhere else."""
    row, column = 1, g - 1
    s = stage(D=1, c_in=3, c_out=1, g=g, side=size // 2)
    D_s = torch.zeros(1, 1, g, g)
    D_s[0, 0, row, column] = 1.0
    bright = s(torch.ones(1, 3, size, size), D_s)[0, 0] > 0.5
    where, cell = bright.nonzero().float().mean(0), size / 2 / g
    assert (where - torch.tensor([(row + 0.5) * cell, (column + 0.5) * cell])).abs().max() < cell / 2 + 1
    assert bright.sum() < 2.5 * cell**2


def test_flatten_keeps_positions_and_mean_does_not():
    image, D_s = torch.randn(1, 3, 32, 32), torch.rand(1, 6, 2, 2)
    for pool, same in (("mean", True), ("flatten", False)):
        torch.manual_seed(0)
        e = Enhancement(6, 2, 32, (2, 3, 4), 5, pool, False).eval()
        last = []
        e.stages[-1].register_forward_hook(lambda _m, _i, out, last=last: last.append(out))
        expected = e(image, D_s)
        assert e.project.in_features == 4 * (1 if pool == "mean" else 16)
        mirrored = last[0].flip(3)
        found = e.project(mirrored.mean((2, 3)) if pool == "mean" else mirrored.flatten(1))
        assert torch.allclose(expected, found, atol=1e-6) == same


def test_each_stage_reads_the_one_before_and_all_read_D_s():
    e = Enhancement(6, 4, 64, (2, 3, 4), 5, "mean", False).eval()
    image, D_s = torch.randn(1, 3, 64, 64), torch.rand(1, 6, 4, 4, requires_grad=True)
    x = image
    for s in e.stages:
        assert s.conv[0].in_channels == x.shape[1]
        (gradient,) = torch.autograd.grad(s(x, D_s).sum(), D_s, retain_graph=True)
        assert gradient.abs().max() > 0
        x = s(x, D_s)
    assert torch.allclose(e(image, D_s), e.project(x.mean((2, 3))), atol=1e-6)


def test_highpass_filters_start_blind_to_flat_colour_and_see_edges():
    flat = torch.rand(1, 3, 1, 1).expand(1, 3, 16, 16)
    edge = torch.cat([flat[..., :8], flat[..., :8] + 1], 3)
    for highpass in (True, False):
        torch.manual_seed(0)
        conv = Enhancement(6, 2, 32, (2, 3, 4), 5, "mean", highpass).stages[0].conv[0]
        assert (conv(flat)[..., 1:, 1:].abs().max() < 1e-6) == highpass  # padding darkens the first row and column
        assert conv(edge)[..., 1:, 1:].abs().max() > 0.1
        assert conv.weight.requires_grad


def test_paper_has_three_stages_and_unknown_pooling_is_refused():
    assert len(get_preset("paper").channels) == 3
    with pytest.raises(SDDError, match="pooling 'max' is unknown"):
        Enhancement(6, 4, 64, (2, 3, 4), 5, "max", False)
