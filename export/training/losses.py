"""What teaches the embedding: the teacher's answer to the clean crop, and who is nobody else."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def distillation(v: Tensor, teacher: Tensor, weight: Tensor) -> Tensor:
    """Weighted mean of 1 - cosine between unit embeddings N x D; `weight` N."""
    return ((1 - (v * teacher).sum(1)) * weight).sum() / weight.sum().clamp_min(1)


def against_prototypes(
    cosines: Tensor, labels: Tensor, weight: Tensor, *, scale: float, margin: float
) -> Tensor:
    """Softmax loss with a cosine margin over prototypes that do not move.

    `cosines` N x K to every prototype, `labels` N. The prototypes are the teacher's class means (or the
    one picture of an unnamed person), so embeddings cannot collapse onto few identities.
    """
    shifted = cosines - margin * functional.one_hot(labels, cosines.shape[1]).to(cosines)
    each = functional.cross_entropy(scale * shifted, labels, reduction="none")
    return (each * weight).sum() / weight.sum().clamp_min(1)


def own_and_nearest(cosines: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Each row's cosine to its own prototype and to the nearest other one, N and N."""
    own = cosines.gather(1, labels[:, None])[:, 0]
    others = cosines.scatter(1, labels[:, None], -2.0)
    return own, torch.amax(others, 1)
