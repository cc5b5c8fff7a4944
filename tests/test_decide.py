"""A track's answer: when it is given, when it changes, and when it stays."""

from __future__ import annotations

from datetime import datetime, timezone

import numpy as np
import pytest
from numpy.typing import NDArray

from edge_fr.decide import Decider, DecisionPolicy
from edge_fr.errors import InputError
from edge_fr.evidence import Evidence
from edge_fr.structures import Candidate, Decision, Faces, Frame, Matches, Refusal

SECOND = 1_000_000_000
TOO_SMALL = (Refusal("inter_eye_distance", 6, 12, "at least", "px"),)
GRACE = np.array([1.0, 0.0, 0.0], np.float32)
EILEEN = np.array([0.0, 1.0, 0.0], np.float32)
STRANGER = np.array([0.0, 0.0, 1.0], np.float32)


def search(probes: NDArray[np.float32]) -> Matches:
    """A gallery of two people whose templates are the first two axes."""
    assert np.allclose(np.linalg.norm(probes, axis=1), 1, atol=1e-5)
    rows = []
    for probe in probes:
        scores = sorted(
            ((float(probe @ t), n) for n, t in (("grace", GRACE), ("eileen", EILEEN))), reverse=True
        )
        (best, name), (second, other) = scores
        rows.append((Candidate(name, best, best - second), Candidate(other, second, second + 1)))
    return Matches(tuple(rows))


def decider(**policy: float) -> Decider:
    return Decider(search, lambda *_: 0.5, DecisionPolicy(**policy))  # type: ignore[arg-type]


def frame(seconds: float) -> Frame:
    return Frame(np.zeros((4, 4, 3), np.uint8), round(seconds * SECOND), datetime.now(timezone.utc))


def sight(
    embedding: NDArray[np.float32] | None,
    quality: float = 0.5,
    track_id: int = 7,
    ri: float | None = None,
    mask_prob: float | None = None,
) -> Faces:
    """One face of one track; without an embedding it was refused as too small."""
    refused = embedding is None
    row = np.full(3, np.nan, np.float32) if embedding is None else embedding
    return Faces(
        np.zeros((1, 4), np.float32),
        np.ones(1, np.float32),
        np.zeros((1, 5, 2), np.float32),
        track_ids=np.array([track_id]),
        quality=np.array([quality], np.float32),
        refusals=(TOO_SMALL if refused else (),),
        embeddings=row[None].astype(np.float32),
        ri=None if ri is None else np.array([ri], np.float32),
        mask_prob=None if mask_prob is None else np.array([mask_prob], np.float32),
    )


def watch(decide: Decider, sights: list[tuple[float, Faces]]) -> list[tuple[float, Decision]]:
    answers = []
    for seconds, faces in sights:
        answers += [(seconds, answer) for answer in decide.observe(frame(seconds), faces).values()]
    return answers


def mixed(toward: NDArray[np.float32], score: float) -> NDArray[np.float32]:
    """A unit vector whose cosine with `toward` is `score`, the rest pointing at nobody."""
    return (score * toward + np.sqrt(1 - score**2) * STRANGER).astype(np.float32)


def test_two_good_looks_give_a_name_long_before_the_deadline() -> None:
    answers = watch(decider(), [(0.0, sight(GRACE)), (0.1, sight(GRACE)), (0.2, sight(GRACE))])
    assert [(at, a.status, a.identity, a.frames_used) for at, a in answers] == [(0.1, "known", "grace", 2)]


def test_a_single_look_gives_a_name_only_at_the_deadline() -> None:
    answers = watch(decider(), [(0.0, sight(GRACE)), (1.9, Faces.empty()), (2.0, Faces.empty())])
    assert [(at, a.status) for at, a in answers] == [(2.0, "known")]


def test_a_stranger_is_unknown_once_there_is_enough_evidence() -> None:
    answers = watch(decider(), [(i / 10, sight(STRANGER)) for i in range(8)])
    assert [(at, a.status, a.frames_used) for at, a in answers] == [(0.3, "unknown", 4)]


def test_a_face_that_was_never_good_enough_is_unrecognizable_with_its_reasons_at_the_deadline() -> None:
    answers = watch(decider(), [(i / 4, sight(None)) for i in range(12)])
    assert [(at, a.status, a.refusals) for at, a in answers] == [(2.0, "unrecognizable", TOO_SMALL)]


