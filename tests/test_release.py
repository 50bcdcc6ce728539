"""Preset `release`: the authors' code rebuilt from its description, by exact counts, by hand, and by what gets a gradient."""

import pytest
import torch
import torch.nn.functional as F

from sddlib import SDDError
from sddlib.backbone import Backbone
from sddlib.detector import Detector
from sddlib.gradient_flow import gradient_flow, module_sizes
from sddlib.losses import reconstruction_loss
from sddlib.optim import TRAINING, parameter_groups
from sddlib.presets import get_preset
from sddlib.reconstruction import Reconstruction
from sddlib.release import ReleaseEnhancement, SoftTriple
from sddlib.weights import TINY, load_backbone

D, SIZE = TINY["vision_cfg"]["width"], 64
SMALL = {"M": 10, "width": 32, "heads": 4, "channels": (4, 6, 1), "F_low": 12}
Y = torch.tensor([0, 1, 0, 1, 1, 0])


# Nothing that release detaches learns, nor does a norm whose output only detached attentions read: R1 is keys and values alone
STUCK = ("mha1", "mha2", "mha3", "mha4", "ln_bank", "ln1")


def make(**changes) -> Detector:
    torch.manual_seed(0)
    preset = get_preset("release", **{**SMALL, **changes})
    backbone = Backbone(load_backbone("tiny", "random"), SIZE, preset.norm)
    return Detector(backbone, torch.randn(0 if preset.bank == "none" else 10, D), preset)


def images() -> torch.Tensor:
    return torch.randn(6, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))


def count(module: torch.nn.Module, trained: bool = False) -> int:
    return sum(p.numel() for p in module.parameters() if p.requires_grad or not trained)


# --- counts on ViT-L/14, without its weights


@pytest.fixture(scope="module")
def large():
    """Both presets on ViT-L/14 at 224 px, as shapes only."""
    made = {}
    with torch.device("meta"):
        for name in ("paper", "release"):
            preset = get_preset(name)
            tower = load_backbone("ViT-L-14-quickgelu", "random")
            made[name] = Detector(Backbone(tower, 224, preset.norm), torch.empty(preset.M, 1024), preset)
    return made


def test_paper_adapts_1179648_values_and_release_2359296_which_are_98304_a_block(large):
    found = {n: sum(p.numel() for k, p in m.named_parameters() if "lora_" in k) for n, m in large.items()}
    assert found == {"paper": 1_179_648, "release": 2_359_296} and found["release"] == 24 * 98_304
    adapted = {f"{b}.{p}" for b in range(24) for p in ("qkv", "out", "c_fc", "c_proj")}
    assert set(large["release"].backbone.lora_layers()) == adapted


def test_release_reconstruction_and_enhancer_have_47639363_values_of_which_35685888_get_no_gradient(large):
    m = large["release"]
    mha = 4 * 1024 * 2176 + 3 * 2176 + 1024  # q, k, v and out with their biases
    stuck = 4 * mha + 2 * 2 * 1024  # the attentions, and the LayerNorms that only they read: that of f_s and R1's
    convs = (3 * 9 + 1) * 128 + (128 * 9 + 1) * 64 + 64 * 9 + 1
    deconvs = 1024 * 81 * 128 + 128 + 1024 * 16 * 64 + 64
    norms = 2 * (128 + 64 + 1) + 2 * (128 + 64)
    assert stuck == 35_685_888
    assert stuck == sum(count(getattr(m.reconstruction, n)) for n in STUCK)
    assert count(m.reconstruction) == stuck + 4 * 2 * 1024
    assert count(m.enhancement) == convs + deconvs + norms + (28 * 28 + 1) * 256
    assert count(m.reconstruction) + count(m.enhancement) == 47_639_363
    assert m.backbone.N + 1 == 257 and m.preset.M == 5000


def test_deconvolutions_have_the_kernels_strides_and_paddings_of_the_release(large):
    first, second = (d[0] for d in large["release"].enhancement.deconvs)
    assert (first.kernel_size, first.stride, first.padding, first.out_channels) == ((9, 9), (7, 7), (1, 1), 128)
    assert (second.kernel_size, second.stride, second.padding, second.out_channels) == ((4, 4), (4, 4), (4, 4), 64)


