"""Figures of merit for the scores of pairs, with intervals.

Scores are cosine similarities, higher is better; a pair is accepted when its score is at least the
threshold. Intervals are 95 % percentile bootstraps that draw identities, not pairs: the pairs of one
person are not independent of each other. Where nobody knows who the people are (insightface's .bin
files) pairs are drawn, and the intervals are too narrow if people come in several. The same pairs and
seed give the same draws, so that figures of two recognizers can be subtracted draw by draw.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_fr.errors import InputError

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Numbers = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Figure:
    """A value, and what it would have been in each of the bootstrap's draws (D,)."""

    value: float
    draws: Floats

    @property
    def interval(self) -> tuple[float, float]:
        """Where 95 % of the draws lie."""
        low, high = np.percentile(self.draws, [2.5, 97.5])
        return float(low), float(high)

    def __sub__(self, base: Figure) -> Figure:
        """The paired difference: both need the same draws."""
        return Figure(self.value - base.value, self.draws - base.draws)

    def __truediv__(self, base: Figure) -> Figure:
        """The paired ratio; a draw in which the base is 0 counts as no change."""
        same = base.draws == 0
        draws = np.where(same, 1.0, self.draws / np.where(same, 1.0, base.draws))
        return Figure(self.value / base.value if base.value else 1.0, draws)


@dataclass(frozen=True, eq=False)
class Pairs:
    """Scored pairs: `scores` (P,), `same` (P,) whether both are one person, `people` (P, 2) identity
    numbers or None where nobody knows them, `folds` (P,) of the cross-validation or None."""

    scores: Floats
    same: Flags
    people: Numbers | None
    folds: Numbers | None

    def __post_init__(self) -> None:
        if not np.isfinite(self.scores).all():
            raise InputError(f"{np.count_nonzero(~np.isfinite(self.scores))} scores are no finite numbers")
        if 0 in (self.genuine, self.impostors):
            raise InputError(
                f"{self.genuine} of {len(self.same)} pairs show one person twice, expected pairs of one "
                f"person and pairs of two"
            )

    @property
    def genuine(self) -> int:
        """How many show one person."""
        return int(np.count_nonzero(self.same))

    @property
    def impostors(self) -> int:
        """How many show two people."""
        return len(self.same) - self.genuine


@dataclass(frozen=True, eq=False)
class Accepted:
    """How many `impostors` and `genuine` pairs (K + 1,) score at least as high as each of K distinct
    scores, from the highest down; first of all none."""

    impostors: Floats
    genuine: Floats

    def roc(self) -> tuple[Floats, Floats]:
        """The shares of impostor and of genuine pairs accepted, from no score to all of them."""
        return self.impostors / self.impostors[-1], self.genuine / self.genuine[-1]

    def tar_at_far(self, far: float) -> float:
        """The share of genuine pairs accepted where at most a share `far` of the impostor pairs is."""
        allowed = np.floor(far * self.impostors[-1] + 1e-9)
        at = np.searchsorted(self.impostors, allowed, side="right") - 1
        return float(self.genuine[at] / self.genuine[-1])

    def auc(self) -> float:
        """The probability that a genuine pair scores above an impostor pair, ties counted half."""
        far, tar = self.roc()
        return float((np.diff(far) * (tar[1:] + tar[:-1])).sum() / 2)


class Ranked:
    """Scored pairs in descending order of score, equal scores together: every figure is a sum over them.

    `weights` (P,), in the order of the pairs, says how often each pair counts.
    """

    def __init__(self, pairs: Pairs) -> None:
        self._order = np.argsort(-pairs.scores, kind="stable")
        scores = pairs.scores[self._order]
        self._same = pairs.same[self._order]
        self._folds = None if pairs.folds is None else pairs.folds[self._order]
        self._ends = np.flatnonzero(np.r_[scores[1:] != scores[:-1], True])
        self.scores = scores[self._ends]  # the distinct ones

    def accepted(self, weights: Floats) -> Accepted:
        """The pairs that reach each distinct score."""
        ordered = weights[self._order]
        genuine = self._cumulated(np.where(self._same, ordered, 0.0))
        return Accepted(self._cumulated(np.where(self._same, 0.0, ordered)), genuine)

    def auc(self, weights: Floats) -> float:
        """`Accepted.auc`, where nothing else is asked for."""
        return self.accepted(weights).auc()

    def accuracy(self, weights: Floats) -> float:
        """Cross-validated accuracy: each fold is judged at the threshold that is best on the others,
        midway between the two of their scores that it separates."""
        assert self._folds is not None
        ordered = weights[self._order]
        right = 0.0
        for fold in np.unique(self._folds):
            held = self._folds == fold
            accepted = self._count(self._threshold(np.where(held, 0.0, ordered)))
            correct = np.where(np.arange(len(held)) < accepted, self._same, ~self._same)
            right += float((ordered * (held & correct)).sum())
        return right / float(weights.sum())

    def _threshold(self, ordered: Floats) -> float:
        gain = self._cumulated(np.where(self._same, ordered, -ordered))
        seen = self._cumulated(ordered)
        at = int(gain.argmax())  # how many distinct scores are accepted
        after = int(np.searchsorted(seen, seen[at], side="right"))  # the next one that occurs here
        if after > len(self.scores):
            return float(self.scores[at - 1]) - 1e-6
        below = float(self.scores[after - 1])
        return (float(self.scores[at - 1]) + below) / 2 if at else below + 1e-6

    def _count(self, threshold: float) -> int:
        """How many pairs reach the threshold."""
        distinct = int(np.searchsorted(-self.scores, -threshold, side="right"))
        return int(self._ends[distinct - 1]) + 1 if distinct else 0

    def _cumulated(self, ordered: Floats) -> Floats:
        """The sums over the pairs that reach each distinct score, from none to all."""
        return np.concatenate([[0.0], np.cumsum(ordered)[self._ends]])


