"""Where the face is visible: multi-focal spatial attention and its complement.

After "Localization using Multi-Focal Spatial Attention for Masked Face Recognition" (arXiv 2305.01905),
of which only the abstract was at hand: two foci, one on the occluder and one on the background, are learned
beside the visible face, which is what neither of them claims. Everything else is ours: the first focus is
taught by the cover of rendered masks, the second by the corners that no aligned face reaches, and hidden
places are drawn to a learned mean feature, since a fully connected tail reads zero as evidence.
"""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional


class Attention(NamedTuple):
    """What the attention found: all maps 0..1."""

    maps: Tensor  # N x 2 x 14 x 14, logits of A_m (occluder) and A_b (background)
    visible: Tensor  # N x 1 x 14 x 14, A_v = (1 - A_m)(1 - A_b)
    mask_logit: Tensor  # N x 1


class MultiFocalAttention(nn.Module):
    """F3 N x C x 14 x 14 -> the two foci, the visible face, and whether a mask is worn."""

    def __init__(self, channels: int, width: int = 64) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            nn.Conv2d(channels, width, 1),
            nn.ReLU(),
            nn.Conv2d(width, width, 5, padding=2, groups=width),
            nn.ReLU(),
        )
        self.foci = nn.Conv2d(width, 2, 3, padding=1)
        nn.init.zeros_(self.foci.weight)
        nn.init.constant_(cast(Tensor, self.foci.bias), -3.0)  # at first everything is visible
        self.masked = nn.Linear(width, 1)

    def forward(self, f3: Tensor) -> Attention:
        h = self.trunk(f3)
        maps = self.foci(h)
        hidden = torch.sigmoid(maps)
        visible = (1 - hidden[:, :1]) * (1 - hidden[:, 1:])
        complement = h * (1 - visible)  # the complementary branch sees only what the face is not
        return Attention(maps, visible, self.masked(complement.mean((2, 3))))


class VisibleFeatures(nn.Module):
    """F4 with hidden places drawn towards a learned mean: F4 + a (1 - A_v)(mean - F4), a = 0 at first."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.zeros(()))
        self.mean = nn.Parameter(torch.zeros(1, channels, 7, 7))

    def forward(self, f4: Tensor, visible: Tensor) -> tuple[Tensor, Tensor]:
        """F4 N x C x 7 x 7 and A_v N x 1 x 14 x 14 -> F4 as changed, A_v N x 1 x 7 x 7."""
        visible = functional.avg_pool2d(visible, 2)
        return f4 + self.alpha * (1 - visible) * (self.mean - f4), visible


def background_map(height: int, width: int) -> Tensor:
    """1 outside the ellipse that a face fills on the 112 template (centre (56,60), radii (44,58))."""
    y = (torch.arange(height) + 0.5) * (112 / height)
    x = (torch.arange(width) + 0.5) * (112 / width)
    inside = ((x[None] - 56) / 44) ** 2 + ((y[:, None] - 60) / 58) ** 2 <= 1
    return 1.0 - inside.float()


def attention_loss(found: Attention, cover: Tensor, masked: Tensor) -> Tensor:
    """BCE on both foci, Dice on the occluder, BCE on "mask worn", and disjoint foci.

    `cover` N x 1 x 112 x 112, 0..1; `masked` N, 0 or 1. The weights are ours.
    """
    truth = functional.avg_pool2d(cover, 8)  # N x 1 x 14 x 14
    background = background_map(14, 14).to(cover).expand_as(truth)
    occluder = torch.sigmoid(found.maps[:, :1])
    bce = functional.binary_cross_entropy_with_logits
    overlap = 2 * (occluder * truth).sum((1, 2, 3)) + 1
    dice = 1 - overlap / (occluder.sum((1, 2, 3)) + truth.sum((1, 2, 3)) + 1)
    covered = (truth.amax((1, 2, 3)) > 0.5).to(dice)
    return (
        bce(found.maps[:, :1], truth)
        + (dice * covered).sum() / covered.sum().clamp_min(1)
        + 0.5 * bce(found.maps[:, 1:], background)
        + 0.2 * bce(found.mask_logit[:, 0], masked)
        + 0.1 * (occluder * torch.sigmoid(found.maps[:, 1:])).mean()
    )
