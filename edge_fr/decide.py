"""From the embeddings of a track to one answer: known, unknown, or unrecognizable.

A face that walks towards the camera gives poor evidence first and good evidence later. The decider
fuses a track's embeddings, weighted by recognizability, and speaks when it is sure, when the deadline comes,
or when the track ends; it speaks again only when the answer changes. A poor look may be enough for a name,
for which it needs a higher score. It is not enough to call somebody unknown: those who are enrolled miss the
threshold as well. Of several faces in one frame only one gets a name, and a face that may be somebody else
by now has none until a look tells.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edge_fr.errors import InputError
from edge_fr.evidence import Evidence
from edge_fr.structures import Candidate, Decision, Faces, Frame, Matches, Refusal, Status

UNKNOWN_RI = 0.4
"""The recognizability from which a look that finds nobody says that nobody is enrolled. Of enrolled people
the shipped recognizer finds 84 % by a look above it, and 35 % by one between it and the gate's bound
(`python -m tests.bench.looks DATA`)."""


@dataclass(frozen=True, slots=True)
class DecisionPolicy:
    """When an answer is given.

    `target_fpir` is the share of strangers' tracks that may be given a name; the threshold that follows from
    it is computed outside, because it depends on the gallery's people. A name needs `margin` over the
    next identity, and over another face of the frame that has this name already. Between the threshold and
    `hysteresis` below it an answer is neither given nor taken back. A name needs `known_frames` embeddings,
    "unknown" needs `unknown_frames` with a recognizability of at least `unknown_ri`, where the recognizer
    tells it; after `decide_within_ns` of stream time the best answer so far is given whatever their number:
    with not one such look, "unrecognizable" instead of "unknown".
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


def rivals(candidates: tuple[Candidate, ...], threshold: float, margin: float) -> tuple[Refusal, ...]:
    """Why the best candidate gets no name though the score is high enough: the next one is as near. () if not
    so."""
    if len(candidates) < 2 or candidates[0].score < threshold or leads(candidates[0], margin):
        return ()
    first, second = candidates[:2]
    both = f"looks like {first.identity!r} ({first.score:.2f}) and {second.identity!r} ({second.score:.2f})"
    return (Refusal("ambiguous", first.score - second.score, margin, "at least", detail=both),)


def leads(best: Candidate, margin: float) -> bool:
    """Whether the lead over the next identity, if there is one, is large enough."""
    return best.margin is None or best.margin >= margin


def named(candidates: tuple[Candidate, ...], threshold: float, margin: float) -> str | None:
    """The identity of the best candidate if its score and its lead over the next allow the name."""
    best = candidates[0] if candidates else None
    return best.identity if best and best.score >= threshold and leads(best, margin) else None


def doubts(ri: float | None, least: float) -> tuple[Refusal, ...]:
    """Why somebody may be enrolled whom a look of that recognizability did not find; () if hardly."""
    return () if ri is None or ri >= least else (Refusal("recognizability", ri, least, "at least"),)


@dataclass(slots=True)
class _Track:
    waiting_since_ns: int  # first sight, or the first evidence after "unrecognizable", or the first good one
    evidence: Evidence = field(default_factory=Evidence)
    good: int = 0  # of its looks, the ones by which somebody may be called unknown
    best_quality: float = -1.0
    refusals: tuple[Refusal, ...] = ()  # of the best face seen
    candidates: tuple[Candidate, ...] = ()
    others: float | None = None
    unsure: bool = False
    twin: float | None = None  # the score of the face in this frame that keeps the name
    decision: Decision | None = None

    @property
    def best(self) -> Candidate | None:
        return self.candidates[0] if self.candidates else None