def test_a_walk_towards_the_camera_goes_from_unrecognizable_to_a_name_and_says_each_once() -> None:
    far = [(i / 4, sight(None)) for i in range(12)]
    near = [(3 + i / 4, sight(GRACE)) for i in range(4)]
    answers = watch(decider(), far + near)
    # the first look after "unrecognizable" is not yet a name
    assert [(at, a.status) for at, a in answers] == [(2.0, "unrecognizable"), (3.25, "known")]


def test_weak_first_evidence_after_unrecognizable_is_not_called_unknown_at_once() -> None:
    far = [(i / 4, sight(None)) for i in range(12)]
    weak = [(3.0, sight(mixed(GRACE, 0.3), 0.1))]
    near = [(3.25, sight(GRACE, 0.9)), (3.5, sight(GRACE, 0.9))]
    answers = watch(decider(), far + weak + near)
    assert [a.status for _, a in answers] == ["unrecognizable", "known"]


def test_between_the_two_thresholds_the_answer_waits_for_the_deadline() -> None:
    doubtful = mixed(GRACE, 0.47)  # below 0.5, above 0.5 - hysteresis
    answers = watch(decider(), [(i / 4, sight(doubtful)) for i in range(9)])
    assert [(at, a.status) for at, a in answers] == [(2.0, "unknown")]


def test_a_name_is_not_taken_back_for_a_little_less_than_the_threshold() -> None:
    sights = [(0.0, sight(mixed(GRACE, 0.52))), (0.1, sight(mixed(GRACE, 0.52)))]
    sights += [(0.2 + i / 10, sight(mixed(GRACE, 0.45))) for i in range(20)]
    assert [a.status for _, a in watch(decider(), sights)] == ["known"]


def test_a_name_is_taken_back_when_the_evidence_turns_against_it() -> None:
    sights = [(0.0, sight(GRACE, 0.2)), (0.1, sight(GRACE, 0.2))]
    sights += [(0.2 + i / 10, sight(STRANGER, 1.0)) for i in range(6)]
    assert [a.status for _, a in watch(decider(), sights)] == ["known", "unknown"]


def test_after_ten_minutes_of_one_person_a_track_still_changes_its_mind_within_seconds() -> None:
    """An id that went over to somebody else: a guard sat there for long, then another one does."""
    sights = [(i * 0.4, sight(GRACE, 0.9)) for i in range(1500)]
    sights += [(600 + i * 0.4, sight(EILEEN, 0.9)) for i in range(40)]
    answers = watch(decider(), sights)
    assert [a.identity for _, a in answers if a.identity] == ["grace", "eileen"]
    assert answers[-1][0] < 610


def test_a_face_between_two_people_is_not_given_either_name() -> None:
    both = ((GRACE + 0.98 * EILEEN) / np.linalg.norm(GRACE + 0.98 * EILEEN)).astype(np.float32)
    answers = watch(decider(margin=0.05), [(i / 4, sight(both)) for i in range(12)])
    ((_, answer),) = answers
    assert answer.status == "unrecognizable"
    assert answer.candidates[0].score > 0.5
    (reason,) = answer.refusals
    assert reason.component == "ambiguous"
    assert str(reason).endswith("(looks like 'grace' (0.71) and 'eileen' (0.70))")


def test_good_looks_weigh_more_than_poor_ones() -> None:
    sights = [(i / 10, sight(EILEEN, 0.05)) for i in range(3)] + [(0.4, sight(GRACE, 1.0))]
    decide = decider(known_frames=4)
    assert [a.identity for _, a in watch(decide, sights)] == ["grace"]


def test_recognizability_weighs_a_look_where_it_is_known_whatever_its_quality() -> None:
    decide = decider()
    watch(decide, [(0.0, sight(GRACE, quality=0.9, ri=0.1)), (0.1, sight(EILEEN, quality=0.2, ri=0.9))])
    assert decide.end([7])[7][0].identity == "eileen"


def test_an_answer_says_the_best_recognizability_and_the_weighted_mask_of_its_looks() -> None:
    decide = decider()
    looks = [(0.2, 0.9), (0.8, 0.1), (0.4, 0.9)]
    watch(decide, [(i / 10, sight(GRACE, ri=ri, mask_prob=mask)) for i, (ri, mask) in enumerate(looks)])
    answer, _ = decide.end([7])[7]
    assert answer.ri == pytest.approx(0.8)
    assert answer.mask_prob == pytest.approx((0.2 * 0.9 + 0.8 * 0.1 + 0.4 * 0.9) / 1.4)


