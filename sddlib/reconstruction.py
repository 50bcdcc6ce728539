"""Concept-level forgery discrepancy learning: rebuild an image's tokens from the bank of real ones (Eq. 4-10)."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import SDDError


class MHA(nn.Module):
    """Multi-head attention between two token sets, Eq. 4, with inner width W != D allowed.

    queries (B, Lq, D), keys = values (B, Lk, D) -> (B, Lq, D). Scaled by the root of the head width, the usual reading
    of Eq. 4's d. No residual and no feed-forward layer, as printed. Keys have a bias on demand only (the authors' release):
    it shifts all of a query's logits alike, which the softmax undoes, so it can never learn.
    """

    def __init__(self, D: int, width: int, heads: int, dropout: float = 0.0, key_bias: bool = False):
        super().__init__()
        if width % heads:
            raise SDDError(f"reconstruction width {width} cannot be split over {heads} heads; choose a multiple")
        self.heads, self.dropout = heads, dropout
        self.q, self.k, self.v = nn.Linear(D, width), nn.Linear(D, width, bias=key_bias), nn.Linear(D, width)
        self.out = nn.Linear(width, D)

    def split(self, x: Tensor) -> Tensor:
        B, L, W = x.shape
        return x.view(B, L, self.heads, W // self.heads).transpose(1, 2)  # (B, heads, L, W/heads)

    def attend(self, q: Tensor, kv: Tensor) -> Tensor:
        """Attention for queries that are projected already: q (B, Lq, W), kv (B, Lk, D) -> (B, Lq, D)."""
        p = self.dropout if self.training else 0.0
        y = F.scaled_dot_product_attention(self.split(q), self.split(self.k(kv)), self.split(self.v(kv)), dropout_p=p)
        return self.out(y.transpose(1, 2).flatten(2))

    def forward(self, q: Tensor, kv: Tensor) -> Tensor:
        return self.attend(self.q(q), kv)


FORMS = ("paper", "printed", "release")
RESIDUALS = ("none", "bank", "tokens")


class Reconstruction(nn.Module):
    """Encoder (Eq. 5-6) and decoder (Eq. 7-8) that rebuild V_H from the visual clues f_s.

    form: "printed" is Eq. 5-8 letter for letter; Eqs. 6 and 8 query with the M bank tokens, so Re can be compared with V_H only
    if M = N, and token i of the bank is compared with patch i. "paper" reads those queries as V_H and R3: Re has N tokens
    and M is free. "release" is `paper` with residuals "tokens", f_s and V_H
    layer-normed before Eq. 5 and 6, biased keys, and the weights torch's own attention starts from.

    residual: where a sublayer's queries are added to its output before the LayerNorm. "none": nowhere, as printed; attention is
    near uniform at the start, every row of R1 becomes the same token, and Re with it. "bank": at f_s, R2 and R3, never
    at V_H, so that the bank keeps its M different tokens and an image still cannot be copied past it. "tokens": at V_H, R2
    and R3 (the authors' release), which lets V_H through.
    detach: no gradient passes an attention's output (the authors' release), so that only the LayerNorms after it learn.
    """

    def __init__(
        self,
        D: int,
        width: int,
        heads: int,
        dropout: float = 0.0,
        residual: str = "none",
        form: str = "paper",
        detach: bool = False,
    ):
        super().__init__()
        if form not in FORMS:
            raise SDDError(f"reconstruction {form!r} is unknown; use {' or '.join(map(repr, FORMS))}")
        if residual not in RESIDUALS:
            raise SDDError(f"reconstruction residual {residual!r} is unknown; use 'none', 'bank' or 'tokens'")
        if form == "printed" and residual != "none":
            raise SDDError("the printed reconstruction has no residuals; set residual to 'none'")
        release = form == "release"
        self.form, self.residual, self.detach = form, "tokens" if release else residual, detach
        self.mha1, self.mha2, self.mha3, self.mha4 = (MHA(D, width, heads, dropout, key_bias=release) for _ in range(4))
        self.ln1, self.ln2, self.ln3, self.ln4 = (nn.LayerNorm(D) for _ in range(4))
        self.ln_bank, self.ln_tokens = (nn.LayerNorm(D) if release else nn.Identity() for _ in range(2))
        for layer in (m for mha in (self.mha1, self.mha2, self.mha3, self.mha4) for m in mha.children() if release):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
        self._bank_queries, self._made_from, self._sources = None, [], ()

    def train(self, mode: bool = True):
        if mode or self.training:  # nothing is kept while training; eval() on a module that scores changes nothing
            self._bank_queries, self._made_from, self._sources = None, [], ()
        return super().train(mode)

    def bank_queries(self, f_s: Tensor) -> Tensor:
        """f_s W_Q of Eq. 5, (M, W): the part that depends on the bank alone, computed once while scoring."""
        if self.training or torch.is_grad_enabled():
            return self.mha1.q(self.ln_bank(f_s))
        # Another bank, loaded weights or a training step must not meet old queries: each shows in an address or a version.
        # Holding on to the sources keeps their addresses from being given to others.
        sources = (f_s, *self.mha1.q.parameters(), *self.ln_bank.parameters())
        made_from = [(t.data_ptr(), t.shape, t.stride(), _version(t)) for t in sources]
        if self._bank_queries is None or made_from != self._made_from:
            self._bank_queries, self._made_from, self._sources = self.mha1.q(self.ln_bank(f_s)), made_from, sources
        return self._bank_queries

    def forward(self, V_H: Tensor, f_s: Tensor) -> Tensor:
        """V_H: (B, N, D) tokens, f_s: (M, D) bank, or (B, M, D) clues of each image's own -> Re: (B, N, D)."""
        if self.form == "printed" and f_s.shape[-2] != V_H.shape[1]:
            M, N = f_s.shape[-2], V_H.shape[1]
            raise SDDError(f"the printed Eq. 6 and 8 need M = N, but the bank has {M} tokens and an image {N}; set M")
        cut = torch.detach if self.detach else lambda t: t
        q = self.bank_queries(f_s).expand(len(V_H), -1, -1) if f_s.ndim == 2 else self.mha1.q(self.ln_bank(f_s))  # (B, M, W)
        none = self.residual == "none"
        V_H = self.ln_tokens(V_H)
        R1 = cut(self.mha1.attend(q, V_H))  # (B, M, D)  Eq. 5
        R1 = self.ln1(R1 + f_s if self.residual == "bank" else R1)
        if self.form == "printed":
            R2 = self.ln2(cut(self.mha2(R1, V_H)))  # (B, M, D)  Eq. 6
            R3 = self.ln3(cut(self.mha3(R2, R2)))  # (B, M, D)  Eq. 7
            return self.ln4(cut(self.mha4(R1, R3)))  # (B, M, D)  Eq. 8
        R2 = cut(self.mha2(V_H, R1))  # (B, N, D)  Eq. 6
        R2 = self.ln2(R2 + V_H if self.residual == "tokens" else R2)
        R3 = self.ln3(cut(self.mha3(R2, R2)) + (0 if none else R2))  # (B, N, D)  Eq. 7
        return self.ln4(cut(self.mha4(R3, R1)) + (0 if none else R3))  # (B, N, D)  Eq. 8


def _version(t: Tensor) -> int:
    """How often a tensor was changed in place; torch does not count for those made in inference mode."""
    return 0 if t.is_inference() else t._version


def difference_map(Re: Tensor, V_H: Tensor) -> Tensor:
    """D_s, Eq. 10, as a map: (B, N, D), (B, N, D) -> (B, D, g, g) with g*g = N; CLS in front is left out.

    Printed |R_f - f_r|, which is read as |Re - V_H|: what was rebuilt, against the image's own tokens.
    """
    B, N, D = V_H.shape
    g = math.isqrt(N)
    return (Re - V_H)[:, N - g * g :].abs().transpose(1, 2).reshape(B, D, g, g)
