"""What the looks at one person come to: their fused embedding, and how much can be made of it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edge_fr.structures import Face

_LEAST_WEIGHT = 1e-3  # a face of quality 0 that was let through all the same still counts
_MEMORY = 8.0  # the weight of old looks is held to this, so that new ones can change the picture


@dataclass(slots=True)
class Evidence:
    """Embedded faces of one person, fused by their worth; `looks` counts them.

    `ri` is the mean recognizability of the looks, weighted as they are fused, `best_ri` the best one, and
    `mask_prob` their mean; None where the recognizer does not tell.
    """

    looks: int = 0
    ri: float | None = None
    best_ri: float | None = None
    mask_prob: float | None = None
    _sum: NDArray[np.float64] = field(default_factory=lambda: np.zeros(1))
    _weight: float = 0.0

    def add(self, face: Face) -> None:
        """Takes in a look; the face must have been embedded."""
        assert face.embedding is not None
        weight = max(face.worth, _LEAST_WEIGHT)
        self._sum = self._sum + weight * face.embedding
        self._weight += weight
        share = weight / self._weight
        self.ri = _mean(self.ri, face.ri, share)
        self.mask_prob = _mean(self.mask_prob, face.mask_prob, share)
        if face.ri is not None:
            self.best_ri = max(face.ri, self.best_ri or 0.0)
        if self._weight > _MEMORY:
            self._sum *= _MEMORY / self._weight
            self._weight = _MEMORY
        self.looks += 1

    @property
    def probe(self) -> NDArray[np.float32]:
        """The fused embedding, (D,) of unit length; there must have been a look."""
        length = float(np.linalg.norm(self._sum))
        return (self._sum / length).astype(np.float32)


def _mean(before: float | None, value: float | None, share: float) -> float | None:
    if value is None or before is None:
        return before if value is None else value
    return before + share * (value - before)
