"""What a body does otherwise for faces with little detail: low-rank corrections, blended in crop by crop.

One set of weights for all faces is a compromise: what a body learns of 12-pixel faces it forgets of good
ones. Here the body stays as it is for good faces, and its pointwise convolutions have low-rank corrections,

    y = W x + s B (A x + a),

whose share s (0..1, one number for each crop) a small network reads off the crop's detail. With s = 0 the
adapters are not there; B is zero at first. The form of A and B is that of "LoRA: Low-Rank Adaptation of Large
Language Models" (arXiv 2106.09685); there s is a constant.
"""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

LITTLE_PX, ENOUGH_PX = 12.0, 32.0  # sides of a face that has s = 1, and s = 0


class DetailRouter(nn.Module):
    """Crops N x 3 x 112 x 112 float RGB 0..255 -> the logit of s, N x 1 x 1 x 1.

    It has no BatchNorm, so that parts of a batch can go through it side by side. Each of its last features
    sees 15 pixels: the fineness of what is drawn, not who it is.
    """

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 16, 3, 2, 1),  # 56 x 56
            nn.ReLU(),
            nn.Conv2d(16, 16, 3, 2, 1, groups=16),  # 28 x 28
            nn.Conv2d(16, 32, 1),
            nn.ReLU(),
            nn.Conv2d(32, 32, 3, 2, 1, groups=32),  # 14 x 14
            nn.Conv2d(32, 64, 1),
            nn.ReLU(),
        )
        self.out = nn.Conv2d(64, 1, 1)

    def forward(self, crops: Tensor) -> Tensor:
        features = self.layers((crops - 127.5) * 0.0078125)
        return cast(Tensor, self.out(features.mean((2, 3), keepdim=True)))


class Adapter(nn.Module):
    """x N x I x H x W and s N x 1 x 1 x 1 -> s B (A x + a), N x O x H x W."""

    def __init__(self, inputs: int, outputs: int, rank: int) -> None:
        super().__init__()
        self.down = nn.Conv2d(inputs, rank, 1)
        self.up = nn.Conv2d(rank, outputs, 1, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, x: Tensor, s: Tensor) -> Tensor:
        return cast(Tensor, self.up(s * self.down(x)))


def little_detail(side_px: Tensor) -> Tensor:
    """The s that a face of that side (pixels, N) should have: 1 up to LITTLE_PX, 0 from ENOUGH_PX on."""
    return (torch.log(ENOUGH_PX / side_px) / math.log(ENOUGH_PX / LITTLE_PX)).clamp(0, 1)


def detail_loss(logit: Tensor, side_px: Tensor) -> Tensor:
    """Cross-entropy of s with what the side asks for; `logit` N x 1 x 1 x 1, `side_px` N, NaN: unknown."""
    known = ~torch.isnan(side_px)
    wanted = little_detail(side_px[known])
    found = logit.flatten()[known]
    return functional.binary_cross_entropy_with_logits(
        found, wanted, reduction="sum"
    ) / known.sum().clamp_min(1)
