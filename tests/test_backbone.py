"""The encoder: un-fused attention is CLIP's own, and LoRA is what its paper says, gradients and dropout included."""

import copy

import open_clip
import pytest
import torch
from open_clip.model import resize_pos_embed

from sddlib import SDDError
from sddlib.backbone import PROJECTIONS, Backbone, resize_positions
from sddlib.weights import TINY, load_backbone

D, BLOCKS = TINY["vision_cfg"]["width"], TINY["vision_cfg"]["layers"]


def images(n: int = 2, side: int = 64, seed: int = 1) -> torch.Tensor:
    return torch.randn(n, 3, side, side, generator=torch.Generator().manual_seed(seed))


def plain(size: int = 64, norm: str = "ln_post") -> Backbone:
    return Backbone(load_backbone("tiny", "random"), size, norm)


def adapted(dropout: float = 0.0, blocks: int | None = None, alpha: int = 6, r: int = 6) -> Backbone:
    """A backbone whose LoRA is no longer the identity: B is random."""
    torch.manual_seed(0)
    backbone = plain()
    backbone.add_lora(r, alpha, dropout, blocks)
    with torch.no_grad():
        for layer in backbone.lora_layers().values():
            layer.lora_B["default"].weight.normal_(0, 0.05)
    return backbone.eval()


@pytest.mark.parametrize("norm", ["none", "ln_post"])
def test_tokens_are_those_of_open_clips_own_forward_intermediates(norm):
    visual, x = load_backbone("tiny", "random"), images()
    with torch.no_grad():
        theirs = visual.forward_intermediates(
            x,
            indices=[BLOCKS - 1],
            output_fmt="NLC",
            output_extra_tokens=True,
            normalize_intermediates=norm == "ln_post",
        )
        ours = plain(norm=norm)(x)
    expected = torch.cat([theirs["image_intermediates_prefix"][0], theirs["image_intermediates"][0]], 1)
    assert ours.shape == (2, 1 + 16, D)
    assert (ours - expected).abs().max() < 1e-6


