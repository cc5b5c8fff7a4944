"""A drawn test pattern that needs no camera and is the same in every run."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_fr.stream.source import Losses, Reading


class PatternReader:
    """A square that moves over a colour ramp, with the frame's number; `fps` frames to a second."""

    name = "pattern"

    def __init__(self, *, width: int = 640, height: int = 480, fps: int = 25, frames: int = 100) -> None:
        self.frame_count = frames
        self.period_ns = round(1e9 / fps)
        self.losses = Losses()
        self._fps = fps
        self._index = 0
        self._background = _ramp(width, height)

    def read(self) -> Reading | None:
        if self._index == self.frame_count:
            return None
        image = draw(self._background, self._index)
        pts_ns = round(self._index * 1_000_000_000 / self._fps)
        self._index += 1
        return Reading(image, pts_ns)

    def close(self) -> None:
        self._index = self.frame_count


def draw(background: NDArray[np.uint8], index: int) -> NDArray[np.uint8]:
    """Frame `index` of the pattern: a new picture with the square and the number on the background."""
    image = background.copy()
    height, width = image.shape[:2]
    side = max(1, min(height, width) // 4)
    left, top = index * 4 % max(1, width - side), index * 3 % max(1, height - side)
    image[top : top + side, left : left + side] = 255
    scale = height / 240
    where = (round(8 * scale), height - round(8 * scale))
    cv2.putText(
        image, str(index), where, cv2.FONT_HERSHEY_PLAIN, 2 * scale, (0, 0, 0), max(1, round(2 * scale))
    )
    return image


def _ramp(width: int, height: int) -> NDArray[np.uint8]:
    x, y = np.linspace(0, 255, width), np.linspace(0, 255, height)[:, None]
    blue, green = np.broadcast_to(x, (height, width)), np.broadcast_to(y, (height, width))
    return np.stack([blue, green, 255 - blue], axis=2).astype(np.uint8)
