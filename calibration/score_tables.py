"""The scores of a recognizer that thresholds rest on: of strangers, and of one person, at looks and tracks.

Pairs of random people tell how often strangers seem to be somebody. People who look alike do so oftener,
poor looks do, and so do whole tracks, of which the best moment counts. And of one person's looks these
tables tell how little they may be like the ones before, and like a picture of another day.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from calibration.metrics import short
from edge_fr.evidence import Evidence
from edge_fr.structures import Face

Floats = NDArray[np.float32]

FALSE_MATCH_RATES = (5e-1, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
MIN_PAIRS = 100  # rarer rates are left out: a few wrong names in the data would decide them
ALIKE_SHARE = 0.1  # of the others, those who look most like a person, where nobody says who is alike
RI_BANDS = (0.2, 0.35, 0.5, 0.7)  # least recognizabilities; what is below the first is no look
_ONE_IN_A_MILLION = 4.75  # deviations of a normal distribution
_LEAST_LOOKS = 2  # of a track that gets a name before the deadline
CONTINUITY_SHARE = 1e-3  # of one person's looks that may seem not to be the person's
GENUINE_SHARE = 0.05  # of one person's looks that the bound of `genuine_scores` may miss


@dataclass(frozen=True)
class Looks:
    """K drawn looks at each of N people: `vectors` (N, K, D), `ri` (N, K) or None."""

    vectors: Floats
    ri: Floats | None

    def __getitem__(self, people: slice) -> Looks:
        return Looks(self.vectors[people], None if self.ri is None else self.ri[people])

    def band(self, least: float, below: float) -> NDArray[np.bool_]:
        """(N, K): whose recognizability is in the band."""
        if self.ri is None:
            return np.ones(self.vectors.shape[:2], np.bool_)
        return (self.ri >= least) & (self.ri < below)


def table(scores: Floats) -> dict[str, float]:
    """For each false-match rate, the score that so many of the impostor `scores` reach or exceed; empty for
    fewer than 200 scores."""
    found = {}
    for rate in FALSE_MATCH_RATES:
        count = int(rate * scores.size)
        if count >= MIN_PAIRS:
            found[short(rate)] = round(float(np.partition(scores, -count)[-count]), 4)
    return found


def one_person(genuine: Floats, impostors: Floats) -> float:
    """The score from which a pair under two names is taken to be one person, infinity where nothing tells.

    Half of the `genuine` pairs, which are of one person, reach it, and of two people not one pair in a
    million would by chance.
    """
    if len(genuine) == 0:
        return float("inf")
    return max(float(np.median(genuine)), float(impostors.mean() + _ONE_IN_A_MILLION * impostors.std()))


def alike(vectors: Floats, limit: float) -> dict[str, float]:
    """The table of each person with the tenth of the others who look most alike; pairs from `limit` on are
    one person's."""
    scores = vectors @ vectors.T
    np.fill_diagonal(scores, -np.inf)
    scores[scores >= limit] = -np.inf
    count = max(1, round(ALIKE_SHARE * (len(scores) - 1)))
    nearest = np.partition(scores, -count, axis=1)[:, -count:]
    return table(nearest[np.isfinite(nearest)])


def bands(looks: Looks, vectors: Floats, own: NDArray[np.intp], limit: float) -> dict[str, dict[str, float]]:
    """The tables of single looks and of whole tracks, by recognizability, with good pictures (M, D) of
    everybody, of which `own` (N,) are those of the people looked at."""
    tables = {}
    best, ri = _tracks(looks, vectors)
    best[np.arange(len(own)), own] = -1
    for least, below in _bands(looks):
        chosen = looks.band(least, below)
        single = looks.vectors[chosen] @ vectors.T
        single[np.arange(len(single)), own[np.nonzero(chosen)[0]]] = -1
        track = best[(ri >= least) & (ri < below)]
        for kind, scores in (("look", single), ("track", track)):
            tables[f"{kind} ri>={least:g}"] = table(scores[(scores > -1) & (scores < limit)])
    return _in_order({name: found for name, found in tables.items() if found})


