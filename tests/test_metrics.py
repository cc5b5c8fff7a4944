"""Figures of merit against their definitions, counted by hand or by brute force."""

from __future__ import annotations

import numpy as np
import pytest

from calibration.discard import SHARES, Discard, error_versus_discard
from calibration.identification import Searches, identification, search
from calibration.metrics import (
    Figure,
    Floats,
    Pairs,
    Ranked,
    bootstrap,
    measurable,
    short,
    spearman,
    threshold_at_far,
    verification,
)
from edge_fr.errors import InputError


def pairs_of(scores: Floats, same: list[bool] | np.ndarray, **columns: np.ndarray | None) -> Pairs:
    return Pairs(scores, np.array(same), columns.get("people"), columns.get("folds"))


def ones(pairs: Pairs) -> Floats:
    return np.ones(len(pairs.scores))


def tied_pairs(count: int = 300, digits: int = 1) -> Pairs:
    """Scores with many ties (of few digits), genuine ones higher on average, in five folds."""
    rng = np.random.default_rng(1)
    same = rng.random(count) < 0.4
    scores = np.round(rng.normal(np.where(same, 0.6, 0.3), 0.2), digits)
    return pairs_of(scores, same, folds=rng.integers(0, 5, count))


def test_the_threshold_lets_no_more_impostors_through_than_allowed_even_with_ties() -> None:
    impostors = np.array([0.9, 0.5, 0.5, 0.5, *np.linspace(0, 0.4, 96)])
    for far in (0.01, 0.02, 0.03, 0.04, 0.1):
        threshold = threshold_at_far(impostors, far)
        assert (impostors >= threshold).mean() <= far
    assert 0.5 < threshold_at_far(impostors, 0.03) < 0.9  # three at 0.5 would be four in all


def test_tar_at_far_counts_the_genuine_pairs_above_that_threshold() -> None:
    pairs = pairs_of(np.array([0.8, 0.6, 0.3, *np.linspace(0, 0.5, 100)]), np.arange(103) < 3)
    assert Ranked(pairs).accepted(ones(pairs)).tar_at_far(0.01) == pytest.approx(2 / 3)
    pairs = tied_pairs()
    for far in (0.0, 0.01, 0.1, 0.5):
        threshold = threshold_at_far(pairs.scores[~pairs.same], far)
        expected = (pairs.scores[pairs.same] >= threshold).mean()
        assert Ranked(pairs).accepted(ones(pairs)).tar_at_far(far) == pytest.approx(expected)


def test_auc_is_the_share_of_ordered_pairs_with_ties_counted_half() -> None:
    pairs = tied_pairs()
    genuine, impostors = pairs.scores[pairs.same], pairs.scores[~pairs.same]
    wins = (genuine[:, None] > impostors) + 0.5 * (genuine[:, None] == impostors)
    assert Ranked(pairs).auc(ones(pairs)) == pytest.approx(wins.mean())


def test_the_roc_ends_with_everybody_accepted_and_starts_with_nobody() -> None:
    pairs = pairs_of(np.array([0.9, 0.5, 0.5, 0.1]), [True, True, False, False])
    far, tar = Ranked(pairs).accepted(ones(pairs)).roc()
    assert far.tolist() == [0, 0, 0.5, 1]
    assert tar.tolist() == [0, 0.5, 1, 1]


@pytest.mark.parametrize(("count", "digits"), [(300, 1), (300, 9), (40, 9)])
def test_accuracy_judges_each_fold_at_the_threshold_that_is_best_on_the_others(
    count: int, digits: int
) -> None:
    pairs = tied_pairs(count, digits)
    assert pairs.folds is not None
    right = 0
    for fold in range(5):
        held = pairs.folds == fold
        scores, same = pairs.scores[~held], pairs.same[~held]
        known = np.unique(scores)[::-1]
        # every threshold between two scores, the strictest first
        ladder = [known[0] + 1e-6, *(known[:-1] + known[1:]) / 2, known[-1] - 1e-6]
        best = max(ladder, key=lambda t: ((scores >= t) == same).sum())
        right += ((pairs.scores[held] >= best) == pairs.same[held]).sum()
    assert Ranked(pairs).accuracy(ones(pairs)) == pytest.approx(right / count)


