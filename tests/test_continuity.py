"""Whose face a track goes on with: looks that belong, looks that do not, and people who cross or hide."""

from __future__ import annotations

from datetime import datetime, timezone

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edge_fr.continuity import Continuity
from edge_fr.structures import Faces, Frame

SECOND = 1_000_000_000
KEEP_NS = 3 * SECOND // 2
ANNA, BERTA, CARLA = np.eye(3, dtype=np.float32)
BELONGS, RETURNS = 0.3, 0.5


def continuity() -> Continuity:
    return Continuity(lambda ri: BELONGS, RETURNS)


def frame(seconds: float) -> Frame:
    return Frame(np.zeros((100, 400, 3), np.uint8), round(seconds * SECOND), datetime.now(timezone.utc))


Sight = tuple[int, float, NDArray[np.float32] | None, bool]
"""A tracker's id, where the face is (x in px), its look if there is one, and whether it may be another."""


def faces(*sights: Sight) -> Faces:
    n = len(sights)
    boxes = np.array([[x - 10, 40, x + 10, 60] for _, x, _, _ in sights], np.float32).reshape(n, 4)
    rows = [np.full(3, np.nan, np.float32) if look is None else look for _, _, look, _ in sights]
    return Faces(
        boxes,
        np.ones(n, np.float32),
        np.zeros((n, 5, 2), np.float32),
        track_ids=np.array([tracklet for tracklet, _, _, _ in sights], np.int64),
        unsure=np.array([unsure for _, _, _, unsure in sights], np.bool_),
        embeddings=np.array(rows, np.float32).reshape(n, 3),
        ri=np.full(n, 0.8, np.float32),
    )


def told(
    stage: Continuity, seconds: float, *sights: Sight, gone: tuple[int, ...] = ()
) -> list[tuple[int, bool]]:
    """The ids of the faces, and whether they are in doubt."""
    found = stage(frame(seconds), faces(*sights), gone, KEEP_NS)
    assert found.track_ids is not None
    assert found.unsure is not None
    return list(zip(found.track_ids.tolist(), found.unsure.tolist(), strict=True))


def near(person: NDArray[np.float32], score: float, away: NDArray[np.float32] = CARLA) -> NDArray[np.float32]:
    return np.asarray(score * person + np.sqrt(1 - score**2) * away, np.float32)


def test_one_person_has_one_id_however_often_looked_at() -> None:
    stage = continuity()
    looks = [ANNA, None, near(ANNA, 0.6), None, near(ANNA, 0.4)]
    assert [told(stage, i / 5, (7, 50, look, False)) for i, look in enumerate(looks)] == [[(1, False)]] * 5
    assert stage.ended == ()
    assert told(stage, 1.2, gone=(7,)) == []
    assert stage.ended == (1,)


def test_who_steps_up_where_somebody_left_gets_another_id() -> None:
    stage = continuity()
    told(stage, 0.0, (7, 50, ANNA, False))
    assert told(stage, 0.8, (7, 52, BERTA, True)) == [(2, False)]
    assert stage.ended == ()  # she may come back
    assert told(stage, 2.2, (7, 52, BERTA, False)) == [(2, False)]
    assert stage.ended == (1,)
    assert stage.finish() == (2,)


def test_a_face_is_in_doubt_until_a_look_tells() -> None:
    stage = continuity()
    told(stage, 0.0, (7, 50, ANNA, False))
    assert told(stage, 0.8, (7, 50, None, True)) == [(1, True)]
    assert told(stage, 1.0, (7, 50, None, False)) == [(1, True)]  # no look yet
    assert told(stage, 1.2, (7, 50, near(ANNA, 0.6), False)) == [(1, False)]


def test_a_look_that_may_be_either_neither_settles_a_doubt_nor_ends_the_track() -> None:
    stage = continuity()
    told(stage, 0.0, (7, 50, ANNA, False))
    assert told(stage, 0.8, (7, 50, near(ANNA, 0.4), True)) == [(1, True)]  # between BELONGS and RETURNS
    # what was passed over is no evidence: a look like it and not like her does not belong
    assert told(stage, 1.0, (7, 50, CARLA, False)) == [(2, False)]


