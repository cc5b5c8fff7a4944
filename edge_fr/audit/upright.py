"""Does the camera hang on its side? A few frames are looked at in all four turns.

A detector finds faces that lie on their side or stand on their head, and gives them landmarks as if they
stood: the angle between the eyes tells nothing. What the recognizer makes of the faces does.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edge_fr.image import align
from edge_fr.networks import Networks

EVERY = 25  # frames; one a second
MOST_FRAMES = 40
_RECOGNIZABLE = 0.4


def best_turn(networks: Networks, image: NDArray[np.uint8]) -> int | None:
    """By how many degrees clockwise (0, 90, 180, 270) the picture has to be turned for its faces to be most
    recognizable; None where none is in any turn, or the recognizer does not tell."""
    if not networks.embedder.tells_ri:
        return None
    told = {turn: _recognizable(networks, image, turn) for turn in (0, 90, 180, 270)}
    best = max(told, key=lambda turn: told[turn])
    return best if told[best] >= _RECOGNIZABLE else None


def _recognizable(networks: Networks, image: NDArray[np.uint8], turn: int) -> float:
    """The recognizability of the faces together, after the turn."""
    turned = np.ascontiguousarray(np.rot90(image, -turn // 90))
    faces = networks.detector.detect(turned)
    ri = networks.embedder.embed(align(turned, faces.landmarks)).ri
    return 0.0 if ri is None else float(ri.sum())
