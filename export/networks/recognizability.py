"""Can this face be recognised at all: the recognizability index and what is trained along with it.

After "Recognizability Embedding Enhancement for Very Low-Resolution Face Recognition and Quality Estimation"
(arXiv 2304.10066), of which its authors published no code. With v the unit embedding, w_c the prototype of
identity c and u the centre of the unrecognisable faces:

    d_P = 1 - v.w_y    d_N = 1 - max_{c != y} v.w_c    d_U = 1 - v.u    xi = d_U d_N / (d_P + eps)

Departures: prototypes are the frozen teacher's class means, not a classifier's rows (there are few
identities); the projection away from u, which trains the paper's attention, is here made of the embedding
itself as well (`Projection`), with u the centre of faces that are hardly recognisable; the head regresses
t = sigmoid(k (log xi - mean)), which is bounded, instead of xi, and in the end another target, for which
export/training/index_fit.py has the reason. The form of xi, the index-diversion loss and the projection away
from u are reconstructed from descriptions of the paper; eps, k and the sizes of head and attention are ours.
"""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from export.networks.lgaf import length

EPS = 1e-3


def away_from(v: Tensor, centre: Tensor) -> Tensor:
    """v' = norm(v - (v.u) u) of unit embeddings N x D; `centre` is u, 1 x D, unit length."""
    away = v - (v * centre).sum(1, keepdim=True) * centre
    return away / length(away)


class Projection(nn.Module):
    """Unit embeddings N x D -> the same without what points at `centre`.

    The poorer a face, the more its embedding is that of any poor face. This part of it says how good the
    picture is, not who is on it, and makes different people look alike.
    """

    centre: Tensor  # u, 1 x D, unit length; zeros take nothing away

    def __init__(self, size: int = 128) -> None:
        super().__init__()
        self.register_buffer("centre", torch.zeros(1, size))

    def forward(self, v: Tensor) -> Tensor:
        return away_from(v, self.centre)