def test_people_whose_tracks_were_exchanged_keep_their_ids() -> None:
    stage = continuity()
    told(stage, 0.0, (1, 50, ANNA, False), (2, 150, BERTA, False))
    assert told(stage, 0.2, (1, 110, BERTA, False), (2, 90, ANNA, False)) == [(2, False), (1, False)]
    assert told(stage, 0.4, (1, 130, None, False), (2, 70, None, False)) == [(2, False), (1, False)]
    assert stage.ended == ()


def test_where_only_one_of_two_exchanged_is_looked_at_the_other_takes_over_the_other_id_in_doubt() -> None:
    stage = continuity()
    told(stage, 0.0, (1, 50, ANNA, False), (2, 150, BERTA, False))
    sights: tuple[Sight, Sight] = ((1, 110, BERTA, True), (2, 90, None, True))
    assert told(stage, 0.2, *sights) == [(2, False), (1, True)]
    assert told(stage, 0.4, (1, 130, None, False), (2, 70, ANNA, False)) == [(2, False), (1, False)]


def test_who_stands_by_without_a_doubt_does_not_lose_the_face_to_a_lookalike() -> None:
    stage = continuity()
    told(stage, 0.0, (1, 50, ANNA, False), (2, 80, BERTA, False))
    assert told(stage, 0.2, (1, 50, BERTA, False), (2, 80, None, False)) == [(3, False), (2, False)]


def test_who_was_hidden_comes_back_under_the_old_id() -> None:
    stage = continuity()
    told(stage, 0.0, (1, 50, ANNA, False))
    assert told(stage, 0.2, (1, 52, BERTA, False)) == [(2, False)]  # passes before her
    assert told(stage, 0.6, (1, 90, None, False), (3, 50, None, False)) == [(2, False), (3, False)]
    assert told(stage, 0.8, (1, 95, None, False), (3, 50, near(ANNA, 0.6), False)) == [(2, False), (1, False)]
    assert stage.ended == (3,)
    assert stage.renamed == {3}  # it was she, and nobody need hear of it


def test_who_is_too_far_away_or_not_alike_enough_is_not_taken_for_who_was_lost() -> None:
    for x, look in ((390.0, ANNA), (50.0, near(ANNA, 0.45))):
        stage = continuity()
        told(stage, 0.0, (1, 50, ANNA, False))
        told(stage, 0.2, (1, 52, BERTA, False))
        assert told(stage, 0.4, (1, 60, None, False), (3, x, look, False)) == [(2, False), (3, False)]


def test_faces_without_a_look_neither_split_nor_join() -> None:
    stage = continuity()
    assert told(stage, 0.0, (1, 50, None, False), (2, 80, None, False)) == [(1, False), (2, False)]
    assert told(stage, 0.2, (1, 50, None, True), (2, 80, None, False)) == [(1, True), (2, False)]
    assert told(stage, 0.4, (2, 80, None, False), gone=(1,)) == [(2, False)]
    assert stage.ended == (1,)


LOOKS = (None, ANNA, BERTA, CARLA, near(ANNA, 0.4), near(BERTA, 0.6))


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.dictionaries(
            st.integers(1, 4),
            st.tuples(st.integers(0, 5), st.integers(0, 380), st.booleans(), st.booleans()),
            max_size=4,
        ),
        max_size=14,
    )
)
def test_every_id_ends_once_and_no_two_faces_of_a_frame_have_the_same(
    script: list[dict[int, tuple[int, int, bool, bool]]],
) -> None:
    stage = continuity()
    returned: set[int] = set()
    ended: list[int] = []
    over: set[int] = set()  # ids of the tracker are used once
    seen: set[int] = set()
    for i, sights in enumerate(script):
        here = {t: s for t, s in sights.items() if t not in over}
        gone = tuple(t for t in seen - set(here) if sights.get(t, (0, 0, False, True))[3] and t not in over)
        over |= set(gone)
        seen |= set(here)
        rows = [(t, float(x), LOOKS[look], unsure) for t, (look, x, unsure, _) in here.items()]
        ids = [number for number, _ in told(stage, i / 2, *rows, gone=gone)]
        assert len(set(ids)) == len(ids)
        assert not set(ids) & set(ended)
        returned |= set(ids)
        ended += stage.ended
        assert stage.renamed <= set(stage.ended)
    ended += stage.finish()
    assert len(ended) == len(set(ended))
    assert set(ended) >= returned
