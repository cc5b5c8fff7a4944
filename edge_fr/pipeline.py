"""Frame to event: the stages in their order and their state, for one camera.

source -> Detector -> Tracker -> align -> QualityGate -> Embedder -> (your stages) -> Decider
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Protocol

import numpy as np

from edge_fr.decide import Decider, DecisionPolicy
from edge_fr.detect import Detector
from edge_fr.embed import Embedder
from edge_fr.engine import Device, ModelCard, open_engine
from edge_fr.errors import InputError
from edge_fr.events import Sighting, face_event, sighting
from edge_fr.gallery import Gallery, score_threshold
from edge_fr.image import align
from edge_fr.models import resolve, resolve_gate
from edge_fr.quality import QualityGate, QualityPolicy
from edge_fr.recognizability import RecognizabilityNetwork
from edge_fr.structures import Decision, Event, Faces, Frame
from edge_fr.timing import StageTimes, TimedEngine
from edge_fr.track import Tracker

Stage = Callable[[Frame, Faces], Faces]


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
    """In place of a Tracker for unrelated pictures: every face is a track that ends with its frame."""

    def __init__(self) -> None:
        self.ended: tuple[int, ...] = ()
        self._count = 0

    def __call__(self, frame: Frame, faces: Faces) -> Faces:
        ids = np.arange(self._count, self._count + len(faces), dtype=np.int64) + 1
        self._count += len(faces)
        self.ended = tuple(ids.tolist())
        return faces.with_(track_ids=ids)

    def finish(self) -> tuple[int, ...]:
        self.ended = ()
        return ()


@dataclass(frozen=True, slots=True)
class Step:
    """What one frame gave: its faces with all columns filled, the events it caused, and the current
    answers by track id."""

    faces: Faces
    events: tuple[Event, ...]
    decisions: dict[int, Decision]


def align_stage(frame: Frame, faces: Faces) -> Faces:
    """Cuts the aligned crops; all later stages see these pixels."""
    return faces.with_(crops=align(frame.image, faces.landmarks))


class Pipeline:
    """One camera's stages and their state.

    `stages` are your own, called after the embedder and before the decider: functions that take
    (Frame, Faces) and return Faces. Feed `process` the frames in order and call `finish` at the end.
    `close` closes `gallery`; a pipeline is a context manager that does so. Not safe for use from
    several threads.
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
        gallery: Gallery | None = None,
    ) -> None:
        self.times = times or StageTimes()
        self.unfollowed = 0
        """Faces that were found but seen too briefly, or too far apart, to be in a track."""
        self._tracker = tracker
        self._gate = gate
        self._decider = decider
        self._stages: list[tuple[str, Stage]] = [
            ("align", align_stage),
            ("gate", gate),
            ("embed", embedder),
            *((getattr(stage, "__name__", type(stage).__name__), stage) for stage in stages),
        ]
        self._detector = detector
        self._model = {"embedder": model.weights_digest, "precision": model.precision}
        self._gallery = gallery
        self._seen: dict[int, Sighting] = {}  # of live tracks
        self._told: Counter[int] = Counter()  # events of live tracks

    def process(self, frame: Frame) -> Step:
        """Takes the next frame through all stages."""
        found = self.times.timed("detect", self._detector, frame, Faces.empty())
        faces = self.times.timed("track", self._tracker, frame, found)
        self.unfollowed += len(found) - len(faces)
        for name, stage in self._stages:
            faces = self.times.timed(name, stage, frame, faces)
            if not isinstance(faces, Faces):
                raise InputError(f"stage {name} returned {type(faces).__name__}, expected Faces")
        events, decisions = self.times.timed("decide", self._decide, frame, faces)
        return Step(faces, events, decisions)

    def finish(self) -> tuple[Event, ...]:
        """Ends all tracks and gives the events that were still owed."""
        # A frame that failed in a later stage may have left tracks that ended in it.
        return self._end((*self._tracker.ended, *self._tracker.finish()))[0]

    def close(self) -> None:
        """Closes the gallery that the pipeline was given to keep."""
        if self._gallery is not None:
            self._gallery.close()

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _decide(self, frame: Frame, faces: Faces) -> tuple[tuple[Event, ...], dict[int, Decision]]:
        for face in faces:
            if face.track_id is not None and face.track_id >= 0:
                before = self._seen.get(face.track_id)
                first_seen = before.first_seen if before else frame.captured_at
                self._seen[face.track_id] = sighting(frame, face, first_seen)
        changed = self._decider.observe(frame, faces)
        events = [self._event(track_id, decision) for track_id, decision in changed.items()]
        decisions = dict(self._decider.decisions)
        last_events, last_decisions = self._end(self._tracker.ended)
        return (*events, *last_events), {**decisions, **last_decisions}

    def _end(self, track_ids: tuple[int, ...]) -> tuple[tuple[Event, ...], dict[int, Decision]]:
        events, decisions = [], {}
        for track_id, (decision, is_new) in self._decider.end(track_ids).items():
            if is_new:
                events.append(self._event(track_id, decision))
            events.append(self._event(track_id, decision, ended=True))
            decisions[track_id] = decision
        self._gate.forget(track_ids)
        for track_id in track_ids:
            self._seen.pop(track_id, None)
            self._told.pop(track_id, None)
        return tuple(events), decisions

    def _event(self, track_id: int, decision: Decision, *, ended: bool = False) -> Event:
        self._told[track_id] += 1
        number = self._told[track_id]
        return face_event(self._seen[track_id], track_id, number, decision, self._model, ended=ended)