def test_accuracy_never_uses_the_fold_it_judges() -> None:
    # in fold 0 the impostors score higher than the genuine pairs: a threshold learned there would fit it
    scores = np.array([0.1, 0.2, 0.8, 0.9, 0.8, 0.9, 0.1, 0.2])
    same = [True, True, False, False, True, True, False, False]
    pairs = pairs_of(scores, same, folds=np.array([0, 0, 0, 0, 1, 1, 1, 1]))
    # learned on fold 1, all of fold 0 is wrong; learned on fold 0 ("nothing matches"), half of fold 1 is
    assert Ranked(pairs).accuracy(ones(pairs)) == pytest.approx(2 / 8)


def test_a_pair_with_weight_two_counts_as_two_pairs_and_one_without_weight_as_none() -> None:
    pairs = tied_pairs()
    weights = np.random.default_rng(2).integers(0, 4, 300)
    index = np.repeat(np.arange(300), weights)
    assert pairs.folds is not None
    repeated = pairs_of(pairs.scores[index], pairs.same[index], folds=pairs.folds[index])
    for name in ("auc", "accuracy"):
        figure, expected = getattr(Ranked(pairs), name), getattr(Ranked(repeated), name)
        assert figure(weights.astype(float)) == pytest.approx(expected(ones(repeated)))
    once = Ranked(pairs).accepted(weights.astype(float)).tar_at_far(0.05)
    assert once == pytest.approx(Ranked(repeated).accepted(ones(repeated)).tar_at_far(0.05))


def hard_people(people: int) -> Pairs:
    """Some people are hard: their errors come together, which a bootstrap over pairs would not see."""
    rng = np.random.default_rng(3)
    owner = rng.integers(0, people, (2000, 2))
    same = rng.random(2000) < 0.5
    owner[same, 1] = owner[same, 0]
    ease = rng.normal(1, 0.8, people)
    scores = np.where(same, ease[owner[:, 0]], rng.normal(0, 0.3, 2000)) + rng.normal(0, 0.2, 2000)
    return pairs_of(scores, same, people=owner, folds=rng.integers(0, 10, 2000))


def test_intervals_hold_the_value_and_widen_when_there_are_fewer_people() -> None:
    def width(people: int) -> float:
        figure = verification(hard_people(people), draws=100)["tar_at_far_1e-2"]
        low, high = figure.interval
        assert low <= figure.value <= high
        return high - low

    assert width(20) > 1.5 * width(1000)


def test_the_figures_are_named_by_their_rates_and_accuracy_needs_folds() -> None:
    pairs = hard_people(20)
    fars = (1e-1, 1e-2)
    assert list(verification(pairs, fars=fars, draws=1)) == [
        "auc",
        "tar_at_far_1e-1",
        "tar_at_far_1e-2",
        "accuracy",
    ]
    without = Pairs(pairs.scores, pairs.same, pairs.people, None)
    assert list(verification(without, fars=(3e-1,), draws=1)) == ["auc", "tar_at_far_3e-1"]
    assert short(1e-10) == "1e-10"


def test_a_rate_of_less_than_one_impostor_pair_is_no_figure() -> None:
    def told(impostors: int) -> list[str]:
        pairs = pairs_of(np.linspace(0, 1, impostors + 5), np.arange(impostors + 5) < 5)
        assert (pairs.genuine, pairs.impostors) == (5, impostors)
        return list(verification(pairs, fars=(1e-1, 1e-2, 1e-3), draws=1))

    assert told(9) == ["auc"]
    assert told(99) == ["auc", "tar_at_far_1e-1"]
    assert told(100) == ["auc", "tar_at_far_1e-1", "tar_at_far_1e-2"]
    assert measurable(1 / 49, 49)  # which rounds to less than 1


