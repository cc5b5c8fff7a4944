"""The part of a camera's picture in which faces are looked for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_fr.errors import InputError
from edge_fr.structures import Faces


@dataclass(frozen=True, slots=True)
class Region:
    """A box in shares of the picture's width and height, 0..1: what lies outside costs no time.

    Boxes, landmarks and crops stay those of the whole picture.
    """

    left: float = 0.0
    top: float = 0.0
    right: float = 1.0
    bottom: float = 1.0

    def __post_init__(self) -> None:
        if not (0 <= self.left < self.right <= 1 and 0 <= self.top < self.bottom <= 1):
            raise InputError(
                f"region is ({self.left}, {self.top}, {self.right}, {self.bottom}), expected left, top, "
                f"right and bottom in shares of the picture, from 0 to 1"
            )

    def cut(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The region of a picture (H, W, 3), a view of at least one pixel."""
        x0, y0, x1, y1 = self._pixels(image)
        return image[y0:y1, x0:x1]

    def place(self, faces: Faces, image: NDArray[np.uint8]) -> Faces:
        """Faces found in `cut(image)`, in pixels of the whole picture."""
        x0, y0, _, _ = self._pixels(image)
        if x0 == y0 == 0 or len(faces) == 0:
            return faces
        shift = np.array([x0, y0], np.float32)
        return faces.with_(boxes=faces.boxes + np.tile(shift, 2), landmarks=faces.landmarks + shift)

    def _pixels(self, image: NDArray[np.uint8]) -> tuple[int, int, int, int]:
        height, width = image.shape[:2]
        x0, y0 = min(int(self.left * width), width - 1), min(int(self.top * height), height - 1)
        return x0, y0, max(x0 + 1, round(self.right * width)), max(y0 + 1, round(self.bottom * height))


WHOLE = Region()