# --- gradients


def test_what_gets_no_gradient_is_the_attentions_and_the_norms_only_they_read_and_detaching_is_the_reason():
    for detach in (True, False):
        m, stuck = make(detach_attention=detach).double().train(), set()
        for _ in range(2):  # LoRA's A has none in the first step
            m.zero_grad()
            m.loss(images().double(), Y)["total"].backward()
            stuck = {n for n, p in m.reconstruction.named_parameters() if p.grad is None or p.grad.abs().max() < 1e-12}
            with torch.no_grad():
                for p in m.parameters():
                    if p.grad is not None:
                        p -= 1e-3 * p.grad.sign()
        parts = {n.split(".")[0] for n in stuck}
        if detach:
            assert parts == set(STUCK)
        else:  # a key's bias can never learn: the softmax undoes it
            assert stuck == {f"mha{i}.k.bias" for i in (1, 2, 3, 4)}


def test_everything_else_that_release_declares_trainable_gets_a_gradient():
    m = make().double().train()
    with torch.no_grad():
        for layer in m.backbone.lora_layers().values():
            layer.lora_B["default"].weight.normal_(0, 0.05)
    m.loss(images().double(), Y)["total"].backward()
    declared = {n: p for n, p in m.named_parameters() if p.requires_grad and not n.startswith("reconstruction.")}
    without = {n for n, p in declared.items() if p.grad is None or p.grad.abs().max() < 1e-13}
    # raw tokens never meet ln_post, and a bias before a batch norm is undone by it: convolutions', the head's first two
    norms = {f"enhancement.{kind}.{n}.0.bias" for kind, k in (("convs", 3), ("deconvs", 2)) for n in range(k)}
    assert without == {"backbone.visual.ln_post.bias", "head.0.bias", "head.1.bias"} | norms
    names = {n.removeprefix("backbone.visual.") for n in declared if n.startswith("backbone.") and "lora_" not in n}
    assert {"class_embedding", "positional_embedding", "ln_pre.bias"} <= names
    assert all(n.endswith(".bias") for n in names - {"class_embedding", "positional_embedding"})


# --- each part by hand


