"""The score that a name takes: rarer names, more people, poorer looks and people alike need more."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from fakes import card
from hypothesis import given
from hypothesis import strategies as st

from edge_fr.errors import CardError, InputError
from edge_fr.gallery import Cohort, NameThreshold, belonging, genuine_bound, score_threshold
from edge_fr.gallery.names import spent_share

RANDOM = {"5e-1": 0.02, "1e-1": 0.15, "1e-2": 0.25, "1e-3": 0.34, "1e-4": 0.41, "1e-5": 0.47}
BANDS = {
    "alike": {"1e-1": 0.25, "1e-2": 0.34, "1e-3": 0.41, "1e-4": 0.47},
    "look ri>=0.2": {"5e-1": 0.03, "1e-1": 0.16, "1e-2": 0.27, "1e-3": 0.36},
    "look ri>=0.7": {"5e-1": 0.02, "1e-1": 0.14, "1e-2": 0.24, "1e-3": 0.33},
    "track ri>=0.2": {"5e-1": 0.05, "1e-1": 0.18, "1e-2": 0.3, "1e-3": 0.39},
    "track ri>=0.7": {"5e-1": 0.04, "1e-1": 0.16, "1e-2": 0.27, "1e-3": 0.35},
}
FULL = card(impostor_scores=RANDOM, impostor_bands=BANDS, embedding_size=128)
BARE = card(impostor_scores=RANDOM, embedding_size=128)
RANDOM_PEOPLE = Cohort(100, 0.02, 0.1, 0.25, 0.03)
ALIKE_PEOPLE = Cohort(100, 0.12, 0.12, 0.3, 0.035)

targets = st.floats(1e-4, 0.1)
ris = st.none() | st.floats(0.2, 1.0)


def test_a_track_never_spends_more_than_it_was_given() -> None:
    stretches = [(1, 16)] + [(16 * 2**n + 1, 16 * 2 ** (n + 1)) for n in range(40)]
    for first, last in stretches:
        assert spent_share(first) == spent_share(last)  # one chance for all of a stretch
    shares = [spent_share(last) for _, last in stretches]
    assert sum(shares) <= 1
    assert all(later < sooner for sooner, later in pairwise(shares))
    assert spent_share(0) == spent_share(1)


@given(targets, ris, st.sampled_from([FULL, BARE]), st.sampled_from([RANDOM_PEOPLE, ALIKE_PEOPLE, Cohort(1)]))
def test_a_rarer_target_takes_no_less(target: float, ri: float | None, model: object, people: Cohort) -> None:
    rare, common = (NameThreshold(model, share) for share in (target / 3, target))  # type: ignore[arg-type]
    others = None if people.mean is None else 0.05
    assert rare.look(people, ri=ri, others=others) >= common.look(people, ri=ri, others=others)
    assert rare.track(people, looks=2, ri=ri, others=others) >= common.track(
        people, looks=2, ri=ri, others=others
    )


@given(targets, st.floats(0.2, 1), st.integers(2, 200))
def test_poor_looks_whole_tracks_and_later_looks_take_no_less(target: float, ri: float, looks: int) -> None:
    needed = NameThreshold(FULL, target)
    for people in (RANDOM_PEOPLE, ALIKE_PEOPLE):
        good = needed.look(people, ri=1.0, others=0.02)
        assert needed.look(people, ri=ri, others=0.02) >= good
        track = needed.track(people, looks=looks, ri=ri, others=0.02)
        assert track >= needed.look(people, ri=ri, others=0.02)
        assert needed.track(people, looks=2 * looks, ri=ri, others=0.02) >= track


def test_people_who_are_alike_and_a_probe_like_all_of_them_take_more() -> None:
    needed = NameThreshold(FULL, 0.01)
    random = needed.look(RANDOM_PEOPLE, ri=0.8, others=0.02)
    assert needed.look(ALIKE_PEOPLE, ri=0.8, others=0.12) > random + 0.05
    assert needed.look(RANDOM_PEOPLE, ri=0.8, others=0.2) > random + 0.05
    # never less than random people need
    continued = card(impostor_scores=BANDS["look ri>=0.7"] | {"1e-4": 0.4, "1e-5": 0.46})
    far_from_all = Cohort(100, -0.5, 0.01, 0.01, 0.01)
    least = score_threshold(continued, 0.01, 100).score
    assert needed.look(far_from_all, ri=0.8, others=-0.5) == pytest.approx(least)


def test_the_fewer_people_the_more_they_are_taken_to_be_alike() -> None:
    needed = NameThreshold(FULL, 0.01)

    def above_random(people: int) -> float:
        card_alone = needed.look(Cohort(people, -1.0, 0.1), others=-1.0)
        return needed.look(Cohort(people, 0.02, 0.1), others=0.02) - card_alone

    assert needed.look(Cohort(1), ri=0.8) == pytest.approx(0.33)  # what one in 1,000 random pairs reaches
    assert needed.look(Cohort(0), ri=0.8) == needed.look(Cohort(1), ri=0.8)
    steps = [above_random(people) for people in (2, 4, 8, 16)]
    assert all(more < fewer for fewer, more in pairwise(steps))


def test_from_twenty_people_on_their_best_scores_may_say_that_less_is_enough() -> None:
    needed = NameThreshold(FULL, 0.01)
    wide = Cohort(100, 0.1, 0.2)
    narrow = Cohort(100, 0.1, 0.2, 0.2, 0.02)
    assert needed.look(narrow, others=0.1) < needed.look(wide, others=0.1)
    assert needed.look(Cohort(100, 0.1, 0.1, 0.9, 0.1), others=0.1) == needed.look(
        Cohort(100, 0.1, 0.1, 0.8, 0.1), others=0.1
    )  # and never that more is


def test_a_claim_is_one_comparison_with_somebody_who_looks_alike() -> None:
    needed = NameThreshold(FULL, 1e-3)
    assert needed.claim(Cohort(0)) == pytest.approx(0.33 + 0.41 - 0.34)
    assert needed.claim(Cohort(1000, 0.02, 0.1), others=0.02) == needed.claim(Cohort(1))
    assert needed.claim(Cohort(1000, 0.3, 0.1), others=0.3) > needed.claim(Cohort(1))


def test_without_bands_a_track_has_three_chances_of_a_look_and_people_alike_ten_of_random_ones() -> None:
    needed = NameThreshold(BARE, 0.01)
    assert needed.look(Cohort(1)) == pytest.approx(0.34)  # of one random pair in 1,000
    apart = Cohort(100, -1.0, 0.1, 0.1, 0.02)  # people who raise nothing
    track = needed.track(apart, looks=1, others=-1.0)
    # 1 - (1 - fpir)^(1/N) is not quite linear in fpir
    assert track == pytest.approx(score_threshold(BARE, 0.01 * 0.75 / 3, 100).score, abs=1e-3)


@pytest.mark.parametrize("table", [{"1e-3": 0.4}, {"1e-1": 0.3, "1e-4": 0.3}, {"1e-5": 0.3}])
def test_one_rate_or_a_flat_table_is_enough(table: dict[str, float]) -> None:
    needed = NameThreshold(card(impostor_scores=table, embedding_size=128), 0.5)
    for people in (Cohort(1), Cohort(5, 0.05, 0.1), RANDOM_PEOPLE):
        score = needed.look(people, others=0.05) if people.mean is not None else 0.5
        assert math.isfinite(score)
        assert 0 < score <= 1


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({}, "has no impostor_scores"),
        ({"impostor_scores": {"often": 0.3}}, "has the rate 'often'"),
        ({"impostor_scores": RANDOM, "impostor_bands": {"look at ri": {"1e-1": 0.2}}}, None),
        (
            {"impostor_scores": RANDOM, "impostor_bands": {"look ri>=much": {"1e-1": 0.2}}},
            "'ri>=much' is no band",
        ),
        ({"impostor_scores": RANDOM, "impostor_bands": {"track ri>=0": {"1e-1": 7}}}, "expected a cosine"),
        ({"impostor_scores": RANDOM, "impostor_bands": {"alike": {"x": 0.1}}}, "has the rate 'x'"),
    ],
)
def test_a_card_that_makes_no_sense_is_refused(changes: dict[str, object], complaint: str | None) -> None:
    if complaint is None:
        NameThreshold(card(**changes), 0.01)
        return
    with pytest.raises(CardError, match=complaint):
        NameThreshold(card(**changes), 0.01)


def test_an_impossible_target_is_refused() -> None:
    with pytest.raises(InputError, match=r"target_fpir is 1\.5"):
        NameThreshold(FULL, 1.5)


def test_a_look_belongs_by_the_card_and_by_no_more_than_hardly_any_stranger_reaches() -> None:
    model = card(impostor_scores=RANDOM, continuity_scores={"ri>=0.2": 0.3, "ri>=0.5": 0.9})
    bound = belonging(model)
    assert [bound(ri) for ri in (0.1, 0.2, 0.49, 0.5, None)] == [0.3, 0.3, 0.3, 0.41, 0.41]
    assert belonging(BARE)(0.5) == 0.25


def test_what_one_look_in_twenty_misses_is_told_by_recognizability() -> None:
    model = card(impostor_scores=RANDOM, genuine_scores={"ri>=0.2": 0.2, "ri>=0.7": 0.3})
    assert [genuine_bound(model, ri) for ri in (0.1, 0.3, 0.8, None)] == [0.2, 0.2, 0.3, 0.3]
    assert genuine_bound(BARE, 0.5) == math.inf
