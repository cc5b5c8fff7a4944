"""The score that a name takes, so that strangers get one no oftener than was asked for.

`NameThreshold` puts together what the model's card tells (which scores different people reach, at a single
look and in a whole track, by recognizability) and what the gallery's own people tell of each other.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from statistics import NormalDist
from typing import NamedTuple

from edge_fr.engine import ModelCard
from edge_fr.errors import CardError
from edge_fr.gallery.cohort import Cohort, gumbel
from edge_fr.gallery.thresholds import Scores, score_threshold

_ALIKE = 10.0  # pairs of people who look alike reach a score so many times oftener, if the card does not tell
_TRACK = 3.0  # and so many times oftener a stranger's track gets a name than a single look at the stranger
_PRIOR_PEOPLE = 3  # that people are alike counts against what the gallery says as so many people do
_PRIOR_OTHERS = 4  # and the gallery's mean score against that of a probe with the others
_FIRST_LOOKS = 16
_FIRST_SHARE = 0.75


def spent_share(looks: int) -> float:
    """The part of a track's budget of false names that it may spend at its look of that number.

    Every look is another chance of a false name. The first 16 together get three quarters of what was asked
    for, the next 16 an eighth, the 32 after them a sixteenth, and so on: never more than all of it, however
    long a track is waited for. `test_names` adds it up.
    """
    stretch = max(0, math.ceil(math.log2(max(looks, 1) / _FIRST_LOOKS)))
    return _FIRST_SHARE if stretch == 0 else (1 - _FIRST_SHARE) / 2**stretch


class _Band(NamedTuple):
    least_ri: float
    scores: Scores


class NameThreshold:
    """The score (cosine, inclusive >=) that a name takes, if `target_fpir` (0..1) of strangers may get one.

    It is the larger of two: what the card says of random people, and, counted from the mean score of this
    probe with the gallery's people, what these people say of each other (`Cohort`). Fewer than 20 say it by
    their mean and deviation, and the fewer they are, the more they are taken to be alike. From 20 on, the
    best scores of each of them say it, too, and the less strict of the two counts. Both together were
    measured on galleries of one origin and of random people (`python -m tests.bench.promise`).
    Raises CardError for a card without usable tables.
    """

    def __init__(self, card: ModelCard, target_fpir: float) -> None:
        score_threshold(card, target_fpir, 1)  # refuses a wrong target or card
        self.target_fpir = target_fpir
        self._random = Scores.of(card, card.impostor_scores)
        self._looks = _bands(card, "look", self._random, 1.0)
        self._tracks = _bands(card, "track", self._random, _TRACK)
        alike = card.impostor_bands.get("alike")
        self._alike = _rarer(self._random, _ALIKE) if alike is None else Scores.of(card, alike)
        self._mean, self._spread = _normal(self._random, (card.embedding_size or 1) ** -0.5)
        self._of_card = lru_cache(maxsize=256)(self._tables)

    def look(self, cohort: Cohort, *, ri: float | None = None, others: float | None = None) -> float:
        """For a single picture of recognizability `ri`; `others` is as in `Matches`."""
        return self._needed(cohort, self._looks, self.target_fpir, ri, others)

    def claim(self, cohort: Cohort, *, ri: float | None = None, others: float | None = None) -> float:
        """For a single picture of somebody who claims to be one person: whoever tries that looks alike."""
        alone = replace(cohort, top=None, top_spread=None)  # the best of all people's scores does not count
        needed = self._needed(alone, self._looks, self.target_fpir, ri, others, compared=1)
        return max(needed, self._of_card(_of(self._looks, ri), self.target_fpir, 1)[1])

    def track(
        self, cohort: Cohort, *, looks: int, ri: float | None = None, others: float | None = None
    ) -> float:
        """For the fused `looks` of a track, of the mean recognizability `ri`."""
        return self._needed(cohort, self._tracks, self.target_fpir * spent_share(looks), ri, others)

    def _needed(
        self,
        cohort: Cohort,
        bands: tuple[_Band, ...],
        target: float,
        ri: float | None,
        others: float | None,
        *,
        compared: int | None = None,
    ) -> float:
        people = max(cohort.people, 1)
        card, harder, random = self._of_card(_of(bands, ri), target, compared or people)
        if cohort.mean is None or others is None:
            return min(max(card, harder), 1.0)
        ground = ((people - 1) * others + _PRIOR_OTHERS * cohort.mean) / (people - 1 + _PRIOR_OTHERS)
        spread = max(cohort.spread or 0.0, self._spread)
        own = ground + spread / self._spread * (card - self._mean)
        if cohort.top is None or cohort.top_spread is None:
            own = (people * own + _PRIOR_PEOPLE * harder) / (people + _PRIOR_PEOPLE)
        else:
            # the maxima are of good pictures, card - random is what a track, or a poor look, adds
            own = min(own, ground + cohort.top + cohort.top_spread * gumbel(1 - target) + card - random)
        return min(max(card, own), 1.0)

    def _tables(self, scores: Scores, target: float, people: int) -> tuple[float, float, float]:
        """The scores for random people, for people alike, and for single good looks at random people."""
        card, alike, random = (
            table.threshold(target, people).score for table in (scores, self._alike, self._random)
        )
        return card, card + max(0.0, alike - random), random


def _of(bands: tuple[_Band, ...], ri: float | None) -> Scores:
    """The table for a recognizability."""
    return next((band.scores for band in bands if ri is None or ri >= band.least_ri), bands[-1].scores)


def _normal(random: Scores, usual_spread: float) -> tuple[float, float]:
    """Mean and deviation of the pairs behind a table, by its two most frequent rates.

    Of embeddings that point anywhere the deviation would be `usual_spread`; it is not taken for less than
    half of that, and for as much where there is one rate alone.
    """
    deviations = [NormalDist().inv_cdf(1 - min(10**rate, 0.5)) for rate in random.rates[-2:]]
    spread = usual_spread
    if len(deviations) == 2 and deviations[0] > deviations[1]:
        spread = max((random.scores[-2] - random.scores[-1]) / (deviations[0] - deviations[1]), spread / 2)
    return random.scores[-1] - deviations[-1] * spread, spread


def _bands(card: ModelCard, kind: str, random: Scores, factor: float) -> tuple[_Band, ...]:
    """The card's tables of that kind, the best recognizability first; the random pairs' if it has none."""
    bands = []
    for name, table in card.impostor_bands.items():
        if name.startswith(f"{kind} ri>="):
            scores = _continued(Scores.of(card, table), random)
            bands.append(_Band(least_ri(card, name.removeprefix(f"{kind} ")), scores))
    return tuple(sorted(bands, reverse=True)) or (_Band(0.0, _rarer(random, factor)),)


def _continued(scores: Scores, random: Scores) -> Scores:
    """The table with the rates that were measured on random pairs alone: as much above these as before."""
    above = scores.scores[0] - random.threshold(10 ** scores.rates[0], 1).score
    rarer = [(rate, score + above) for rate, score in zip(random.rates, random.scores, strict=True)]
    rarer = [point for point in rarer if point[0] < scores.rates[0] - 1e-9]
    rates, values = (tuple(point[i] for point in rarer) for i in (0, 1))
    return Scores(scores.card_name, rates + scores.rates, tuple(min(v, 1.0) for v in values) + scores.scores)


def least_ri(card: ModelCard, band: str) -> float:
    """The 0.5 of a band's name "ri>=0.5"; CardError for another form."""
    try:
        return float(band.removeprefix("ri>="))
    except ValueError:
        raise CardError(
            f'model card of {card.name!r}: {band!r} is no band, expected a name such as "ri>=0.5"; '
            f"`python -m calibration.impostor_scores` writes them"
        ) from None


