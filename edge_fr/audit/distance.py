"""From pixels between the eyes to pixels per metre and to metres."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from edge_fr.audit.figures import Figures
from edge_fr.errors import InputError

# EN 62676-4, pixels per metre at the person
CLASSES = (("detect", 25.0), ("observe", 62.5), ("recognise", 125.0), ("identify", 250.0))

LEAST_LOOKS = 30  # on each side: fewer, and a share is off by more than 18 points in one case of twenty


@dataclass(frozen=True, slots=True)
class Lens:
    """A lens without distortion: how many pixels wide a metre is at a metre."""

    focal_px: float

    @classmethod
    def of(cls, fov_deg: float, width_px: int) -> Lens:
        """Of a horizontal field of view, above 0 and below 180 degrees."""
        if not 0 < fov_deg < 180:
            raise InputError(
                f"the field of view is {fov_deg:g} degrees, expected more than 0 and less than 180"
            )
        return cls(width_px / 2 / math.tan(math.radians(fov_deg) / 2))

    def distance_m(self, px_per_m: float) -> float:
        """How far away something is of which a metre is so many pixels wide."""
        return self.focal_px / px_per_m


@dataclass(frozen=True, slots=True)
class HalfSize:
    """From which distance between the eyes on at least half of the looks were accepted.

    `px` is that distance if `found` is "here". "below": at every size that was seen half of them were
    accepted; `px` is the least size seen then. "above": at none; `px` is the greatest. "unknown": too
    few looks. `looks_below` and `looks_above` are those it rests on.
    """

    found: Literal["here", "below", "above", "unknown"]
    px: float
    looks_below: int
    looks_above: int


def half_size(figures: Figures) -> HalfSize:
    """Where the share of accepted looks crosses one half, as it rises with the distance between the eyes.

    That share is made to rise by pooling neighbours (isotonic regression), which needs no idea of its
    shape. Looks at faces that are turned away or cut off do not count.
    """
    looks, accepted = figures.facing_eyes_px.counts, figures.facing_accepted_px.counts
    edges, total = figures.facing_eyes_px.edges, int(looks.sum())
    if total < LEAST_LOOKS:
        return HalfSize("unknown", math.nan, total, 0)
    blocks: list[tuple[int, int, int]] = []  # first bin, looks, accepted; their shares rise
    for first in np.flatnonzero(looks).tolist():
        block = (first, int(looks[first]), int(accepted[first]))
        while blocks and blocks[-1][2] * block[1] >= block[2] * blocks[-1][1]:
            before = blocks.pop()
            block = (before[0], before[1] + block[1], before[2] + block[2])
        blocks.append(block)
    seen = np.flatnonzero(looks)
    below = [block for block in blocks if 2 * block[2] < block[1]]
    looks_below = sum(block[1] for block in below)
    looks_above = total - looks_below
    if not below:
        return HalfSize("below", float(edges[seen[0]]), 0, total)
    if len(below) == len(blocks):
        return HalfSize("above", float(edges[seen[-1] + 1]), total, 0)
    if min(looks_below, looks_above) < LEAST_LOOKS:
        return HalfSize("unknown", math.nan, looks_below, looks_above)
    above = blocks[len(below)][0]
    # Between the last bin that was seen below and the first one above; mostly they are neighbours.
    px = math.sqrt(edges[seen[seen < above][-1] + 1] * edges[above])
    return HalfSize("here", px, looks_below, looks_above)
