"""Searching a gallery: closed- and open-set figures (ISO/IEC 19795-1).

A gallery may hold several pictures of a person: a probe's rank is the place of the first picture of its
own person in the list of all pictures, as the field's protocols count it. Other people's pictures
with the same score come first in that list.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calibration.metrics import Flags, Floats, Numbers, threshold_at_far
from edge_fr.errors import InputError

_SCORES_AT_ONCE = 16_000_000  # 64 MB

Vectors = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Searches:
    """What probes found: of (P,) people who are enrolled the best score with a picture of their `own`
    and its `rank`, from 1; of (S,) `strangers` the best score with anybody."""

    own: Floats
    rank: Numbers
    strangers: Floats

    def rank_rate(self, rank: int) -> float:
        """Closed set: the share of probes that find their own person within the first `rank` pictures."""
        return float((self.rank <= rank).mean())

    def fnir_at_fpir(self, fpir: float, *, rank: int = 1) -> float:
        """Open set: the share of enrolled probes that are missed, by score or by a place after `rank`,
        where a share `fpir` of the strangers raises an alarm."""
        return float(1 - self._found(threshold_at_far(self.strangers, fpir), rank).mean())

    def curve(self, *, rank: int = 1) -> tuple[Floats, Floats]:
        """FPIR and FNIR at the scores of the strangers, from the highest down."""
        thresholds = np.sort(self.strangers)[::-1]
        found = np.sort(self.own[self.rank <= rank])
        reached = len(found) - np.searchsorted(found, thresholds, side="left")
        return np.arange(1, len(thresholds) + 1) / len(thresholds), 1 - reached / len(self.own)

    def _found(self, threshold: float, rank: int) -> Flags:
        return (self.own >= threshold) & (self.rank <= rank)


def search(
    gallery: Vectors, gallery_people: Numbers, probes: Vectors, probe_people: Numbers, strangers: Vectors
) -> Searches:
    """Compares (P, D) probes of enrolled people and (S, D) of strangers with the (G, D) gallery."""
    absent = ~np.isin(probe_people, gallery_people)
    if absent.any():
        raise InputError(
            f"{np.count_nonzero(absent)} of {len(absent)} probes show people who are not enrolled"
        )
    step = max(1, _SCORES_AT_ONCE // len(gallery))
    own, rank = np.empty(len(probes)), np.empty(len(probes), np.int64)
    for start in range(0, len(probes), step):
        rows = slice(start, start + step)
        scores = probes[rows] @ gallery.T
        mine = probe_people[rows, None] == gallery_people
        best = np.where(mine, scores, -np.inf).max(axis=1)
        own[rows] = best
        rank[rows] = 1 + ((scores >= best[:, None]) & ~mine).sum(axis=1)
    highest = np.empty(len(strangers))
    for start in range(0, len(strangers), step):
        highest[start : start + step] = (strangers[start : start + step] @ gallery.T).max(axis=1)
    return Searches(own, rank, highest)
