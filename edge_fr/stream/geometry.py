"""How a source's pictures come to stand upright with square pixels, as everything after it expects them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from edge_fr.errors import InputError

_NEARLY_SQUARE = 0.02  # a pixel that is wider or higher by less is taken for square: no face shows it
_MOST_UNEVEN = 8.0


@dataclass(frozen=True, slots=True)
class Mounting:
    """How a camera hangs, and what its stream does not tell.

    Pictures are mirrored if `flip`, and then turned clockwise by `rotate` degrees: 0, 90, 180 or 270.
    `aspect` is how wide a picture is to be seen for its height ("16:9"), as the camera sends it; None: as its
    stream says, and with square pixels where it says nothing.
    """

    rotate: int = 0
    flip: bool = False
    aspect: str | None = None

    def __post_init__(self) -> None:
        if self.rotate not in (0, 90, 180, 270):
            raise InputError(f"rotate is {self.rotate!r}, expected 0, 90, 180 or 270 degrees, clockwise")
        if self.aspect is not None and not 1 / _MOST_UNEVEN <= _ratio(self.aspect) <= _MOST_UNEVEN:
            raise InputError(f"aspect is {self.aspect!r}, expected width:height between 1:8 and 8:1")

    def applied(self, image: NDArray[np.uint8], pixel_aspect: float = 1.0) -> NDArray[np.uint8]:
        """The picture as it is to be seen, itself where nothing changes; `pixel_aspect` is the width of a
        pixel for its height, as declared."""
        height, width = image.shape[:2]
        if self.aspect is not None:
            pixel_aspect = float(_ratio(self.aspect)) * height / width
        image = with_square_pixels(image, pixel_aspect)
        if self.flip:
            image = image[:, ::-1]
        if self.flip or self.rotate:
            image = np.ascontiguousarray(np.rot90(image, -self.rotate // 90))
        return image


def with_square_pixels(image: NDArray[np.uint8], pixel_aspect: float) -> NDArray[np.uint8]:
    """The picture with its shorter direction stretched; as it is where `pixel_aspect` says nothing usable."""
    if not 1 / _MOST_UNEVEN <= pixel_aspect <= _MOST_UNEVEN or abs(pixel_aspect - 1) < _NEARLY_SQUARE:
        return image
    import cv2  # here: a package that opens no source needs no OpenCV

    height, width = image.shape[:2]
    if pixel_aspect > 1:
        size = round(width * pixel_aspect), height
    else:
        size = width, round(height / pixel_aspect)
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_LINEAR), np.uint8)


def _ratio(text: str) -> Fraction:
    match = re.fullmatch(r"(\d{1,5}):(\d{1,5})", str(text))
    if match is None or "0" in (match[1].strip("0") or "0", match[2].strip("0") or "0"):
        raise InputError(f"aspect is {text!r}, expected width:height, such as 16:9")
    return Fraction(int(match[1]), int(match[2]))