def test_a_recognizer_that_tells_neither_leaves_both_open() -> None:
    decide = decider()
    watch(decide, [(0.0, sight(GRACE))])
    answer, _ = decide.end([7])[7]
    assert answer.ri is None
    assert answer.mask_prob is None


def test_looks_too_poor_to_find_an_enrolled_person_do_not_make_a_stranger() -> None:
    poor = [(i / 4, sight(STRANGER, ri=0.25)) for i in range(12)]
    answers = watch(decider(), poor)
    assert [(at, a.status, a.frames_used) for at, a in answers] == [(2.0, "unrecognizable", 9)]
    assert list(map(str, answers[0][1].refusals)) == ["recognizability 0.25, needs at least 0.4"]


def test_poor_looks_may_be_enough_for_a_name() -> None:
    answers = watch(decider(), [(i / 4, sight(GRACE, ri=0.25)) for i in range(12)])
    assert [(at, a.status, a.refusals) for at, a in answers] == [(0.25, "known", ())]


def test_the_first_good_look_after_poor_ones_begins_a_new_wait() -> None:
    poor = [(i / 4, sight(STRANGER, ri=0.25)) for i in range(12)]
    good = [(3 + i / 4, sight(STRANGER, ri=0.7)) for i in range(12)]
    stranger = watch(decider(), poor + good)
    assert [(at, a.status) for at, a in stranger] == [(2.0, "unrecognizable"), (3.75, "unknown")]
    one = watch(decider(), poor + good[:1] + [(3 + i / 4, Faces.empty()) for i in range(1, 12)])
    assert [(at, a.status) for at, a in one] == [(2.0, "unrecognizable"), (5.0, "unknown")]
    near = [(3.0, sight(mixed(GRACE, 0.3), ri=0.4))]
    near += [(3.25 + i / 4, sight(GRACE, ri=0.9)) for i in range(9)]
    enrolled = watch(decider(), poor + near)
    assert [a.status for _, a in enrolled] == ["unrecognizable", "known"]


def test_a_name_from_poor_looks_that_turn_against_it_becomes_unrecognizable_not_unknown() -> None:
    sights = [(0.0, sight(GRACE, ri=0.2)), (0.1, sight(GRACE, ri=0.2))]
    sights += [(0.2 + i / 10, sight(STRANGER, ri=0.39)) for i in range(6)]
    assert [a.status for _, a in watch(decider(), sights)] == ["known", "unrecognizable"]


def test_a_track_of_poor_looks_that_ends_is_unrecognizable() -> None:
    decide = decider()
    watch(decide, [(i / 10, sight(STRANGER, ri=0.3)) for i in range(6)])
    decision, is_new = decide.end([7])[7]
    assert (decision.status, is_new, decision.ri) == ("unrecognizable", True, pytest.approx(0.3))


def test_a_track_that_ends_early_still_gets_its_answer_and_is_forgotten() -> None:
    decide = decider()
    decide.observe(frame(0), sight(GRACE))
    decision, is_new = decide.end([7])[7]
    assert (decision.status, is_new) == ("known", True)
    assert decide.end([7]) == {}
    assert dict(decide.decisions) == {}


def test_the_end_of_a_track_that_was_answered_brings_no_second_answer() -> None:
    decide = decider()
    watch(decide, [(0.0, sight(GRACE)), (0.1, sight(GRACE))])
    decision, is_new = decide.end([7])[7]
    assert (decision.identity, is_new) == ("grace", False)


def test_an_empty_gallery_makes_everybody_unknown() -> None:
    decide = Decider(lambda probes: Matches(((),) * len(probes)), lambda *_: 0.5)
    answers = watch(decide, [(i / 10, sight(GRACE)) for i in range(5)])
    assert [(a.status, a.candidates) for _, a in answers] == [("unknown", ())]


def test_faces_outside_any_confirmed_track_are_ignored() -> None:
    assert watch(decider(), [(float(i), sight(GRACE, track_id=-1)) for i in range(5)]) == []


def test_a_policy_that_means_nothing_is_refused() -> None:
    with pytest.raises(InputError, match="target_fpir is 3"):
        DecisionPolicy(target_fpir=3)
    with pytest.raises(InputError, match=r"unknown_ri is 40, expected 0 to 1"):
        DecisionPolicy(unknown_ri=40)


