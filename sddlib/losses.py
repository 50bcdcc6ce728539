"""The three terms of SDD's loss: binary cross-entropy, triplet and reconstruction (Eq. 9, 14, 16). Label 1 = fake."""

import torch
import torch.nn.functional as F
from torch import Tensor


def reconstruction_loss(Re: Tensor, V_H: Tensor, y: Tensor, detach_target: bool = False) -> Tensor:
    """L_r, Eq. 9: mean squared error between Re and V_H over the *real* images of the batch; 0 where there are none.

    Re, V_H: (B, N, D); y: (B,) labels. The paper does not say whether the target is detached. If it is not, L_r also draws
    the encoder's tokens of reals towards what the bank rebuilds; detach_target keeps it from that.
    """
    real = y == 0
    target = V_H.detach() if detach_target else V_H
    error = (Re - target).square().mean((1, 2))  # (B,)
    return (error * real).sum() / real.sum().clamp_min(1)


def triplet_loss(features: Tensor, y: Tensor, margin: float) -> Tensor:
    """L_tri, Eq. 14: max(0, d(f_p, f_a) - d(f_n, f_a) + margin), Euclidean, over all triplets of the batch.

    features: (B, C); y: (B,). Anchor and positive share a label, the negative has the other; 0 if no triplet exists.
    """
    d = torch.cdist(features, features, compute_mode="donot_use_mm_for_euclid_dist")  # (B, B)
    same = y[:, None] == y[None]
    positive = same & ~torch.eye(len(y), dtype=torch.bool, device=y.device)
    valid = positive[:, :, None] & ~same[:, None, :]  # (a, p, n)
    loss = (d[:, :, None] - d[:, None, :] + margin).clamp_min(0)
    return (loss * valid).sum() / valid.sum().clamp_min(1)


def sdd_loss(out, y: Tensor, preset) -> dict[str, Tensor]:
    """L = L_bce + lambda_1 L_tri + lambda_2 L_r, Eq. 16. out: a detector's `Output`; y: (B,). Returns every term."""
    bce = F.binary_cross_entropy_with_logits(out.logit, y.float())
    tri = triplet_loss(out.F_low, y, preset.margin)
    rec = reconstruction_loss(out.Re, out.V_H, y, preset.detach_target)
    return {"total": bce + preset.lambda_tri * tri + preset.lambda_r * rec, "bce": bce, "tri": tri, "r": rec}
