"""Dedupe keys: the same for the same happening, and never the same for two."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path

import cv2
import numpy as np
from fakes import card
from numpy.typing import NDArray

from edge_fr.continuity import Continuity
from edge_fr.decide import Decider
from edge_fr.image import TEMPLATE
from edge_fr.pipeline import Pipeline
from edge_fr.quality import QualityGate, QualityPolicy
from edge_fr.stream import open_source
from edge_fr.structures import Candidate, Event, Faces, Frame, Matches
from edge_fr.track import Tracker

START = datetime(2026, 5, 1, tzinfo=timezone.utc)
PERIOD_NS = 100_000_000
VISITS = (range(0, 10), range(40, 50))  # the frames that show somebody; in between the track ends


class OneId:
    """A continuity that gives everybody the same id, as one may whose tracks are over."""

    def __init__(self) -> None:
        self.ended: tuple[int, ...] = ()
        self.renamed: frozenset[int] = frozenset()
        self._there = False

    def __call__(self, frame: Frame, faces: Faces, gone: Sequence[int], keep_ns: int) -> Faces:
        there, self._there = self._there, len(faces) > 0
        self.ended = (1,) if there and not self._there else ()
        return faces.with_(track_ids=np.ones(len(faces), np.int64))

    def finish(self) -> tuple[int, ...]:
        self.ended, self._there = ((1,) if self._there else ()), False
        return self.ended


def visitor(frame: Frame, faces: Faces) -> Faces:
    """A detector that sees one face of 60 px, standing still, while there is somebody."""
    if not any(frame.index in visit for visit in VISITS):
        return Faces.empty()
    landmarks = TEMPLATE[None] * np.float32(60 / 112) + np.float32(20)
    return Faces(np.array([[20, 20, 80, 80]], np.float32), np.ones(1, np.float32), landmarks)


def two_visitors(frame: Frame, faces: Faces) -> Faces:
    """A detector that sees the same face at two places."""
    one = visitor(frame, faces)
    both = np.concatenate([one.boxes, one.boxes + np.float32(90)])
    points = np.concatenate([one.landmarks, one.landmarks + np.float32(90)])
    return Faces(both, np.ones(len(both), np.float32), points)


def ones(frame: Frame, faces: Faces) -> Faces:
    return faces.with_(embeddings=np.full((len(faces), 4), 0.5, np.float32))


def nobody(probes: NDArray[np.float32]) -> Matches:
    return Matches(((Candidate("Grace", 0.1, None),),) * len(probes))


def pipeline(continuity: object = None, detector: object = visitor) -> Pipeline:
    return Pipeline(
        detector=detector,  # type: ignore[arg-type]
        tracker=Tracker(),
        gate=QualityGate(QualityPolicy()),
        embedder=ones,
        continuity=continuity or Continuity(lambda ri: 0.0, 0.0),  # type: ignore[arg-type]
        decider=Decider(nobody, lambda *_: 0.4),
        model=card(),
    )


def clip(count: int = 60, start: datetime = START) -> list[Frame]:
    grey = np.random.default_rng(0).integers(0, 255, (200, 200, 3), np.uint8)
    return [
        Frame(grey, i * PERIOD_NS, start + timedelta(microseconds=i * PERIOD_NS / 1000), "door", i)
        for i in range(count)
    ]


def events_of(frames: list[Frame], watched: Pipeline) -> list[Event]:
    events = [event for frame in frames for event in watched.process(frame).events]
    return [*events, *watched.finish()]


def test_an_id_that_is_used_again_is_another_track_with_keys_of_its_own() -> None:
    events = events_of(clip(), pipeline(OneId()))
    kinds = [event.type.removeprefix("face.") for event in events]
    assert kinds == [kinds[0], "ended"] * 2
    assert {event.track_id for event in events} == {1}
    keys = [event.dedupe_key for event in events]
    assert len(set(keys)) == 4
    # Each track's events are counted from 1, and carry when that one was first seen.
    numbers = [re.fullmatch(r"door/(.+)/1/(\d+)/face\.\w+/", key) for key in keys]
    assert [n and n[2] for n in numbers] == ["1", "2"] * 2
    seen = [datetime.fromisoformat(n[1]) for n in numbers if n]
    assert seen[0] == seen[1] < seen[2] == seen[3]
    assert seen[2] >= START + timedelta(seconds=4)  # not that of who had the id before


def test_two_tracks_at_the_same_time_never_share_a_key() -> None:
    events = events_of(clip(), pipeline(detector=two_visitors))
    assert len({event.track_id for event in events}) == 4
    assert len({event.dedupe_key for event in events}) == len(events) == 8


def test_the_same_ids_on_another_day_are_other_happenings() -> None:
    """A box that starts again counts its tracks from 1 again: an outbox must not take them for known ones."""
    first, second = (
        {event.dedupe_key for event in events_of(clip(start=START + timedelta(days=day)), pipeline())}
        for day in (0, 1)
    )
    assert first
    assert not first & second


def test_two_runs_of_the_same_video_give_the_same_keys(tmp_path: Path) -> None:
    path = tmp_path / "door.mp4"
    video = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 10, (200, 200))
    for frame in clip():
        video.write(frame.image)
    video.release()
    runs = []
    for _ in range(2):
        with open_source(path) as source:
            runs.append([event.dedupe_key for event in events_of(list(source), pipeline())])
        os.utime(path, ns=(0, path.stat().st_mtime_ns))  # to read it is not to change it
    assert runs[0] == runs[1]
    assert len(set(runs[0])) == 4
