"""The degradations that figures are reported under, on aligned 112x112 crops.

A condition is a name: `clean` (or `as is`, for pictures that are not), `pxN`, `mask`, or several joined
by `+`, applied from left to right: `mask+px24` is a masked face seen from afar. After `pxN` the whole
crop is N pixels wide: the face's box takes 78/112 of that (`quality_scores.FACE_BOX`), and the eyes are
35.2/112 of it apart. What is random is seeded by the picture's name alone, so a figure does not depend
on the order of the data or on the machine.
"""

from __future__ import annotations

import re
import zlib

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_fr.errors import InputError
from edge_fr.structures import CROP_SIDE_PX

UNCHANGED = ("clean", "as is")


def check(condition: str) -> None:
    """InputError for a condition that `degrade` does not know."""
    for part in condition.split("+"):
        if part not in (*UNCHANGED, "mask"):
            _side_px(part)


def degrade(crop: NDArray[np.uint8], condition: str, name: str) -> NDArray[np.uint8]:
    """A copy of the (112, 112, 3) crop under the condition; InputError for an unknown one."""
    return enlarge(captured(crop, condition, name))


def captured(crop: NDArray[np.uint8], condition: str, name: str) -> NDArray[np.uint8]:
    """What a camera delivers under the condition: N x N pixels after `pxN`, where `degrade` goes on to
    112 x 112."""
    for part in condition.split("+"):
        if part == "mask":
            crop = masked(enlarge(crop), name)
        elif part not in UNCHANGED:
            side = _side_px(part)
            # by area averaging, as a sensor does
            crop = np.asarray(cv2.resize(enlarge(crop), (side, side), interpolation=cv2.INTER_AREA), np.uint8)
    return crop


def enlarge(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A copy at 112 x 112 pixels, by bicubic interpolation."""
    size = (CROP_SIDE_PX, CROP_SIDE_PX)
    if picture.shape[:2] == size:
        return picture.copy()
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_CUBIC), np.uint8)


def _side_px(part: str) -> int:
    match = re.fullmatch(r"px(\d{1,3})", part)
    if match is None:
        expected = "clean, as is, pxN (px16) or mask, joined by +"
        raise InputError(f"unknown condition {part!r}, expected {expected}")
    side = int(match[1])
    if not 2 <= side <= CROP_SIDE_PX:
        raise InputError(f"condition {part}: expected a side between 2 and {CROP_SIDE_PX} px")
    return side


# A mask on the 112 template: over the nose bridge, down the cheeks, around the chin.
_TOP = [(15, 63), (34, 61), (46, 59), (56, 56), (66, 59), (78, 61), (97, 63)]
_REST = [(94, 82), (86, 97), (72, 108), (56, 112), (40, 108), (26, 97), (18, 82)]
_OUTLINE = np.array([*_TOP, *_REST], np.float32)
_COLOURS = ((235, 206, 160), (245, 245, 242), (40, 38, 36), (170, 190, 120), (150, 140, 200))  # BGR
_PLEATS = ((16, 78, 96, 78), (20, 88, 92, 88), (27, 98, 85, 98))
_STRAPS = ((15, 64, 0, 50), (97, 64, 111, 50), (19, 84, 0, 92), (93, 84, 111, 92))


def masked(crop: NDArray[np.uint8], name: str) -> NDArray[np.uint8]:
    """A copy with a rendered mask: outline, colour, fit and shading drawn from the picture's name.

    It takes over the light of the face beneath: the mask is multiplied by the smoothed brightness of
    the covered skin, so that a dark photograph gets a dark mask.
    """
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    outline = _OUTLINE + rng.normal(0, 1.2, _OUTLINE.shape).astype(np.float32)
    top, rest = outline[: len(_TOP)], outline[len(_TOP) :]
    top[:, 1] += np.float32(rng.uniform(-3, 5))  # worn higher or lower
    rest[:] = (rest - (56, 90)) * rng.uniform(0.94, 1.06) + (56, 90)
    scale, shift = 8, 3  # cv2's fixed-point coordinates: eighths of a pixel
    alpha = np.zeros((CROP_SIDE_PX, CROP_SIDE_PX), np.uint8)
    cv2.fillPoly(alpha, [np.round(outline * scale).astype(np.int32)], 255, cv2.LINE_AA, shift)
    cloth = np.empty_like(crop)
    cloth[:] = _COLOURS[rng.integers(len(_COLOURS))]
    dark = tuple(int(v * 0.82) for v in cloth[0, 0])
    for x0, y0, x1, y1 in _PLEATS if rng.random() < 0.7 else ():
        cv2.line(cloth, (x0, y0), (x1, y1), dark, 1, cv2.LINE_AA)
    straps = np.zeros((CROP_SIDE_PX, CROP_SIDE_PX), np.uint8)
    for x0, y0, x1, y1 in _STRAPS:
        cv2.line(straps, (x0, y0), (x1, y1), 255, 1, cv2.LINE_AA)
    alpha = np.maximum(alpha, straps)
    grey = cv2.cvtColor(crop, cv2.COLOR_BGR2GRAY).astype(np.float32)
    light = cv2.GaussianBlur(grey, (0, 0), 9)
    light = np.clip(light / max(float(light[56:].mean()), 1.0), 0.5, 1.5) * np.clip(
        float(grey[40:80, 30:82].mean()) / 140, 0.35, 1.1
    )
    weight = cv2.GaussianBlur(alpha, (3, 3), 0).astype(np.float32)[..., None] / 255
    shaded = np.clip(cloth * light[..., None], 0, 255)
    return np.asarray(crop * (1 - weight) + shaded * weight + 0.5, np.uint8)
