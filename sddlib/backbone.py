"""CLIP image tower as a token encoder, with attention un-fused so that LoRA reaches every projection (Eq. 1, 3)."""

import hashlib
import re
from contextlib import nullcontext

import torch
import torch.nn.functional as F
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from . import SDDError
from .limits import SIDE

PROJECTIONS = ("q", "k", "v", "out")
TARGETS = (*PROJECTIONS, "qkv", "c_fc", "c_proj")  # what LoRA can adapt: attention apart or joint, and the MLP's two Linears


class Attention(nn.Module):
    """Multi-head self-attention as four plain Linears; takes the place of `nn.MultiheadAttention` in a CLIP block.

    peft's own LoRA on the fused module applies the output delta twice and ignores dropout, so the projections are laid
    open first. x: (B, 1+N, D) -> (B, 1+N, D), within 1e-6 of the fused original.
    """

    def __init__(self, fused: nn.MultiheadAttention):
        super().__init__()
        if fused.in_proj_weight is None or not fused.batch_first:
            raise SDDError("this CLIP tower's attention is not a batch-first self-attention; use open_clip >=3.3,<4")
        d, self.heads = fused.embed_dim, fused.num_heads
        weights, biases = fused.in_proj_weight.detach().chunk(3), fused.in_proj_bias.detach().chunk(3)
        for name, weight, bias in zip("qkv", weights, biases, strict=True):
            setattr(self, name, _linear(weight, bias))
        self.out = _linear(fused.out_proj.weight.detach(), fused.out_proj.bias.detach())
        self.head_width = d // self.heads

    def join(self) -> None:
        """Make q, k and v one D->3D Linear `qkv`, so that one LoRA rank serves all three (the authors' release)."""
        apart = self.q, self.k, self.v
        self.qkv = _linear(torch.cat([p.weight for p in apart]), torch.cat([p.bias for p in apart]))
        del self.q, self.k, self.v

    def forward(self, x: Tensor, *_unused, **_flags) -> tuple[Tensor, None]:
        B, L, D = x.shape
        parts = self.qkv(x).chunk(3, -1) if hasattr(self, "qkv") else (self.q(x), self.k(x), self.v(x))
        q, k, v = (t.view(B, L, self.heads, self.head_width).transpose(1, 2) for t in parts)  # (B, heads, 1+N, D/heads)
        y = F.scaled_dot_product_attention(q, k, v)  # (B, heads, 1+N, D/heads)
        return self.out(y.transpose(1, 2).reshape(B, L, D)), None


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    """A frozen Linear that holds copies of the given (out, in) weight and (out,) bias."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
    layer.weight, layer.bias = (nn.Parameter(t.clone(), requires_grad=False) for t in (weight, bias))
    return layer


def resize_positions(table: Tensor, grid: int) -> Tensor:
    """Positional table for a grid*grid image from one for another square grid; the CLS row stays.

    table: (1+N, D) -> (1+grid*grid, D), bicubic with antialiasing, as open_clip resizes when it loads weights.
    """
    cls, patches = table[:1], table[1:]
    old = int(len(patches) ** 0.5)
    if old == grid:
        return table
    patches = patches.T.reshape(1, -1, old, old)  # (1, D, g, g)
    patches = F.interpolate(patches, size=(grid, grid), mode="bicubic", antialias=True, align_corners=False)
    return torch.cat([cls, patches[0].flatten(1).T])  # (1+N, D)


def _fingerprint(visual: nn.Module) -> str:
    """Which CLIP this is: 16 hex digits over weights that neither LoRA nor the image size touches; "" for mere shapes."""
    if visual.proj.is_meta:
        return ""
    seen = hashlib.sha256()
    norms = (*visual.ln_pre.parameters(), *visual.ln_post.parameters())
    for t in (visual.conv1.weight, visual.class_embedding, *norms, visual.proj):
        seen.update(t.detach().float().cpu().contiguous().numpy().tobytes())
    return seen.hexdigest()[:16]


class Backbone(nn.Module):
    """CLIP's image tower, frozen, giving all tokens of the last block (Eq. 1: without LoRA, Eq. 3: with).

    visual: an open_clip `VisionTransformer`; it is taken over and changed. image_size: side in pixels, a multiple of
    the patch. norm: "ln_post" passes every token through CLIP's own final LayerNorm, "none" leaves the raw
    residual stream (the authors' release). Attributes: D (token width), g (grid side), N = g*g, fingerprint (which CLIP).
    """

    def __init__(self, visual: nn.Module, image_size: int, norm: str = "ln_post"):
        super().__init__()
        patch = visual.conv1.kernel_size[0]
        if type(image_size) is not int or image_size < patch or image_size % patch:
            raise SDDError(f"image_size {image_size} is not a multiple of the backbone's patch of {patch} px; choose one")
        if image_size > SIDE:
            raise SDDError(f"image_size {image_size} is above {SIDE} px, the most that is possible here; choose a smaller one")
        if norm not in ("ln_post", "none"):
            raise SDDError(f"token norm {norm!r} is unknown; use 'ln_post' or 'none'")
        self.visual, self.image_size, self.norm = visual.requires_grad_(False).eval(), image_size, norm
        self.g = image_size // patch
        self.N, self.D = self.g**2, visual.conv1.out_channels
        table = visual.positional_embedding.detach()
        visual.positional_embedding = nn.Parameter(resize_positions(table, self.g), requires_grad=False)
        for block in visual.transformer.resblocks:
            block.attn = Attention(block.attn)
        self.fingerprint = _fingerprint(visual)  # now: biases and embeddings may be trained later
        self.precision = torch.float32  # of matrix products while training; scores are always computed in float32
        self.checkpointing = False

    def train(self, mode: bool = True):
        """Training takes merged adapters out of the weights again: folded in, they would be frozen without a word."""
        for layer in self.lora_layers().values():
            if mode and layer.merged:
                layer.unmerge()
        self.visual.transformer.grad_checkpointing = self.checkpointing and mode
        return super().train(mode)

    def checkpoint(self, on: bool = True) -> None:
        """While training, keep each block's input alone and compute the block again in the backward pass: gradients are the
        same, dropout included, memory is far less, and a step computes most of the encoder's forward pass twice."""
        self.checkpointing = on
        self.visual.transformer.grad_checkpointing = on and self.training

    @property
    def blocks(self) -> nn.ModuleList:
        return self.visual.transformer.resblocks

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, 3, H, W), CLIP-normalised -> tokens (B, 1+N, D), CLS first."""
        if x.shape[-2:] != (self.image_size, self.image_size):
            raise SDDError(f"images are {tuple(x.shape[-2:])}, the backbone was set up for {self.image_size} px: crop first")
        v = self.visual
        patches = v.conv1(x).flatten(2).transpose(1, 2)  # (B, N, D)
        cls = v.class_embedding.expand(len(x), 1, -1)
        t = v.ln_pre(torch.cat([cls, patches], 1) + v.positional_embedding)
        low = self.training and self.precision != torch.float32
        with torch.autocast(x.device.type, self.precision) if low else nullcontext():
            t = v.transformer(t)
        t = t.to(x.dtype)
        return v.ln_post(t) if self.norm == "ln_post" else t

    def embed(self, cls: Tensor) -> Tensor:
        """CLIP's image embedding (B, E) from a CLS token (B, D): the feature of UnivFD's linear probe."""
        cls = cls if self.norm == "ln_post" else self.visual.ln_post(cls)
        return cls @ self.visual.proj

    def add_lora(
        self,
        r: int = 6,
        alpha: int = 6,
        dropout: float = 0.0,
        blocks: int | None = None,
        targets: tuple[str, ...] = PROJECTIONS,
        biases: bool = False,
    ) -> int:
        """Put LoRA on the `targets` of the last `blocks` blocks (None: all); Sec. 3.2 and 4.1. It starts as the identity.

        targets: names of TARGETS; "qkv" stands for q, k and v at one joint rank. biases: train every bias of the tower and its
        class and positional embedding too (the authors' release). Returns the number of trainable values in LoRA: r * (inputs +
        outputs) an adapted Linear.
        """
        depth = len(self.blocks)
        if blocks is not None and not 1 <= blocks <= depth:
            raise SDDError(f"LoRA on {blocks} blocks is impossible: the backbone has {depth}; choose 1..{depth}")
        if unknown := [t for t in targets if t not in TARGETS]:
            raise SDDError(f"LoRA cannot adapt {unknown[0]!r}; its targets are {', '.join(TARGETS)}")
        if "qkv" in targets and {"q", "k", "v"} & set(targets):
            raise SDDError("LoRA adapts q, k and v either apart or joint as qkv, not both; choose")
        first = 0 if blocks is None else depth - blocks
        if "qkv" in targets:
            for block in self.blocks[first:]:
                block.attn.join()
        names = "|".join(str(i) for i in range(first, depth))
        pattern = rf".*resblocks\.({names})\.(attn|mlp)\.({'|'.join(targets)})"
        config = LoraConfig(r=r, lora_alpha=alpha, lora_dropout=dropout, target_modules=pattern, bias="none")
        inject_adapter_in_model(config, self.visual)
        count = sum(p.numel() for p in self.parameters() if p.requires_grad)
        if biases:
            for name, p in self.visual.named_parameters():
                if name.endswith(".bias") or name in ("class_embedding", "positional_embedding"):
                    p.requires_grad_(True)
        return count

    def lora_layers(self) -> dict[str, LoraLayer]:
        """The adapted Linears by short name ("11.q" is block 11's query)."""
        found = {n: m for n, m in self.visual.named_modules() if isinstance(m, LoraLayer)}
        return {re.sub(r".*resblocks\.(\d+)\.(attn|mlp)\.", r"\1.", n): m for n, m in found.items()}

    def merge_lora(self) -> None:
        """Fold s*B@A into the frozen weights, for scoring: the encoder then costs what plain CLIP costs."""
        for layer in self.lora_layers().values():
            if not layer.merged:
                layer.merge()
