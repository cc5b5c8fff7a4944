"""Frame to event: the stages in their order and their state, for one camera.

source -> Detector -> Tracker -> align -> QualityGate -> Embedder -> Continuity -> (your stages) -> Decider
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol

import numpy as np

from edge_fr.continuity import Continuity
from edge_fr.decide import Decider, DecisionPolicy
from edge_fr.engine import ModelCard
from edge_fr.errors import InputError
from edge_fr.events import Sighting, face_event, sighting
from edge_fr.evidence import Evidence
from edge_fr.gallery import Gallery, NameThreshold, belonging, score_threshold
from edge_fr.image import align
from edge_fr.networks import Networks, open_networks
from edge_fr.quality import QualityGate, QualityPolicy, usual_policy
from edge_fr.structures import Decision, Event, Faces, Frame
from edge_fr.tiles import TiledDetector
from edge_fr.timing import StageTimes
from edge_fr.track import Tracker

Stage = Callable[[Frame, Faces], Faces]

_RETURN_FMR = 1e-3  # of strangers who appear where somebody was lost, so many are taken for that person


class TrackStage(Protocol):
    """A stage that gives faces their track ids and says which tracks ended."""

    @property
    def ended(self) -> tuple[int, ...]:
        """The tracks that ended in the last call; each id once."""
        ...

    @property
    def keep_ns(self) -> int:
        """How long a track is kept without a face."""
        ...

    @property
    def brief(self) -> int:
        """Faces that were gone before they could be followed."""
        ...

    @property
    def too_slow(self) -> bool:
        """Whether frames come so far apart that nobody can be followed."""
        ...

    def __call__(self, frame: Frame, faces: Faces) -> Faces: ...

    def finish(self) -> tuple[int, ...]:
        """Ends the tracks that are left and returns their ids."""
        ...


class StillTracks:
    """In place of a Tracker for unrelated pictures: every face is a track that ends with its frame."""

    keep_ns = 0
    brief = 0
    too_slow = False

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
        continuity: Continuity,
        decider: Decider,
        model: ModelCard,
        stages: Sequence[Stage] = (),
        times: StageTimes | None = None,
        gallery: Gallery | None = None,
    ) -> None:
        self.times = times or StageTimes()
        self._tracker = tracker
        self._gate = gate
        self._continuity = continuity
        self._decider = decider
        self._detector = detector
        self._embedder = embedder
        self._stages = [(getattr(stage, "__name__", type(stage).__name__), stage) for stage in stages]
        self._model = {"embedder": model.weights_digest, "precision": model.precision}
        self._gallery = gallery
        self._seen: dict[int, Sighting] = {}  # of live tracks
        self._told: Counter[int] = Counter()  # events of live tracks

    @property
    def unfollowed(self) -> int:
        """Faces that were found but gone too soon, or too far apart, to be in a track."""
        return self._tracker.brief

    @property
    def too_slow(self) -> bool:
        """Whether frames come so far apart that nobody can be followed, and so nobody is reported."""
        return self._tracker.too_slow

    def process(self, frame: Frame) -> Step:
        """Takes the next frame through all stages."""
        found = self._timed("detect", self._detector, frame, Faces.empty())
        looked = self.look(frame, found)
        return self.conclude(frame, self._timed("embed", self._embedder, frame, looked))

    def look(self, frame: Frame, found: Faces) -> Faces:
        """The stages between the models: what the detector found, tracked, aligned, and judged.

        With `conclude` it is `process` for those who run the detector and the embedder themselves.
        """
        faces = self._timed("track", self._tracker, frame, found)
        return self._timed("gate", self._gate, frame, self._timed("align", align_stage, frame, faces))

    def conclude(self, frame: Frame, faces: Faces) -> Step:
        """The stages after the models: who goes on, your own, and the decision on the embedded faces."""
        faces = self._timed("continuity", self._continue, frame, faces)
        for name, stage in self._stages:
            faces = self._timed(name, stage, frame, faces)
        events, decisions = self.times.timed("decide", self._decide, frame, faces)
        return Step(faces, events, decisions)

    def _continue(self, frame: Frame, faces: Faces) -> Faces:
        faces = self._gate.confirm(faces)
        gone = self._tracker.ended
        self._gate.forget(gone)
        return self._continuity(frame, faces, gone, self._tracker.keep_ns)

    def _timed(self, name: str, stage: Stage, frame: Frame, faces: Faces) -> Faces:
        result = self.times.timed(name, stage, frame, faces)
        if not isinstance(result, Faces):
            raise InputError(f"stage {name} returned {type(result).__name__}, expected Faces")
        return result

    def finish(self) -> tuple[Event, ...]:
        """Ends all tracks and gives the events that were still owed."""
        self._gate.forget((*self._tracker.ended, *self._tracker.finish()))
        # A frame that failed in a later stage may have left people who ended in it.
        return self._end((*self._continuity.ended, *self._continuity.finish()))[0]

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
                if face.unsure and before is not None:
                    continue  # it may be somebody else
                first_seen = before.first_seen if before else frame.captured_at
                self._seen[face.track_id] = sighting(frame, face, first_seen)
        changed = self._decider.observe(frame, faces)
        events = [self._event(track_id, decision) for track_id, decision in changed.items()]
        decisions = dict(self._decider.decisions)
        last_events, last_decisions = self._end(self._continuity.ended)
        return (*events, *last_events), {**decisions, **last_decisions}

    def _end(self, track_ids: tuple[int, ...]) -> tuple[tuple[Event, ...], dict[int, Decision]]:
        events, decisions = [], {}
        for track_id, (decision, is_new) in self._decider.end(track_ids).items():
            if track_id in self._continuity.renamed and track_id not in self._told:
                continue  # nobody has heard of it, and whoever it was goes on
            if is_new:
                events.append(self._event(track_id, decision))
            events.append(self._event(track_id, decision, ended=True))
            decisions[track_id] = decision
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
    networks: Networks | None = None,
    *,
    quality: QualityPolicy | None = None,
    decision: DecisionPolicy | None = None,
    stages: Sequence[Stage] = (),
    stills: bool = False,
    tiles: int | None = None,
) -> Pipeline:
    """Builds a pipeline on a gallery or its path (None: nobody is enrolled), and on models.

    `networks` are what `open_networks` returns for models or a device of your choice (None: for its own).
    A gallery given by its path is opened for reading only, sees later enrolments, and is closed with the
    pipeline; an open one stays yours. `stills` is for unrelated pictures: each face of each picture gets an
    answer of its own. `tiles` are looked at in every frame (in stills all, whatever the number), for faces
    that are small in a large picture: see `edge_fr.tiles.TiledDetector`.
    """
    networks = networks or open_networks()
    people = open_people(gallery, networks.embedder.card)
    return assemble(
        networks,
        people,
        quality=quality,
        decision=decision,
        stages=stages,
        detector=None if tiles is None else TiledDetector(networks.detector, tiles, stills=stills),
        tracker=StillTracks() if stills else Tracker(),
        keeps_gallery=people is not gallery,
    )


def open_people(gallery: str | Path | Gallery | None, model: ModelCard) -> Gallery:
    """An open gallery as it is, one at a path for reading, or an empty one; GalleryModelError if it was
    enrolled with another model."""
    if gallery is None:
        return Gallery.open(":memory:", model, create=True)
    if isinstance(gallery, Gallery):
        gallery.require_model(model)
        return gallery
    return Gallery.open(gallery, model, read_only=True)


def assemble(
    networks: Networks,
    people: Gallery,
    *,
    quality: QualityPolicy | None = None,
    decision: DecisionPolicy | None = None,
    stages: Sequence[Stage] = (),
    detector: Stage | None = None,
    tracker: TrackStage | None = None,
    keeps_gallery: bool = False,
) -> Pipeline:
    """One camera's pipeline on models and people that others may share.

    `detector` stands in for that of `networks`. `keeps_gallery` closes the gallery with the pipeline.
    """
    decision = decision or DecisionPolicy()
    card = networks.embedder.card

    needed = NameThreshold(card, decision.target_fpir)  # a card that promises nothing is refused here

    def threshold(evidence: Evidence, others: float | None, looks: int) -> float:
        return needed.track(people.cohort, looks=looks, ri=evidence.ri, others=others)

    return Pipeline(
        detector=detector or networks.detector,
        tracker=tracker or Tracker(),
        gate=QualityGate(
            quality or usual_policy(networks.recognizability), recognizability=networks.recognizability
        ),
        embedder=networks.embedder,
        continuity=Continuity(belonging(card), score_threshold(card, _RETURN_FMR, 1).score),
        decider=Decider(people.search, threshold, decision),
        model=card,
        stages=stages,
        times=networks.times,
        gallery=people if keeps_gallery else None,
    )