class PerceptibilityAttention(nn.Module):
    """CBAM-style channel, then spatial attention on F4, blended in by b = 0 at first.

    While training it also yields v_attn, an embedding of the attended features that is pulled towards
    the embedding's part that does not point at the unrecognisable centre.
    """

    def __init__(self, channels: int, size: int = 128, reduction: int = 16) -> None:
        super().__init__()
        self.channel = nn.Sequential(
            nn.Conv2d(channels, channels // reduction, 1),
            nn.ReLU(),
            nn.Conv2d(channels // reduction, channels, 1),
        )
        self.spatial = nn.Conv2d(2, 1, 7, padding=3)
        self.blend = nn.Parameter(torch.zeros(()))
        self.auxiliary = nn.Linear(channels, size)  # training only

    def attend(self, f4: Tensor) -> Tensor:
        """F4 N x C x 7 x 7 -> the attended features, same shape."""
        mean, peak = f4.mean((2, 3), keepdim=True), torch.amax(f4, (2, 3), keepdim=True)  # N x C x 1 x 1
        f4 = f4 * torch.sigmoid(self.channel(mean) + self.channel(peak))
        pooled = torch.cat([f4.mean(1, keepdim=True), torch.amax(f4, 1, keepdim=True)], 1)  # N x 2 x 7 x 7
        return f4 * torch.sigmoid(self.spatial(pooled))

    def forward(self, f4: Tensor) -> tuple[Tensor, Tensor]:
        """F4 -> F4 with the attention blended in, and the attended features themselves."""
        attended = self.attend(f4)
        return f4 + self.blend * (attended - f4), attended

    def embed(self, attended: Tensor) -> Tensor:
        """v_attn, N x D, unit length."""
        v = self.auxiliary(attended.mean((2, 3)))
        return cast(Tensor, v / length(v))


class RecognizabilityHead(nn.Module):
    """The direction of f_g, the pooled F4 and the length of f_g -> the logit of the index, N x 1."""

    def __init__(self, channels: int, size: int = 128, width: int = 64, dropout: float = 0.4) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.hidden = nn.Linear(size + channels + 1, width)
        self.out = nn.Linear(width, 1)

    def forward(self, f_global: Tensor, f4: Tensor) -> Tensor:
        return self.from_inputs(self.inputs(f_global, f4))

    @staticmethod
    def inputs(f_global: Tensor, f4: Tensor) -> Tensor:
        """What the head looks at, N x (D + C + 1)."""
        n = length(f_global)
        return torch.cat([f_global / n, f4.mean((2, 3)), 0.05 * n], 1)

    def from_inputs(self, x: Tensor, *, fixed: bool = False) -> Tensor:
        """The logit; if `fixed`, its gradient reaches the inputs but not this head."""
        weights = [p.detach() if fixed else p for m in (self.hidden, self.out) for p in (m.weight, m.bias)]
        h = torch.relu(functional.linear(self.dropout(x), weights[0], weights[1]))
        return functional.linear(h, weights[2], weights[3])

    def with_fixed_weights(self, f_global: Tensor, f4: Tensor) -> Tensor:
        """The same logit, whose gradient reaches the features but not this head."""
        return self.from_inputs(self.inputs(f_global, f4), fixed=True)


class IndexTarget(nn.Module):
    """The target t of the head, and the running statistics it rests on.

    Buffers: the unrecognisable centre u (1 x D), the mean and spread of log xi, and the mean and spread of
    the predicted index over unrecognisable faces. They follow the network while it learns.
    """

    centre: Tensor
    log_xi: Tensor
    hopeless: Tensor

    def __init__(self, size: int = 128, momentum: float = 0.02) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("centre", torch.zeros(1, size))
        self.register_buffer("log_xi", torch.tensor([0.0, 1.0]))  # mean, standard deviation
        self.register_buffer("hopeless", torch.tensor([-2.0, 1.0]))  # of the predicted logit

    def direction(self) -> Tensor:
        """u, 1 x D, unit length."""
        return self.centre / length(self.centre)

    @torch.no_grad()
    def __call__(self, v: Tensor, own: Tensor, nearest: Tensor, hopeless: Tensor) -> Tensor:
        """Unit embeddings N x D, cosines to the own and the nearest other prototype (N) -> t, N x 1.

        Faces flagged `hopeless` (N, bool) move the centre; their target is 0.
        """
        if hopeless.any():
            mean = v[hopeless].mean(0, keepdim=True)
            empty = not bool(self.centre.any())
            self.centre.lerp_(mean, 1.0 if empty else self.momentum)
        d_u = 1 - (v @ self.direction().T)[:, 0]
        log_xi = torch.log(d_u.clamp_min(EPS)) + torch.log((1 - nearest).clamp_min(EPS))
        log_xi = log_xi - torch.log((1 - own).clamp_min(0) + EPS)
        known = log_xi[~hopeless]
        if len(known) > 1:
            self.log_xi.lerp_(torch.stack([known.mean(), known.std() + EPS]), self.momentum)
        t = torch.sigmoid(1.7 / self.log_xi[1] * (log_xi - self.log_xi[0]))
        return torch.where(hopeless, torch.zeros_like(t), t)[:, None]

    @torch.no_grad()
    def note(self, logit: Tensor, hopeless: Tensor) -> None:
        """Takes the predicted logits (N x 1) of hopeless faces into their running mean and spread."""
        if int(hopeless.sum()) > 1:
            found = logit[hopeless, 0]
            self.hopeless.lerp_(torch.stack([found.mean(), found.std() + EPS]), self.momentum)


def index_loss(logit: Tensor, target: Tensor) -> Tensor:
    """Smooth L1 between the squashed index and its target (beta 0.1 for a range of 0..1)."""
    return functional.smooth_l1_loss(torch.sigmoid(logit), target, beta=0.1)


def diversion_loss(logit: Tensor, statistics: Tensor, recognisable: Tensor, tau: float = 3.0) -> Tensor:
    """Index diversion: faces that can be recognised keep tau deviations above the unrecognisable ones.

    mean max(0, tau - (index - mean_U) / std_U) over `recognisable` (N, bool); `statistics` is (mean_U,
    std_U). Give it the logit of `with_fixed_weights`, or the head alone would inflate.
    """
    shortfall = functional.relu(tau - (logit[:, 0] - statistics[0]) / statistics[1].clamp_min(0.25))
    return (shortfall * recognisable).sum() / recognisable.sum().clamp_min(1)


def projection_loss(v_attn: Tensor, v: Tensor, centre: Tensor) -> Tensor:
    """Squared distance of v_attn to v' = norm(v - (v.u) u), v detached: what of v does not point at u.

    Divided by the root of D, between a sum over the D differences and their mean.
    """
    away = away_from(v.detach(), centre)
    return ((v_attn - away) ** 2).sum(1).mean() * math.sqrt(1 / v.shape[1])