def test_release_reconstruction_is_its_description_written_out():
    torch.manual_seed(0)
    m = Reconstruction(12, 20, 4, residual="none", form="release")
    with torch.no_grad():
        for p in m.parameters():
            p.normal_(0, 0.5)
    V_H, f_s = torch.randn(3, 9, 12), torch.randn(7, 12)

    def ln(norm, x):
        return F.layer_norm(x, (12,), norm.weight, norm.bias)

    def mha(a, q, kv):
        W, b = [a.q.weight, a.k.weight, a.v.weight], torch.cat([a.q.bias, a.k.bias, a.v.bias])
        heads = torch.nn.functional.multi_head_attention_forward(
            *((q @ W[0].T).transpose(0, 1), (kv @ W[1].T).transpose(0, 1), (kv @ W[2].T).transpose(0, 1)),
            *(20, 4, None, b, None, None, False, 0.0, torch.eye(20), torch.zeros(20)),
            use_separate_proj_weight=True,
            **dict.fromkeys(("q_proj_weight", "k_proj_weight", "v_proj_weight"), torch.eye(20)),
            need_weights=False,
        )[0]
        return heads.transpose(0, 1) @ a.out.weight.T + a.out.bias

    V = ln(m.ln_tokens, V_H)
    R1 = ln(m.ln1, mha(m.mha1, ln(m.ln_bank, f_s).expand(3, 7, 12), V))
    R2 = ln(m.ln2, mha(m.mha2, V, R1) + V)
    R3 = ln(m.ln3, mha(m.mha3, R2, R2) + R2)
    Re = ln(m.ln4, mha(m.mha4, R3, R1) + R3)
    torch.testing.assert_close(m(V_H, f_s), Re, atol=1e-5, rtol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(m.eval()(V_H, f_s), Re, atol=1e-5, rtol=1e-5)
        m.ln_bank.weight.mul_(2)  # cached bank queries read it
        assert (m(V_H, f_s) - Re).abs().max() > 1e-3


def test_release_enhancer_raises_F_by_its_squared_difference_in_two_stages_only():
    torch.manual_seed(0)
    e = ReleaseEnhancement(6, 4, 32, (2, 3, 1), 5).eval()
    image, D_s = torch.randn(2, 3, 32, 32), torch.rand(2, 6, 4, 4)
    x = image
    for conv, deconv in zip(e.convs[:2], e.deconvs, strict=True):
        F_n = conv(x)
        x = F_n + F_n * (deconv(D_s) * F_n - F_n) ** 2
    torch.testing.assert_close(e(image, D_s), e.project(e.convs[2](x).flatten(1)))
    assert len(e.deconvs) == 2 and e.project.in_features == 16


@pytest.mark.parametrize("size, g", [(112, 7), (224, 16), (224, 14), (80, 5), (64, 4)])
def test_release_deconvolutions_fit_any_grid(size, g):
    e = ReleaseEnhancement(3, g, size, (2, 3, 1), 5)
    sides = [d(torch.rand(1, 3, g, g)).shape[-1] for d in e.deconvs]
    assert sides == [size // 2, size // 4]


def test_soft_triple_is_its_formula_worked_by_hand():
    torch.manual_seed(0)
    m, x = SoftTriple(3, K=2), torch.randn(4, 3)
    y, expected = torch.tensor([0, 1, 1, 0]), 0.0
    for i in range(4):
        S = []
        for c in range(2):
            s = torch.stack([x[i] @ w for w in m.centres[c]])
            q = (s / 0.1).exp() / (s / 0.1).exp().sum()
            S.append((q * s).sum())
        own = int(y[i])
        up = (20 * (S[own] - 1e-4)).exp()
        expected -= (up / (up + (20 * S[1 - own]).exp())).log() / 4
    apart = sum((2 - 2 * m.centres[c][0] @ m.centres[c][1]).sqrt() for c in range(2)) / (2 * 2 * 1)
    torch.testing.assert_close(m(x, y), expected + 0.2 * apart)


def test_soft_triple_has_8_fixed_centres_a_class_that_are_saved():
    m = make()
    assert m.metric.centres.shape == (2, 8, 12) and "metric.centres" in m.own_state()
    assert not list(m.metric.parameters())
    torch.testing.assert_close(m.metric.centres.norm(dim=2), torch.ones(2, 8))


def test_release_head_losses_and_tokens_are_those_of_the_table():
    m = make().train()
    assert [type(x).__name__ for x in m.head] == ["BatchNorm1d", "Linear", "BatchNorm1d", "ReLU", "Linear"]
    assert m.head[1].out_features == 256
    out = m(images())
    assert out.V_H.shape[1] == 17 and out.Re.shape == out.V_H.shape and out.D_s.shape == (6, D, 4, 4)
    torch.testing.assert_close(out.D_s.flatten(2).transpose(1, 2), (out.Re - out.V_H)[:, 1:].abs())
    torch.manual_seed(3)
    losses = m.loss(images(), Y)
    torch.manual_seed(3)
    out = m(images())
    L_r = reconstruction_loss(out.Re, out.V_H, Y, over="all", norm="frobenius")
    expected = 1.5 * F.binary_cross_entropy_with_logits(out.logit, Y.float()) + L_r + 0.333 * m.metric(out.F_low, Y)
    torch.testing.assert_close(losses["total"], expected)


def test_a_release_detector_comes_back_from_its_file_with_what_it_trained_in_clip(tmp_path):
    m = make().train()
    optimizer = torch.optim.AdamW([p for p in m.parameters() if p.requires_grad], 1e-2)
    for _ in range(3):
        optimizer.zero_grad()
        m.loss(images(), Y)["total"].backward()
        optimizer.step()
    m.eval().save(tmp_path / "m.safetensors", {"backbone": "tiny", "weights": "random"})
    loaded = Detector.load(tmp_path / "m.safetensors")
    assert torch.equal(loaded.metric.centres, m.metric.centres)
    with torch.inference_mode():
        expected = m(images()).logit
        torch.testing.assert_close(loaded(images()).logit, expected, atol=1e-5, rtol=1e-5)
    plain = Backbone(load_backbone("tiny", "random"), SIZE).visual
    assert (loaded.backbone.visual.class_embedding - plain.class_embedding).abs().max() > 1e-3


# --- printed, ablated, refused


def test_printed_reconstruction_is_Eq_5_to_8_letter_for_letter_and_needs_M_equal_N():
    torch.manual_seed(0)
    m = Reconstruction(12, 20, 4, form="printed").eval()
    V_H, f_s = torch.randn(3, 9, 12), torch.randn(9, 12)
    R1 = m.ln1(m.mha1(f_s.expand(3, -1, -1), V_H))
    R2 = m.ln2(m.mha2(R1, V_H))
    R3 = m.ln3(m.mha3(R2, R2))
    torch.testing.assert_close(m(V_H, f_s), m.ln4(m.mha4(R1, R3)))
    with pytest.raises(SDDError, match="need M = N, but the bank has 8 tokens and an image 9"):
        m(V_H, f_s[:8])


@pytest.mark.parametrize("preset", ["paper", "release"])
@pytest.mark.parametrize(
    "changes",
    [{"bank": "none"}, {"tokens": "all"}, {"reconstruction": "printed", "M": 16, "residual": "none", "tokens": "patches"}],
)
def test_variants_score_and_train(preset, changes):
    fields = {**SMALL, **changes}
    chosen = get_preset(preset, **fields)
    bank = torch.randn(0 if chosen.bank == "none" else chosen.M, D)
    m = Detector(Backbone(load_backbone("tiny", "random"), SIZE, chosen.norm), bank, chosen).train()
    m.loss(images(), Y)["total"].backward()
    with torch.inference_mode():
        assert torch.isfinite(m.eval()(images()).logit).all()


# --- the table of both


def test_gradient_flow_tells_what_learns_in_each_preset():
    paper, release = (gradient_flow(get_preset(name)) for name in ("paper", "release"))
    assert all(paper.values()) and {"LoRA", "reconstruction.mha1", "enhancement.stages", "head"} <= set(paper)
    assert {m.removeprefix("reconstruction.") for m, learns in release.items() if not learns} == set(STUCK)
    assert gradient_flow(get_preset("release", detach_attention=False))["reconstruction.mha1"]
    for variant in ({"bank": "none"}, {"reconstruction": "printed"}):
        assert all(gradient_flow(get_preset("paper", **variant)).values())


def test_module_sizes_are_those_of_the_whole(large):
    for name, model in large.items():
        sizes = module_sizes(get_preset(name))
        assert sum(sizes.values()) == count(model, trained=True)
        assert sizes["LoRA"] == {"paper": 1_179_648, "release": 2_359_296}[name]


@pytest.mark.parametrize("fields, said", [
    ({"width": 100}, "width 100 cannot be split over 6 heads"),
    ({"reconstruction": "none", "enhancement": "none"}, "leaves LoRA-CLIP with a linear head"),
    ({"enhancement": "release", "reconstruction": "none"}, "is always guided"),
    ({"enhancement": "release", "channels": [8, 8]}, "enhancement are three"),
    ({"reconstruction": "printed", "residual": "bank"}, "has no residual"),
    ({"reconstruction": "printed", "tokens": "all"}, "rebuilds patches"),
    ({"reconstruction": "release"}, "has residual tokens"),
    ({"bank": "none", "residual": "bank"}, "no tokens that residual bank could add"),
])  # fmt: skip
def test_combinations_that_cannot_be_are_refused_when_they_are_named(fields, said):
    with pytest.raises(SDDError, match=said):
        get_preset("paper", **fields)


def test_release_attention_starts_from_xavier_weights_and_zero_biases():
    m = Reconstruction(64, 128, 4, form="release")
    for layer in (m.mha1.q, m.mha3.out):
        assert layer.weight.abs().max() <= (6 / (64 + 128)) ** 0.5 and not layer.bias.any()
        assert layer.weight.std().item() == pytest.approx((2 / (64 + 128)) ** 0.5, rel=0.05)


def test_release_decays_every_parameter():
    assert {g["weight_decay"] for g in parameter_groups(make(), TRAINING["release"])} == {5e-4}
