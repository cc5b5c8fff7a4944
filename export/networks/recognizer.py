"""One recognizer that knows which part of a face to trust and whether it can be recognised at all.

    crops -> body -> F3 --mask attention--> what is visible
                  -> F4 --(hidden places)--(perceptibility attention)--> F4'
    F4' -> tail -> f_g, F4' -> MHMS -> f_l;  LGF fuses both --(projection)--> embedding
    (f_g, F4') -> recognizability index

Every part can be left out, for ablation and for budgets. New attentions change nothing at first: each is
blended in by a weight that starts at zero. A new local branch does: it has a twentieth of the embedding (a
tenth without LGF) before it has learned anything.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from export.networks.lgaf import Local, LocalGlobalFusion, MultiHeadMultiScale, length
from export.networks.mask_attention import Attention, MultiFocalAttention, VisibleFeatures
from export.networks.recognizability import PerceptibilityAttention, Projection, RecognizabilityHead
from export.networks.tail import FactorisedTail

Body = nn.Module  # crops -> (F3, F4), with f3_channels and f4_channels: see backbone.py


class Parts(BaseModel):
    """Which of the papers' parts a recognizer has.

    Off by default are those that the trained network made nothing of: the table of results in README.md.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    mask_attention: bool = True
    perceptibility: bool = False  # the attention; the index itself is always there
    local: bool = False  # MHMS; without `fusion` it is averaged in at a fixed share
    fusion: bool = False  # LGF
    adapters: bool = False  # of the body, for faces with little detail; they need a run to begin with
    projection: bool = False  # of the embedding, away from that of poor faces


class Found(NamedTuple):
    """Everything the recognizer finds on the way, for the losses."""

    embedding: Tensor  # N x D, unit length
    f_global: Tensor  # N x D
    f4: Tensor  # N x C x 7 x 7, after the attentions
    index_logit: Tensor  # N x 1
    attention: Attention | None
    attended: Tensor | None
    local: Local | None
    global_share: Tensor | None  # N x 1


class Deployed(NamedTuple):
    """What the exported model answers; None where the recognizer lacks the part, or was not asked."""

    embedding: Tensor  # N x D, unit length
    ri: Tensor  # N x 1, 0..1
    mask_prob: Tensor | None = None  # N x 1, 0..1
    visibility: Tensor | None = None  # N x 1 x 14 x 14, 0..1


class Recognizer(nn.Module):
    """Crops N x 3 x 112 x 112 float RGB 0..255 -> `Deployed`; `find` answers the losses' needs."""

    def __init__(
        self, body: Body, parts: Parts, *, size: int = 128, squeezed: int = 128, visibility: bool = False
    ) -> None:
        super().__init__()
        f3, f4 = int(body.f3_channels), int(body.f4_channels)  # type: ignore[arg-type]
        self.parts = parts
        self.visibility = visibility
        self.body = body
        self.tail = FactorisedTail(f4, squeezed, size)
        self.index = RecognizabilityHead(f4, size)
        self.foci = MultiFocalAttention(f3) if parts.mask_attention else None
        self.visible = VisibleFeatures(f4) if parts.mask_attention else None
        self.perceptibility = PerceptibilityAttention(f4, size) if parts.perceptibility else None
        self.mhms = MultiHeadMultiScale(f4, size=size) if parts.local else None
        self.lgf = LocalGlobalFusion() if parts.local and parts.fusion else None
        self.projection = Projection(size) if parts.projection else None

    def outputs(self) -> list[str]:
        """The names of what `forward` answers, without what is None."""
        masks = ["mask_prob", *(["visibility"] if self.visibility else [])]
        return ["embedding", "ri", *(masks if self.parts.mask_attention else [])]

    def find(self, crops: Tensor, *, bf16: bool = False) -> Found:
        """`bf16` runs the body in bfloat16; the heads, which are small, always have full precision."""
        with torch.autocast(crops.device.type, torch.bfloat16, enabled=bf16):
            f3, f4 = self.body(crops)
        return self.heads(*((f3.float(), f4.float()) if bf16 else (f3, f4)))

    def heads(self, f3: Tensor, f4: Tensor) -> Found:
        """What follows the body."""
        attention, visible, attended, local, share = None, None, None, None, None
        if self.foci is not None and self.visible is not None:
            attention = self.foci(f3)
            f4, visible = self.visible(f4, attention.visible)
        if self.perceptibility is not None:
            f4, attended = self.perceptibility(f4)
        f_global = self.tail(f4)
        if self.mhms is None:
            embedding = f_global / length(f_global)
        else:
            local = self.mhms(f4, visible)
            if self.lgf is not None:
                embedding, share = self.lgf(f_global, local.feature)
            else:
                fused = 0.9 * f_global / length(f_global) + 0.1 * local.feature / length(local.feature)
                embedding = fused / length(fused)
        if self.projection is not None:
            embedding = self.projection(embedding)
        return Found(embedding, f_global, f4, self.index(f_global, f4), attention, attended, local, share)

    def forward(self, crops: Tensor) -> Deployed:
        found = self.find(crops)
        ri = torch.sigmoid(found.index_logit)
        if found.attention is None:
            return Deployed(found.embedding, ri)
        mask_prob = torch.sigmoid(found.attention.mask_logit)
        visibility = found.attention.visible if self.visibility else None
        return Deployed(found.embedding, ri, mask_prob, visibility)
