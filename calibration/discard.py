"""Error-versus-discard curves: what a quality score is worth to somebody who may refuse pictures.

The genuine comparisons with the lowest quality are discarded, and the false non-match rate (FNMR) of
those that are left is read, at a threshold that stays where it was. The quality of a comparison is the
lower one of its two pictures. The area of a curve is its mean height over discarded shares from 0 to
LARGEST_SHARE: for a score that says nothing it is the rate before discarding, and the least it can be is
that of discarding the failures first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from calibration.metrics import Figure, Flags, Floats, Pairs, bootstrap, threshold_at_far

DISCARD_FAR = 1e-2  # sets the threshold, over the pairs of all conditions together
LARGEST_SHARE = 0.5
SHARES: Floats = np.linspace(0, LARGEST_SHARE, 51)


@dataclass(frozen=True, eq=False)
class Discard:
    """The FNMR `rates` (51,) at SHARES, and the area below them."""

    rates: Floats
    area: Figure

    def rate_at(self, share: float) -> float:
        """The FNMR when that share is discarded."""
        return float(np.interp(share, SHARES, self.rates))


def discards(
    pairs: Sequence[Pairs], qualities: Sequence[dict[str, Floats]], draws: int
) -> tuple[dict[str, Discard], dict[str, Figure]]:
    """By quality score the curve over the genuine pairs of all conditions together, and the ratio of the
    ri curve's area to it.

    Each condition has the same pairs, and in `qualities` the scores of the genuine ones.
    """
    same = pairs[0].same
    threshold = threshold_at_far(np.concatenate([p.scores[~same] for p in pairs]), DISCARD_FAR)
    genuine = np.concatenate([p.scores[same] for p in pairs])
    weights = [row[same] for row in bootstrap(pairs[0].people, same, draws, seed=0)]
    by_score = {name: np.concatenate([quality[name] for quality in qualities]) for name in qualities[0]}
    # What no score can do better than: the failures have the lowest quality.
    by_score["oracle"] = (genuine >= threshold).astype(np.float64)
    curves = {
        name: error_versus_discard(genuine < threshold, quality, weights)
        for name, quality in by_score.items()
    }
    if "ri" not in curves:
        return curves, {}
    areas = {name: curve.area for name, curve in curves.items() if name not in ("ri", "oracle")}
    return curves, {name: curves["ri"].area / area for name, area in areas.items()}


def error_versus_discard(failed: Flags, quality: Floats, weights: Sequence[Floats]) -> Discard:
    """The curve of (P,) genuine comparisons. `weights` has for each draw how often each counts: (P,), or
    (P / C,) where the comparisons are the same ones under C conditions, one condition after the other.

    Ties are discarded in an order drawn once, so that a score with few values neither gains nor loses
    by the order of the data.
    """
    order = np.lexsort((np.random.default_rng(0).random(len(quality)), quality))
    failed = failed[order]
    rates = _rates(failed, np.ones(len(failed)))
    # Repeated here, a draw at a time: together they would take as often the memory as there are conditions.
    repeated = (np.tile(row, len(failed) // len(row)) for row in weights)
    draws = np.array([_area(_rates(failed, row[order])) for row in repeated])
    return Discard(rates, Figure(_area(rates), draws))


class Reliability(NamedTuple):
    """Of the genuine comparisons with a quality in [low, high): how many there are, and the share matched."""

    low: float
    high: float
    pairs: int
    matched: float


def reliability(scores: Floats, quality: Floats, threshold: float) -> list[Reliability]:
    """What a quality score (0..1) promises, in tenths of its range; empty tenths are left out."""
    rows = []
    for tenth in range(10):
        low, high = tenth / 10, (tenth + 1) / 10
        here = (quality >= low) & ((quality < high) if tenth < 9 else (quality <= high))
        if here.any():
            rows.append(Reliability(low, high, int(here.sum()), float((scores[here] >= threshold).mean())))
    return rows


def _rates(failed: Flags, weights: Floats) -> Floats:
    """The rates at SHARES of comparisons in ascending order of quality; only whole ones are discarded."""
    count = np.r_[0.0, np.cumsum(weights)]
    errors = np.r_[0.0, np.cumsum(weights * failed)]
    cut = np.searchsorted(count, SHARES * count[-1] + 1e-9, side="right") - 1  # 1e-9: a share is rounded
    return np.asarray((errors[-1] - errors[cut]) / (count[-1] - count[cut]), np.float64)


def _area(rates: Floats) -> float:
    return float((rates[1:] + rates[:-1]).mean() / 2)  # trapezoids of equal width
