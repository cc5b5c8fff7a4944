"""Face masks and other occluders drawn onto aligned crops, with the map of what they hide.

The map is free ground truth for the mask attention. Two renderers share the work: pictures of masks with
key points (the folder layout of MaskTheFace), warped onto the template's geometry, and polygons in drawn
colours, for the variety that a few pictures lack.
"""

from __future__ import annotations

import configparser
from pathlib import Path

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from edge_fr.errors import ImageError

Image = NDArray[np.uint8]

# Where a mask's six key points lie on an aligned crop: ear left, nose, ear right, jaw left, chin, jaw right.
KEY_POINTS = np.array([(15, 62), (56, 60), (97, 62), (25, 92), (56, 113), (87, 92)], np.float32)
OUTLINE = np.array(
    [(17, 62), (38, 60), (56, 56), (74, 60), (95, 62), (93, 90), (76, 110), (36, 110), (19, 90)], np.float32
)


def _smooth(outline: NDArray[np.float32]) -> NDArray[np.int32]:
    """A closed curve through the middles of a polygon's sides (one corner cutting), in 1/16 pixels."""
    following = np.roll(outline, -1, axis=0)
    cut = np.stack([0.75 * outline + 0.25 * following, 0.25 * outline + 0.75 * following], 1).reshape(-1, 2)
    return np.round(cut * 16).astype(np.int32)


def _fill(outline: NDArray[np.float32]) -> Image:
    cover = np.zeros((112, 112), np.uint8)
    cv2.fillPoly(cover, [_smooth(outline)], 255, lineType=cv2.LINE_AA, shift=4)
    return np.asarray(cv2.GaussianBlur(cover, (3, 3), 0), np.uint8)


def _cloth(colour: NDArray[np.float64], rng: Generator) -> NDArray[np.float32]:
    """A 112 x 112 x 3 surface of one colour with soft shading, weave, and sometimes stripes or blots."""
    shade = cv2.resize(
        rng.normal(0, 14, (5, 5, 1)).astype(np.float32), (112, 112), interpolation=cv2.INTER_CUBIC
    )
    surface = colour.astype(np.float32) + shade[..., None]
    pattern = rng.integers(5)
    if pattern == 0:  # pleats
        rows = np.arange(112, dtype=np.float32)[:, None, None]
        surface = surface + rng.uniform(8, 25) * np.sin(rows * rng.uniform(0.3, 0.9))
    elif pattern == 1:  # print
        size = int(rng.integers(6, 20))
        blots = rng.normal(0, 45, (size, size, 3)).astype(np.float32)
        surface = surface + cv2.resize(blots, (112, 112), interpolation=cv2.INTER_LINEAR)
    return np.asarray(surface + rng.normal(0, 4, (112, 112, 1)), np.float32)


def _blend(image: Image, surface: NDArray[np.float32], cover: Image) -> Image:
    alpha = cover.astype(np.float32)[..., None] / 255.0
    return np.asarray(np.clip(image * (1 - alpha) + surface * alpha, 0, 255), np.uint8)


def _light(image: Image) -> float:
    """How bright the lower face is, 0.25..1: a mask in the dark is dark."""
    return float(np.clip(image[60:105, 25:87].mean() / 150.0, 0.25, 1.0))


def polygon_mask(image: Image, rng: Generator) -> tuple[Image, Image]:
    """A mask drawn as a shaded polygon -> the picture and its cover, 112 x 112 uint8."""
    outline = OUTLINE + rng.normal(0, 2.0, OUTLINE.shape).astype(np.float32)
    top = rng.uniform(-2, 12)  # from the bridge of the nose down to its tip
    outline[[0, 1, 2, 3, 4], 1] += top * np.array([0.5, 1, 1, 1, 0.5], np.float32)
    outline[2, 1] -= rng.uniform(0, 4)
    kind = rng.integers(4)
    if kind == 0:
        colour = np.array([rng.uniform(190, 240), rng.uniform(170, 220), rng.uniform(130, 190)])  # surgical
    elif kind == 1:
        colour = np.full(3, rng.uniform(195, 250))
    elif kind == 2:
        colour = np.full(3, rng.uniform(10, 60))
    else:
        colour = rng.uniform(20, 235, 3)
    cover = _fill(outline)
    image = image.copy()
    if rng.random() < 0.6:  # ear loops
        strap = tuple(int(v) for v in colour * 0.9 * _light(image))
        for inner, outer in (
            (outline[0], (2, 52)),
            (outline[8], (6, 66)),
            (outline[4], (110, 52)),
            (outline[5], (106, 66)),
        ):
            cv2.line(image, tuple(int(v) for v in inner), outer, strap, 1, cv2.LINE_AA)
    return _blend(image, _cloth(colour, rng) * _light(image), cover), cover


