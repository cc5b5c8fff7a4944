"""Small faces in large pictures: parts of the picture looked at enlarged, a few in every frame.

YuNet finds nearly all faces that are 32 px high where they reach the network and half of those of 12 px,
and a 4K picture reaches it at half its size. Enlarged by half, nine in ten faces of 12 px are found, but
all of a 4K picture, enlarged so, costs eleven times what the look at the whole does. So in each frame

- a few tiles are looked at in turn: every second one is the tile that has waited longest, so that each has
  its turn within a stated number of frames; the others are, of those that changed since they were last
  looked at, the one that has waited longest;
- each place where a small face was seen lately is looked at again, in a window of its own that costs a
  tenth of a tile: so a track goes on between the turns. A window shows the face at another size than the
  tile did, and what a tile took for a face is rarely taken for one at both.

Tiles overlap by the largest face that they answer for. A face that the border of a tile or window cuts is
left to the neighbour that holds all of it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_fr.detect import Detector
from edge_fr.errors import InputError
from edge_fr.heads import concatenate
from edge_fr.structures import Faces, Frame

_TILE_PX = 426  # of the picture; the network gets it at 640, the size that detectors are trained on
_TILE_INPUT_PX = 640
_SMALL_PX = 20  # of faces that are larger in the look at the whole picture, that one finds nine in ten
_WINDOW_FACES = 8  # a window's side; a brisk walk leaves it after 0.4 s
_WINDOW_INPUT_PX = 192  # at which its face has 24 px
_WINDOWS_A_TILE = 8
_EDGE_PX = 2  # nearer to the border than this, a face may be cut
_KEEP_NS = 1_500_000_000  # as long as a Tracker waits for a face to come back
_SAMPLE_PX = 8  # changes are looked for in every eighth pixel: a body has a hundred where its face has 12 px
_CHANGED_LEVELS = 25  # of 255; noise rarely changes a pixel as much
_CHANGED_SAMPLES = 3

_Size = tuple[int, int]
_Box = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class View:
    """A part of a picture, a box xyxy in its pixels, that is looked at with its sides enlarged to `fed`."""

    box: _Box
    fed: _Size

    @property
    def scale(self) -> float:
        return self.fed[0] / (self.box[3] - self.box[1])

    def cut(self, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """What the detector gets, (*fed, 3)."""
        x0, y0, x1, y1 = self.box
        part = cv2.resize(picture[y0:y1, x0:x1], self.fed[::-1], interpolation=cv2.INTER_LINEAR)
        return np.asarray(part, np.uint8)

    def place(self, found: Faces, size: _Size) -> Faces:
        """Faces found in what `cut` gave, in pixels of the picture of that (height, width), without those
        that the border of the view cuts, or may cut, inside the picture."""
        x0, y0, x1, y1 = self.box
        shrink = np.array([(x1 - x0) / self.fed[1], (y1 - y0) / self.fed[0]], np.float32)
        shift = np.array([x0, y0], np.float32)
        boxes = found.boxes * np.tile(shrink, 2) + np.tile(shift, 2)
        whole = self._hold(boxes, size)
        return found.with_(boxes=boxes, landmarks=found.landmarks * shrink + shift)[whole]

    def shows(self, box: NDArray[np.float32], size: _Size) -> bool:
        """Whether a face of that box, and one that moved by its own size, is whole in here."""
        side = float((box[2:] - box[:2]).max())
        reach = box + np.array([-side, -side, side, side], np.float32)
        return bool(self._hold(reach[None], size)[0])

    def _hold(self, boxes: NDArray[np.float32], size: _Size) -> NDArray[np.bool_]:
        x0, y0, x1, y1 = self.box
        height, width = size
        inf, edge = np.inf, _EDGE_PX
        least = (x0 + edge if x0 > 0 else -inf, y0 + edge if y0 > 0 else -inf)
        most = (x1 - edge if x1 < width else inf, y1 - edge if y1 < height else inf)
        held: NDArray[np.bool_] = np.all((boxes[:, :2] >= least) & (boxes[:, 2:] <= most), axis=1)
        return held


@dataclass(slots=True, eq=False)
class _Spot:
    """Where a small face was seen last."""

    box: NDArray[np.float32]
    seen_ns: int
    looked: int  # the number of the frame in which it was looked at last

    def away(self, box: NDArray[np.float32]) -> float:
        """How far the middle of another box is from that of this one, along the longer way, in its sides."""
        far = np.abs(box[:2] + box[2:] - self.box[:2] - self.box[2:]).max() / 2
        return float(far / (self.box[2:] - self.box[:2]).max())


class Plan:
    """Which parts of one camera's pictures of (height, width) `size` are looked at in which frame.

    `scale` is how much the look at the whole picture scales it down. `per_frame` tiles are looked at in
    every frame (None: all), each at least once in `round_frames` frames, and at most eight times as many
    windows. `largest_px` is the longest side of a face that tiles and windows answer for.
    """

    def __init__(self, size: _Size, scale: float, per_frame: int | None) -> None:
        self.size = size
        self.largest_px = min(_SMALL_PX / scale, _TILE_PX / 2)
        self.tiles = layout(size, math.ceil(self.largest_px) + 2 * _EDGE_PX + 1)  # a pixel for rounding
        self._per_frame = len(self.tiles) if per_frame is None else min(per_frame, len(self.tiles))
        self.round_frames = math.ceil(2 * len(self.tiles) / self._per_frame)
        self._turn = 0  # counts the tiles that were looked at
        self._turns = np.zeros(len(self.tiles), np.int64)  # of each tile, when it was looked at last
        self._frame = 0
        self._now_ns = 0
        self._spots: list[_Spot] = []

    def next(self, changed: NDArray[np.bool_], now_ns: int) -> tuple[list[int], list[View]]:
        """The tiles to look at in the frame of that time, by their numbers in `tiles`, and the windows.

        `changed` says for each tile whether it changed since it was looked at last.
        """
        self._frame += 1
        self._now_ns = now_ns
        return [self._next_tile(changed) for _ in range(self._per_frame)], self._windows()

    def saw(self, boxes: NDArray[np.float32]) -> None:
        """Takes in the boxes (N, 4) of all faces that were found in the frame."""
        small = boxes[(boxes[:, 2:] - boxes[:, :2]).max(axis=1, initial=0) <= self.largest_px]
        for box in small:  # each is one spot's face at most, the nearest one's: a neighbour's stays
            again = min(self._spots, key=lambda spot: spot.away(box), default=None)
            if again is not None and again.away(box) <= _WINDOW_FACES / 2:
                self._spots.remove(again)
        self._spots += [_Spot(box, self._now_ns, self._frame) for box in small]

    def _next_tile(self, changed: NDArray[np.bool_]) -> int:
        self._turn += 1
        order = np.argsort(self._turns, kind="stable")  # the one that has waited longest first
        if self._turn % 2 == 0:
            # Those of this frame cannot have changed again.
            waiting = order[changed[order] & (self._turns[order] < self._frame_began())]
            order = waiting if len(waiting) else order
        self._turns[order[0]] = self._turn
        return int(order[0])

    def _frame_began(self) -> int:
        return (self._frame - 1) * self._per_frame + 1

    def _windows(self) -> list[View]:
        self._spots = [spot for spot in self._spots if self._now_ns - spot.seen_ns <= _KEEP_NS]
        windows: list[View] = []
        for spot in sorted(self._spots, key=lambda spot: spot.looked):
            own = self._window(spot.box)
            if not any(w.scale >= own.scale / 2 and w.shows(spot.box, self.size) for w in windows):
                if len(windows) == _WINDOWS_A_TILE * self._per_frame:
                    break
                windows.append(own)
            spot.looked = self._frame
        return windows

    def _window(self, box: NDArray[np.float32]) -> View:
        height, width = self.size
        side = max(1, round(_WINDOW_FACES * float((box[2:] - box[:2]).max())))
        w, h = min(side, width), min(side, height)
        x, y = (box[:2] + box[2:]) / 2
        x0 = round(min(max(float(x) - w / 2, 0), width - w))
        y0 = round(min(max(float(y) - h / 2, 0), height - h))
        fed = max(1, round(h * _WINDOW_INPUT_PX / side)), max(1, round(w * _WINDOW_INPUT_PX / side))
        return View((x0, y0, x0 + w, y0 + h), fed)


class TiledDetector:
    """A detector's answers for one camera's pictures, and those for enlarged parts of them, as one answer.

    `per_frame` tiles of 426 x 426 px are looked at in every frame, each of which costs the network what a
    picture of 640 x 640 does. Windows around small faces that were seen lately, up to eight times
    `per_frame`, cost a tenth of it each. A 4K picture has 60 tiles: with 4 in a frame each is looked at once
    in 30 frames, sooner where something changed. They answer for faces of up to 40 px there. Of `stills`,
    pictures that have nothing to do with each other, all tiles are looked at.

    It keeps what it knows of the camera: use one for each. Where the pictures' size changes, or time runs
    backwards, it begins again. InputError for a detector whose input has a fixed size.
    """

    def __init__(self, detector: Detector, per_frame: int, *, stills: bool = False) -> None:
        if per_frame < 1:
            raise InputError(f"{per_frame} tiles a frame, expected at least 1")
        if detector.fixed_size is not None:
            height, width = detector.fixed_size
            raise InputError(
                f"tiles and windows differ in size, and {detector.card.name} takes only {width} x {height}; "
                f"use its ONNX file with open sizes, or build the engine with a range of --height and --width"
            )
        self._detector = detector
        self._per_frame = None if stills else per_frame
        self._plan: Plan | None = None
        self._changes: _Changes | None = None
        self._now_ns = 0
        self._views: list[View] = []

    def __call__(self, frame: Frame, faces: Faces) -> Faces:
        """The faces of the frame, in place of those handed in."""
        return self.merge(self._detector.detect_many(self.pictures(frame.image, frame.pts_ns)))

    def pictures(self, picture: NDArray[np.uint8], now_ns: int) -> list[NDArray[np.uint8]]:
        """What the detector is to look at in the camera's next picture: all of it first, and then parts."""
        size = picture.shape[:2]
        plan, changes = self._plan, self._changes
        related = plan is not None and plan.size == size and now_ns >= self._now_ns
        if plan is None or changes is None or not related or self._per_frame is None:
            plan = self._plan = Plan(size, self._detector.scale(size), self._per_frame)
            changes = self._changes = _Changes(picture, plan.tiles)
        self._now_ns = now_ns
        numbers, windows = plan.next(changes.since_looked(picture), now_ns)
        changes.looked_at(numbers)
        self._views = [tile_view(plan.tiles[number]) for number in numbers] + windows
        return [picture, *(view.cut(picture) for view in self._views)]

    def merge(self, found: Sequence[Faces]) -> Faces:
        """The faces of the picture, from those found in each of the last `pictures`, best score first."""
        plan = self._plan
        if plan is None or len(found) != 1 + len(self._views):
            raise InputError(f"{len(found)} answers for {1 + len(self._views)} pictures")
        whole = found[0]
        pairs = zip(self._views, found[1:], strict=True)
        small = concatenate([Faces.empty(), *(view.place(faces, plan.size) for view, faces in pairs)])
        small = small[_longer_sides(small) <= plan.largest_px]
        # Enlarged, a large face has faces inside.
        large = whole.boxes[_longer_sides(whole) > plan.largest_px]
        centres = (small.boxes[:, None, :2] + small.boxes[:, None, 2:]) / 2
        inside = np.all((centres > large[:, :2]) & (centres < large[:, 2:]), axis=2).any(axis=1)
        merged = self._detector.suppress(concatenate([whole, small[~inside]]))
        plan.saw(merged.boxes)
        return merged