def both_at(first: float, second: float) -> NDArray[np.float32]:
    """A look that scores so with Grace, and so with Eileen."""
    rest = np.sqrt(1 - first**2 - second**2)
    return (first * GRACE + second * EILEEN + rest * STRANGER).astype(np.float32)


def side_by_side(*looks: NDArray[np.float32] | None, unsure: tuple[bool, ...] | None = None) -> Faces:
    """A frame with tracks 1, 2, ... of these looks."""
    rows = [np.full(3, np.nan, np.float32) if look is None else look for look in looks]
    n = len(rows)
    return Faces(
        np.zeros((n, 4), np.float32),
        np.ones(n, np.float32),
        np.zeros((n, 5, 2), np.float32),
        track_ids=np.arange(1, n + 1),
        unsure=None if unsure is None else np.array(unsure),
        quality=np.full(n, 0.5, np.float32),
        refusals=((),) * n,
        embeddings=np.array(rows, np.float32),
    )


def test_two_names_as_near_are_told_both_and_once_one_is_clearly_nearer_it_is_given() -> None:
    sights = [(i / 4, sight(both_at(0.69, 0.67))) for i in range(12)]
    sights += [(3 + i / 4, sight(GRACE)) for i in range(12)]
    (_, first), (_, second) = watch(decider(), sights)
    assert (first.status, first.identity) == ("unrecognizable", None)
    (reason,) = first.refusals
    assert (reason.component, reason.bound) == ("ambiguous", 0.05)
    assert reason.measured == pytest.approx(0.02, abs=1e-6)
    assert "looks like 'grace' (0.69) and 'eileen' (0.67)" in str(reason)
    assert (second.status, second.identity) == ("known", "grace")


def test_an_unknown_face_that_comes_to_fit_two_names_is_no_longer_unknown() -> None:
    sights = [(i / 10, sight(STRANGER)) for i in range(4)]
    sights += [(1 + i / 10, sight(both_at(0.69, 0.67))) for i in range(30)]
    answers = watch(decider(), sights)
    assert [answer.status for _, answer in answers] == ["unknown", "unrecognizable"]


def test_of_two_faces_with_one_name_the_better_one_has_it_and_the_other_is_unknown_with_the_reason() -> None:
    decide = decider()
    better, worse = GRACE, mixed(GRACE, 0.6)
    told: dict[int, list[Decision]] = {1: [], 2: []}
    for i in range(25):
        for track_id, answer in decide.observe(frame(i / 10), side_by_side(worse, better)).items():
            told[track_id].append(answer)
        names = [decision.identity for decision in decide.decisions.values() if decision.identity]
        assert names in ([], ["grace"])
    assert [answer.status for answer in told[2]] == ["known"]
    (answer,) = told[1]  # it waited until the deadline
    assert (answer.status, answer.identity) == ("unknown", None)
    (reason,) = answer.refusals
    assert str(reason).startswith("same name elsewhere in the frame 0.6")


def test_who_has_a_name_loses_it_to_who_has_it_clearly_better_and_at_once() -> None:
    decide = decider()
    impostor = mixed(GRACE, 0.6)
    for i in range(3):
        decide.observe(frame(i / 10), side_by_side(impostor))
    assert decide.decisions[1].identity == "grace"
    decide.observe(frame(0.3), side_by_side(impostor, GRACE))
    changed = decide.observe(frame(0.4), side_by_side(impostor, GRACE))
    assert {i: (d.status, d.identity) for i, d in decide.decisions.items()} == {
        1: ("unknown", None),
        2: ("known", "grace"),
    }
    assert 2 in changed


def test_a_name_does_not_jump_between_two_faces_that_are_as_like() -> None:
    decide = decider()
    rng = np.random.default_rng(0)
    holders = []
    for i in range(60):
        first, second = (mixed(GRACE, float(rng.uniform(0.60, 0.63))) for _ in range(2))
        decide.observe(frame(i / 10), side_by_side(first, second))
        holders += [track_id for track_id, d in decide.decisions.items() if d.identity]
    assert len(set(holders)) == 1
    assert len(holders) > 50