def test_unfused_attention_is_within_1e_6_of_the_fused_one_in_every_block():
    visual = load_backbone("tiny", "random")
    fused = [copy.deepcopy(block.attn) for block in visual.transformer.resblocks]
    x = torch.randn(2, 17, D, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        for before, after in zip(fused, Backbone(visual, 64).blocks, strict=True):
            assert (before(x, x, x, need_weights=False)[0] - after.attn(x)[0]).abs().max() < 1e-6


@pytest.mark.parametrize("norm", ["none", "ln_post"])
def test_embedding_is_the_towers_own_output(norm):
    x = images()
    with torch.no_grad():
        expected = load_backbone("tiny", "random")(x)
        backbone = plain(norm=norm)
        assert (backbone.embed(backbone(x)[:, 0]) - expected).abs().max() < 1e-6


def test_positions_at_native_size_are_untouched():
    visual = load_backbone("tiny", "random")
    before = visual.positional_embedding.detach().clone()
    assert torch.equal(Backbone(visual, 64).visual.positional_embedding, before)


@pytest.mark.parametrize("grid", [2, 7, 9])
def test_positions_resize_as_open_clip_resizes_them(grid):
    config = {**TINY["vision_cfg"], "image_size": 16 * grid}
    model = open_clip.CLIP(32, config, {"context_length": 4, "vocab_size": 8, "width": 16, "heads": 2, "layers": 1})
    table = load_backbone("tiny", "random").positional_embedding.detach()
    state = {"visual.positional_embedding": table.clone()}
    resize_pos_embed(state, model)
    assert torch.allclose(resize_positions(table, grid), state["visual.positional_embedding"], atol=1e-6)
    assert torch.equal(resize_positions(table, grid)[0], table[0])
    assert plain(16 * grid)(images(1, 16 * grid)).shape == (1, 1 + grid**2, D)


def test_a_position_stays_where_it_is_in_the_picture():
    """A table that is bright in one corner stays bright in that corner; a transposed grid would move it."""
    table = torch.zeros(1 + 16, 1)
    table[1 + 3] = 1.0  # row 0, column 3 of 4x4
    resized = resize_positions(table, 8)[1:, 0].reshape(8, 8)
    assert divmod(int(resized.argmax()), 8) == (0, 7)
    assert resized[4:, :4].abs().max() < 1e-2


def test_lora_is_the_identity_at_init():
    before, after, x = plain(), plain(), images()
    after.add_lora()
    assert len(after.lora_layers()) == 4 * BLOCKS
    with torch.no_grad():
        assert torch.equal(before(x), after(x))


@pytest.mark.parametrize("blocks", [None, 1, 2])
@pytest.mark.parametrize("r", [1, 6])
def test_lora_has_blocks_4_2_r_D_values_and_sits_on_the_last_blocks_only(blocks, r):
    backbone, count = plain(), blocks or BLOCKS
    assert backbone.add_lora(r=r, blocks=blocks) == count * 4 * 2 * r * D
    expected = {f"{b}.{p}" for b in range(BLOCKS - count, BLOCKS) for p in PROJECTIONS}
    assert set(backbone.lora_layers()) == expected
    assert all("lora_" in n for n, p in backbone.named_parameters() if p.requires_grad)


@pytest.mark.parametrize("r, alpha", [(6, 6), (4, 10)])
def test_adapter_forward_is_explicit_W_plus_s_BA(r, alpha):
    backbone, bare, x = adapted(r=r, alpha=alpha), plain(), images()
    for name, layer in backbone.lora_layers().items():
        block, projection = name.split(".")
        delta = alpha / r * layer.lora_B["default"].weight.detach() @ layer.lora_A["default"].weight.detach()
        getattr(bare.blocks[int(block)].attn, projection).weight.data += delta
    with torch.no_grad():
        assert (backbone(x) - plain()(x)).abs().max() > 1e-2
        assert (backbone(x) - bare(x)).abs().max() < 1e-5


@pytest.mark.parametrize("projection", PROJECTIONS)
@pytest.mark.parametrize("block", [0, BLOCKS - 1])
def test_float64_finite_differences_match_autograd_through_every_adapter(block, projection):
    backbone, x = adapted().double(), images(1).double()
    weights = torch.randn(17, D, dtype=torch.float64, generator=torch.Generator().manual_seed(5))

    def value() -> torch.Tensor:
        return (backbone(x)[0] * weights).sum()

    value().backward()
    layer = backbone.lora_layers()[f"{block}.{projection}"]
    for factor in (layer.lora_A["default"].weight, layer.lora_B["default"].weight):
        at, step = divmod(int(factor.grad.abs().argmax()), factor.shape[1]), 1e-5
        with torch.no_grad():
            factor[at] += step
            above = value()
            factor[at] -= 2 * step
            below = value()
            factor[at] += step
        assert factor.grad[at].abs() > 1e-3  # something to measure
        assert torch.isclose((above - below) / (2 * step), factor.grad[at], rtol=1e-6)


@pytest.mark.parametrize("projection", PROJECTIONS)
def test_each_adapter_alone_changes_the_tokens(projection):
    backbone, x = adapted(), images(1)
    for name, layer in backbone.lora_layers().items():
        if not name.endswith(projection):
            torch.nn.init.zeros_(layer.lora_B["default"].weight)
    with torch.no_grad():
        assert (backbone(x) - plain()(x)).abs().max() > 1e-3


@pytest.mark.parametrize("projection", PROJECTIONS)
def test_lora_dropout_acts_in_training_and_not_in_eval(projection):
    backbone, x = adapted(dropout=0.5), images(1)
    for name, layer in backbone.lora_layers().items():
        if not name.endswith(projection):
            torch.nn.init.zeros_(layer.lora_B["default"].weight)
    with torch.no_grad():
        assert torch.equal(backbone(x), backbone(x))
        backbone.train()
        torch.manual_seed(0)
        one, other = backbone(x), backbone(x)
        assert (one - other).abs().max() > 1e-3
        assert torch.equal(backbone.eval()(x), backbone(x))


def test_merged_lora_gives_the_same_tokens_and_leaves_plain_linears_to_compute():
    backbone, x = adapted(), images()
    with torch.no_grad():
        before = backbone(x)
        backbone.merge_lora()
        backbone.merge_lora()  # a second call folds nothing in again
        assert (backbone(x) - before).abs().max() < 1e-5
    assert all(layer.merged for layer in backbone.lora_layers().values())


def test_training_takes_merged_lora_out_again():
    """A loaded detector is merged; trained further, its adapters must learn."""
    backbone, x = adapted(), images()
    with torch.no_grad():
        before = backbone(x)
    backbone.merge_lora()
    backbone.train()
    tokens = backbone(x)
    tokens.square().sum().backward()
    assert (tokens - before).abs().max() < 1e-5
    assert all(p.grad.abs().max() > 0 for n, p in backbone.named_parameters() if p.requires_grad)


def test_a_plain_backbone_is_frozen_whole():
    backbone = plain()
    assert [n for n, p in backbone.named_parameters() if p.requires_grad] == []
    assert not backbone(images()).requires_grad


def test_only_lora_is_trainable_and_the_frozen_tower_gets_no_gradient():
    backbone = adapted()
    backbone.train()
    backbone(images()).sum().backward()
    assert [n for n, p in backbone.named_parameters() if "lora_" not in n and p.grad is not None] == []


def test_images_that_do_not_fit_are_refused_in_one_sentence():
    with pytest.raises(SDDError, match="not a multiple of the backbone's patch of 16 px"):
        plain(60)
    with pytest.raises(SDDError, match="norm 'ln' is unknown"):
        plain(norm="ln")
    with pytest.raises(SDDError, match=r"images are \(32, 32\).*64 px"):
        plain()(images(1, 32))
    for blocks in (0, BLOCKS + 1):
        with pytest.raises(SDDError, match=f"the backbone has {BLOCKS}"):
            plain().add_lora(blocks=blocks)


@pytest.mark.parametrize("biases", [False, True])
def test_gradients_are_the_same_with_checkpointing_dropout_included(biases):
    gradients = []
    for on in (False, True):
        torch.manual_seed(0)
        backbone = plain()
        backbone.add_lora(dropout=0.5, biases=biases)
        for layer in backbone.lora_layers().values():
            torch.nn.init.normal_(layer.lora_B["default"].weight, std=0.05)
        backbone.checkpoint(on)
        backbone.train()
        backbone(images()).square().sum().backward()
        gradients.append({n: p.grad for n, p in backbone.named_parameters() if p.requires_grad})
    assert all(g.abs().max() > 0 for n, g in gradients[0].items() if "lora_" in n)
    assert all(torch.equal(g, gradients[1][n]) for n, g in gradients[0].items())


def test_checkpointing_computes_blocks_again_in_training_only():
    backbone, calls = adapted(), []
    backbone.blocks[0].ln_1.register_forward_hook(lambda *_: calls.append(1))
    backbone.checkpoint()
    backbone(images()).sum().backward()  # eval mode, in which gradients are asked for too (maps)
    assert len(calls) == 1
    backbone.train()
    backbone(images()).sum().backward()
    assert len(calls) == 3
    backbone.checkpoint(False)
    backbone(images()).sum().backward()
    assert len(calls) == 4
