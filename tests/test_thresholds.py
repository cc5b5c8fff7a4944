"""From a promised false-positive rate to a score."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
from fakes import card
from hypothesis import given
from hypothesis import strategies as st

from edge_fr.errors import CardError, InputError
from edge_fr.gallery import score_threshold

MEASURED = {"1e-1": 0.12, "1e-2": 0.22, "1e-3": 0.30, "1e-4": 0.37, "1e-5": 0.43}


def test_a_measured_rate_gives_its_measured_score() -> None:
    # one comparison: the false-positive identification rate is the false-match rate itself
    found = score_threshold(card(impostor_scores=MEASURED), 1e-3, 1)
    assert found.score == pytest.approx(0.30, abs=1e-9)  # log10(1e-3) is off by a rounding
    assert (found.target_fpir, found.gallery_size, found.extrapolated) == (1e-3, 1, False)


def test_between_two_rates_the_score_is_linear_in_the_logarithm_of_the_rate() -> None:
    found = score_threshold(card(impostor_scores=MEASURED), 10**-2.5, 1)
    assert found.score == pytest.approx((0.22 + 0.30) / 2, abs=1e-9)


def test_a_gallery_of_n_needs_the_rate_that_n_independent_comparisons_add_up_from() -> None:
    rate, size = 1e-4, 100
    fpir = 1 - (1 - rate) ** size
    found = score_threshold(card(impostor_scores=MEASURED), fpir, size)
    assert found.score == pytest.approx(0.37, abs=1e-9)


def test_beyond_the_rarest_measured_rate_the_trend_is_continued_and_marked() -> None:
    found = score_threshold(card(impostor_scores=MEASURED), 1e-7, 1)
    assert found.extrapolated
    assert found.score == pytest.approx(0.43 + 2 * (0.43 - 0.37), abs=1e-9)


def test_a_target_out_of_reach_asks_for_the_highest_score_there_is() -> None:
    found = score_threshold(card(impostor_scores={"1e-2": 0.5, "1e-3": 0.8}), 1e-9, 10)
    assert (found.score, found.extrapolated) == (1.0, True)


def test_a_rate_above_every_measured_one_keeps_the_lowest_measured_score() -> None:
    found = score_threshold(card(impostor_scores=MEASURED), 0.9, 1)
    assert (found.score, found.extrapolated) == (0.12, False)


def test_the_rarest_measured_rate_itself_is_not_extrapolated() -> None:
    for size in range(1, 300):
        fpir = 1 - (1 - 1e-5) ** size  # rounded, so that the way back misses 1e-5 by as much
        found = score_threshold(card(impostor_scores=MEASURED), fpir, size)
        assert (found.score, found.extrapolated) == (0.43, False)


def test_rounding_never_carries_a_score_past_the_next_measured_one() -> None:
    rng = random.Random(0)
    for _ in range(3000):
        rare, common = sorted(10 ** -rng.uniform(0.1, 7) for _ in range(2))
        low, high = sorted(rng.uniform(0, 1) for _ in range(2))
        face = card(impostor_scores={repr(rare): high, repr(common): low})
        assert score_threshold(face, math.nextafter(common, 0), 1).score >= low


def test_an_empty_gallery_counts_as_one_comparison() -> None:
    face = card(impostor_scores=MEASURED)
    assert score_threshold(face, 0.01, 0).score == score_threshold(face, 0.01, 1).score


fpirs = st.floats(0, 1, exclude_min=True, exclude_max=True)
sizes = st.integers(0, 10**9)
tables = st.dictionaries(
    st.integers(1, 70).map(lambda tenth: 10 ** (-tenth / 10)), st.floats(-1, 1), min_size=2, max_size=8
).map(lambda d: {repr(r): s for r, s in zip(sorted(d), sorted(d.values(), reverse=True), strict=True)})


@given(table=tables, fpir=fpirs, sizes=st.tuples(sizes, sizes))
def test_a_larger_gallery_never_needs_a_lower_score(
    table: dict[str, float], fpir: float, sizes: tuple[int, int]
) -> None:
    face = card(impostor_scores=table)
    small, large = (score_threshold(face, fpir, size) for size in sorted(sizes))
    assert small.score <= large.score
    assert small.extrapolated <= large.extrapolated


@given(table=tables, fpirs=st.tuples(fpirs, fpirs), size=sizes)
def test_a_rarer_false_positive_never_needs_a_lower_score(
    table: dict[str, float], fpirs: tuple[float, float], size: int
) -> None:
    face = card(impostor_scores=table)
    rare, common = (score_threshold(face, fpir, size) for fpir in sorted(fpirs))
    assert rare.score >= common.score


@given(table=tables, fpir=fpirs, size=sizes)
def test_a_threshold_that_is_not_extrapolated_lies_among_the_measured_scores(
    table: dict[str, float], fpir: float, size: int
) -> None:
    found = score_threshold(card(impostor_scores=table), fpir, size)
    assert math.isfinite(found.score)
    if not found.extrapolated:
        assert min(table.values()) <= found.score <= max(table.values())


def test_a_card_without_measured_scores_names_the_command_that_measures() -> None:
    with pytest.raises(
        CardError, match=r"'fake' has no impostor_scores.*python -m calibration.impostor_scores"
    ):
        score_threshold(card(), 0.01, 10)


def test_a_single_measured_rate_gives_no_trend_to_continue() -> None:
    face = card(impostor_scores={"1e-2": 0.5})
    assert score_threshold(face, 0.5, 1).score == 0.5
    with pytest.raises(CardError, match=r"rate 1.0e-03, but impostor_scores has only 1.0e-02"):
        score_threshold(face, 1e-3, 1)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"often": 0.1}, "the rate 'often', expected a number above 0"),
        ({"nan": 0.1}, "the rate 'nan'"),
        ({"0": 0.1}, "the rate '0'"),
        ({"2": 0.1}, "the rate '2'"),
        ({"1e-2": 1.5}, "at 1e-2 is 1.5, expected a cosine"),
        ({"1e-2": math.nan}, "at 1e-2 is nan, expected a cosine"),
        ({"1e-2": "0.3"}, "at 1e-2 is '0.3', expected a cosine"),
        ({"1e-2": 0.1, "0.01": 0.2}, "the rate 0.01 twice"),
        ({"1e-2": 0.3, "1e-3": 0.2}, "rise with the false-match rate"),
    ],
)
def test_a_card_with_impossible_scores_is_refused(table: dict[str, Any], message: str) -> None:
    with pytest.raises(CardError, match=message):
        score_threshold(card(impostor_scores=table), 0.01, 10)


@pytest.mark.parametrize("fpir", [0.0, 1.0, -0.1, math.nan])
def test_an_impossible_target_is_refused(fpir: float) -> None:
    with pytest.raises(InputError, match=r"target_fpir is .*, expected more than 0 and less than 1"):
        score_threshold(card(impostor_scores=MEASURED), fpir, 10)


def test_a_negative_gallery_size_is_refused() -> None:
    with pytest.raises(InputError, match="gallery_size is -1"):
        score_threshold(card(impostor_scores=MEASURED), 0.01, -1)
