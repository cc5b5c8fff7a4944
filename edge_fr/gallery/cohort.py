"""What the people of a gallery, compared with each other, tell of the strangers they will be compared with.

The people of one site are alike: one origin, one sex, one age, or a family. A stranger who comes by is
often like them, too, and reaches higher scores than the random pairs that a model's card was measured on
("Score Normalization for Text-Independent Speaker Verification Systems", Auckenthaler, Carey and
Lloyd-Thomas 2000, has the idea of a cohort: here the gallery itself is it).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_MOST_COMPARED = 1024  # people; their pairs take 15 ms
_DECILES = 2.563  # of a normal distribution, so many deviations apart
ENOUGH_FOR_MAXIMA = 20  # people, from which the distribution of each one's best score is fitted


@dataclass(frozen=True, slots=True)
class Cohort:
    """The scores of a gallery's people with each other, by measures that a few pairs of one person under two
    names do not move.

    `mean` is their median and `spread` their deviation around each person's own mean; None for fewer than
    two, and three, people. `top` and `top_spread` are location and scale of the Gumbel distribution of a
    person's best score above the person's own mean, among `people` others; None for fewer than 20.
    """

    people: int
    mean: float | None = None
    spread: float | None = None
    top: float | None = None
    top_spread: float | None = None

    @classmethod
    def of(cls, templates: NDArray[np.float32]) -> Cohort:
        """Compares the (N, D) templates of unit length, one a person; of more than 1,024, as many."""
        people = len(templates)
        if people < 2:
            return cls(people)
        chosen = templates[np.linspace(0, people - 1, min(people, _MOST_COMPARED)).astype(int)]
        scores = (chosen @ chosen.T).astype(np.float64)
        pairs = ~np.eye(len(chosen), dtype=np.bool_)
        own_means = (scores.sum(axis=1) - np.diag(scores)) / (len(chosen) - 1)
        mean = float(np.median(scores[pairs]))
        if people < 3:
            return cls(people, mean)
        low, high = np.quantile((scores - own_means[:, None])[pairs], [0.1, 0.9])
        spread = float(high - low) / _DECILES
        if people < ENOUGH_FOR_MAXIMA:
            return cls(people, mean, spread)
        leads = np.where(pairs, scores, -np.inf).max(axis=1) - own_means
        low, middle, high = np.quantile(leads, [0.25, 0.5, 0.75])
        scale = float(high - low) / (gumbel(0.75) - gumbel(0.25))
        top = float(middle) - scale * gumbel(0.5) + scale * math.log(people / len(chosen))
        return cls(people, mean, spread, top, scale)


def gumbel(share: float) -> float:
    """The value that so large a share (0..1) of the standard Gumbel distribution lies below."""
    return -math.log(-math.log(share))
