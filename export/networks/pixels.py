"""The pixels that a network learned from: mean and standard deviation of each channel, inside the graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn


class Pixels(nn.Module):
    """Crops N x 3 x 112 x 112, RGB, 0..255 -> (crops - mean) / std. No part of a checkpoint.

    `mean` and `std` are in units of 0..255 and in RGB order; one number holds for all three channels.
    """

    def __init__(self, mean: Sequence[float] = (127.5,), std: Sequence[float] = (127.5,)) -> None:
        super().__init__()
        for name, values in (("mean", torch.tensor(mean)), ("scale", 1 / torch.tensor(std))):
            self.register_buffer(name, values.float().reshape(1, -1, 1, 1), persistent=False)

    def forward(self, crops: Tensor) -> Tensor:
        return (crops - cast(Tensor, self.mean)) * cast(Tensor, self.scale)