def _bands(looks: Looks) -> Sequence[tuple[float, float]]:
    return [(0.0, np.inf)] if looks.ri is None else list(pairwise((*RI_BANDS, np.inf)))


def _in_order(tables: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    """Tables in which less recognizability never needs less: what chance put otherwise is raised."""
    raised: dict[str, dict[str, float]] = {}
    better: dict[str, dict[str, float]] = {}
    for name in sorted(tables, reverse=True):
        kind = name.split()[0]
        before = better.get(kind, {})
        raised[name] = {rate: max(score, before.get(rate, -1.0)) for rate, score in tables[name].items()}
        better[kind] = raised[name]
    return raised


def _tracks(looks: Looks, others: Floats) -> tuple[Floats, Floats]:
    """The best score of each person's fused looks, from the second one on, with each of the others (N, M),
    -1 for tracks of fewer; and their mean recognizability (N,)."""
    best = np.full((len(looks.vectors), len(others)), -1.0, np.float32)
    ri = np.zeros(len(looks.vectors), np.float32)
    for n in range(len(looks.vectors)):
        evidence = Evidence()
        for face in _usable(looks, n):
            evidence.add(face)
            if evidence.looks >= _LEAST_LOOKS:
                np.maximum(best[n], others @ evidence.probe, out=best[n])
        ri[n] = evidence.ri or 0.0
    return best, ri


def _usable(looks: Looks, n: int) -> list[Face]:
    """The looks of a person that the gate would let pass, as the decider gets them."""
    ris = [None] * looks.vectors.shape[1] if looks.ri is None else [float(r) for r in looks.ri[n]]
    return [
        _face(vector, ri)
        for vector, ri in zip(looks.vectors[n], ris, strict=True)
        if ri is None or ri >= RI_BANDS[0]
    ]


def _face(vector: Floats, ri: float | None) -> Face:
    nowhere = np.zeros((5, 2), np.float32)
    return Face(nowhere[0], 1.0, nowhere, None, None, None, (), vector, ri, None)


def continuity(looks: Looks) -> dict[str, float]:
    """By the lesser recognizability of a look and the looks before it, the score that CONTINUITY_SHARE of
    one person's looks do not reach."""
    told: list[tuple[float, float]] = []
    for n in range(len(looks.vectors)):
        evidence = Evidence()
        for face in _usable(looks, n):
            if evidence.looks:
                known = [ri for ri in (face.ri, evidence.ri) if ri is not None]
                assert face.embedding is not None
                told.append((min(known, default=0.0), float(evidence.probe @ face.embedding)))
            evidence.add(face)
    return _lower_bounds(np.array(told, np.float32).reshape(-1, 2), CONTINUITY_SHARE, looks)


def genuine(looks: Looks, others: Floats) -> dict[str, float]:
    """By recognizability, the score that GENUINE_SHARE of the looks do not reach with another picture of the
    person: `others` (N, D), one each."""
    scores = np.einsum("nkd,nd->nk", looks.vectors, others).ravel()
    ri = np.zeros(scores.shape, np.float32) if looks.ri is None else looks.ri.ravel()
    return _lower_bounds(np.stack([ri, scores], axis=1), GENUINE_SHARE, looks)


def _lower_bounds(told: Floats, share: float, looks: Looks) -> dict[str, float]:
    """The score that a share of the (ri, score) rows of each band misses; bands with too few rows to tell are
    left to the band below."""
    bounds = {}
    for least, below in _bands(looks):
        scores = told[(told[:, 0] >= least) & (told[:, 0] < below), 1]
        if len(scores) * share >= 1:
            bounds[f"ri>={least:g}"] = round(float(np.quantile(scores, share)), 4)
    return bounds