def occlude(image: Image, rng: Generator) -> tuple[Image, Image]:
    """A hand-, scarf- or pole-like shape somewhere over the crop -> the picture and its cover."""
    centre = rng.uniform((10, 20), (102, 112))
    angles = np.sort(rng.uniform(0, 2 * np.pi, 7))
    radius = rng.uniform(8, 30, 7)
    stretch = np.array([rng.uniform(0.5, 1.5), rng.uniform(0.5, 1.5)])
    outline = centre + np.stack([np.cos(angles), np.sin(angles)], 1) * radius[:, None] * stretch
    cover = _fill(outline.astype(np.float32))
    skin = np.array([rng.uniform(60, 150), rng.uniform(90, 180), rng.uniform(130, 225)])
    colour = skin if rng.random() < 0.4 else rng.uniform(10, 245, 3)
    return _blend(image, _cloth(colour, rng) * _light(image), cover), cover


class MaskRenderer:
    """Draws a mask on a crop: a warped picture of one where `templates` are given, else a polygon.

    `templates` is a folder holding `masks.cfg`; half of the masks then come from its pictures.
    """

    def __init__(self, templates: Path | None) -> None:
        self._pictures: list[tuple[NDArray[np.uint8], NDArray[np.float32]]] = []
        if templates is None:
            return
        listing = configparser.ConfigParser()
        if not listing.read(templates / "masks.cfg"):
            raise ImageError(
                f"{templates} holds no masks.cfg, the list of mask pictures and their key points"
            )
        for name in listing.sections():
            row = listing[name]
            if "template" not in row or name.endswith(("_left", "_right")):  # those are for turned heads
                continue
            path = templates.parent / row["template"]
            picture = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
            if picture is None or picture.ndim != 3 or picture.shape[2] != 4:
                raise ImageError(f"{path} (mask {name!r}) is no picture with transparency")
            points = np.array([[float(v) for v in row[f"mask_{k}"].split(",")] for k in "abcdef"], np.float32)
            shrink = 140.0 / picture.shape[1]  # about the size it is drawn at, against aliasing
            picture = cv2.resize(picture, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
            self._pictures.append((np.asarray(picture, np.uint8), points * np.float32(shrink)))

    def __call__(self, image: Image, rng: Generator) -> tuple[Image, Image]:
        """The crop with a mask, and the mask's cover, 112 x 112 uint8."""
        if not self._pictures or rng.random() < 0.5:
            return polygon_mask(image, rng)
        picture, points = self._pictures[rng.integers(len(self._pictures))]
        target = KEY_POINTS + rng.normal(0, 1.5, KEY_POINTS.shape).astype(np.float32)
        target[:3, 1] += rng.uniform(-4, 10) * np.array([0.5, 1, 0.5], np.float32)
        warp, _ = cv2.findHomography(points, target, 0)
        if warp is None:
            return polygon_mask(image, rng)
        drawn = cv2.warpPerspective(picture, warp, (112, 112), flags=cv2.INTER_LINEAR)
        cover = np.asarray(drawn[..., 3], np.uint8)
        tint = rng.uniform(0.75, 1.1) * _light(image)
        surface = drawn[..., :3].astype(np.float32) * tint * rng.uniform(0.9, 1.1, 3).astype(np.float32)
        return _blend(image, surface, cover), cover