def test_a_face_in_doubt_has_no_answer_and_its_looks_do_not_count() -> None:
    decide = decider()
    for i in range(3):
        decide.observe(frame(i / 10), side_by_side(GRACE))
    assert decide.decisions[1].identity == "grace"
    for i in range(3, 40):
        assert decide.observe(frame(i / 10), side_by_side(STRANGER, unsure=(True,))) == {}
        assert 1 not in decide.decisions
    assert decide.observe(frame(4.0), side_by_side(GRACE, unsure=(False,))) == {}
    assert (decide.decisions[1].identity, decide.decisions[1].frames_used) == ("grace", 4)


def test_a_person_who_was_removed_is_not_announced_from_an_earlier_search() -> None:
    enrolled = [True]

    def people(probes: NDArray[np.float32]) -> Matches:
        found = Candidate("grace", float(probes[0] @ GRACE), None)
        return Matches(((found,) if enrolled[0] else (),) * len(probes))

    for ends in (False, True):
        enrolled[0] = True
        decide = Decider(people, lambda *_: 0.5)
        decide.observe(frame(0), sight(GRACE))  # one look: she is told at the deadline, or at the end
        enrolled[0] = False
        if ends:
            answer, _ = decide.end([7])[7]
        else:
            answer = decide.observe(frame(2.5), Faces.empty())[7]
        assert (answer.status, answer.identity) == ("unknown", None)


def test_a_person_who_is_removed_loses_the_name_with_the_next_look() -> None:
    enrolled = [True]

    def people(probes: NDArray[np.float32]) -> Matches:
        grace = (Candidate("grace", float(probes[0] @ GRACE), None),) if enrolled[0] else ()
        return Matches((grace,) * len(probes))

    decide = Decider(people, lambda *_: 0.5)
    for i in range(3):
        decide.observe(frame(i / 10), sight(GRACE))
    enrolled[0] = False
    assert [a.status for a in decide.observe(frame(0.3), sight(GRACE)).values()] == ["unknown"]


def test_waiting_takes_more_for_a_name_and_takes_none_back() -> None:
    def threshold(evidence: Evidence, others: float | None, looks: int) -> float:
        return 0.5 if looks <= 16 else 0.7

    early = Decider(search, threshold)
    for i in range(40):
        early.observe(frame(i / 10), sight(mixed(GRACE, 0.6)))
    assert early.decisions[7].identity == "grace"
    late = Decider(search, threshold)
    for i in range(17):
        late.observe(frame(i / 10), sight(STRANGER))
    for i in range(17, 60):
        late.observe(frame(i / 10), sight(mixed(GRACE, 0.69)))
    assert late.decisions[7].status == "unknown"


def scores_by_call(*answers: tuple[float, float]) -> Decider:
    """A decider whose searches give these scores of Grace and Eileen in turn, the last for ever."""
    left = list(answers)

    def people(probes: NDArray[np.float32]) -> Matches:
        grace, eileen = left.pop(0) if len(left) > 1 else left[0]
        found = (Candidate("grace", grace, grace - eileen), Candidate("eileen", eileen, None))
        return Matches((found,) * len(probes))

    return Decider(people, lambda *_: 0.5)


def test_an_answer_of_unknown_is_kept_up_to_date_between_the_bounds() -> None:
    decide = scores_by_call(*[(0.1, 0.0)] * 4, (0.46, 0.0))
    for i in range(9):
        changed = decide.observe(frame(i / 10), sight(STRANGER))
        assert [a.status for a in changed.values()] == (["unknown"] if i == 3 else [])
    # neither a name nor far from one: it stays unknown, as of all looks
    assert (decide.decisions[7].status, decide.decisions[7].frames_used) == ("unknown", 9)
    assert decide.decisions[7].candidates[0].score == 0.46


def test_an_unknown_face_that_fits_two_names_is_told_before_the_deadline() -> None:
    decide = scores_by_call(*[(0.1, 0.0)] * 4, (0.69, 0.67))
    answers = watch(decide, [(i / 10, sight(STRANGER)) for i in range(6)])
    assert [(at, a.status) for at, a in answers] == [(0.3, "unknown"), (0.4, "unrecognizable")]


def test_who_waited_beside_a_better_face_gets_the_name_when_that_one_has_gone() -> None:
    decide = decider()
    for i in range(5):
        decide.observe(frame(i / 10), side_by_side(mixed(GRACE, 0.6), GRACE))
    assert {i: d.identity for i, d in decide.decisions.items()} == {2: "grace"}
    decide.end([2])
    decide.observe(frame(0.6), side_by_side(mixed(GRACE, 0.6)))
    assert {i: d.identity for i, d in decide.decisions.items()} == {1: "grace"}
