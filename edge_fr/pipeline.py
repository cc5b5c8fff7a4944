"""Camera to event: the stages in their order, and the loop that drives them.

source -> Detector -> Tracker -> align -> QualityGate -> Embedder -> (your stages) -> Decider -> events
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from edge_fr.decide import Decider, DecisionPolicy
from edge_fr.detect import Detector
from edge_fr.embed import Embedder
from edge_fr.engine import Device, ModelCard, open_engine
from edge_fr.events import Sighting, face_event, sighting
from edge_fr.gallery import Gallery, score_threshold
from edge_fr.image import align
from edge_fr.models import resolve
from edge_fr.quality import QualityGate, QualityPolicy
from edge_fr.stream import Skipped, Source
from edge_fr.stream.buffer import FrameBuffer
from edge_fr.structures import Decision, Event, Faces, Frame
from edge_fr.timing import StageTimes, TimedEngine
from edge_fr.track import Tracker

Stage = Callable[[Frame, Faces], Faces]


class Sink(Protocol):
    """Where events go."""

    def write(self, event: Event) -> None: ...


class TrackStage(Protocol):
    """A stage that gives faces their track ids and says which tracks ended."""

    @property
    def ended(self) -> tuple[int, ...]:
        """The tracks that ended in the last call; each id once."""
        ...

    def __call__(self, frame: Frame, faces: Faces) -> Faces: ...

    def finish(self) -> tuple[int, ...]:
        """Ends the tracks that are left and returns their ids."""
        ...


class StillTracks:
    """In place of a Tracker for unrelated pictures: every face is a track that lasts for one frame."""

    def __init__(self) -> None:
        self.ended: tuple[int, ...] = ()
        self._now: tuple[int, ...] = ()
        self._count = 0

    def __call__(self, frame: Frame, faces: Faces) -> Faces:
        ids = np.arange(self._count, self._count + len(faces), dtype=np.int64) + 1
        self._count += len(faces)
        self.ended, self._now = self._now, tuple(ids.tolist())
        return faces.with_(track_ids=ids)

    def finish(self) -> tuple[int, ...]:
        self.ended, self._now = self._now, ()
        return self.ended


@dataclass(frozen=True, slots=True)
class Step:
    """What one frame gave: its faces with all columns filled, and the events it caused."""

    faces: Faces
    events: tuple[Event, ...]


def align_stage(frame: Frame, faces: Faces) -> Faces:
    """Cuts the aligned crops; all later stages see these pixels."""
    return faces.with_(crops=align(frame.image, faces.landmarks))


class Pipeline:
    """One camera's stages and their state.

    `stages` are your own, called after the embedder and before the decider: functions that take
    (Frame, Faces) and return Faces. Feed `process` the frames in order and call `finish` at the end.
    Not safe for use from several threads.
    """

    def __init__(
        self,
        *,
        detector: Stage,
        tracker: TrackStage,
        gate: QualityGate,
        embedder: Stage,
        decider: Decider,
        model: ModelCard,
        stages: Sequence[Stage] = (),
        times: StageTimes | None = None,
    ) -> None:
        self.times = times or StageTimes()
        self._tracker = tracker
        self._gate = gate
        self._decider = decider
        self._stages: list[tuple[str, Stage]] = [
            ("detect", detector),
            ("track", tracker),
            ("align", align_stage),
            ("gate", gate),
            ("embed", embedder),
            *((getattr(stage, "__name__", type(stage).__name__), stage) for stage in stages),
        ]
        self._model = {"embedder": model.weights_digest, "precision": model.precision}
        self._seen: dict[int, Sighting] = {}  # of live tracks

    @property
    def decisions(self) -> dict[int, Decision]:
        """The current answer of each live track that has one, by track id."""
        return dict(self._decider.decisions)

    def process(self, frame: Frame) -> Step:
        """Takes the next frame through all stages."""
        faces = Faces.empty()
        for name, stage in self._stages:
            faces = self.times.timed(name, stage, frame, faces)
        events = self.times.timed("decide", self._decide, frame, faces)
        return Step(faces, events)

    def finish(self) -> tuple[Event, ...]:
        """Ends all tracks and gives the events that were still owed."""
        return self._end(self._tracker.finish())

    def _decide(self, frame: Frame, faces: Faces) -> tuple[Event, ...]:
        for face in faces:
            if face.track_id is not None and face.track_id >= 0:
                before = self._seen.get(face.track_id)
                first_seen = before.first_seen if before else frame.captured_at
                self._seen[face.track_id] = sighting(frame, face, first_seen)
        changed = self._decider.observe(frame, faces)
        events = [self._event(track_id, decision) for track_id, decision in changed.items()]
        return (*events, *self._end(self._tracker.ended))

    def _end(self, track_ids: tuple[int, ...]) -> tuple[Event, ...]:
        events = []
        for track_id, (decision, is_new) in self._decider.end(track_ids).items():
            if is_new:
                events.append(self._event(track_id, decision))
            events.append(self._event(track_id, decision, ended=True))
        self._gate.forget(track_ids)
        for track_id in track_ids:
            self._seen.pop(track_id, None)
        return tuple(events)

    def _event(self, track_id: int, decision: Decision, *, ended: bool = False) -> Event:
        return face_event(self._seen[track_id], track_id, decision, self._model, ended=ended)


def open_pipeline(
    gallery: str | Path | Gallery | None = None,
    *,
    detector: str | Path = "yunet",
    embedder: str | Path = "sface",
    device: Device = "cpu",
    threads: int | None = None,
    quality: QualityPolicy | None = None,
    decision: DecisionPolicy | None = None,
    stages: Sequence[Stage] = (),
    stills: bool = False,
) -> Pipeline:
    """Builds a pipeline from model names or files, and a gallery or its path (None: nobody is enrolled).

    A gallery given by its path is opened for reading only and sees later enrolments. `stills` is for
    unrelated pictures: each face of each picture gets an answer of its own.
    """
    times = StageTimes()
    decision = decision or DecisionPolicy()
    embed = Embedder(TimedEngine(open_engine(resolve(embedder), device=device, threads=threads), times))
    detect = Detector(TimedEngine(open_engine(resolve(detector), device=device, threads=threads), times))
    if gallery is None:
        people = Gallery.open(":memory:", embed.card, create=True)
    elif isinstance(gallery, Gallery):
        people = gallery
    else:
        people = Gallery.open(gallery, embed.card, read_only=True)

    def threshold() -> float:
        return score_threshold(embed.card, decision.target_fpir, people.template_count).score

    return Pipeline(
        detector=detect,
        tracker=StillTracks() if stills else Tracker(),
        gate=QualityGate(quality or QualityPolicy()),
        embedder=embed,
        decider=Decider(people.search, threshold, decision),
        model=embed.card,
        stages=stages,
        times=times,
    )


@dataclass(slots=True)
class Summary:
    """What a run did: `dropped` frames were too old to handle, `damaged` ones could not be decoded, and
    `skipped` pictures could not be read."""

    frames: int = 0
    dropped: int = 0
    faces: int = 0
    wall_s: float = 0.0
    events: Counter[str] = field(default_factory=Counter)
    damaged: int = 0
    skipped: tuple[Skipped, ...] = ()
    stages: dict[str, dict[str, float]] = field(default_factory=dict)

    @property
    def fps(self) -> float:
        return self.frames / self.wall_s if self.wall_s else 0.0


def run(
    source: Source,
    pipeline: Pipeline,
    *,
    sinks: Sequence[Sink] = (),
    on_step: Callable[[Frame, Step], None] | None = None,
    summary: Summary | None = None,
) -> Summary:
    """Drives a source through a pipeline until the source ends.

    Events go to every sink as they happen. When the source or a stage fails, or on Ctrl-C, the tracks
    are ended and their events written before the error goes on; pass `summary` to have the counts then.
    """
    summary = summary or Summary()
    started = time.perf_counter()
    buffer = FrameBuffer(source, live=source.live)

    def tell(events: Iterable[Event]) -> None:
        for event in events:
            for sink in sinks:
                sink.write(event)
            summary.events[event.type] += 1

    try:
        waiting = time.perf_counter_ns()
        for frame in buffer:
            pipeline.times.add("wait", time.perf_counter_ns() - waiting)
            step = pipeline.process(frame)
            tell(step.events)
            summary.frames += 1
            summary.faces += len(step.faces)
            if on_step is not None:
                on_step(frame, step)
            waiting = time.perf_counter_ns()
    finally:
        tell(pipeline.finish())
        summary.dropped = buffer.dropped + source.dropped
        summary.damaged = source.damaged
        summary.skipped = source.skipped
        summary.wall_s = time.perf_counter() - started
        summary.stages = pipeline.times.summary()
    return summary