def _rarer(scores: Scores, factor: float) -> Scores:
    """The table of pairs that reach each score `factor` times oftener; one rate alone has no trend."""
    if len(scores.rates) == 1:
        return scores
    return Scores(scores.card_name, tuple(rate + math.log10(factor) for rate in scores.rates), scores.scores)


def _by_ri(card: ModelCard, scores: dict[str, float]) -> list[tuple[float, float]]:
    """Least recognizabilities and their scores, the best first."""
    return sorted(((least_ri(card, band), score) for band, score in scores.items()), reverse=True)


def belonging(card: ModelCard) -> Callable[[float | None], float]:
    """The score that a look needs with the looks before it in its track to be of the same person, by the
    lesser recognizability of the two.

    It is the card's `continuity_scores`, which one in 1,000 of one person's looks misses, but not more than
    hardly any stranger reaches, one random pair in 10,000; for a card without them, the score that one random
    pair in 100 reaches.
    """
    enough = score_threshold(card, 1e-4, 1).score
    bands = sorted(
        ((least_ri(card, band), score) for band, score in card.continuity_scores.items()), reverse=True
    )
    if not bands:
        bands = [(0.0, score_threshold(card, 0.01, 1).score)]

    def bound(ri: float | None) -> float:
        score = next((score for least, score in bands if ri is None or ri >= least), bands[-1][1])
        return min(score, enough)

    return bound


def genuine_bound(card: ModelCard, ri: float | None) -> float:
    """The score that one in 20 looks of that recognizability misses with another picture of the same person;
    infinity where the card does not tell: then no score speaks for anybody."""
    bands = sorted(
        ((least_ri(card, band), score) for band, score in card.genuine_scores.items()), reverse=True
    )
    lowest = bands[-1][1] if bands else math.inf
    return next((score for least, score in bands if ri is None or ri >= least), lowest)
