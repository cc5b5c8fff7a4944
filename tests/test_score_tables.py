"""The tables that thresholds rest on: strangers at looks and tracks, and how alike one person's looks are."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from calibration.score_tables import (
    ALIKE_SHARE,
    CONTINUITY_SHARE,
    GENUINE_SHARE,
    Looks,
    alike,
    bands,
    continuity,
    genuine,
    one_person,
    table,
)

SIZE = 32


def unit(rows: NDArray[np.float64]) -> NDArray[np.float32]:
    return np.asarray(rows / np.linalg.norm(rows, axis=-1, keepdims=True), np.float32)


def people(count: int, seed: int = 0) -> NDArray[np.float32]:
    return unit(np.random.default_rng(seed).standard_normal((count, SIZE)))


def looks_at(vectors: NDArray[np.float32], count: int, noise: float, ri: float | None = None) -> Looks:
    """Looks that lie around each person's vector."""
    rng = np.random.default_rng(1)
    scattered = vectors[:, None] + noise * unit(rng.standard_normal((len(vectors), count, SIZE)))
    told = None if ri is None else np.full((len(vectors), count), ri, np.float32)
    return Looks(unit(scattered), told)


def test_a_rate_gets_the_score_that_so_many_pairs_reach() -> None:
    scores = np.random.default_rng(0).permutation(np.linspace(-1, 1, 20_000)).astype(np.float32)
    found = table(scores)
    for rate in (5e-1, 1e-1, 1e-2):
        reached = np.count_nonzero(scores >= found[f"{rate:.0e}".replace("e-0", "e-")])
        # scores are 1e-4 apart and the table has 4 digits: one pair more or less
        assert abs(reached - rate * scores.size) <= 1


def test_rates_that_rest_on_few_pairs_are_left_out() -> None:
    assert list(table(np.zeros(99_999, np.float32))) == ["5e-1", "1e-1", "1e-2"]
    assert list(table(np.zeros(100_000, np.float32))) == ["5e-1", "1e-1", "1e-2", "1e-3"]
    assert table(np.zeros(199, np.float32)) == {}


def test_a_pair_is_one_person_s_where_half_of_such_pairs_are_and_hardly_any_stranger_is() -> None:
    strangers = np.random.default_rng(0).normal(0, 0.1, 10_000).astype(np.float32)
    assert one_person(np.array([0.5, 0.6, 0.7], np.float32), strangers) == pytest.approx(0.6)
    # a recognizer that cannot tell them apart leaves nothing out
    assert one_person(np.array([0.1, 0.2, 0.3], np.float32), strangers) > strangers.max()
    assert one_person(strangers[:0], strangers) == np.inf


def test_the_nearest_tenth_of_each_person_is_who_looks_alike() -> None:
    vectors = people(400)
    scores = (vectors @ vectors.T)[np.triu_indices(400, 1)]
    random, near = table(scores), alike(vectors, np.inf)
    # nearly every pair of the tenth is above nearly every other pair, so rates are ten times as high
    assert near["1e-1"] == pytest.approx(random["1e-2"], abs=0.02)
    assert alike(vectors, 0.3)["1e-1"] < 0.3
    assert ALIKE_SHARE == 0.1


def test_a_whole_track_needs_more_than_a_look_and_a_poor_one_no_less_than_a_good_one() -> None:
    vectors = people(200)
    own = np.arange(200)
    good, poor = looks_at(vectors, 6, 0.5, 0.8), looks_at(vectors, 6, 0.5, 0.3)
    found = bands(
        Looks(np.concatenate([good.vectors, poor.vectors]), np.concatenate([good.ri, poor.ri])),  # type: ignore[list-item]
        vectors,
        np.concatenate([own, own]),
        np.inf,
    )
    assert set(found) == {"look ri>=0.2", "look ri>=0.7", "track ri>=0.2", "track ri>=0.7"}
    for ri in ("0.2", "0.7"):
        assert found[f"track ri>={ri}"]["1e-2"] > found[f"look ri>={ri}"]["1e-2"]
    for rate, score in found["look ri>=0.7"].items():
        assert found["look ri>=0.2"][rate] >= score


def test_nobody_is_a_stranger_to_the_own_picture() -> None:
    vectors = people(60)
    found = bands(looks_at(vectors, 4, 0.0), vectors, np.arange(60), np.inf)
    others = (vectors @ vectors.T)[~np.eye(60, dtype=bool)]
    assert max(found["look ri>=0"].values()) <= others.max() + 1e-4  # four digits


def test_the_bound_of_continuity_is_missed_by_as_many_looks_as_it_says() -> None:
    vectors = people(400)
    looks = looks_at(vectors, 12, 1.0, 0.8)
    (bound,) = continuity(looks).values()
    missed = total = 0
    for person in looks.vectors:
        fused = np.cumsum(person, axis=0)
        fused /= np.linalg.norm(fused, axis=1, keepdims=True)
        scores = (fused[:-1] * person[1:]).sum(axis=1)
        missed, total = missed + int((scores < bound).sum()), total + len(scores)
    # 4.4 of 4,400 looks; the fused sum here forgets nothing, which moves a few
    assert abs(missed / total - CONTINUITY_SHARE) < 1.5e-3


def test_looks_below_the_gate_s_bound_are_no_evidence() -> None:
    assert continuity(looks_at(people(300), 12, 1.0, 0.1)) == {}


def test_the_genuine_bound_is_what_one_look_in_twenty_misses() -> None:
    vectors = people(300)
    looks = looks_at(vectors, 10, 1.0)
    (bound,) = genuine(looks, vectors).values()
    scores = np.einsum("nkd,nd->nk", looks.vectors, vectors)
    # four digits are kept
    assert (scores < bound).mean() == pytest.approx(GENUINE_SHARE, abs=0.002)
