"""What is drawn, where, and in which colour."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edge_fr.annotate import KNOWN_BGR, PENDING_BGR, REFUSED_BGR, UNKNOWN_BGR, VideoAnnotator, draw
from edge_fr.structures import Candidate, Decision, Faces, Frame, Refusal

Box = tuple[float, float, float, float]

GRACE = Decision("known", "Grace Hopper", (Candidate("Grace Hopper", 0.71, 0.4),), 0.36, 3)
UNKNOWN = Decision("unknown", None, (), 0.36, 4)
UNRECOGNIZABLE = Decision("unrecognizable", None, (), 0.36, 0)
TOO_SMALL = Refusal("face_size", 14, 24, "at least", "px")


def faces_at(*boxes: Box, refusals: tuple[Refusal, ...] = ()) -> Faces:
    """One tracked face a box, with track ids 0, 1, ..."""
    n = len(boxes)
    return Faces(
        np.array(boxes, np.float32).reshape(n, 4),
        np.ones(n, np.float32),
        np.zeros((n, 5, 2), np.float32),
        track_ids=np.arange(n),
        refusals=(refusals,) * n,
    )


def plain(level: int = 0, height: int = 480, width: int = 640) -> NDArray[np.uint8]:
    return np.full((height, width, 3), level, np.uint8)


def dark_ink(picture: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """The letters on a coloured panel, in a picture that was white."""
    return np.asarray(picture.max(-1) < 100)


def light_ink(picture: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """The letters of a refusal, in a picture that was dark; lighter than its grey box."""
    return np.asarray(picture.min(-1) > max(REFUSED_BGR) + 10)


@pytest.mark.parametrize(
    ("labels", "refusals", "colour"),
    [
        ({0: GRACE}, (), KNOWN_BGR),
        ({0: GRACE}, (TOO_SMALL,), KNOWN_BGR),  # an answer outlasts a poor frame
        ({0: UNKNOWN}, (), UNKNOWN_BGR),
        ({0: UNRECOGNIZABLE}, (), REFUSED_BGR),
        ({}, (TOO_SMALL,), REFUSED_BGR),
        ({}, (), PENDING_BGR),
        ({7: GRACE}, (), PENDING_BGR),  # somebody else's answer
    ],
)
def test_a_box_has_the_colour_of_its_answer(
    labels: dict[int, Decision], refusals: tuple[Refusal, ...], colour: tuple[int, int, int]
) -> None:
    drawn = draw(plain(), faces_at((200, 200, 300, 320), refusals=refusals), labels)
    for x, y in ((199, 260), (300, 260), (250, 199), (250, 320)):
        assert tuple(drawn[y, x]) == colour
    assert not drawn[200:320, 200:300].any()  # nothing over the face


def test_green_is_known_amber_unknown_and_grey_refused_in_bgr() -> None:
    blue, green, red = KNOWN_BGR
    assert green > 1.5 * max(blue, red)
    blue, green, red = UNKNOWN_BGR
    assert red > green > 4 * blue
    assert len(set(REFUSED_BGR)) == 1


def test_a_face_without_an_answer_has_a_thin_box_and_no_words() -> None:
    drawn = draw(plain(), faces_at((200, 200, 300, 320)), {})
    framed = (drawn == PENDING_BGR).all(-1)
    assert framed.sum() == drawn.any(-1).sum() == 2 * (102 + 122) - 4


def test_a_small_face_has_a_thin_box_with_room_around_it() -> None:
    drawn = draw(plain(), faces_at((300, 300, 314, 316)), {})
    assert not drawn[298:318, 298:316].any()
    assert tuple(drawn[308, 297]) == PENDING_BGR


@pytest.mark.parametrize("height", [240, 720, 2160])
def test_words_and_lines_grow_with_the_picture(height: int) -> None:
    picture = plain(255, height, height * 16 // 9)
    box = (0.4 * height, 0.4 * height, 0.6 * height, 0.6 * height)
    drawn = draw(picture, faces_at(box), {0: GRACE})
    rows = np.flatnonzero(dark_ink(drawn).any(1))
    assert 0.012 < len(rows) / height < 0.06  # readable, and no more than a line of it


@pytest.mark.parametrize("x", [0, 580])
@pytest.mark.parametrize("y", [0, 410])
@pytest.mark.parametrize("decision", [GRACE, UNKNOWN])
def test_a_label_is_whole_in_every_corner(x: int, y: int, decision: Decision) -> None:
    whole = dark_ink(draw(plain(255), faces_at((290, 200, 350, 270)), {0: decision}))
    corner = dark_ink(draw(plain(255), faces_at((x, y, x + 60, y + 70)), {0: decision}))
    assert corner.sum() == whole.sum() > 50


def test_a_reason_wider_than_the_picture_is_shortened() -> None:
    drawn = draw(plain(0, 200, 140), faces_at((20, 100, 100, 190), refusals=(TOO_SMALL,)), {})
    ink = np.flatnonzero(light_ink(drawn).any(0))
    assert len(ink) > 30
    assert ink.max() - ink.min() > 100
    assert ink.min() >= 3  # the pads at both sides are still there
    assert ink.max() < 137


def test_the_label_of_a_face_that_fills_the_picture_is_whole() -> None:
    whole = dark_ink(draw(plain(255), faces_at((290, 200, 350, 270)), {0: GRACE}))
    filling = dark_ink(draw(plain(255), faces_at((4, 4, 636, 476)), {0: GRACE}))
    assert filling.sum() == whole.sum() > 50


def test_a_picture_too_small_for_words_gets_the_box_alone() -> None:
    faces = faces_at((3, 3, 9, 9))
    boxed = draw(plain(0, 14, 14), faces, {})
    np.testing.assert_array_equal(draw(plain(0, 14, 14), faces, {0: UNKNOWN}).any(-1), boxed.any(-1))


def test_labels_of_neighbours_cover_neither_each_other_nor_a_face() -> None:
    boxes: list[Box] = [(300, 200, 312, 214), (360, 200, 372, 214), (330, 225, 342, 239)]
    alone = [light_ink(draw(plain(80), faces_at(box, refusals=(TOO_SMALL,)), {})).sum() for box in boxes]
    together = draw(plain(80), faces_at(*boxes, refusals=(TOO_SMALL,)), {})
    assert light_ink(together).sum() == sum(alone) > 0
    for left, top, right, bottom in (map(int, box) for box in boxes):
        assert (together[top:bottom, left:right] == 80).all()


def test_labels_keep_their_places_when_the_order_of_the_faces_changes() -> None:
    faces = faces_at((300, 200, 312, 214), (330, 200, 342, 214), refusals=(TOO_SMALL,))
    np.testing.assert_array_equal(draw(plain(80), faces, {}), draw(plain(80), faces[[1, 0]], {}))


def test_the_reason_of_the_answer_is_shown_where_the_frame_has_none() -> None:
    refused = Decision("unrecognizable", None, (), 0.36, 0, refusals=(TOO_SMALL,))
    box = (200, 200, 300, 320)
    by_answer = draw(plain(), faces_at(box), {0: refused})
    by_frame = draw(plain(), faces_at(box, refusals=(TOO_SMALL,)), {})
    np.testing.assert_array_equal(by_answer, by_frame)


def test_a_name_in_any_letters_is_drawn_and_line_breaks_are_not() -> None:
    def named(name: str) -> NDArray[np.uint8]:
        decision = Decision("known", name, (), 0.36, 3)
        return draw(plain(255), faces_at((200, 200, 300, 320)), {0: decision})

    assert dark_ink(named("Žofie Müller")).sum() > 50
    np.testing.assert_array_equal(named("A\nB"), named("A?B"))


def test_faces_without_tracks_are_drawn() -> None:
    untracked = Faces(
        np.array([[200, 200, 300, 320]], np.float32), np.ones(1, np.float32), np.zeros((1, 5, 2), np.float32)
    )
    tracked = draw(plain(), faces_at((200, 200, 300, 320)), {})
    np.testing.assert_array_equal(draw(plain(), untracked, {0: GRACE}), tracked)


def test_a_face_half_outside_is_framed_at_the_edge_and_one_outside_is_left_out() -> None:
    picture = plain()
    half = draw(picture, faces_at((-50, 100, 40, 200)), {})
    assert tuple(half[150, 0]) == PENDING_BGR
    assert not draw(picture, faces_at((-90, 100, -10, 200)), {}).any()


@given(
    size=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    corners=st.lists(st.tuples(*[st.floats(-120, 120, width=32)] * 4), max_size=4),
)
@settings(deadline=None, max_examples=60)
def test_any_box_on_any_picture_is_drawn_without_touching_the_original(
    size: tuple[int, int], corners: list[Box]
) -> None:
    picture = np.full((*size, 3), 77, np.uint8)
    drawn = draw(picture, faces_at(*corners, refusals=(TOO_SMALL,)), {1: GRACE, 2: UNKNOWN})
    assert drawn.shape == picture.shape
    assert (picture == 77).all()


def test_the_annotated_video_shows_the_boxes(tmp_path: Path) -> None:
    path = tmp_path / "seen.mp4"
    start = datetime(2026, 1, 1, tzinfo=timezone.utc)
    with VideoAnnotator(path, codec="mp4v") as video:
        for i in range(8):
            pts_ns = i * 80_000_000
            frame = Frame(plain(), pts_ns, start + timedelta(microseconds=pts_ns // 1000), index=i)
            video.write(frame, faces_at((200, 200, 300, 320)), {0: GRACE} if i >= 4 else {})
    reader = cv2.VideoCapture(str(path))
    assert reader.get(cv2.CAP_PROP_FPS) == pytest.approx(12.5)
    pictures = [reader.read()[1] for _ in range(8)]
    # The codec halves the resolution of colour and loses a little: 40 of 255 tells green from white.
    assert np.abs(pictures[0][260, 199].astype(int) - PENDING_BGR).max() < 100
    assert np.abs(pictures[7][225:300, 198:200].mean((0, 1)) - KNOWN_BGR).max() < 40
