"""What a pipeline made of a scene whose people are known: ids and names against the truth."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge_fr.structures import Decision, Faces


class Sight(NamedTuple):
    """A face: whose, where (centre in px), how large (side in px), and whether it is not mostly hidden."""

    name: str
    centre: NDArray[np.float64]
    size: float
    visible: bool


@dataclass
class Tally:
    """Counts of one scene, frame by frame; `frame_s` is the time between two frames."""

    frame_s: float
    twice: int = 0  # frames in which a name is worn by two faces
    enrolled_seen: dict[str, float] = field(default_factory=dict)  # when each was first in view
    named_at: dict[str, float] = field(default_factory=dict)
    _pairs: Counter[tuple[str, int]] = field(default_factory=Counter)  # frames of a person under an id
    _seen: int = 0  # faces that can be seen
    _found: int = 0  # faces with an id
    _ids: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))  # of each person, in order
    _wrong_s: Counter[tuple[str, str]] = field(default_factory=Counter)  # person, the other one's name

    def add(
        self,
        t: float,
        sights: list[Sight],
        faces: Faces,
        decisions: Mapping[int, Decision],
        enrolled: frozenset[str],
    ) -> None:
        """One frame: who is there, and what the pipeline says; hidden faces do not count."""
        worn: Counter[str] = Counter()
        self._seen += sum(sight.visible for sight in sights)
        for sight in sights:
            if sight.visible and sight.name in enrolled:
                self.enrolled_seen.setdefault(sight.name, t)
        for face in faces:
            assert face.track_id is not None
            decision = decisions.get(face.track_id)
            name = decision.identity if decision is not None else None
            if name is not None:
                worn[name] += 1
            centre = (face.box[:2] + face.box[2:]) / 2
            near = min(sights, key=lambda s: float(np.linalg.norm(s.centre - centre)), default=None)
            if near is None or np.linalg.norm(near.centre - centre) > near.size / 2:
                self._found += 1  # a face of nobody
                continue
            if not near.visible:
                continue
            self._found += 1
            self._pairs[near.name, face.track_id] += 1
            if face.track_id not in self._ids[near.name][-1:]:
                self._ids[near.name].append(face.track_id)
            if name == near.name:
                self.named_at.setdefault(name, t)
            elif name is not None:
                self._wrong_s[near.name, name] += self.frame_s
        self.twice += any(count > 1 for count in worn.values())

    def idf1(self) -> float:
        """Frames under the id that is each person's for longest, one id a person, to all (Ristani and others,
        arXiv 1609.01775)."""
        left, right = Counter(self._pairs), 0
        while left:
            (person, track_id), count = left.most_common(1)[0]
            right += count
            left = Counter({key: n for key, n in left.items() if key[0] != person and key[1] != track_id})
        return 2 * right / max(self._seen + self._found, 1)

    def exchanged(self) -> int:
        """How often a person went on under an id that had been another's."""
        owner: dict[int, str] = {}
        for (person, track_id), _ in self._pairs.most_common():
            owner.setdefault(track_id, person)
        return sum(owner[i] != person for person, ids in self._ids.items() for i in set(ids))

    def wrong_names(self, longer_than_s: float) -> int:
        """People who wore another's name for longer than so."""
        return sum(seconds > longer_than_s + 1e-9 for seconds in self._wrong_s.values())

    def times_to_name(self) -> list[float]:
        """For each enrolled person who got the own name, how long it took."""
        return [
            at - self.enrolled_seen[name] for name, at in self.named_at.items() if name in self.enrolled_seen
        ]