@dataclass(slots=True)
class Decider:
    """Keeps the evidence of every track of one camera.

    `search` takes (P, D) unit-length probes and returns their best identities; `threshold` gives the score
    that a name needs now, for a track's evidence, its mean score with others than the best match, and the
    number of looks that it is asked at. Tracks are known by the ids in `Faces.track_ids`; negative ids are
    ignored. Faces that are `unsure` are no evidence, and their tracks have no answer as long as they are.
    """

    search: Callable[[NDArray[np.float32]], Matches]
    threshold: Callable[[Evidence, float | None, int], float]
    policy: DecisionPolicy = field(default_factory=DecisionPolicy)
    _tracks: dict[int, _Track] = field(default_factory=dict, init=False)

    @property
    def decisions(self) -> Mapping[int, Decision]:
        """The current answer of every live track that has one."""
        return {i: t.decision for i, t in self._tracks.items() if t.decision is not None and not t.unsure}

    def observe(self, frame: Frame, faces: Faces) -> dict[int, Decision]:
        """Takes in one frame's faces; returns the answers that are new or have changed."""
        seen = self._gather(frame, faces)
        final = {
            track_id
            for track_id, track in self._tracks.items()
            if frame.pts_ns - track.waiting_since_ns >= self.policy.decide_within_ns and not track.unsure
        }
        # People come and go: an answer that is due is given by who is enrolled now.
        self._search({track_id for track_id in final if self._tracks[track_id].decision is None} | seen)
        self._keep_names_apart(face.track_id for face in faces if face.track_id in self._tracks)
        changed = {}
        for track_id, track in self._tracks.items():
            decision = None if track.unsure else self._decide(track, final=track_id in final)
            if decision is not None:
                changed[track_id] = decision
        return changed

    def end(self, track_ids: Iterable[int]) -> dict[int, tuple[Decision, bool]]:
        """Forgets tracks that ended; gives each one's last answer and whether it is new."""
        ended = [track_id for track_id in track_ids if track_id in self._tracks]
        self._search(ended)
        last = {}
        for track_id in ended:
            track = self._tracks.pop(track_id)
            new = self._decide(track, final=True)
            decision = new or track.decision
            if decision is not None:
                last[track_id] = (decision, new is not None)
        return last

    def _gather(self, frame: Frame, faces: Faces) -> set[int]:
        """Adds the frame's evidence to its tracks; returns the ids of those that got some."""
        seen = set()
        for face in faces:
            if face.track_id is None or face.track_id < 0:
                continue
            track = self._tracks.setdefault(face.track_id, _Track(frame.pts_ns))
            track.unsure = face.unsure
            quality = face.quality if face.quality is not None else face.score
            if quality > track.best_quality:
                track.best_quality, track.refusals = quality, face.refusals
            if face.embedding is None or face.unsure:
                continue
            good = not doubts(face.ri, self.policy.unknown_ri)
            if track.decision is not None and (track.evidence.looks == 0 or (good and track.good == 0)):
                track.waiting_since_ns = frame.pts_ns  # unrecognizable until now: a new wait begins
            track.evidence.add(face)
            track.good += good
            seen.add(face.track_id)
        return seen

    def _search(self, track_ids: Collection[int]) -> None:
        """Looks the tracks up in the gallery, all at once."""
        tracks = [self._tracks[i] for i in track_ids if self._tracks[i].evidence.looks]
        if not tracks:
            return
        matches = self.search(np.stack([track.evidence.probe for track in tracks]))
        others = matches.others or (None,) * len(tracks)
        for track, candidates, other in zip(tracks, matches.candidates, others, strict=True):
            track.candidates, track.others = candidates, other

    def _keep_names_apart(self, track_ids: Iterable[int | None]) -> None:
        """Of the faces of one frame whose best match is the same person, the best one keeps the name, and one
        that has it already unless another is clearly better."""
        holders: dict[str, tuple[float, _Track]] = {}
        for track_id in track_ids:
            assert track_id is not None
            track = self._tracks[track_id]
            track.twin = None
            if track.best is None or track.unsure:
                continue
            name, score = track.best.identity, track.best.score
            told = track.decision is not None and track.decision.identity == name
            claim = score + (self.policy.margin if told else 0.0)
            held = holders.get(name)
            if held is None or claim > held[0]:
                holders[name] = claim, track
                winner, loser = track, held[1] if held else None
            else:
                winner, loser = held[1], track
            if loser is not None and winner.best is not None:
                loser.twin = winner.best.score

    def _decide(self, track: _Track, *, final: bool) -> Decision | None:
        """The track's answer if it is new, else None; remembers it."""
        answer = self._answer(track, final=final)
        if answer is None:
            return None
        before, track.decision = track.decision, answer
        same = before and (before.status, before.identity) == (answer.status, answer.identity)
        return None if same else answer

    def _answer(self, track: _Track, *, final: bool) -> Decision | None:
        policy, before, evidence, best = self.policy, track.decision, track.evidence, track.best
        threshold = self.threshold(evidence, track.others, evidence.looks)

        def answer(
            status: Status, reasons: tuple[Refusal, ...] = (), identity: str | None = None
        ) -> Decision:
            return Decision(
                status,
                identity,
                track.candidates,
                threshold,
                evidence.looks,
                policy.target_fpir,
                reasons,
                ri=evidence.best_ri,
                mask_prob=evidence.mask_prob,
            )

        def nobody() -> Decision:
            doubt = doubts(evidence.best_ri, policy.unknown_ri)
            return answer("unrecognizable", doubt) if doubt else answer("unknown")

        if evidence.looks == 0:
            return answer("unrecognizable", track.refusals) if final else None
        was = before.identity if before is not None and before.status == "known" else None
        identity = named(track.candidates, threshold, policy.margin)
        # Waiting makes a first name harder to get, not one that was given easier to lose.
        floor = self.threshold(evidence, track.others, 1) - policy.hysteresis
        if was is not None and identity is None:
            kept = next((c for c in track.candidates if c.identity == was), None)
            identity = was if kept is not None and kept.score >= floor else None
        if identity is not None and track.twin is not None and best is not None and best.identity == identity:
            twin = Refusal("same_name_elsewhere_in_the_frame", best.score, track.twin, "at least")
            return answer("unknown", (twin,)) if final or before is not None else None
        if identity is not None and (final or was is not None or evidence.looks >= policy.known_frames):
            return answer("known", identity=identity)
        if was is not None:
            return nobody()
        settled = before is not None and before.status == "unknown"
        stranger = (best is None or best.score < floor) and track.good >= policy.unknown_frames
        if (final or settled) and (ambiguous := rivals(track.candidates, threshold, policy.margin)):
            return answer("unrecognizable", ambiguous)
        return nobody() if final or settled or stranger else None