def test_the_difference_of_two_recognizers_is_paired_by_the_same_draws() -> None:
    pairs = hard_people(20)
    better = Pairs(pairs.scores + 0.4 * pairs.same, pairs.same, pairs.people, pairs.folds)
    base, other = (verification(p, draws=100)["tar_at_far_1e-2"] for p in (pairs, better))
    change = other - base
    assert change.value == pytest.approx(other.value - base.value)
    assert change.interval[0] > 0
    # unpaired, the two intervals overlap: the people that were drawn move both figures alike
    assert base.interval[1] > other.interval[0]


def test_a_ratio_is_paired_and_a_base_of_zero_is_no_change() -> None:
    ratio = Figure(1.0, np.array([1.0, 2.0, 0.0])) / Figure(2.0, np.array([2.0, 4.0, 0.0]))
    assert ratio.value == 0.5
    assert ratio.draws.tolist() == [0.5, 0.5, 1.0]
    assert (Figure(0.0, np.zeros(1)) / Figure(0.0, np.zeros(1))).value == 1


def test_a_draw_of_people_weighs_pairs_by_how_often_their_people_came() -> None:
    people = np.array([[0, 0], [1, 1], [0, 1]])
    same = np.array([True, True, False])
    drawn = {tuple(row.tolist()) for row in bootstrap(people, same, 200, seed=0)}
    # both came once; draws of one person twice leave no pair of two and are drawn again
    assert drawn == {(1.0, 1.0, 1.0)}
    three = np.array([[0, 0], [1, 1], [2, 2], [0, 1], [1, 2]])
    for a, b, c, ab, bc in bootstrap(three, np.arange(5) < 3, 100, seed=0):
        assert a + b + c == 3
        assert (ab, bc) == (a * b, b * c)


def test_pairs_of_unknown_people_are_drawn_one_by_one() -> None:
    same = np.arange(50) < 25
    for weights in bootstrap(None, same, 20, seed=0):
        assert weights.sum() == 50
        assert weights.max() > 1


