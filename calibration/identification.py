"""Searching a gallery: closed- and open-set figures, with intervals.

A gallery may hold several pictures of a person: a probe's rank is the place of the first picture of its
own person in the list of all pictures, as TinyFace's public evaluation counts it. ISO/IEC 19795-1, from
which FPIR and FNIR come, ranks identities: there all pictures of somebody else take one place together,
so that a rank, and an FNIR within a rank, can only be better than here. Other people's pictures with the
same score come first in the list.

Intervals are bootstraps as those of pairs (`metrics`): the people among the probes are drawn, and the
strangers' pictures, for nobody says which of them show one person. The gallery stays as it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calibration.metrics import (
    Figure,
    Floats,
    Numbers,
    measurable,
    short,
    threshold_at_far,
    thresholds,
    with_draws,
)
from edge_fr.errors import InputError

_SCORES_AT_ONCE = 16_000_000  # 64 MB

Vectors = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Searches:
    """What probes found: of (P,) probes of `people` who are enrolled the best score with a picture of
    their `own` and its `rank`, from 1; of (S,) `strangers` the best score with anybody."""

    people: Numbers
    own: Floats
    rank: Numbers
    strangers: Floats

    def rank_rate(self, rank: int) -> float:
        """Closed set: the share of probes that find their own person within the first `rank` pictures."""
        return float((self.rank <= rank).mean())

    def fnir_at_fpir(self, fpir: float, *, rank: int = 1) -> float:
        """Open set: the share of enrolled probes that are missed, by score or by a place after `rank`,
        where a share `fpir` of the strangers raises an alarm."""
        return float(self._fnir(np.array([threshold_at_far(self.strangers, fpir)]), rank)[0])

    def curve(self, *, rank: int = 1) -> tuple[Floats, Floats]:
        """FPIR from one of the strangers to all of them, and `fnir_at_fpir` there."""
        count = len(self.strangers)
        return np.arange(1, count + 1) / count, self._fnir(thresholds(self.strangers)[1:], rank)

    def drawn(self, draws: int, seed: int = 0) -> Iterator[Searches]:
        """The searches when people are drawn anew, with replacement, each with all of their probes, and
        the strangers' pictures one by one. The same probes and seed give the same draws."""
        rng = np.random.default_rng(seed)
        _, person = np.unique(self.people, return_inverse=True)
        number = int(person.max()) + 1
        for _ in range(draws):
            times = np.bincount(rng.integers(0, number, number), minlength=number)
            probes = np.repeat(np.arange(len(person)), times[person])
            strangers = rng.integers(0, len(self.strangers), len(self.strangers))
            yield Searches(
                self.people[probes], self.own[probes], self.rank[probes], self.strangers[strangers]
            )

    def _fnir(self, levels: Floats, rank: int) -> Floats:
        """The share of probes missed at each of these thresholds."""
        found = np.sort(self.own[self.rank <= rank])
        return np.asarray(1 - (len(found) - np.searchsorted(found, levels)) / len(self.own), np.float64)


def identification(
    searches: Searches,
    *,
    ranks: tuple[int, ...],
    fpirs: tuple[float, ...],
    within: int,
    draws: int,
    seed: int = 0,
) -> dict[str, Figure]:
    """rank1 and so on, and fnir_at_fpir_1e-2 and so on of probes found `within` so many pictures, for the
    rates that are at least one of the strangers."""
    told = [fpir for fpir in fpirs if measurable(fpir, len(searches.strangers))]
    suffix = f"_within_rank{within}" if within > 1 else ""

    def values(some: Searches) -> dict[str, float]:
        found = {f"rank{rank}": some.rank_rate(rank) for rank in ranks}
        for fpir in told:
            found[f"fnir_at_fpir_{short(fpir)}{suffix}"] = some.fnir_at_fpir(fpir, rank=within)
        return found

    return with_draws(values(searches), [values(some) for some in searches.drawn(draws, seed)])


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
    return Searches(probe_people, own, rank, highest)
