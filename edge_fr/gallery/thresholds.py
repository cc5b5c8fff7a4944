"""From "one stranger in so many may be called by a name" to the score that random pairs promise it at.

A search compares one probe with N people. If each comparison of different people reaches the threshold
with probability FMR, and the comparisons are independent, then

    FPIR = 1 - (1 - FMR)^N        (Grother, Ngan, Hanaoka: FRVT Part 2, Identification, NISTIR 8271)

FPIR (false-positive identification rate) is the share of strangers' searches that return anybody. The
table of a model's card says which score pairs of different people reach how often. They are random pairs,
which is not what a site sees: `edge_fr.gallery.names` goes on from here.
"""

from __future__ import annotations

import math
import sys
from bisect import bisect_right
from dataclasses import dataclass
from itertools import pairwise

from edge_fr.engine import ModelCard
from edge_fr.errors import CardError, InputError

_MEASURE = "`python -m calibration.impostor_scores` measures them and writes them into the card"


@dataclass(frozen=True, slots=True)
class Threshold:
    """The score (cosine, inclusive >=) that meets `target_fpir` in a gallery of `gallery_size`.

    `extrapolated` says that the needed false-match rate is rarer than any the card's pairs could
    measure, so that `score` continues the trend of the two rarest measured rates. Measured tails fall
    off faster than that straight line, so it tends to be too strict rather than too loose.
    """

    score: float
    target_fpir: float
    gallery_size: int
    extrapolated: bool


def score_threshold(card: ModelCard, target_fpir: float, gallery_size: int) -> Threshold:
    """The match threshold of an embedder for a false-positive rate (0..1) at a gallery size.

    `gallery_size` counts comparisons, hence people (`len(gallery)`); an empty gallery counts as 1. Between
    measured rates the score is linear in log10(rate). A rate more frequent than every measured one takes the
    score of the most frequent, which is stricter than asked. A score of 1.0 means that the target is out of
    this model's reach: not even the enrolled picture itself matches.
    Raises CardError when the card has no usable `impostor_scores`, InputError for an impossible target.
    """
    return Scores.of(card, card.impostor_scores).threshold(target_fpir, gallery_size)


@dataclass(frozen=True, slots=True)
class Scores:
    """A table of a card: log10 of false-match rates, rising, and the scores that go with them, falling."""

    card_name: str
    rates: tuple[float, ...]
    scores: tuple[float, ...]

    def threshold(self, target_fpir: float, gallery_size: int) -> Threshold:
        """As `score_threshold` says."""
        if not 0.0 < target_fpir < 1.0:
            raise InputError(
                f"target_fpir is {target_fpir!r}, expected more than 0 and less than 1, such as 0.01"
            )
        if gallery_size < 0:
            raise InputError(f"gallery_size is {gallery_size!r}, expected a number of people, 0 or more")
        # 1 - (1 - fpir)^(1/N), written so that it keeps its digits when it is tiny
        rate = -math.expm1(math.log1p(-target_fpir) / max(gallery_size, 1))
        wanted = math.log10(max(rate, sys.float_info.min))
        if abs(wanted - self.rates[0]) < 1e-9:  # the rarest measured rate itself, but for rounding
            wanted = self.rates[0]
        right = bisect_right(self.rates, wanted)  # the first measured rate that is more frequent
        if right == len(self.rates):
            return Threshold(self.scores[-1], target_fpir, gallery_size, extrapolated=False)
        if right == 0 and len(self.rates) == 1:
            raise CardError(
                f"model card of {self.card_name!r}: a gallery of {gallery_size} at target_fpir "
                f"{target_fpir:g} needs the score of the false-match rate {10**wanted:.1e}, but "
                f"impostor_scores has only "
                f"{10 ** self.rates[0]:.1e}; {_MEASURE}"
            )
        left = max(right - 1, 0)
        slope = (self.scores[left + 1] - self.scores[left]) / (self.rates[left + 1] - self.rates[left])
        score = self.scores[left] + slope * (wanted - self.rates[left])
        if right == 0:
            return Threshold(min(score, 1.0), target_fpir, gallery_size, extrapolated=True)
        # Rounding must not carry the score past the next measured one, or neighbours would change places.
        return Threshold(max(score, self.scores[right]), target_fpir, gallery_size, extrapolated=False)

    @classmethod
    def of(cls, card: ModelCard, table: dict[str, float]) -> Scores:
        """Checks a table of the card; CardError says what is wrong with it."""
        if not table:
            raise CardError(
                f"model card of {card.name!r} has no impostor_scores, so no threshold can be promised; "
                f"{_MEASURE}"
            )
        points: dict[float, float] = {}
        for text, score in table.items():
            try:
                rate = float(text)
            except ValueError:
                rate = math.nan
            if not 0.0 < rate <= 1.0:
                raise CardError(
                    f"model card of {card.name!r}: impostor_scores has the rate {text!r}, "
                    f'expected a number above 0 and up to 1, such as "1e-4"; {_MEASURE}'
                )
            if not isinstance(score, (int, float)) or not -1.0 <= score <= 1.0:
                raise CardError(
                    f"model card of {card.name!r}: impostor_scores at {text} is {score!r}, "
                    f"expected a cosine, -1 to 1; {_MEASURE}"
                )
            if math.log10(rate) in points:
                raise CardError(
                    f"model card of {card.name!r}: impostor_scores has the rate {text} twice; {_MEASURE}"
                )
            points[math.log10(rate)] = float(score)
        rates = sorted(points)
        scores = [points[rate] for rate in rates]
        if any(rarer < commoner for rarer, commoner in pairwise(scores)):
            raise CardError(
                f"model card of {card.name!r}: impostor_scores rise with the false-match rate, "
                f"expected rarer rates to need higher scores; {_MEASURE}"
            )
        return cls(card.name, tuple(rates), tuple(scores))