@pytest.mark.parametrize(
    ("scores", "same", "message"),
    [
        ([0.1, 0.2], [True, True], "2 of 2 pairs show one person twice, expected pairs of one person and"),
        ([0.1, 0.2], [False, False], "0 of 2 pairs"),
        ([0.1, np.nan], [True, False], "1 scores are no finite numbers"),
    ],
)
def test_pairs_of_one_kind_or_without_scores_are_refused(
    scores: list[float], same: list[bool], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        pairs_of(np.array(scores), same)


def along(*scores: tuple[float, float]) -> np.ndarray:
    """Vectors whose products with the unit vectors of two axes are these."""
    return np.array(scores, np.float32)


AXES = along((1, 0), (0, 1))


def test_rank_one_counts_probes_whose_best_picture_is_their_own() -> None:
    probes = along((0.9, 0.1), (0.2, 0.3), (0.8, 0.7))
    found = search(AXES, np.array([5, 6]), probes, np.array([5, 6, 6]), AXES[:0])
    assert found.rank.tolist() == [1, 1, 2]
    assert found.rank_rate(1) == pytest.approx(2 / 3)
    assert found.rank_rate(2) == 1


def test_a_rank_counts_pictures_of_others_and_equal_scores_against_the_probe() -> None:
    gallery = along((1, 0), (0.5, 0), (0.9, 0), (0.2, 0))
    people = np.array([1, 2, 3, 2])
    found = search(gallery, people, along((1, 0), (0, 1)), np.array([2, 2]), AXES[:0])
    assert found.rank.tolist() == [3, 3]  # after 1.0 and 0.9; all four score 0, the two others first
    assert found.own.tolist() == [0.5, 0]


def test_searches_in_pieces_find_what_a_single_one_finds() -> None:
    rng = np.random.default_rng(6)
    # whole numbers: their products are exact in whatever order they are summed
    gallery, probes, strangers = (
        rng.integers(-9, 10, size=(n, 8)).astype(np.float32) for n in (40_000, 500, 450)
    )
    owners = rng.integers(0, 50, 500)
    found = search(gallery, np.arange(40_000) % 50, probes, owners, strangers)
    # 400 probes are compared at once; rows on either side of that edge against all pictures
    for i in (0, 399, 400, 499):
        scores = gallery @ probes[i]
        mine = np.arange(40_000) % 50 == owners[i]
        assert found.own[i] == scores[mine].max()
        assert found.rank[i] == 1 + (scores[~mine] >= found.own[i]).sum()
    assert found.rank[[0, 399, 400, 499]].min() > 1
    assert found.people.tolist() == owners.tolist()
    for i in (0, 399, 400, 449):
        assert found.strangers[i] == (gallery @ strangers[i]).max()


def test_an_open_set_miss_is_a_late_rank_or_a_score_that_strangers_reach() -> None:
    strangers = along(*[(0.1, 0.2)] * 99, (0.5, 0.1))
    probes, people = along((0.9, 0.1), (0.9, 0.3), (0.3, 0.1)), np.array([0, 1, 0])
    found = search(AXES, np.array([0, 1]), probes, people, strangers)
    assert found.fnir_at_fpir(0.01) == pytest.approx(1 / 3)
    assert found.fnir_at_fpir(0.001) == pytest.approx(2 / 3)
    assert found.fnir_at_fpir(0.01, rank=2) == 0
    fpir, fnir = found.curve()
    assert (fpir[0], fnir[0]) == (0.01, pytest.approx(1 / 3))  # above 0.2
    assert (fpir[-1], fnir[-1]) == (1, pytest.approx(1 / 3))


@pytest.mark.parametrize("rank", [1, 3])
def test_the_open_set_curve_is_the_figure_at_every_rate(rank: int) -> None:
    rng = np.random.default_rng(7)
    # one digit: strangers tie with each other and with probes
    own, strangers = np.round(rng.normal(0.6, 0.3, 200), 1), np.round(rng.normal(0.3, 0.2, 83), 1)
    own[0] = strangers.min()  # found where all strangers may raise an alarm
    found = Searches(np.arange(200), own, np.r_[1, rng.integers(1, 5, 199)], strangers)
    fpir, fnir = found.curve(rank=rank)
    assert fpir.tolist() == [k / 83 for k in range(1, 84)]
    assert fnir.tolist() == [found.fnir_at_fpir(k / 83, rank=rank) for k in range(1, 84)]
    assert len(set(fnir.tolist())) > 5
    for k, missed in enumerate(fnir, 1):
        # the lowest of the scores and of what is just above them that k strangers at most reach
        levels = sorted({*strangers, *np.nextafter(strangers, 1)})
        level = next(level for level in levels if (strangers >= level).sum() <= k)
        assert missed == pytest.approx(1 - ((own >= level) & (found.rank <= rank)).mean())


def test_a_draw_of_searches_takes_all_probes_of_a_person_together() -> None:
    # person 7 has three probes, 900 and 5 have one
    found = Searches(np.array([7, 900, 7, 5, 7]), np.arange(5.0), np.arange(1, 6), np.arange(50.0))
    seen = set()
    for again in found.drawn(100):
        times = np.bincount(again.rank, minlength=6)[1:]
        assert times[0] == times[2] == times[4]
        assert times[[0, 1, 3]].sum() == 3
        assert again.own.tolist() == (again.rank - 1).tolist()
        assert again.people.tolist() == found.people[again.rank - 1].tolist()
        assert len(again.strangers) == 50
        assert np.isin(again.strangers, found.strangers).all()
        seen.add(tuple(again.strangers.tolist()))
    assert len(seen) == 100


def test_identification_has_intervals_over_people_and_the_draws_of_two_recognizers_are_paired() -> None:
    people = np.repeat([0, 1], 50)
    # person 0 is always found and person 1 never
    found = Searches(people, np.where(people == 0, 0.9, 0.1), 1 + people, np.linspace(0, 0.5, 10))
    figures = identification(found, ranks=(1, 2), fpirs=(1e-2, 1e-1), within=2, draws=40)
    assert list(figures) == ["rank1", "rank2", "fnir_at_fpir_1e-1_within_rank2"]  # 10 strangers
    assert (figures["rank1"].value, figures["rank2"].value) == (0.5, 1)
    assert set(figures["rank1"].draws.tolist()) == {0, 0.5, 1}
    expected = [again.fnir_at_fpir(0.1, rank=2) for again in found.drawn(40)]
    assert figures["fnir_at_fpir_1e-1_within_rank2"].draws.tolist() == expected
    better = Searches(people, np.full(100, 0.9), np.ones(100, np.int64), found.strangers)
    change = identification(better, ranks=(1,), fpirs=(), within=1, draws=40)["rank1"] - figures["rank1"]
    assert change.draws.tolist() == (1 - figures["rank1"].draws).tolist()


def test_probes_of_people_who_are_not_enrolled_are_refused() -> None:
    with pytest.raises(InputError, match="1 of 2 probes show people who are not enrolled"):
        search(AXES, np.array([0, 1]), AXES, np.array([1, 7]), AXES[:0])


def discard(failed: np.ndarray, quality: np.ndarray) -> Discard:
    return error_versus_discard(failed, quality.astype(float), [np.ones(len(failed))])


def test_discarding_by_a_good_quality_removes_the_errors_and_by_a_useless_one_does_not() -> None:
    genuine = np.random.default_rng(4).uniform(0, 1, 5000)
    failed = genuine < 0.2
    good, useless = discard(failed, genuine), discard(failed, np.ones(5000))
    assert good.rates[0] == useless.rates[0] == pytest.approx(failed.mean())
    assert good.rates[SHARES > 0.21].max() == 0
    # 2,500 pairs are left at the end: three standard errors of a share of 0.2 are 0.024
    assert useless.rates[-1] == pytest.approx(useless.rates[0], abs=0.024)
    assert useless.area.value == pytest.approx(useless.rates[0], abs=0.024)


def test_the_area_is_the_mean_rate_over_the_first_half_of_the_discarded_shares() -> None:
    # the worst fifth fails: when a share x < 0.2 of all is gone, (0.2 - x) / (1 - x) of the rest fails
    failed = np.arange(10_000) < 2_000
    found = discard(failed, np.arange(10_000))
    assert found.rates == pytest.approx(np.maximum(0.2 - SHARES, 0) / (1 - SHARES), abs=1e-4)
    x = np.linspace(0, 0.5, 100_001)
    # trapezoids of a hundredth over a curve of slope about 1 with one corner
    assert found.area.value == pytest.approx((np.maximum(0.2 - x, 0) / (1 - x)).mean(), abs=1e-4)
    assert found.rate_at(0.1) == pytest.approx(0.1 / 0.9, abs=1e-4)


def test_a_comparison_drawn_twice_weighs_twice_in_the_curve() -> None:
    failed, quality = np.array([True, False, False]), np.array([1.0, 2.0, 3.0])
    weights = [np.array([2.0, 1.0, 1.0]), np.array([0.0, 2.0, 2.0])]
    first, second = error_versus_discard(failed, quality, weights).area.draws
    # half of the weight fails, and goes together once the share reaches it
    assert first == pytest.approx(0.5 * 0.99, abs=1e-9)  # the last of fifty trapezoids falls to 0
    assert second == 0


def test_the_draws_of_one_condition_weigh_the_same_pairs_under_all_conditions() -> None:
    rng = np.random.default_rng(8)
    failed, quality, row = rng.random(60) < 0.3, rng.random(60), rng.integers(0, 4, 20).astype(float)
    once = error_versus_discard(failed, quality, [row]).area.draws
    assert once.tolist() == error_versus_discard(failed, quality, [np.r_[row, row, row]]).area.draws.tolist()
    assert once[0] != pytest.approx(error_versus_discard(failed, quality, [np.ones(60)]).area.draws[0])


def test_rank_correlation_ignores_any_monotone_change_of_scale() -> None:
    x = np.random.default_rng(5).normal(size=100)
    assert spearman(x, np.exp(3 * x)) == pytest.approx(1)
    assert spearman(x, -(x**3)) == pytest.approx(-1)
