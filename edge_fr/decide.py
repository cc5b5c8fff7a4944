"""From the embeddings of a track to one answer: known, unknown, or unrecognizable.

A face that walks towards the camera gives poor evidence first and good evidence later. The decider
fuses a track's embeddings, weighted by recognizability, and speaks when it is sure, when the deadline comes,
or when the track ends; it speaks again only when the answer changes. A poor look may be enough for a name: a
stranger hardly reaches the threshold. It is not enough to call somebody unknown: those who are enrolled miss
the threshold as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edge_fr.errors import InputError
from edge_fr.structures import Candidate, Decision, Faces, Frame, Matches, Refusal, Status

_LEAST_WEIGHT = 1e-3  # a face of quality 0 that was let through all the same still counts
UNKNOWN_RI = 0.4
"""The recognizability from which a look that finds nobody says that nobody is enrolled. Of enrolled people
the shipped recognizer finds 84 % by a look above it, and 35 % by one between it and the gate's bound
(`python -m tests.bench.looks DATA`)."""
_MEMORY = 8.0  # the weight of old evidence is held to this, so that a track can change its mind


@dataclass(frozen=True, slots=True)
class DecisionPolicy:
    """When an answer is given.

    `target_fpir` is the share of strangers that may be given a name; the threshold that follows from
    it is computed outside, because it depends on the gallery's size. A name needs `margin` over the
    next identity. Between the threshold and `hysteresis` below it an answer is neither given nor
    taken back. A name needs `known_frames` embeddings, "unknown" needs `unknown_frames` with a
    recognizability of at least `unknown_ri`, where the recognizer tells it; after `decide_within_ns` of
    stream time the best answer so far is given whatever their number: with not one such look,
    "unrecognizable" instead of "unknown".
    """

    target_fpir: float = 0.01
    margin: float = 0.05
    hysteresis: float = 0.06
    known_frames: int = 2
    unknown_frames: int = 4
    decide_within_ns: int = 2_000_000_000
    unknown_ri: float = UNKNOWN_RI

    def __post_init__(self) -> None:
        if not 0 < self.target_fpir < 1:
            raise InputError(f"target_fpir is {self.target_fpir}, expected a share between 0 and 1")
        if not (0 <= self.margin <= 2 and 0 <= self.hysteresis <= 2):
            raise InputError(f"margin is {self.margin} and hysteresis {self.hysteresis}, expected 0 to 2")
        if self.known_frames < 1 or self.unknown_frames < 1 or self.decide_within_ns <= 0:
            raise InputError("known_frames, unknown_frames and decide_within_ns must be positive")
        if not 0 <= self.unknown_ri <= 1:
            raise InputError(f"unknown_ri is {self.unknown_ri}, expected 0 to 1")


def named(candidates: tuple[Candidate, ...], threshold: float, margin: float) -> str | None:
    """The identity of the best candidate if its score and its lead over the next allow the name."""
    best = candidates[0] if candidates else None
    return best.identity if best and best.score >= threshold and best.margin >= margin else None


def doubts(ri: float | None, least: float) -> tuple[Refusal, ...]:
    """Why somebody may be enrolled whom a look of that recognizability did not find; () if hardly."""
    return () if ri is None or ri >= least else (Refusal("recognizability", ri, least, "at least"),)


@dataclass(slots=True)
class _Track:
    waiting_since_ns: int  # first sight, or the first evidence after "unrecognizable", or the first good one
    evidence: NDArray[np.float32] = field(default_factory=lambda: np.zeros(1, np.float32))  # weighted sum
    weight: float = 0.0  # of the evidence
    frames: int = 0
    good: int = 0  # of those frames, the ones by which somebody may be called unknown
    ri: float | None = None  # the best one of the faces behind the evidence
    mask: float | None = None  # the mask_prob of those faces, weighted as they are
    best_quality: float = -1.0
    refusals: tuple[Refusal, ...] = ()  # of the best face seen
    candidates: tuple[Candidate, ...] = ()
    decision: Decision | None = None


@dataclass(slots=True)
class Decider:
    """Keeps the evidence of every track of one camera.

    `search` takes (P, D) unit-length probes and returns their best identities; `threshold` gives the
    score a name needs now. Tracks are known by the ids in `Faces.track_ids`; negative ids are ignored.
    """

    search: Callable[[NDArray[np.float32]], Matches]
    threshold: Callable[[], float]
    policy: DecisionPolicy = field(default_factory=DecisionPolicy)
    _tracks: dict[int, _Track] = field(default_factory=dict, init=False)

    @property
    def decisions(self) -> Mapping[int, Decision]:
        """The current answer of every live track that has one."""
        return {i: t.decision for i, t in self._tracks.items() if t.decision is not None}

    def observe(self, frame: Frame, faces: Faces) -> dict[int, Decision]:
        """Takes in one frame's faces; returns the answers that are new or have changed."""
        self._gather(frame, faces)
        threshold = self.threshold()
        changed = {}
        for track_id, track in self._tracks.items():
            overdue = frame.pts_ns - track.waiting_since_ns >= self.policy.decide_within_ns
            decision = self._decide(track, threshold, final=overdue)
            if decision is not None:
                changed[track_id] = decision
        return changed

    def end(self, track_ids: Iterable[int]) -> dict[int, tuple[Decision, bool]]:
        """Forgets tracks that ended; gives each one's last answer and whether it is new."""
        tracks = {i: self._tracks.pop(i) for i in track_ids if i in self._tracks}
        if not tracks:
            return {}
        last = {}
        threshold = self.threshold()
        for track_id, track in tracks.items():
            new = self._decide(track, threshold, final=True)
            decision = new or track.decision
            if decision is not None:
                last[track_id] = (decision, new is not None)
        return last

    def _gather(self, frame: Frame, faces: Faces) -> None:
        """Adds the frame's evidence to its tracks and searches the gallery once for all of them."""
        fused: dict[int, NDArray[np.float32]] = {}
        for face in faces:
            if face.track_id is None or face.track_id < 0:
                continue
            track = self._tracks.setdefault(face.track_id, _Track(frame.pts_ns))
            weight = max(face.worth, _LEAST_WEIGHT)
            quality = face.quality if face.quality is not None else face.score
            if quality > track.best_quality:
                track.best_quality, track.refusals = quality, face.refusals
            if face.embedding is not None:
                good = not doubts(face.ri, self.policy.unknown_ri)
                if track.decision is not None and (track.frames == 0 or (good and track.good == 0)):
                    track.waiting_since_ns = frame.pts_ns  # unrecognizable until now: a new wait begins
                track.evidence = track.evidence + weight * face.embedding
                track.weight += weight
                if face.ri is not None:
                    track.ri = max(face.ri, track.ri or 0.0)
                if face.mask_prob is not None:
                    before = face.mask_prob if track.mask is None else track.mask
                    track.mask = before + weight / track.weight * (face.mask_prob - before)
                if track.weight > _MEMORY:
                    track.evidence *= _MEMORY / track.weight
                    track.weight = _MEMORY
                track.frames += 1
                track.good += good
                fused[face.track_id] = track.evidence / np.linalg.norm(track.evidence)
        if fused:
            matches = self.search(np.stack(list(fused.values())).astype(np.float32))
            for track_id, candidates in zip(fused, matches.candidates, strict=True):
                self._tracks[track_id].candidates = candidates

    def _decide(self, track: _Track, threshold: float, *, final: bool) -> Decision | None:
        """The track's answer if it is new, else None; remembers it."""
        answer = self._answer(track, threshold, final=final)
        if answer is None:
            return None
        before, track.decision = track.decision, answer
        same = before and (before.status, before.identity) == (answer.status, answer.identity)
        return None if same else answer

    def _answer(self, track: _Track, threshold: float, *, final: bool) -> Decision | None:
        policy, before = self.policy, track.decision
        doubt = track.refusals if track.frames == 0 else doubts(track.ri, policy.unknown_ri)
        nobody: Status = "unknown" if track.good else "unrecognizable"

        def answer(status: Status, identity: str | None = None) -> Decision:
            return Decision(
                status,
                identity,
                track.candidates,
                threshold,
                track.frames,
                policy.target_fpir,
                doubt if status == "unrecognizable" else (),
                ri=track.ri,
                mask_prob=track.mask,
            )

        if track.frames == 0:
            return answer(nobody) if final else None
        best = track.candidates[0] if track.candidates else None
        identity = named(track.candidates, threshold, policy.margin)
        if identity is not None and (final or track.frames >= policy.known_frames):
            return answer("known", identity)
        floor = threshold - policy.hysteresis
        if before is not None and before.status == "known":
            score = next((c.score for c in track.candidates if c.identity == before.identity), -1.0)
            return answer("known", before.identity) if score >= floor else answer(nobody)
        settled = before is not None and before.status == "unknown"
        below = best is None or best.score < floor
        stranger = below and track.good >= policy.unknown_frames
        return answer(nobody) if final or settled or stranger else None