def verification(
    pairs: Pairs, *, fars: tuple[float, ...] = (1e-2, 1e-3), draws: int = 400, seed: int = 0
) -> dict[str, Figure]:
    """auc, tar_at_far_1e-2 and so on, and accuracy where the pairs have folds.

    A FAR that is less than one of the impostor pairs is left out: the TAR there would be the one without
    any false accept.
    """
    ranked = Ranked(pairs)
    told = [far for far in fars if measurable(far, pairs.impostors)]

    def values(weights: Floats) -> dict[str, float]:
        accepted = ranked.accepted(weights)
        found = {"auc": accepted.auc()}
        for far in told:
            found[f"tar_at_far_{short(far)}"] = accepted.tar_at_far(far)
        if pairs.folds is not None:
            found["accuracy"] = ranked.accuracy(weights)
        return found

    drawn = [values(weights) for weights in bootstrap(pairs.people, pairs.same, draws, seed)]
    return with_draws(values(np.ones(len(pairs.scores))), drawn)


def with_draws(values: dict[str, float], drawn: list[dict[str, float]]) -> dict[str, Figure]:
    """Values by name, and what they were in each draw."""
    return {name: Figure(value, np.array([draw[name] for draw in drawn])) for name, value in values.items()}


def measurable(rate: float, attempts: int) -> bool:
    """Whether the rate is at least one of so many attempts; a lower one cannot be told from none."""
    return rate * attempts > 1 - 1e-9  # 1e-9: the product is rounded


def bootstrap(people: Numbers | None, same: Flags, draws: int, seed: int) -> Iterator[Floats]:
    """How often each of the pairs counts when people are drawn anew, with replacement: (P,) a draw.

    A pair of two people counts as often as both of them came together, a pair of one person as often
    as that person came. Where people are not known the pairs themselves are drawn. A draw without any
    genuine or without any impostor pair is drawn again.
    """
    rng = np.random.default_rng(seed)
    number = len(same) if people is None else int(people.max()) + 1
    for _ in range(draws):
        while True:
            counts = np.bincount(rng.integers(0, number, number), minlength=number).astype(np.float64)
            if people is None:
                weights = counts
            else:
                first = counts[people[:, 0]]
                weights = np.where(same, first, first * counts[people[:, 1]])
            if weights[same].any() and weights[~same].any():
                break
        yield weights


def threshold_at_far(impostors: Floats, far: float) -> float:
    """The lowest threshold that no more than a share `far` of the impostor scores reaches."""
    return float(thresholds(impostors)[int(far * len(impostors) + 1e-9)])


def thresholds(impostors: Floats) -> Floats:
    """(N + 1,) the lowest threshold that no more than k of N scores reach, for k from 0 to N; where all
    of them may, it is the lowest score."""
    worst = np.sort(impostors)[::-1]
    return np.append(np.nextafter(worst, np.inf), worst[-1])


def short(rate: float) -> str:
    """A rate as the names of figures have it: 1e-2."""
    return f"{rate:.0e}".replace("e-0", "e-")


def spearman(a: Floats, b: Floats) -> float:
    """Rank correlation of two (N,) columns, ties given their mean rank."""

    def ranks(x: Floats) -> Floats:
        _, inverse, counts = np.unique(x, return_inverse=True, return_counts=True)
        return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[inverse], np.float64)

    return float(np.corrcoef(ranks(a), ranks(b))[0, 1])
