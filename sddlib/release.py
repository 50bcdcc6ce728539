"""Parts that only the authors' release has (commit e9ed1ca; it departs from the paper in each): enhancer, SoftTriple, head."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import SDDError
from .parallel import BatchNorm1d, BatchNorm2d

FUSED = 2  # stages that D_s guides; the third is a plain convolution
OVERLAP = (1, 0)  # pixels by which neighbouring tokens' deconvolutions overlap, a fused stage


class ReleaseEnhancement(nn.Module):
    """Conv stages on the image; the first two become F + F * |F' - F|^2 with F' = deconv(D_s) * F, the last is flattened.

    channels: (C1, C2, C3), (128, 64, 1) there. A deconvolution's stride is the ratio of the sides rounded up, and what that
    makes too much is cut from the borders: on a 16x16 map and 224 px kernel 9, stride 7, padding 1, then 4, 4, 4.
    """

    def __init__(self, D: int, g: int, image_size: int, channels: tuple[int, ...], width: int):
        super().__init__()
        if len(channels) != FUSED + 1:
            raise SDDError(f"the release's enhancer has {FUSED + 1} stages, not {len(channels)}; give one width a stage")
        self.convs, self.deconvs, side = nn.ModuleList(), nn.ModuleList(), image_size
        for c_in, c_out in zip((3, *channels[:-1]), channels, strict=True):
            self.convs.append(nn.Sequential(nn.Conv2d(c_in, c_out, 3, 2, 1), BatchNorm2d(c_out), nn.ReLU()))
        for c_out, overlap in zip(channels, OVERLAP, strict=False):
            side = (side + 1) // 2
            stride = -(-side // g)
            surplus, odd = divmod(g * stride - side, 2)
            deconv = nn.ConvTranspose2d(D, c_out, stride + 2 * overlap, stride, surplus + odd + overlap, output_padding=odd)
            self.deconvs.append(nn.Sequential(deconv, BatchNorm2d(c_out), nn.ReLU()))
        side = (side + 1) // 2
        self.project = nn.Linear(channels[-1] * side**2, width)

    def forward(self, image: Tensor, D_s: Tensor) -> Tensor:
        """image: (B, 3, H, W), D_s: (B, D, g, g) -> F_low: (B, width)."""
        x = image
        for n, conv in enumerate(self.convs):
            x = conv(x)  # F(n)
            if n < FUSED:
                F_prime = self.deconvs[n](D_s) * x  # Eq. 11
                x = x + x * (F_prime - x).abs().square()  # in place of Eq. 12-13
        return self.project(x.flatten(1))


class SoftTriple(nn.Module):
    """SoftTriple loss (Qian et al., ICCV 2019) on F_low, where the paper prints a triplet loss (Eq. 14): no triplets here.

    K centres a class. S(x, c) is the product of a feature, which the release does not scale to unit length, with the unit
    centres of a class, weighted by their softmax at temperature gamma; cross-entropy of la * (S - margin at the own class),
    plus tau * how far a class's centres are apart. The centres never reach the optimizer there, so they are a buffer: fixed,
    but saved, since F_low learns to meet them.
    """

    la, gamma, tau, margin = 20, 0.1, 0.2, 1e-4

    def __init__(self, width: int, classes: int = 2, K: int = 8):
        super().__init__()
        self.register_buffer("centres", F.normalize(torch.randn(classes, K, width), dim=-1))  # (classes, K, width)

    def similarity(self, features: Tensor) -> Tensor:
        """S: (B, width) -> (B, classes)."""
        s = torch.einsum("bw,ckw->bck", features, self.centres)
        return (F.softmax(s / self.gamma, dim=2) * s).sum(2)

    def spread(self) -> Tensor:
        """Mean distance between two different centres of one class."""
        return torch.stack([torch.pdist(own).mean() for own in self.centres]).mean()

    def forward(self, features: Tensor, y: Tensor) -> Tensor:
        """features: F_low (B, width), y: (B,) labels -> scalar."""
        own = F.one_hot(y.long(), len(self.centres)) * self.margin
        # The regulariser averages over ordered pairs, K(K-1), of which it sums half.
        return F.cross_entropy(self.la * (self.similarity(features) - own), y.long()) + self.tau * self.spread() / 2


def release_head(width: int) -> nn.Sequential:
    """Head on [F_low, T_CLS]: BN, Linear 256, BN, ReLU, Linear 1; width: of both together."""
    return nn.Sequential(BatchNorm1d(width), nn.Linear(width, 256), BatchNorm1d(256), nn.ReLU(), nn.Linear(256, 1))
