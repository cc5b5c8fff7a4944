"""Is the face that a track goes on with still the same person?

A tracker knows places and times. Where somebody leaves and the next one steps up, where people cross, meet
or hide one another, the place does not tell who is who; the faces do. This stage comes after the embedder,
compares each look with the looks before it, and gives faces the ids that everything after it goes by: a
look that does not belong begins a new id, or gives the face back to the person whom it looks like.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edge_fr.evidence import Evidence
from edge_fr.structures import Face, Faces, Frame

_REACH = 9.0  # face sizes a second, as far as a passer-by gets
_LEAST_REACH = 3.0  # face sizes


@dataclass(slots=True, eq=False)
class _Person:
    id: int
    tracklet: int | None  # the tracker's id of the face; None while there is none
    evidence: Evidence = field(default_factory=Evidence)
    unsure: bool = False  # whether the tracklet's face is this person, since the last look
    seen_ns: int = 0  # when it surely was
    centre: NDArray[np.float64] = field(default_factory=lambda: np.zeros(2))
    size: float = 1.0


class Continuity:
    """Turns a tracker's ids into ids of persons, from 1 upwards in the order in which they appear.

    `belongs` gives the score that a look of some recognizability needs with the fused looks before it,
    `returns` the score at which somebody who was away is taken to be back. Call it with every frame's faces,
    after the embedder. It rewrites `track_ids`, and leaves `unsure` set for the faces of which no look has
    told yet that they are whom their track says; such a look is no evidence for anybody.

    A look that misses `belongs` goes to the person it looks like most among those who are in doubt, or away
    and within reach, or else begins a new id. Who lost the face this way is waited for like a lost track.
    `ended` has the ids that are over since the last call, each once, and `renamed` those among them that were
    another name for somebody who goes on.
    """

    def __init__(self, belongs: Callable[[float | None], float], returns: float) -> None:
        self._belongs = belongs
        self._returns = returns
        self.ended: tuple[int, ...] = ()
        self.renamed: frozenset[int] = frozenset()
        self._people: dict[int, _Person] = {}  # by id
        self._of: dict[int, _Person] = {}  # by tracklet
        self._count = 0

    def __call__(self, frame: Frame, faces: Faces, gone: Sequence[int], keep_ns: int) -> Faces:
        """`gone` are the ids that the tracker ended in this frame; who has lost the face is waited for during
        `keep_ns`."""
        if faces.track_ids is None:
            return faces
        self.renamed = frozenset()
        rows = list(faces)
        for face in rows:
            self._meet(face)
        strange = [face for face in rows if face.embedding is not None and not self._goes_on(face)]
        self._assign(strange, rows, frame.pts_ns)
        owners = [self._owner(face) for face in rows]
        for face, person in zip(rows, owners, strict=True):
            if not person.unsure:
                person.seen_ns, person.centre, person.size = frame.pts_ns, _centre(face), _size(face)
        over = [self._of.pop(tracklet) for tracklet in gone if tracklet in self._of]
        self._end(
            person
            for person in self._people.values()
            if person in over or (person.tracklet is None and frame.pts_ns - person.seen_ns > keep_ns)
        )
        return faces.with_(
            track_ids=np.array([person.id for person in owners], np.int64),
            unsure=np.array([person.unsure for person in owners], np.bool_),
        )

    def finish(self) -> tuple[int, ...]:
        """Ends everybody and returns their ids."""
        self._end(self._people.values())
        self._of.clear()
        return self.ended

    def _owner(self, face: Face) -> _Person:
        assert face.track_id is not None
        return self._of[face.track_id]

    def _meet(self, face: Face) -> None:
        assert face.track_id is not None
        if face.track_id not in self._of:
            self._begin(face.track_id)
        elif face.unsure:
            self._of[face.track_id].unsure = True

    def _begin(self, tracklet: int) -> _Person:
        self._count += 1
        person = self._people[self._count] = self._of[tracklet] = _Person(self._count, tracklet)
        return person

    def _goes_on(self, face: Face) -> bool:
        """Takes in a look that belongs to the looks before it. One that may or may not is passed over: it
        belongs well enough for a face that was never out of sight, and not for one that is in doubt."""
        person = self._owner(face)
        if not person.evidence.looks:
            return False
        score = _score(face, person)
        bound = self._bound(face, person)
        if score >= (max(bound, self._returns) if person.unsure else bound):
            person.evidence.add(face)
            person.unsure = False
            return True
        return score >= bound

    def _assign(self, strange: list[Face], rows: list[Face], now_ns: int) -> None:
        """Gives each look that belongs to nobody yet to the person it looks like most, or to a new one."""
        at_home = {self._owner(face).id for face in rows} - {self._owner(face).id for face in strange}
        open_to = [
            person
            for person in self._people.values()
            if person.evidence.looks and (person.id not in at_home or person.unsure)
        ]
        pairs = [
            (_score(face, person), n, person)
            for n, face in enumerate(strange)
            for person in open_to
            if person is not self._owner(face) and self._may_be(face, person, now_ns)
        ]
        placed: set[int] = set()
        taken: set[int] = set()
        for _, n, person in sorted(pairs, key=lambda pair: -pair[0]):
            if n not in placed and person.id not in taken:
                placed.add(n)
                taken.add(person.id)
                self._give(strange[n], person)
        for n, face in enumerate(strange):
            if n in placed:
                continue
            person = self._owner(face)
            if person.evidence.looks:
                assert face.track_id is not None
                person.tracklet = None
                person = self._begin(face.track_id)
            person.evidence.add(face)
            person.unsure = False

    def _give(self, face: Face, person: _Person) -> None:
        """The face is the person's. Who had it gets the face that was the person's in exchange, in doubt."""
        assert face.track_id is not None
        before, left = self._owner(face), person.tracklet
        if before is not person:
            person.tracklet, self._of[face.track_id] = face.track_id, person
            before.tracklet, before.unsure = left, True
            if left is not None:
                self._of[left] = before
            elif not before.evidence.looks:
                self.renamed |= {before.id}
                before.seen_ns = -(1 << 62)  # not waited for
        person.evidence.add(face)
        person.unsure = False

    def _bound(self, face: Face, person: _Person) -> float:
        known = [ri for ri in (face.ri, person.evidence.ri) if ri is not None]
        return self._belongs(min(known, default=None))

    def _may_be(self, face: Face, person: _Person, now_ns: int) -> bool:
        """Whether the person may have got to where the face is, and looks like it."""
        seconds = max(0, now_ns - person.seen_ns) / 1e9
        far = float(np.linalg.norm(_centre(face) - person.centre))
        if far > (_LEAST_REACH + _REACH * seconds) * max(person.size, _size(face)):
            return False
        least = self._returns if person.tracklet is None else 0.0
        return _score(face, person) >= max(self._bound(face, person), least)

    def _end(self, people: Iterable[_Person]) -> None:
        self.ended = tuple(sorted(person.id for person in people))
        for number in self.ended:
            del self._people[number]


def _score(face: Face, person: _Person) -> float:
    assert face.embedding is not None
    return float(person.evidence.probe @ face.embedding)


def _centre(face: Face) -> NDArray[np.float64]:
    return np.asarray(face.box[:2] + face.box[2:], np.float64) / 2


def _size(face: Face) -> float:
    return float(np.sqrt(max(1.0, float(np.prod(face.box[2:] - face.box[:2])))))
