"""Small faces in large pictures: where tiles lie, which are looked at when, what comes of the answers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edge_fr.cli import main
from edge_fr.detect import Detector
from edge_fr.engine import Engine, open_engine
from edge_fr.errors import InputError, ModelNotFoundError
from edge_fr.lane import Lane
from edge_fr.models import resolve
from edge_fr.region import Region
from edge_fr.structures import Faces, Frame
from edge_fr.tiles import Plan, TiledDetector, tile_view

Image = NDArray[np.uint8]
Boxes = NDArray[np.float32]

MS = 1_000_000
GREY = 90
SIZES = st.tuples(st.integers(1, 2500), st.integers(1, 4200))


class Squares:
    """A detector of white squares that are 15 px high or more where they reach its network."""

    def __init__(self, longest_px: int = 640, fixed_size: tuple[int, int] | None = None) -> None:
        self.fixed_size = fixed_size
        self.card = SimpleNamespace(name="squares")
        self.suppress = Detector.suppress.__get__(SimpleNamespace(_nms_threshold=0.3))
        self._longest_px = longest_px

    def scale(self, size: tuple[int, int]) -> float:
        return min(1.0, self._longest_px / max(size))

    def detect_many(self, pictures: Sequence[Image]) -> list[Faces]:
        return [self._detect(picture) for picture in pictures]

    def _detect(self, picture: Image) -> Faces:
        _, _, stats, _ = cv2.connectedComponentsWithStats((picture[:, :, 1] > 170).astype(np.uint8))
        boxes = stats[1:, :4].astype(np.float32)
        boxes[:, 2:] += boxes[:, :2]
        high = (boxes[:, 3] - boxes[:, 1]) * self.scale(picture.shape[:2])
        boxes = boxes[high >= 15]
        points = np.repeat(((boxes[:, :2] + boxes[:, 2:]) / 2)[:, None], 5, axis=1)
        return Faces(boxes, np.minimum(1, (boxes[:, 3] - boxes[:, 1]) / 100), points)


def tiled(per_frame: int = 1, *, stills: bool = False, **more: Any) -> TiledDetector:
    return TiledDetector(Squares(**more), per_frame, stills=stills)  # type: ignore[arg-type]


def scene(*squares: tuple[int, int, int], size: tuple[int, int] = (700, 1000)) -> Image:
    """A grey picture with white squares (x, y, side)."""
    picture = np.full((*size, 3), GREY, np.uint8)
    for x, y, side in squares:
        picture[y : y + side, x : x + side] = 255
    return picture


def look(stage: TiledDetector, picture: Image, at_ms: int = 0) -> Faces:
    return stage(Frame(picture, at_ms * MS, datetime.now(timezone.utc)), Faces.empty())


def none_changed(plan: Plan) -> NDArray[np.bool_]:
    return np.zeros(len(plan.tiles), np.bool_)


def face(x: float, y: float, side: float) -> Boxes:
    return np.array([[x, y, x + side, y + side]], np.float32)


# Where tiles lie


@settings(deadline=None)
@given(
    size=SIZES,
    scale=st.floats(0.25, 1),
    side=st.floats(1, 80),
    tile=st.floats(0, 1, exclude_max=True),
    place=st.tuples(st.floats(0, 1), st.floats(0, 1)),
)
def test_every_face_that_tiles_answer_for_is_whole_in_one_of_them(
    size: tuple[int, int], scale: float, side: float, tile: float, place: tuple[float, float]
) -> None:
    plan = Plan(size, scale, 1)
    for low, high in ((0, 2), (1, 3)):
        starts, ends = sorted({box[low] for box in plan.tiles}), sorted({box[high] for box in plan.tiles})
        overlaps = np.array(ends[:-1]) - starts[1:]
        assert (overlaps >= plan.largest_px + 4).all()  # nearer than 2 px to the border it may be cut
    side = min(side, plan.largest_px, *size)
    # at the lower right corner of one of them, where a face is most easily cut
    box = plan.tiles[int(tile * len(plan.tiles))]
    x = float(np.clip(box[2] - place[0] * side, 0, size[1] - side))
    y = float(np.clip(box[3] - place[1] * side, 0, size[0] - side))
    found = Faces(face(x, y, side), np.ones(1, np.float32), np.zeros((1, 5, 2), np.float32))
    holders = 0
    for box in plan.tiles:
        assert 0 <= box[0] < box[2] <= size[1]
        assert 0 <= box[1] < box[3] <= size[0]
        view = tile_view(box)
        ratio = np.array(view.fed[::-1], np.float32) / (box[2] - box[0], box[3] - box[1])
        seen = (found.boxes.reshape(2, 2) - box[:2]) * ratio
        holders += len(view.place(found.with_(boxes=seen.reshape(1, 4).astype(np.float32)), size))
    assert holders >= 1


def test_a_4k_picture_has_sixty_tiles_and_they_answer_for_faces_of_40_px() -> None:
    plan = Plan((2160, 3840), 0.5, 4)
    assert (len(plan.tiles), plan.round_frames, plan.largest_px) == (60, 30, 40)
    assert {tile_view(box).fed for box in plan.tiles} == {(640, 640)}


# Which are looked at when


@settings(deadline=None)
@given(
    size=SIZES,
    per_frame=st.integers(1, 9),
    seed=st.integers(0, 2**32 - 1),
    restless=st.floats(0, 1),
)
def test_every_tile_has_its_turn_within_a_round_whatever_changes(
    size: tuple[int, int], per_frame: int, seed: int, restless: float
) -> None:
    plan = Plan(size, 0.5, per_frame)
    changed = np.random.default_rng(seed).random(len(plan.tiles)) < restless  # all the time: leaves, a road
    looked = np.zeros(len(plan.tiles), np.int64)  # the frame, from 1
    for number in range(1, 2 * plan.round_frames + 5):
        numbers, windows = plan.next(changed, number * MS)
        assert len(set(numbers)) == len(numbers) == min(per_frame, len(plan.tiles))
        assert windows == []
        assert (number - looked <= plan.round_frames).all()
        looked[numbers] = number


def test_the_only_tile_that_changed_is_looked_at_at_once_and_of_many_the_one_that_waited_longest() -> None:
    plan = Plan((2160, 3840), 0.5, 2)
    changed = none_changed(plan)
    changed[37] = True
    for number in range(5):
        assert 37 in plan.next(changed, number * MS)[0]
    changed[[44, 58]] = True
    looked = [number for _ in range(9) for number in plan.next(changed, 9 * MS)[0][1:]]
    assert looked == [44, 58, 37] * 3


def test_noise_is_no_change_and_who_comes_in_is_looked_at_although_that_tile_had_just_had_its_turn() -> None:
    rng = np.random.default_rng(0)
    noise = np.rint(rng.normal(0, 4, (700, 1000, 3)))
    stage = tiled(2)

    def brightest(picture: Image, number: int) -> int:
        shaken = np.clip(picture + np.roll(noise, 7 * number, axis=1), 0, 255).astype(np.uint8)
        pictures = stage.pictures(shaken, number * MS)
        stage.merge([Faces.empty()] * len(pictures))
        return max(int(view.max()) for view in pictures[1:])

    assert max(brightest(scene(), number) for number in range(3)) < 150  # all six tiles
    entered = scene()
    entered[600:690, 960:985] = 160  # in the last of them alone: a body of a face of 12 px
    assert brightest(entered, 3) > 150


# What is seen where


@settings(deadline=None, max_examples=30)
@given(x=st.integers(0, 988), y=st.integers(0, 688), side=st.integers(12, 16))
def test_a_face_of_12_px_is_found_once_and_where_it_is_wherever_that_is(x: int, y: int, side: int) -> None:
    x, y = min(x, 1000 - side), min(y, 700 - side)
    picture = scene((x, y, side))
    assert len(Squares().detect_many([picture])[0]) == 0
    found = look(tiled(stills=True), picture)
    assert len(found) == 1
    # Enlarged by half its edges are soft: half a pixel of the picture, and a rounded one of the view.
    assert found.boxes[0] == pytest.approx([x, y, x + side, y + side], abs=1.2)
    assert found.landmarks[0] == pytest.approx(np.tile((x + side / 2, y + side / 2), (5, 1)), abs=1.2)


def test_a_face_that_borders_cut_is_told_whole_and_one_too_large_for_tiles_by_the_whole_picture() -> None:
    stage = tiled(stills=True)
    picture = scene((400, 300, 30), (700, 380, 90), (985, 600, 15), (0, 685, 15))
    found = look(stage, picture)
    sides = sorted((found.boxes[:, 2] - found.boxes[:, 0]).tolist())
    assert sides == pytest.approx([15, 15, 30, 90], abs=1.2)


def test_a_part_of_a_large_face_that_looks_like_a_face_is_none() -> None:
    stage = tiled(stills=True)
    pictures = stage.pictures(scene(), 0)
    large, part = face(500, 200, 400), face(200, 200, 40)
    ones, points = np.ones(1, np.float32), np.zeros((1, 5, 2), np.float32)
    answers = [Faces(large, ones, points)]
    answers += [Faces(part, ones, points)] * (len(pictures) - 1)
    corners = stage.merge(answers).boxes.reshape(-1, 2, 2)
    within = ((corners > large[0, :2]) & (corners < large[0, 2:])).all(axis=(1, 2))
    assert not within.any()
    assert len(stage.merge(answers[:1] + [Faces.empty()] * (len(pictures) - 1))) == 1


def test_answers_that_are_not_those_of_the_pictures_are_refused() -> None:
    with pytest.raises(InputError, match="2 answers for 1 pictures"):
        tiled().merge([Faces.empty()] * 2)


# Following


def test_a_small_face_is_looked_at_in_every_frame_once_it_was_found_and_no_longer_than_it_may_come_back() -> (
    None
):
    stage = tiled(1)
    first = next(n for n in range(12) if len(look(stage, scene((250, 600, 12)), 40 * n)))
    for number in range(1, 40):  # its own size in each frame: ten frames a second at a brisk walk
        x = 250 + 12 * number
        (box,) = look(stage, scene((x, 600, 12)), 40 * (first + number)).boxes
        assert box == pytest.approx([x, 600, x + 12, 612], abs=1.2)
    gone_ms = 40 * (first + 39)
    counts = {ms: len(stage.pictures(scene(), (gone_ms + ms) * MS)) for ms in (40, 1500, 1501, 3000)}
    assert counts == {40: 3, 1500: 3, 1501: 2, 3000: 2}  # all of it, a tile, and the window


@settings(deadline=None)
@given(
    places=st.lists(st.tuples(st.integers(0, 24), st.integers(0, 13)), min_size=1, max_size=60, unique=True),
    per_frame=st.integers(1, 4),
)
def test_more_small_faces_than_windows_are_looked_at_in_turn(
    places: list[tuple[int, int]], per_frame: int
) -> None:
    plan = Plan((2160, 3840), 0.5, per_frame)
    boxes = np.concatenate([face(150 * x, 150 * y, 14) for x, y in places])
    plan.saw(boxes)
    waited = np.zeros(len(boxes), np.int64)
    longest = -(-len(boxes) // (8 * per_frame))
    for number in range(3 * longest):
        _, windows = plan.next(none_changed(plan), number * MS)
        assert len(windows) <= 8 * per_frame
        seen = np.array([any(w.shows(box, plan.size) for w in windows) for box in boxes])
        waited = np.where(seen, 0, waited + 1)
        assert waited.max() < longest


def test_faces_side_by_side_share_a_window_that_shows_them_large_enough() -> None:
    plan = Plan((2160, 3840), 0.5, 4)
    crowd = [face(1000 + 14 * number, 800, 12) for number in range(3)]
    plan.saw(np.concatenate([*crowd, face(990, 840, 4)]))
    _, windows = plan.next(none_changed(plan), 0)
    assert [window.fed for window in windows] == [(192, 192)] * 2  # the three, and the one of 4 px


@pytest.mark.parametrize(("x", "side"), [(1100, 30), (1050, 120)])
def test_a_small_face_that_is_missed_once_is_looked_for_although_another_is_beside_it(
    x: int, side: int
) -> None:
    plan = Plan((2160, 3840), 0.5, 4)
    small, beside = face(1000, 800, 30), face(x, 800, side)
    for number, found in enumerate([np.concatenate([small, beside]), beside, beside]):
        plan.saw(found)
        _, windows = plan.next(none_changed(plan), number * MS)
        assert any(window.shows(small[0], plan.size) for window in windows)


def test_pictures_of_another_size_and_times_before_the_last_begin_again() -> None:
    stage = tiled(64)
    for picture, at_ms, more in ((scene(), 80, 1), (scene(), 39, 0), (scene(size=(200, 300)), 80, -5)):
        assert len(look(stage, scene((600, 300, 12)), 40)) == 1
        # all of it, six tiles, or one of a smaller picture, and a window
        assert len(stage.pictures(picture, at_ms * MS)) == 7 + more


# Where it is used


def test_a_region_is_all_that_tiles_see_and_boxes_are_of_the_whole_picture() -> None:
    camera: Any = SimpleNamespace(name="yard")
    pipeline: Any = None
    lane = Lane(camera, pipeline, region=Region(0.5, 0.25, 1.0, 1.0), tiles=tiled(stills=True))
    picture = scene((1000, 500, 14), (300, 500, 14), size=(1200, 1600))
    frame = Frame(picture, 0, datetime.now(timezone.utc))
    pictures = lane.pictures(frame)
    assert pictures[0].shape == (900, 800, 3)
    faces = lane.place(Squares().detect_many(pictures), frame)
    assert faces.boxes == pytest.approx(face(1000, 500, 14), abs=1.2)


def test_a_detector_that_takes_one_size_and_a_number_that_means_nothing_are_refused() -> None:
    with pytest.raises(InputError, match=r"squares takes only 640 x 480; use its ONNX file with open sizes"):
        tiled(fixed_size=(480, 640))
    with pytest.raises(InputError, match="0 tiles a frame, expected at least 1"):
        tiled(0)


# The real YuNet, and a portrait in the public domain


@pytest.fixture(scope="module")
def yunet() -> Engine:
    try:
        return open_engine(resolve("yunet"))
    except ModelNotFoundError as error:
        pytest.skip(str(error))


def with_portrait(picture: Image, face_px: float, centre: tuple[int, int]) -> Boxes:
    """Sets NASA's portrait of Eileen Collins into the picture, her face so high; gives the face's box."""
    portrait = pytest.importorskip("skimage.data").astronaut()[:, :, ::-1]
    box = np.array([178, 64, 268, 177], np.float32)
    scale = face_px / (box[3] - box[1])
    small = cv2.resize(portrait, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    middle = scale * (box[:2] + box[2:]) / 2
    x, y = round(centre[0] - float(middle[0])), round(centre[1] - float(middle[1]))
    picture[y : y + small.shape[0], x : x + small.shape[1]] = small
    return np.asarray(box * scale + np.tile((x, y), 2), np.float32)


def test_a_face_of_12_px_is_found_in_a_tile_and_then_followed_and_not_without_tiles(yunet: Engine) -> None:
    detector = Detector(yunet, max_side_px=640)  # as of a 4K picture: half of its size
    picture = scene(size=(720, 1280))
    expected = with_portrait(picture, 12, (700, 420))
    assert len(detector.detect(picture)) == 0
    stage = TiledDetector(detector, 2)
    found = [look(stage, picture, 100 * number) for number in range(8)]
    seen = [number for number, faces in enumerate(found) if len(faces)]
    assert seen == list(range(seen[0], 8))
    assert seen[0] < Plan((720, 1280), 0.5, 2).round_frames
    for number in seen:
        (box,) = found[number].boxes
        # To a quarter of the face: the network places one of 12 px to a pixel or two of what it is fed.
        assert box == pytest.approx(expected, abs=3.5)


def test_a_face_that_fills_most_of_the_picture_is_one_face_with_tiles_too(yunet: Engine) -> None:
    picture = scene(size=(1080, 1920))
    expected = with_portrait(picture, 220, (900, 300))
    (box,) = look(TiledDetector(Detector(yunet, max_side_px=960), 1, stills=True), picture).boxes
    assert box == pytest.approx(expected, abs=0.12 * 220)


def test_the_command_finds_a_face_of_12_px_in_a_picture_when_it_is_told_of_tiles(
    tmp_path: Path, yunet: Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = scene(size=(426, 2880))  # reaches the detector at two thirds of its size
    expected = with_portrait(picture, 12, (2000, 200))
    cv2.imwrite(str(tmp_path / "far.png"), picture)
    assert main(["run", str(tmp_path / "far.png"), "--json"]) == 0
    assert capsys.readouterr().out == ""
    assert main(["run", str(tmp_path / "far.png"), "--json", "--tiles", "1"]) == 0
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {event["type"] for event in told} == {"face.unrecognizable", "face.ended"}
    assert told[0]["box_px"] == pytest.approx(expected, abs=3.5)
