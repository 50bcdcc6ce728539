"""FatFormer: its wavelets, its adapters, its words."""

import open_clip
import pytest
import pywt
import torch
from safetensors.torch import save_file

from sddlib import SDDError
from sddlib.backbone import Backbone
from sddlib.baselines.fatformer import Adapter, FatFormer, FrequencyBranch, dwt, idwt
from sddlib.baselines.prompts import TINY_TEXT, Prompts, enhance, load_text
from sddlib.optim import trainable
from sddlib.weights import TINY, load_backbone

SIDE = 48  # 3x3 patches: an odd grid


def tiny(**options) -> FatFormer:
    torch.manual_seed(0)
    return FatFormer(SIDE, backbone="tiny", weights="random", width=8, **options)


def images(count: int = 2) -> torch.Tensor:
    return torch.randn(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))


def test_bands_are_those_of_pywavelets_and_go_back():
    x = torch.randn(2, 3, 6, 8, dtype=torch.float64)
    bands, (LL, details) = dwt(x), pywt.dwt2(x.numpy(), "haar")
    for k, band in enumerate((LL, *details)):  # of pywt: rows low and columns high is called "vertical", the second of details
        assert any(torch.allclose(bands[:, :, j], torch.from_numpy(band)) for j in ([0] if k == 0 else [1, 2, 3]))
    assert torch.allclose(bands[:, :, 1], torch.from_numpy(details[1]))
    assert torch.allclose(bands[:, :, 2], torch.from_numpy(details[0]))
    assert torch.allclose(idwt(bands), x)


@pytest.mark.parametrize("g", [2, 3])
def test_an_adapter_is_the_identity_at_the_start_and_never_touches_cls(g):
    adapter, t = Adapter(16, 8), torch.randn(2, 1 + g * g, 16)
    assert torch.equal(adapter(t), t)
    for p in adapter.parameters():
        torch.nn.init.normal_(p)
    assert torch.equal(adapter(t)[:, 0], t[:, 0])
    assert (adapter(t)[:, 1:] - t[:, 1:]).abs().amin(-1).min() > 0


def test_the_scale_weighs_the_frequency_branch_alone():
    adapter, t = Adapter(16, 8), torch.randn(1, 10, 16)
    for p in adapter.frequency.leave.parameters():
        torch.nn.init.normal_(p)
    once = adapter(t) - t
    with torch.no_grad():
        adapter.scale.mul_(3)
    assert torch.allclose(adapter(t) - t, 3 * once, atol=1e-5) and once.abs().max() > 0


def test_bands_talk_to_each_other_and_so_do_positions():
    """A change at one corner reaches every position, and with `within` silenced only its own 2x2."""
    branch = FrequencyBranch(4, 8)
    torch.nn.init.normal_(branch.leave.weight)
    x = torch.randn(1, 4, 4, 4)
    changed = x.clone()
    changed[..., 0, 0] += 1
    assert ((branch(changed) - branch(x)).abs().amax(1) > 0).all()
    torch.nn.init.zeros_(branch.within.attention.out_proj.weight)
    moved = (branch(changed) - branch(x)).abs().amax(1)[0] > 1e-6
    assert moved[:2, :2].all() and not moved[2:].any() and not moved[:, 2:].any()


def test_at_the_start_the_image_tower_is_clip():
    plain = Backbone(load_backbone("tiny", "random"), SIDE)
    assert torch.equal(tiny().eval().backbone(images()), plain(images()))


def test_an_adapter_follows_each_stage():
    model = tiny(stages=2)
    before = model.backbone(images())
    for adapter in model.adapters:
        torch.nn.init.ones_(adapter.image[-1].bias)
        after = model.backbone(images())
        assert not torch.allclose(before[:, 1:], after[:, 1:])
        before = after


@pytest.mark.parametrize("text", ["", "random"])
def test_everything_but_clip_learns(text):
    model = tiny(text=text)
    optimizer = torch.optim.SGD(trainable(model).values(), 0.1)
    for _ in range(2):  # adapters start with zeros in their last layers: what lies before them learns from the second step on
        optimizer.zero_grad()
        model.train().loss(images(), torch.tensor([0, 1]))["total"].backward()
        optimizer.step()
    still = [n for n, p in trainable(model).items() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not still
    clip = [p for n, p in model.named_parameters() if n.startswith(("backbone.", "prompts.tower."))]
    assert clip and not any(p.requires_grad for p in clip)


@pytest.mark.parametrize("text", ["", "random"])
def test_a_saved_detector_scores_the_same_and_holds_nothing_of_clip(text, tmp_path):
    model = tiny(text=text)
    for adapter in model.adapters:
        torch.nn.init.normal_(adapter.frequency.leave.weight)
    scores = model.eval()(images()).logit
    model.save(tmp_path / "m.safetensors", {})
    again = FatFormer.load(tmp_path / "m.safetensors")
    assert torch.equal(again(images()).logit, scores) and scores.unique().numel() == 2
    assert not any("visual" in k or "tower" in k for k in again.own_state())


def test_a_score_does_not_depend_on_the_batch():
    model = tiny(text="random").eval()
    together = model(images(3)).logit
    assert torch.allclose(together, torch.cat([model(x[None]).logit for x in images(3)]), atol=1e-5)


def test_contexts_are_enriched_by_the_patches_they_resemble():
    p, f = torch.tensor([[100.0, 0.0]]), torch.tensor([[[1.0, 0.0], [0.0, 5.0]]])
    assert torch.allclose(enhance(p, f), torch.tensor([[[101.0, 0.0]]]))
    assert torch.allclose(enhance(torch.zeros(1, 2), f), torch.tensor([[[0.5, 2.5]]]))


def test_prompts_are_what_clip_makes_of_their_words(tmp_path):
    """With words for contexts and no patches to enrich them, the embeddings are those of open_clip's own text encoder."""
    clip = open_clip.CLIP(**TINY, text_cfg=TINY_TEXT).eval()
    save_file(clip.state_dict(), tmp_path / "clip.safetensors")
    prompts = Prompts(*load_text("tiny", str(tmp_path / "clip.safetensors"), 32), contexts=3)
    sentence = open_clip.SimpleTokenizer(context_length=16)(["a photo of real", "a photo of fake"])
    with torch.no_grad():
        prompts.contexts.copy_(clip.token_embedding(sentence[0, 1:4]))
        found = prompts(torch.zeros(1, 5, 32))[0]
        assert torch.allclose(found, clip.encode_text(sentence), atol=1e-6)
    assert not torch.allclose(found[0], found[1])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"text": "none.safetensors"}, "FatFormer's text tower needs the weights file 'none.safetensors'"),
        ({"text": "random", "contexts": 14}, "14 context tokens do not fit the 16"),
        ({"stages": 9}, "9 stages of 3 blocks"),
    ],
)
def test_what_cannot_be_built_is_one_sentence(options, said):
    with pytest.raises(SDDError, match=said):
        tiny(**options)


def test_a_file_without_a_text_tower_is_refused(tmp_path):
    save_file({"visual.proj": torch.zeros(2)}, tmp_path / "image.safetensors")
    with pytest.raises(SDDError, match="image.safetensors does not hold the text tower of tiny"):
        tiny(text=str(tmp_path / "image.safetensors"))
