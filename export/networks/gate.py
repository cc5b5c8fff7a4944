"""A small network that guesses the recognizer's index from the crop, so that hopeless faces never reach it.

Distilled from the recognizer's own head while that trains. It looks at the crop at full size, since what it
must see is fine detail or its absence, and stays under 2 % of the recognizer's multiply-adds.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional


def _block(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, inputs, 3, stride, 1, groups=inputs, bias=False),
        nn.BatchNorm2d(inputs),
        nn.ReLU(),
        nn.Conv2d(inputs, outputs, 1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


class Gate(nn.Module):
    """Crops N x 3 x 112 x 112 float RGB 0..255 -> ri N x 1, 0..1."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 16, 3, 2, 1, bias=False),  # 56 x 56
            nn.BatchNorm2d(16),
            nn.ReLU(),
            _block(16, 32, 2),  # 28 x 28
            _block(32, 48, 1),
            _block(48, 96, 2),  # 14 x 14
            _block(96, 96, 1),
            _block(96, 128, 2),  # 7 x 7
            _block(128, 128, 1),
        )
        self.out = nn.Linear(128, 1)

    def logit(self, crops: Tensor) -> Tensor:
        """The index before the sigmoid, N x 1."""
        features = self.layers((crops - 127.5) * 0.0078125)
        return cast(Tensor, self.out(features.mean((2, 3))))

    def forward(self, crops: Tensor) -> Tensor:
        return torch.sigmoid(self.logit(crops))


def gate_loss(logit: Tensor, index_logit: Tensor) -> Tensor:
    """Cross-entropy with the recognizer's own index (its logit, detached) as a soft target."""
    return functional.binary_cross_entropy_with_logits(logit, torch.sigmoid(index_logit.detach()))
