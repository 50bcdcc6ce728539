"""Concept-level forgery discrepancy learning: rebuild an image's tokens from the bank of real ones (Eq. 4-10)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import SDDError


class MHA(nn.Module):
    """Multi-head attention between two token sets, Eq. 4, with inner width W != D allowed.

    queries (B, Lq, D), keys = values (B, Lk, D) -> (B, Lq, D). Scaled by the root of the head width, the usual reading
    of Eq. 4's d. No residual and no feed-forward layer, as printed. Keys have no bias: it would shift all of a query's
    logits alike, which the softmax undoes, so it could never learn.
    """

    def __init__(self, D: int, width: int, heads: int, dropout: float = 0.0):
        super().__init__()
        if width % heads:
            raise SDDError(f"reconstruction width {width} cannot be split over {heads} heads; choose a multiple")
        self.heads, self.dropout = heads, dropout
        self.q, self.k, self.v = nn.Linear(D, width), nn.Linear(D, width, bias=False), nn.Linear(D, width)
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


class Reconstruction(nn.Module):
    """Encoder (Eq. 5-6) and decoder (Eq. 7-8) that rebuild V_H from the visual clues f_s.

    Printed, Eqs. 6 and 8 query with the M bank tokens, so Re could be compared with V_H only if M = N. `paper` reads them
    as V_H and R3 querying R1: Re has N tokens and M is free.

    residual: where a sublayer's queries are added to its output before the LayerNorm. "none": nowhere, as printed; attention is
    near uniform at the start, every row of R1 becomes the same token, and Re with it. "bank": at f_s, R2 and R3, never
    at V_H, so that the bank keeps its M different tokens and an image still cannot be copied past it. "tokens": at V_H, R2
    and R3 (the authors' release), which lets V_H through.
    """

    def __init__(self, D: int, width: int, heads: int, dropout: float = 0.0, residual: str = "none"):
        super().__init__()
        if residual not in ("none", "bank", "tokens"):
            raise SDDError(f"reconstruction residual {residual!r} is unknown; use 'none', 'bank' or 'tokens'")
        self.residual = residual
        self.mha1, self.mha2, self.mha3, self.mha4 = (MHA(D, width, heads, dropout) for _ in range(4))
        self.ln1, self.ln2, self.ln3, self.ln4 = (nn.LayerNorm(D) for _ in range(4))
        self._bank_queries, self._made_from, self._sources = None, [], ()

    def train(self, mode: bool = True):
        self._bank_queries, self._made_from, self._sources = None, [], ()  # nothing is kept while training
        return super().train(mode)

    def bank_queries(self, f_s: Tensor) -> Tensor:
        """f_s W_Q of Eq. 5, (M, W): the part that depends on the bank alone, computed once while scoring."""
        if self.training or torch.is_grad_enabled():
            return self.mha1.q(f_s)
        # Another bank, loaded weights or a training step must not meet old queries: each shows in an address or a version.
        # Holding on to the sources keeps their addresses from being given to others.
        sources = (f_s, *self.mha1.q.parameters())
        made_from = [(t.data_ptr(), t.shape, t.stride(), _version(t)) for t in sources]
        if self._bank_queries is None or made_from != self._made_from:
            self._bank_queries, self._made_from, self._sources = self.mha1.q(f_s), made_from, sources
        return self._bank_queries

    def forward(self, V_H: Tensor, f_s: Tensor) -> Tensor:
        """V_H: (B, N, D) patch tokens, f_s: (M, D) bank -> Re: (B, N, D)."""
        q = self.bank_queries(f_s).expand(len(V_H), -1, -1)  # (B, M, W), no copy
        none = self.residual == "none"
        R1 = self.mha1.attend(q, V_H)  # (B, M, D)  Eq. 5
        R1 = self.ln1(R1 + f_s if self.residual == "bank" else R1)
        R2 = self.mha2(V_H, R1)  # (B, N, D)  Eq. 6
        R2 = self.ln2(R2 + V_H if self.residual == "tokens" else R2)
        R3 = self.ln3(self.mha3(R2, R2) + (0 if none else R2))  # (B, N, D)  Eq. 7
        return self.ln4(self.mha4(R3, R1) + (0 if none else R3))  # (B, N, D)  Eq. 8


def _version(t: Tensor) -> int:
    """How often a tensor was changed in place; torch does not count for those made in inference mode."""
    return 0 if t.is_inference() else t._version


def difference_map(Re: Tensor, V_H: Tensor) -> Tensor:
    """D_s = |Re - f_r|, Eq. 10, as a map: (B, N, D), (B, N, D) -> (B, D, g, g) with g*g = N."""
    B, N, D = V_H.shape
    g = int(N**0.5)
    return (Re - V_H).abs().transpose(1, 2).reshape(B, D, g, g)
