"""Figures of merit for scores of pairs, for identification, and for quality scores.

Scores are cosine similarities, higher is better; a pair is accepted when its score is at least the
threshold. Intervals are 95 % percentile bootstraps that draw identities, not pairs: the pairs of one
person are not independent of each other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Pairs:
    """Scored pairs: `scores` (P,), `same` (P,) whether both are one person, `people` (P, 2) identity
    numbers, `folds` (P,) numbers of the cross-validation folds."""

    scores: Floats
    same: Flags
    people: NDArray[np.int64]
    folds: NDArray[np.int64]


def threshold_at_far(impostors: Floats, far: float) -> float:
    """The lowest threshold that no more than a share `far` of the impostor scores reaches."""
    allowed = int(far * len(impostors) + 1e-9)
    worst = np.sort(impostors)[::-1]
    return float(np.nextafter(worst[allowed], np.inf)) if allowed < len(worst) else float(worst[-1])


def tar_at_far(scores: Floats, same: Flags, far: float) -> float:
    """The share of genuine pairs accepted where a share `far` of the impostor pairs is."""
    return float((scores[same] >= threshold_at_far(scores[~same], far)).mean())


def auc(scores: Floats, same: Flags) -> float:
    """The probability that a genuine pair scores above an impostor pair, ties counted half."""
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    positives = int(same.sum())
    rank_sum = ranks[same].sum() - positives * (positives + 1) / 2
    return float(rank_sum / (positives * (len(same) - positives)))


def best_threshold(scores: Floats, same: Flags) -> float:
    """The threshold with the greatest accuracy, midway between the two scores it separates."""
    order = np.argsort(-scores, kind="stable")
    gains = np.r_[0, np.cumsum(np.where(same[order], 1, -1))]
    at = int(gains.argmax())
    ladder = np.r_[scores[order][0] + 1e-6, scores[order], scores[order][-1] - 1e-6]
    return float((ladder[at] + ladder[at + 1]) / 2)


def accuracy(pairs: Pairs) -> float:
    """Cross-validated accuracy: each fold is judged at the threshold that is best on the others."""
    right = 0
    for fold in np.unique(pairs.folds):
        held = pairs.folds == fold
        threshold = best_threshold(pairs.scores[~held], pairs.same[~held])
        right += int(((pairs.scores[held] >= threshold) == pairs.same[held]).sum())
    return right / len(pairs.scores)


def verification(pairs: Pairs, *, draws: int = 400, seed: int = 0) -> dict[str, dict[str, object]]:
    """accuracy, auc, tar_at_far_1e-2 and tar_at_far_1e-3, each {"value", "interval"}."""
    figures: dict[str, Callable[[Pairs], float]] = {
        "accuracy": accuracy,
        "auc": lambda p: auc(p.scores, p.same),
        "tar_at_far_1e-2": lambda p: tar_at_far(p.scores, p.same, 1e-2),
        "tar_at_far_1e-3": lambda p: tar_at_far(p.scores, p.same, 1e-3),
    }
    samples = list(_identity_draws(pairs, draws, seed))
    result: dict[str, dict[str, object]] = {}
    for name, figure in figures.items():
        low, high = np.percentile([figure(sample) for sample in samples], [2.5, 97.5])
        result[name] = {
            "value": round(figure(pairs), 5),
            "interval": [round(float(low), 5), round(float(high), 5)],
        }
    return result


def _identity_draws(pairs: Pairs, draws: int, seed: int):  # type: ignore[no-untyped-def]
    """Pairs as they would be with people drawn anew: a pair counts as often as both its people came."""
    rng = np.random.default_rng(seed)
    number = int(pairs.people.max()) + 1
    for _ in range(draws):
        counts = np.bincount(rng.integers(0, number, number), minlength=number)
        a, b = counts[pairs.people[:, 0]], counts[pairs.people[:, 1]]
        times = np.where(pairs.same, a, a * b)
        index = np.repeat(np.arange(len(times)), times)
        yield Pairs(pairs.scores[index], pairs.same[index], pairs.people[index], pairs.folds[index])


def rank1(scores: Floats, probe_people: NDArray[np.int64], gallery_people: NDArray[np.int64]) -> float:
    """Closed-set identification: the share of (P,) probes whose best of (P, G) scores is their own."""
    return float((gallery_people[scores.argmax(axis=1)] == probe_people).mean())


def fnir_at_fpir(
    mated: Floats,
    probe_people: NDArray[np.int64],
    gallery_people: NDArray[np.int64],
    non_mated: Floats,
    fpir: float,
) -> float:
    """Open-set identification (ISO/IEC 19795-1): the share of enrolled probes that are missed, by rank
    or by threshold, where a share `fpir` of the people who are not enrolled raises an alarm."""
    threshold = threshold_at_far(non_mated.max(axis=1), fpir)
    right = gallery_people[mated.argmax(axis=1)] == probe_people
    return float(1 - (right & (mated.max(axis=1) >= threshold)).mean())


def error_versus_discard(
    genuine: Floats, quality: Floats, threshold: float, *, steps: int = 50, most: float = 0.5
) -> tuple[Floats, Floats]:
    """The false non-match rate of what is left when the share of lowest `quality` is discarded.

    `genuine` (P,) scores of genuine pairs, `quality` (P,) of each pair (the lower of its two).
    Returns (steps,) discarded shares from 0 to `most`, and the rates. Ties are discarded in an order
    drawn once, so that a constant score neither gains nor loses by the order of the data.
    """
    order = np.lexsort((np.random.default_rng(0).random(len(quality)), quality))
    errors = (genuine < threshold)[order].astype(np.float64)
    left = np.cumsum(errors[::-1])[::-1]  # errors among this pair and all better ones
    shares = np.linspace(0, most, steps)
    cut = np.minimum((shares * len(errors)).astype(int), len(errors) - 1)
    return shares, left[cut] / (len(errors) - cut)


def spearman(a: Floats, b: Floats) -> float:
    """Rank correlation of two (N,) columns, ties given their mean rank."""

    def ranks(x: Floats) -> Floats:
        _, inverse, counts = np.unique(x, return_inverse=True, return_counts=True)
        return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[inverse], np.float64)

    return float(np.corrcoef(ranks(a), ranks(b))[0, 1])
