"""The few pictures that an audit keeps: examples of each refusal, the best faces, and the empty scene."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_fr.audit.tallies import Sample

_EXAMPLES = 4  # for each reason
_BEST = 8
_BACKDROP_WIDTH_PX = 640


@dataclass(frozen=True, slots=True)
class Shot:
    """A crop of 112 x 112 pixels as JPEG, and what was measured of it."""

    jpeg: bytes
    eyes_px: float
    quality: float
    reason: str = ""


@dataclass(slots=True)
class Pictures:
    """`refused` by reason; `best` of different people, best first; `backdrop` the scene, as JPEG."""

    chance: random.Random = field(default_factory=lambda: random.Random(0))
    refused: dict[str, Sample[Shot]] = field(default_factory=dict)
    best: list[Shot] = field(default_factory=list)
    backdrop: bytes | None = None
    _backdrop_faces: int = -1

    def see(self, image: NDArray[np.uint8], faces: int) -> None:
        """Keeps the picture as the backdrop if it is the first, or shows fewer faces than the one kept."""
        if self.backdrop is not None and faces >= self._backdrop_faces:
            return
        height = max(1, round(image.shape[0] * _BACKDROP_WIDTH_PX / image.shape[1]))
        small = cv2.resize(image, (_BACKDROP_WIDTH_PX, height), interpolation=cv2.INTER_AREA)
        self.backdrop, self._backdrop_faces = to_jpeg(small), faces

    def refuse(self, component: str, shot: Shot) -> None:
        """Offers an example of a refusal."""
        sample = self.refused.setdefault(component, Sample(_EXAMPLES, self.chance))
        sample.offer(shot)

    def praise(self, shot: Shot) -> None:
        """Offers a person's best face."""
        self.best = sorted([*self.best, shot], key=lambda s: -s.quality)[:_BEST]


def to_jpeg(picture: NDArray[Any]) -> bytes:
    """A uint8 BGR picture as JPEG."""
    done, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 85])
    assert done  # only a picture of no pixels cannot be encoded
    return data.tobytes()
