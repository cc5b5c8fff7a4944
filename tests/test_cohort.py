"""What the people of a gallery tell of strangers: robust figures of their scores with each other."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from edge_fr.gallery.cohort import Cohort, gumbel

SIZE = 128


def people(count: int, common: float = 0.0, seed: int = 0) -> NDArray[np.float32]:
    """Random directions that share so much of one."""
    rows = np.random.default_rng(seed).standard_normal((count, SIZE)) / math.sqrt(SIZE)
    rows[:, 0] += common
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def test_few_people_tell_little() -> None:
    assert Cohort.of(people(0)) == Cohort(0)
    assert Cohort.of(people(1)) == Cohort(1)
    two = Cohort.of(people(2))
    assert two.mean == pytest.approx(float(people(2)[0] @ people(2)[1]), abs=1e-6)
    assert (two.spread, two.top) == (None, None)
    assert Cohort.of(people(19)).top is None
    assert Cohort.of(people(20)).top is not None


def test_mean_and_spread_are_those_of_the_pairs() -> None:
    rows = people(400, common=0.5)
    scores = (rows @ rows.T)[np.triu_indices(400, 1)]
    cohort = Cohort.of(rows)
    # median against mean, and deciles against deviation, of 79,800 nearly normal scores
    assert cohort.mean == pytest.approx(float(scores.mean()), abs=0.005)
    assert cohort.spread == pytest.approx(float(scores.std()), rel=0.1)
    assert cohort.mean is not None
    assert cohort.mean > 0.15


def test_one_person_under_two_names_moves_little() -> None:
    rows = people(60)
    double = np.concatenate([rows, rows[:3]])
    before, after = Cohort.of(rows), Cohort.of(double)
    for name in ("mean", "spread", "top", "top_spread"):
        assert getattr(after, name) == pytest.approx(getattr(before, name), abs=0.02)


def test_the_best_scores_have_the_distribution_that_is_fitted() -> None:
    cohort = Cohort.of(people(500))
    assert cohort.top is not None
    assert cohort.top_spread is not None
    strangers = people(4000, seed=1) @ people(500).T
    best = strangers.max(axis=1) - strangers.mean(axis=1)
    for share in (0.5, 0.9):
        bound = cohort.top + cohort.top_spread * gumbel(share)
        # a Gumbel tail is heavier than these people's, so it errs on the safe side, and by little here
        assert share - 0.05 < (best < bound).mean() < share + 0.1


def test_of_a_large_gallery_some_people_are_compared_and_the_rest_is_counted() -> None:
    small, large = Cohort.of(people(1024)), Cohort.of(people(5000))
    assert small.top is not None
    assert large.top is not None
    assert large.people == 5000
    # five times as many strangers to be like: higher best scores
    assert 0.02 < large.top - small.top < 0.08
