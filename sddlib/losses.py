"""The three terms of SDD's loss: binary cross-entropy, triplet and reconstruction (Eq. 9, 14, 16). Label 1 = fake."""

import torch
import torch.nn.functional as F
from torch import Tensor

from .parallel import together


def reconstruction_loss(
    Re: Tensor, V_H: Tensor, y: Tensor, detach_target: bool = False, over: str = "reals", norm: str = "mse"
) -> Tensor:
    """L_r, Eq. 9: mean squared error between Re and V_H over the *real* images of the batch; 0 where there are none.
    Eq. 9 divides by B, which is read as the number of these.

    Re, V_H: (B, N, D); y: (B,) labels. The paper does not say whether the target is detached. If it is not, L_r also draws
    the encoder's tokens of reals towards what the bank rebuilds; detach_target keeps it from that.
    over: "reals" as printed or "all" images. norm: "mse" as printed, or "frobenius", the root of the summed squares over the
    number of tokens (the authors' release, over all images).
    """
    target = V_H.detach() if detach_target else V_H
    squares = (Re - target).square()  # (B, N, D)
    error = together(squares.sum((1, 2)) if norm == "frobenius" else squares.mean((1, 2)))  # (B,)
    y = together(y)
    kept = torch.ones_like(y, dtype=torch.bool) if over == "all" else y == 0  # (B,)
    if norm == "frobenius":
        total = (error * kept).sum()
        # the root has no slope at 0, which only a batch without reals reaches
        return total.clamp_min(torch.finfo(total.dtype).tiny).sqrt() / (kept.sum().clamp_min(1) * V_H.shape[1])
    return (error * kept).sum() / kept.sum().clamp_min(1)


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


def sdd_loss(out, y: Tensor, preset, metric) -> dict[str, Tensor]:
    """L = L_bce + lambda_1 L_tri + lambda_2 L_r, Eq. 16. out: a detector's `Output`; y: (B,). Returns every term there is.

    metric: the loss on (F_low, y): `triplet_loss` at the preset's margin, or the release's SoftTriple. L_bce has a weight too
    (1 as printed, 1.5 in the release). Where processes share a batch, each term is that of all its images.
    """
    labels = together(y)
    bce = F.binary_cross_entropy_with_logits(together(out.logit), labels.float())
    terms = {"bce": bce, "tri": metric(together(out.F_low), labels)}
    total = preset.lambda_bce * terms["bce"] + preset.lambda_tri * terms["tri"]
    if out.Re is not None:
        terms["r"] = reconstruction_loss(out.Re, out.V_H, y, preset.detach_target, preset.r_over, preset.r_norm)
        total = total + preset.lambda_r * terms["r"]
    return {"total": total, **terms}
