"""Reconstruction: Eq. 4-8 by an independent formula, bank queries that are never stale, D_s the right way round."""

import copy

import pytest
import torch

from sddlib import SDDError
from sddlib.reconstruction import Reconstruction, difference_map

D, W, HEADS, N, M = 12, 20, 4, 9, 7


def module(dropout: float = 0.0, residual: str = "none") -> Reconstruction:
    torch.manual_seed(0)
    made = Reconstruction(D, W, HEADS, dropout, residual)
    with torch.no_grad():
        for p in made.parameters():  # LayerNorms and biases too, so that leaving one out shows
            p.normal_(0, 0.5)
    return made.eval()


def inputs(B: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(1)
    return torch.randn(B, N, D, generator=g), torch.randn(M, D, generator=g)


def mha(parts, q, kv):
    """Eq. 4 with einsum: heads are consecutive slices of the inner width; d is the head's width."""
    d = W // HEADS
    Q, K, V = (
        torch.einsum("bld,wd->blw", x, p.weight) + (0 if p.bias is None else p.bias)
        for x, p in ((q, parts.q), (kv, parts.k), (kv, parts.v))
    )
    heads = []
    for h in range(HEADS):
        at = slice(h * d, (h + 1) * d)
        logits = torch.einsum("bqd,bkd->bqk", Q[..., at], K[..., at]) / d**0.5
        weights = logits.exp() / logits.exp().sum(-1, keepdim=True)
        heads.append(torch.einsum("bqk,bkd->bqd", weights, V[..., at]))
    return torch.einsum("blw,dw->bld", torch.cat(heads, -1), parts.out.weight) + parts.out.bias


def ln(parts, x):
    mean, var = x.mean(-1, keepdim=True), x.var(-1, keepdim=True, unbiased=False)
    return (x - mean) / (var + parts.eps).sqrt() * parts.weight + parts.bias


@pytest.mark.parametrize("residual, at", [("none", ()), ("bank", (1, 3, 4)), ("tokens", (2, 3, 4))])
def test_Re_is_Eq_5_to_8_written_out(residual, at):
    """at: the sublayers whose queries are added to their output."""
    m, (V_H, f_s) = module(residual=residual).double(), (t.double() for t in inputs())
    R1 = ln(m.ln1, mha(m.mha1, f_s.expand(3, M, D), V_H) + (f_s if 1 in at else 0))
    R2 = ln(m.ln2, mha(m.mha2, V_H, R1) + (V_H if 2 in at else 0))
    R3 = ln(m.ln3, mha(m.mha3, R2, R2) + (R2 if 3 in at else 0))
    Re = ln(m.ln4, mha(m.mha4, R3, R1) + (R3 if 4 in at else 0))
    assert R1.shape == (3, M, D) and Re.shape == V_H.shape
    assert torch.allclose(m(V_H, f_s), Re, atol=1e-10)
    with torch.no_grad():  # and with the queries from the cache
        assert torch.allclose(m(V_H, f_s), Re, atol=1e-10)
        assert torch.allclose(m(V_H, f_s), Re, atol=1e-10)


def test_order_of_the_bank_does_not_matter_and_its_tokens_do():
    m, (V_H, f_s) = module(), inputs()
    with torch.no_grad():
        assert torch.allclose(m(V_H, f_s), m(V_H, f_s.flip(0)), atol=1e-5)
        assert (m(V_H, f_s) - m(V_H, f_s + 1)).abs().max() > 1e-3


def test_an_image_is_rebuilt_alike_whatever_its_batch_mates():
    m, (V_H, f_s) = module(), inputs()
    with torch.no_grad():
        assert torch.allclose(m(V_H, f_s)[1], m(V_H[1:2], f_s)[0], atol=1e-5)


def fresh(m: Reconstruction, V_H: torch.Tensor, f_s: torch.Tensor) -> torch.Tensor:
    """What a copy that never cached anything computes."""
    other = Reconstruction(D, W, HEADS).eval()
    other.load_state_dict(m.state_dict())
    with torch.no_grad():
        return other(V_H, f_s)


def counting(m: Reconstruction) -> list:
    calls = []
    m.mha1.q.register_forward_hook(lambda *_: calls.append(1))
    return calls


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_bank_queries_are_computed_once_while_scoring_and_each_time_while_training(mode):
    m, (V_H, f_s) = module(), inputs()
    calls = counting(m)
    with mode():
        for _ in range(3):
            m(V_H, f_s)
    assert len(calls) == 1
    m(V_H, f_s)  # gradients wanted: the queries must be part of the graph
    m.train()
    with mode():
        m(V_H, f_s)
        m(V_H, f_s)
    assert len(calls) == 4


def test_asking_for_eval_mode_again_keeps_the_bank_queries():
    m, (V_H, f_s) = module(), inputs()
    calls = counting(m)
    with torch.no_grad():
        for _ in range(3):
            m.eval()(V_H, f_s)
        assert len(calls) == 1
        m.train().eval()(V_H, f_s)
        assert len(calls) == 2


def test_gradients_reach_the_bank_projection_in_eval_mode_even_after_scoring():
    m, (V_H, f_s) = module(), inputs()
    with torch.inference_mode():
        m(V_H, f_s)
    m(V_H, f_s).sum().backward()
    assert m.mha1.q.weight.grad.abs().max() > 0


@pytest.mark.parametrize(
    "change", ["step", "load", "load in inference mode", "assign", "bank in place", "bank", "part", "float64"]
)
def test_bank_queries_are_never_stale(change):
    m, (V_H, f_s) = module(), inputs()
    with torch.no_grad():
        before = m(V_H, f_s)
    state = {k: v + 0.3 * torch.randn_like(v) for k, v in m.state_dict().items()}
    if change == "step":  # in eval mode, as one trains with frozen batch norm
        optimizer = torch.optim.SGD(m.parameters(), 0.1)
        m(V_H, f_s).square().sum().backward()
        optimizer.step()
    elif change == "load":
        m.load_state_dict(state)
    elif change == "load in inference mode":
        with torch.inference_mode():
            m.load_state_dict(state)
    elif change == "assign":
        m.load_state_dict(state, assign=True)
    elif change == "bank in place":
        f_s.mul_(2)
    elif change == "bank":
        f_s = 2 * f_s
    elif change == "part":
        f_s = f_s[:2]
    elif change == "float64":
        m, V_H, f_s = m.double(), V_H.double(), f_s.double() * 2
        with torch.no_grad():
            assert m(V_H, f_s).dtype == torch.float64
        return
    with torch.no_grad():
        after = m(V_H, f_s)
    assert (after - before).abs().max() > 1e-4
    assert torch.allclose(after, fresh(m, V_H, f_s), atol=1e-6)


def test_banks_tried_one_after_another_in_the_same_memory_are_told_apart():
    m, (V_H, _) = module(), inputs()
    with torch.no_grad():
        for seed in range(20):
            f_s = torch.randn(M, D, generator=torch.Generator().manual_seed(seed))
            assert torch.allclose(m(V_H, f_s), fresh(m, V_H, f_s), atol=1e-6)
            del f_s


def test_scored_module_can_be_copied_and_its_queries_are_no_part_of_its_state():
    m, (V_H, f_s) = module(), inputs()
    with torch.no_grad():
        before = m(V_H, f_s)
        assert torch.equal(copy.deepcopy(m)(V_H, f_s), before)
    assert not any("quer" in k for k in m.state_dict())


def test_attention_dropout_acts_in_training_and_not_in_eval():
    m, (V_H, f_s) = module(dropout=0.5), inputs()
    with torch.no_grad():
        assert torch.equal(m(V_H, f_s), m(V_H, f_s))
        m.train()
        assert not torch.equal(m(V_H, f_s), m(V_H, f_s))


def test_width_that_heads_cannot_share_is_refused_in_one_sentence():
    with pytest.raises(SDDError, match="width 20 cannot be split over 6 heads"):
        Reconstruction(D, 20, 6)


def test_cls_in_front_is_left_out_of_the_map():
    """The release rebuilds CLS too; the map is that of the patches."""
    tokens = torch.arange(10.0)[None, :, None].expand(1, 10, D)  # CLS is 0, patch i is i + 1
    D_s = difference_map(tokens, torch.zeros(1, 10, D))
    assert torch.equal(D_s[0, 0], torch.arange(1.0, 10).view(3, 3))


def test_D_s_is_the_absolute_difference_with_token_i_at_row_and_column_of_the_picture():
    g = 3
    V_H = torch.zeros(2, g * g, D)
    Re = torch.zeros(2, g * g, D)
    for r in range(g):
        for c in range(g):
            for d in range(D):
                Re[1, r * g + c, d], V_H[1, r * g + c, d] = (-1) ** d * (100 * r + 10 * c), (-1) ** d * -d / 100
    D_s = difference_map(Re, V_H)
    assert D_s.shape == (2, D, g, g) and not D_s[0].any()
    for r in range(g):
        for c in range(g):
            assert torch.allclose(D_s[1, :, r, c], 100.0 * r + 10 * c + torch.arange(D) / 100)
