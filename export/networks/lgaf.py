"""Local and global features, fused by how much each can be trusted.

After "Local and Global Feature Attention Fusion Network for Face Recognition" (arXiv 2411.16169), of which
only the abstract was at hand. It fuses by "normalized feature energies"; here the energy of a branch is the
length of its feature, standardised by running statistics, and the weight is a sigmoid of the difference.
Kernel sizes, head count and where the modules sit are ours.
"""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
from torch import Tensor, nn


def length(x: Tensor) -> Tensor:
    """The Euclidean length of each row, N x 1; never zero, so that it can divide."""
    return torch.sqrt((x * x).sum(1, keepdim=True) + 1e-8)


class Local(NamedTuple):
    """What the local branch found."""

    feature: Tensor  # N x D, not normalised
    heads: Tensor  # N x 4 x 7 x 7, where each head looked


class MultiHeadMultiScale(nn.Module):
    """MHMS: four heads look at F4 with kernels 1, 3, 5 and 7, each where its own attention leads.

    p_h = sum(y_h a_h) / sum(a_h), the features of head h averaged over its attention a_h; places that are
    not visible count for nothing.
    """

    KERNELS = (1, 3, 5, 7)

    def __init__(self, channels: int, width: int = 64, size: int = 128) -> None:
        super().__init__()
        self.heads = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(channels, width, 1),
                nn.PReLU(width),
                nn.Conv2d(width, width, kernel, padding=kernel // 2, groups=width),
                nn.PReLU(width),
                nn.Conv2d(width, width, 1),
                nn.PReLU(width),
            )
            for kernel in self.KERNELS
        )
        self.looks = nn.ModuleList(nn.Conv2d(width, 1, 1) for _ in self.KERNELS)
        self.join = nn.Linear(width * len(self.KERNELS), size)

    def forward(self, f4: Tensor, visible: Tensor | None) -> Local:
        """F4 N x C x 7 x 7; `visible` N x 1 x 7 x 7 or None for everything."""
        parts, attentions = [], []
        for head, look in zip(self.heads, self.looks, strict=True):
            y = head(f4)
            a = torch.sigmoid(look(y))
            if visible is not None:
                a = a * visible
            parts.append((y * a).sum((2, 3)) / (a.sum((2, 3)) + 1e-3))
            attentions.append(a)
        return Local(self.join(torch.cat(parts, 1)), torch.cat(attentions, 1))


def diversity_loss(heads: Tensor) -> Tensor:
    """Mean squared cosine between different heads' maps (N x H x 7 x 7): they should look elsewhere."""
    maps = heads.flatten(2)  # N x H x 49
    maps = maps / torch.sqrt((maps * maps).sum(2, keepdim=True) + 1e-8)
    gram = maps @ maps.transpose(1, 2)  # N x H x H
    count = gram.shape[1]
    off = gram - torch.eye(count, device=gram.device, dtype=gram.dtype)
    return (off * off).sum() / (len(gram) * count * (count - 1))


class LocalGlobalFusion(nn.Module):
    """LGF: w = sigmoid(t (z_g - z_l) + b); embedding = normalised w f_g/|f_g| + (1 - w) f_l/|f_l|.

    z is a branch's length, standardised, a third of it, within -1..1 (as AdaFace treats norms): at first
    the local branch's lengths grow faster than their statistics follow, and without the bound it takes
    over untrained. Lengths are detached, else the network inflates one branch to win. b starts at 3, so
    that the global branch, which is pretrained, holds 95 %.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, bias: float = 3.0) -> None:
        super().__init__()
        self.temperature = nn.Parameter(torch.ones(()))
        self.bias = nn.Parameter(torch.tensor(bias))
        self.register_buffer("mean", torch.zeros(2))
        self.register_buffer("std", torch.ones(2))
        self.register_buffer("measured", torch.zeros(()))

    @torch.no_grad()
    def measure(self, f_global: Tensor, f_local: Tensor, momentum: float = 0.05) -> None:
        """Takes one batch into the running statistics of both lengths; the first batch sets them."""
        lengths = torch.cat([length(f_global), length(f_local)], 1)  # N x 2
        rate = momentum if self.measured else 1.0
        self.mean.lerp_(lengths.mean(0), rate)
        self.std.lerp_(lengths.std(0) + 1e-3, rate)
        cast(Tensor, self.measured).fill_(1)

    def forward(self, f_global: Tensor, f_local: Tensor) -> tuple[Tensor, Tensor]:
        """N x D, N x D -> unit embeddings N x D and the global branch's weight N x 1."""
        n_global, n_local = length(f_global), length(f_local)
        z_global = ((n_global.detach() - self.mean[:1]) / (3 * self.std[:1])).clamp(-1, 1)
        z_local = ((n_local.detach() - self.mean[1:]) / (3 * self.std[1:])).clamp(-1, 1)
        w = torch.sigmoid(self.temperature * (z_global - z_local) + self.bias)
        fused = w * (f_global / n_global) + (1 - w) * (f_local / n_local)
        return fused / length(fused), w