def open_pipeline(
    gallery: str | Path | Gallery | None = None,
    *,
    detector: str | Path = "yunet",
    embedder: str | Path = "recognizer",
    gate: str | Path | None = None,
    device: Device = "cpu",
    threads: int | None = None,
    unproven: bool = False,
    quality: QualityPolicy | None = None,
    decision: DecisionPolicy | None = None,
    stages: Sequence[Stage] = (),
    stills: bool = False,
) -> Pipeline:
    """Builds a pipeline from model names or files, and a gallery or its path (None: nobody is enrolled).

    `gate` is the network that keeps faces from the embedder which it would make nothing of (None: the
    embedder's own, if it is the shipped recognizer; another embedder does without).

    `unproven` takes INT8 models whose card has no passing verdict.

    A gallery given by its path is opened for reading only, sees later enrolments, and is closed with the
    pipeline; an open one stays yours. `stills` is for unrelated pictures: each face of each picture gets
    an answer of its own.
    """
    times = StageTimes()
    decision = decision or DecisionPolicy()

    def open_model(model: str | Path) -> TimedEngine:
        engine = open_engine(resolve(model), device=device, threads=threads, unproven=unproven)
        return TimedEngine(engine, times)

    embed = Embedder(open_model(embedder))
    finder = open_model(detector)
    # Faces too weak to begin a track still continue one; the gate refuses them all the same.
    detect = Detector(finder, score_threshold=0.4)
    recognizability = None
    if (watch := resolve_gate(gate, embedder)) is not None:
        recognizability = RecognizabilityNetwork(open_model(watch), embed.card)
    if gallery is None:
        people = Gallery.open(":memory:", embed.card, create=True)
    elif isinstance(gallery, Gallery):
        people = gallery
        people.require_model(embed.card)
    else:
        people = Gallery.open(gallery, embed.card, read_only=True)

    @lru_cache(maxsize=1)  # asked for at every frame, and only an enrolment changes it
    def threshold_for(templates: int) -> float:
        return score_threshold(embed.card, decision.target_fpir, templates).score

    def threshold() -> float:
        return threshold_for(people.template_count)

    threshold()  # a card that promises none is refused here, not at the first face
    return Pipeline(
        detector=detect,
        tracker=StillTracks() if stills else Tracker(),
        gate=QualityGate(quality or QualityPolicy(), recognizability=recognizability),
        embedder=embed,
        decider=Decider(people.search, threshold, decision),
        model=embed.card,
        stages=stages,
        times=times,
        gallery=None if people is gallery else people,
    )
