"""Figures of merit against their definitions, counted by hand or by brute force."""

from __future__ import annotations

import numpy as np
import pytest

from calibration.metrics import (
    Pairs,
    accuracy,
    auc,
    best_threshold,
    error_versus_discard,
    fnir_at_fpir,
    rank1,
    spearman,
    tar_at_far,
    threshold_at_far,
    verification,
)


def test_the_threshold_lets_no_more_impostors_through_than_allowed_even_with_ties() -> None:
    impostors = np.array([0.9, 0.5, 0.5, 0.5, *np.linspace(0, 0.4, 96)])
    for far in (0.01, 0.02, 0.03, 0.04, 0.1):
        threshold = threshold_at_far(impostors, far)
        assert (impostors >= threshold).mean() <= far
    assert 0.5 < threshold_at_far(impostors, 0.03) < 0.9  # three at 0.5 would be four in all


def test_tar_at_far_counts_the_genuine_pairs_above_that_threshold() -> None:
    scores = np.array([0.8, 0.6, 0.3, *np.linspace(0, 0.5, 100)])
    same = np.arange(len(scores)) < 3
    assert tar_at_far(scores, same, 0.01) == pytest.approx(2 / 3)


def test_auc_is_the_share_of_ordered_pairs_with_ties_counted_half() -> None:
    rng = np.random.default_rng(1)
    scores, same = rng.integers(0, 20, 300) / 20, rng.random(300) < 0.4
    wins = [(g > i) + 0.5 * (g == i) for g in scores[same] for i in scores[~same]]
    assert auc(scores, same) == pytest.approx(np.mean(wins))


def test_the_best_threshold_beats_every_other_one() -> None:
    rng = np.random.default_rng(2)
    scores, same = rng.normal(size=200), rng.random(200) < 0.5
    scores[same] += 1
    best = ((scores >= best_threshold(scores, same)) == same).mean()
    assert best == max(((scores >= t) == same).mean() for t in [*scores, scores.max() + 1])


def test_accuracy_never_uses_the_fold_it_judges() -> None:
    # in fold 0 the impostors score higher than the genuine pairs: a threshold learned there would fit it
    scores = np.array([0.1, 0.2, 0.8, 0.9, 0.8, 0.9, 0.1, 0.2])
    same = np.array([True, True, False, False, True, True, False, False])
    folds = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    people = np.zeros((8, 2), np.int64)
    # learned on fold 1, all of fold 0 is wrong; learned on fold 0 ("nothing matches"), half of fold 1 is
    assert accuracy(Pairs(scores, same, people, folds)) == pytest.approx(2 / 8)


def test_intervals_hold_the_value_and_widen_when_there_are_fewer_people() -> None:
    rng = np.random.default_rng(3)

    def width(people: int) -> float:
        owner = rng.integers(0, people, (2000, 2))
        same = rng.random(2000) < 0.5
        owner[same, 1] = owner[same, 0]
        # some people are hard: their errors come together, which a bootstrap over pairs would not see
        ease = rng.normal(1, 0.8, people)
        scores = np.where(same, ease[owner[:, 0]], rng.normal(0, 0.3, 2000)) + rng.normal(0, 0.2, 2000)
        folds = rng.integers(0, 10, 2000)
        row = verification(Pairs(scores, same, owner, folds), draws=100)["tar_at_far_1e-2"]
        low, high = row["interval"]  # type: ignore[misc]
        assert low <= row["value"] <= high  # type: ignore[operator]
        return high - low

    assert width(20) > 1.5 * width(1000)


def test_rank_one_counts_probes_whose_best_identity_is_their_own() -> None:
    scores = np.array([[0.9, 0.1], [0.2, 0.3], [0.8, 0.7]])
    assert rank1(scores, np.array([5, 6, 6]), np.array([5, 6])) == pytest.approx(2 / 3)


def test_an_open_set_miss_is_a_wrong_rank_or_a_score_that_strangers_reach() -> None:
    strangers = np.array([[0.1, 0.2]] * 99 + [[0.5, 0.1]])
    mated = np.array([[0.9, 0.1], [0.9, 0.1], [0.3, 0.1]])
    people, gallery = np.array([0, 1, 0]), np.array([0, 1])
    assert fnir_at_fpir(mated, people, gallery, strangers, 0.01) == pytest.approx(1 / 3)
    assert fnir_at_fpir(mated, people, gallery, strangers, 0.001) == pytest.approx(2 / 3)


def test_discarding_by_a_good_quality_removes_the_errors_and_by_a_useless_one_does_not() -> None:
    rng = np.random.default_rng(4)
    genuine = rng.uniform(0, 1, 5000)
    shares, good = error_versus_discard(genuine, genuine, 0.2)
    _, useless = error_versus_discard(genuine, np.ones(5000), 0.2)
    assert shares[0] == 0
    assert shares[-1] == 0.5
    assert good[0] == useless[0] == pytest.approx((genuine < 0.2).mean())
    assert good[shares > 0.21].max() == 0
    # 2,500 pairs are left at the end: three standard errors of a share of 0.2 are 0.024
    assert useless[-1] == pytest.approx(useless[0], abs=0.024)


def test_rank_correlation_ignores_any_monotone_change_of_scale() -> None:
    x = np.random.default_rng(5).normal(size=100)
    assert spearman(x, np.exp(3 * x)) == pytest.approx(1)
    assert spearman(x, -(x**3)) == pytest.approx(-1)
