"""From F4 to the global embedding with a seventh of SFace's parameters: a factorised fully connected layer.

SFace maps the flattened F4 (50176 values) to 128 by one matrix of 6.4 M parameters, two thirds of the
model. Here every position is first squeezed to a few channels by one shared matrix, then a smaller fully
connected layer takes all positions to the embedding. `fit` chooses both factors in closed form.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor, nn


class FactorisedTail(nn.Module):
    """F4 N x C x 7 x 7 -> f_g N x D, not normalised (its length is a quality cue)."""

    def __init__(self, channels: int, squeezed: int = 128, size: int = 128) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, squeezed, 1, bias=False)
        self.project = nn.Linear(squeezed * 49, size)

    def forward(self, f4: Tensor) -> Tensor:
        return cast(Tensor, self.project(self.squeeze(f4).flatten(1)))  # N x 49k -> N x D


@torch.no_grad()
def fit(tail: FactorisedTail, linear: nn.Linear, f4: Iterable[Tensor], *, ridge: float = 0.3) -> None:
    """Sets both factors so that the tail agrees with `linear` on the feature maps of real faces.

    `f4` yields batches N x C x 7 x 7, twice iterable. First the squeeze: the best rank-k factor of the
    matrix under the channels' covariance C, from the singular vectors of C^1/2 W. Then the projection:
    ridge regression of what `linear` answers on what the squeeze leaves.
    """
    channels, squeezed = tail.squeeze.in_channels, tail.squeeze.out_channels
    moment, count = torch.zeros(channels, channels, dtype=torch.float64), 0
    for batch in f4:
        rows = batch.permute(0, 2, 3, 1).reshape(-1, channels)  # N*49 x C
        moment += (rows.T @ rows).double()
        count += len(rows)
    values, vectors = torch.linalg.eigh(moment / count)
    root = values.clamp_min(values.max() * 1e-9).sqrt()
    half, inverse_half = (vectors * root) @ vectors.T, (vectors / root) @ vectors.T
    matrix = linear.weight.double().reshape(-1, channels, 49).permute(1, 0, 2).reshape(channels, -1)
    weighted = half @ matrix  # C x D*49
    left = torch.linalg.eigh(weighted @ weighted.T)[1][:, -squeezed:]  # its largest left singular vectors
    squeeze = (inverse_half @ left).T  # k x C
    tail.squeeze.weight.copy_(squeeze.float()[:, :, None, None])

    small = torch.cat([tail.squeeze(batch).flatten(1) for batch in f4])  # N x 49k
    rows = torch.cat([small, torch.ones(len(small), 1)], 1)
    answers = torch.cat([linear(batch.flatten(1)) for batch in f4])  # N x D
    gram, cross = (rows.T @ rows).double(), (rows.T @ answers).double()
    # The factorised matrix itself is the prior, so that directions unseen in `f4` keep their meaning.
    prior = (left.T @ weighted).reshape(squeezed, -1, 49).permute(0, 2, 1)  # k x 49 x D
    prior = torch.cat([prior.reshape(squeezed * 49, -1), linear.bias.double()[None]])
    weight = ridge * gram.diagonal().mean()
    gram.diagonal().add_(weight)
    solution = torch.linalg.solve(gram, cross + weight * prior)
    tail.project.weight.copy_(solution[:-1].T.float())
    tail.project.bias.copy_(solution[-1].float())
