"""Counts what a pipeline saw, frame by frame, in memory that does not grow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timezone

import numpy as np
from numpy.typing import NDArray

from edge_fr.audit.figures import ASIDE, EYES_M, SIZE, Figures
from edge_fr.audit.pictures import Pictures, Shot, to_jpeg
from edge_fr.measures import measure
from edge_fr.pipeline import Step
from edge_fr.structures import Event, Faces, Frame

_Floats = NDArray[np.float64]

_GAP_NS = 2_000_000_000  # no frame for that long: the camera was away
_MOVED_NS = 300_000_000  # shorter, and a box that trembles by a pixel would pass for a movement
# At a shutter of 1/25 s, a face that moves by two eye distances a second is smeared over a twelfth of
# one, which takes half of its sharpness.
_MOVING_PER_S = 2.0
_FRONTAL_DEG = 40.0  # further turned, the eye distance says little about the size


@dataclass(slots=True)
class _Person:
    first_ns: int
    last_ns: int
    accepted_ns: int | None = None
    largest_px: float = 0.0
    best_quality: float = -1.0
    best_refusals: tuple[str, ...] = ()
    best: tuple[NDArray[np.uint8], float] | None = None  # the crop of the best accepted look, and its size
    shown: set[str] = field(default_factory=set)  # the reasons that an example was offered for
    moving: bool | None = None
    place: tuple[_Floats, int] | None = None  # where the face was, and when


class Gathering:
    """Fills `figures`, and `pictures` if there are to be any (None: nothing that shows anybody is kept).

    `observe` takes every frame with its step; as a sink it is told of tracks that ended and of cameras
    that went. Call `finish` at the end. `ri` of the faces should be filled wherever it is known, for
    faces that were refused too.
    """

    def __init__(
        self,
        *,
        live: bool = False,
        pictures: Pictures | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(timezone.utc),
    ) -> None:
        self.figures = Figures(live=live)
        self.pictures = pictures
        self._now = now
        self._people: dict[int, _Person] = {}
        self._ended: set[int] = set()
        self._last: tuple[int, int] | None = None  # pts_ns and index of the last frame

    def observe(self, frame: Frame, step: Step) -> None:
        """Counts a frame and its faces."""
        figures, faces = self.figures, step.faces
        self._clock(frame)
        if self.pictures is not None:
            self.pictures.see(frame.image, len(faces))
        if len(faces):
            measured = measure(frame.image, faces)
            self._look(frame, faces, measured)
            assert faces.track_ids is not None
            for row in np.flatnonzero(faces.track_ids >= 0):
                self._meet(frame.pts_ns, faces, int(row), float(measured["inter_eye_distance"][row]))
        figures.frames += 1
        self._end(self._ended)  # now, because a still picture's track ends with the frame it is in
        self._ended = set()

    def write(self, event: Event) -> None:
        """Takes note of a track that ended, or a camera that went."""
        if event.type == "face.ended" and event.track_id is not None:
            self._ended.add(event.track_id)
        elif event.type == "camera.offline":
            self.figures.outages += 1
            self.figures.outage_reason = event.reason

    def finish(self) -> None:
        """Counts the people who are still in view."""
        self._end(set(self._people))

    def _clock(self, frame: Frame) -> None:
        figures = self.figures
        height, width = frame.image.shape[:2]
        figures.frame_size = (height, width)
        if self._last is not None and 0 < frame.pts_ns - self._last[0] <= _GAP_NS:
            figures.seconds += (frame.pts_ns - self._last[0]) / 1e9
            figures.followed += 1
            figures.delivered += max(1, frame.index - self._last[1])
        self._last = (frame.pts_ns, frame.index)
        if figures.live:
            figures.latency_ms.add((self._now() - frame.captured_at).total_seconds() * 1e3)

    def _look(self, frame: Frame, faces: Faces, measured: dict[str, _Floats]) -> None:
        """Everything that is counted of a look whoever it is of."""
        figures = self.figures
        assert faces.crops is not None
        assert faces.refusals is not None
        eyes, yaw = measured["inter_eye_distance"], measured["head_pose_yaw"]
        values = {
            "eyes_px": eyes,
            "sharpness": measured["sharpness"],
            "brightness": _brightness(faces.crops),
            "yaw_deg": yaw,
            "ri": np.full(len(faces), np.nan) if faces.ri is None else faces.ri.astype(np.float64),
        }
        size = np.array(frame.image.shape[1::-1], np.float64)
        places = (faces.boxes[:, :2] + faces.boxes[:, 2:]) / 2 / size
        for name, column in values.items():
            figures.measured[name].add(column)
            figures.maps[name].add(places, np.abs(column))
        clean = np.array([not refusals for refusals in faces.refusals], np.float64)
        figures.accepted_map.add(places, clean)
        frontal = np.abs(yaw) < _FRONTAL_DEG
        figures.px_per_m.add((eyes / np.cos(np.radians(yaw)))[frontal] / EYES_M)
        for row, refusals in enumerate(faces.refusals):
            against = {refusal.component for refusal in refusals}
            figures.looks += 1
            figures.accepted += not against
            figures.refused.update(against)
            if not against & SIZE:
                figures.large += 1
                figures.large_refused.update(against)
            if not against & ASIDE:
                figures.facing_eyes_px.add(eyes[row])
                if not against:
                    figures.facing_accepted_px.add(eyes[row])
                elif against == {"recognizability"}:
                    figures.facing_coarse_px.add(eyes[row])

    def _meet(self, now_ns: int, faces: Faces, row: int, eyes_px: float) -> None:
        """Everything that is counted of a person."""
        face = faces[row]
        assert face.track_id is not None
        person = self._people.setdefault(face.track_id, _Person(now_ns, now_ns))
        person.last_ns = now_ns
        person.largest_px = max(person.largest_px, eyes_px)
        self._move(person, face.box, now_ns, eyes_px)
        against = {refusal.component for refusal in face.refusals}
        if person.moving is not None and not against & (SIZE | ASIDE):
            self.figures.moving[person.moving] += 1
            self.figures.moving_blurred[person.moving] += "sharpness" in against
        quality = face.quality or 0.0
        if not against and person.accepted_ns is None:
            person.accepted_ns = now_ns
            person.best_quality = -1.0  # what was refused is not compared with what was not
        if quality > person.best_quality and (not against or person.accepted_ns is None):
            person.best_quality = quality
            person.best_refusals = tuple(refusal.component for refusal in face.refusals)
            if self.pictures is not None and not against and face.crop is not None:
                person.best = (face.crop.copy(), eyes_px)  # not the whole frame's
        if self.pictures is not None and face.crop is not None:
            for refusal in face.refusals:
                if refusal.component not in person.shown:
                    person.shown.add(refusal.component)
                    shot = Shot(to_jpeg(face.crop), eyes_px, quality, str(refusal))
                    self.pictures.refuse(refusal.component, shot)

    def _move(self, person: _Person, box: NDArray[np.float32], now_ns: int, eyes_px: float) -> None:
        centre = (box[:2] + box[2:]).astype(np.float64) / 2
        if person.place is None or now_ns < person.place[1]:
            person.place = (centre, now_ns)
        elif now_ns - person.place[1] >= _MOVED_NS:
            way = float(np.hypot(*(centre - person.place[0]))) / max(eyes_px, 1.0)
            person.moving = way >= _MOVING_PER_S * (now_ns - person.place[1]) / 1e9
            person.place = (centre, now_ns)

    def _end(self, track_ids: set[int]) -> None:
        figures = self.figures
        for track_id in track_ids & set(self._people):
            person = self._people.pop(track_id)
            figures.people += 1
            figures.in_view_s.add((person.last_ns - person.first_ns) / 1e9)
            if person.accepted_ns is None:
                figures.lost_px.add(person.largest_px)
                figures.lost.update(person.best_refusals)
                continue
            figures.recognizable += 1
            figures.wait_s.add((person.accepted_ns - person.first_ns) / 1e9)
            if self.pictures is not None and person.best is not None:
                crop, eyes_px = person.best
                self.pictures.praise(Shot(to_jpeg(crop), eyes_px, person.best_quality))


def _brightness(crops: NDArray[np.uint8]) -> _Floats:
    """The mean grey level, 0..255, of the middle of each crop: the face, without hair and background."""
    middle = crops[:, 32:96, 28:84].mean(axis=(1, 2))
    return np.asarray(middle @ np.array([0.114, 0.587, 0.299]), np.float64)