class _Changes:
    """Where a camera's picture differs from what it was when that tile was looked at last."""

    def __init__(self, picture: NDArray[np.uint8], tiles: Sequence[_Box]) -> None:
        self._areas = [
            (slice(y0 // _SAMPLE_PX, -(-y1 // _SAMPLE_PX)), slice(x0 // _SAMPLE_PX, -(-x1 // _SAMPLE_PX)))
            for x0, y0, x1, y1 in tiles
        ]
        self._now = _samples(picture)
        self._then = [self._now[area].copy() for area in self._areas]

    def since_looked(self, picture: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """For each tile, whether it changed."""
        self._now = _samples(picture)
        differ = [
            np.count_nonzero(np.abs(self._now[area] - then) > _CHANGED_LEVELS)
            for area, then in zip(self._areas, self._then, strict=True)
        ]
        return np.array(differ) >= _CHANGED_SAMPLES

    def looked_at(self, numbers: Sequence[int]) -> None:
        for number in numbers:
            self._then[number] = self._now[self._areas[number]].copy()


def layout(size: _Size, overlap_px: int) -> list[_Box]:
    """Boxes xyxy that cover a picture of (height, width) and overlap by `overlap_px` or more, row by row."""
    height, width = size
    return [
        (x, y, min(x + _TILE_PX, width), min(y + _TILE_PX, height))
        for y in _starts(height, overlap_px)
        for x in _starts(width, overlap_px)
    ]


def tile_view(box: _Box) -> View:
    """How a tile is looked at."""
    x0, y0, x1, y1 = box
    enlarge = _TILE_INPUT_PX / _TILE_PX
    return View(box, (max(1, round((y1 - y0) * enlarge)), max(1, round((x1 - x0) * enlarge))))


def _starts(length: int, overlap_px: int) -> list[int]:
    rest = length - _TILE_PX
    if rest <= 0:
        return [0]
    gaps = -(-rest // (_TILE_PX - overlap_px))
    return [number * rest // gaps for number in range(gaps + 1)]


def _samples(picture: NDArray[np.uint8]) -> NDArray[np.int16]:
    return picture[::_SAMPLE_PX, ::_SAMPLE_PX, 1].astype(np.int16)


def _longer_sides(faces: Faces) -> NDArray[np.float32]:
    longer: NDArray[np.float32] = (faces.boxes[:, 2:] - faces.boxes[:, :2]).max(axis=1, initial=0)
    return longer
