"""The two people of the standoff clip: public-domain portraits, cut out by hand and set on drawn bodies.

NASA's portrait of Eileen Collins comes with scikit-image (`astronaut`), the US Navy's of Grace Hopper
with matplotlib's sample data.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_fr.errors import MissingDependencyError

FACE_WIDTH_M = 0.15

Picture = NDArray[np.uint8]
Floats = NDArray[Any]  # float32
Outline = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Walker:
    """One person; all `_px` coordinates are those of the portrait, from its top left corner."""

    name: str
    outline_px: tuple[tuple[int, int], ...]
    face_px: tuple[float, float, float, float]  # xyxy, as the detector sees it
    eyes_y_px: float
    eye_height_m: float
    body_px: tuple[int, int]  # width and height of the whole figure
    margin_px: int  # drawn beside the portrait, left and right
    lateral_m: tuple[float, float]  # at the far end, in front of the camera
    distance_m: tuple[float, float]
    blurred_s: tuple[tuple[float, float], ...]  # when the camera has lost its focus and the person hurries

    @property
    def px_per_m(self) -> float:
        return (self.face_px[2] - self.face_px[0]) / FACE_WIDTH_M


# Traced by eye, clockwise, in portrait pixels.
# fmt: off
_COLLINS_OUTLINE = (
    (168, 113), (160, 103), (156, 92), (155, 78), (156, 66), (162, 57), (173, 47), (187, 38), (193, 31),
    (204, 23), (217, 20), (231, 17), (243, 18), (257, 22), (270, 29), (280, 36), (288, 45), (294, 56),
    (297, 68), (300, 80), (300, 92), (296, 104), (290, 113), (282, 122), (276, 127), (275, 132), (270, 135),
    (265, 135), (265, 142), (261, 152), (256, 163), (255, 175), (263, 179), (272, 186), (283, 196),
    (291, 207), (298, 219), (302, 230), (304, 236), (320, 244), (334, 255), (343, 267), (347, 280),
    (353, 296), (356, 310), (360, 330), (359, 345), (366, 349), (380, 346), (400, 345), (420, 347),
    (440, 352), (455, 360), (469, 372), (480, 387), (488, 403), (493, 421), (496, 440), (497, 453),
    (503, 458), (506, 470), (509, 486), (510, 512), (36, 512), (31, 495), (28, 480), (25, 460), (23, 440),
    (26, 420), (25, 412), (24, 395), (26, 380), (28, 345), (30, 332), (35, 316), (41, 298), (46, 283),
    (53, 268), (59, 258), (66, 250), (76, 238), (86, 227), (96, 219), (106, 211), (114, 205), (116, 195),
    (114, 188), (122, 180), (129, 170), (137, 162), (147, 156), (157, 152), (170, 150), (185, 150),
    (184, 140), (182, 131), (176, 126), (172, 120),
)
_HOPPER_OUTLINE = (
    (155, 195), (155, 205), (159, 218), (163, 235), (166, 248), (163, 258), (162, 268), (167, 277),
    (174, 285), (184, 292), (196, 298), (202, 305), (203, 316), (197, 321), (190, 329), (180, 337),
    (165, 344), (150, 350), (135, 356), (115, 362), (95, 366), (80, 371), (65, 378), (55, 381), (49, 387),
    (43, 397), (37, 412), (31, 425), (28, 445), (26, 465), (22, 490), (19, 520), (17, 545), (15, 570),
    (13, 600), (511, 600), (511, 448), (506, 433), (501, 416), (496, 400), (490, 391), (483, 388),
    (470, 380), (455, 374), (440, 370), (420, 364), (405, 357), (390, 351), (375, 344), (360, 339),
    (348, 330), (338, 322), (331, 313), (331, 303), (340, 305), (346, 302), (354, 293), (359, 280),
    (361, 268), (364, 262), (366, 250), (370, 235), (373, 215), (375, 200), (372, 188), (366, 181),
    (367, 165), (370, 150), (371, 130), (369, 110), (368, 95), (363, 88), (357, 87), (351, 88), (350, 79),
    (342, 67), (331, 56), (317, 47), (301, 42), (298, 37), (291, 30), (279, 26), (262, 24), (248, 25),
    (236, 30), (225, 38), (219, 43), (210, 44), (199, 50), (187, 60), (179, 71), (175, 84), (168, 88),
    (162, 92), (156, 103), (152, 115), (151, 130), (150, 150), (152, 175),
)
# fmt: on

COLLINS = Walker(
    name="Eileen Collins",
    outline_px=_COLLINS_OUTLINE,
    face_px=(178, 65, 269, 176),
    eyes_y_px=104,
    eye_height_m=1.56,
    body_px=(512, 1070),
    margin_px=10,
    lateral_m=(-0.62, -0.46),
    distance_m=(13.75, 1.375),
    blurred_s=((2.5, 3.1), (5.7, 6.3)),
)

HOPPER = Walker(
    name="Grace Hopper",
    outline_px=_HOPPER_OUTLINE,
    face_px=(177, 123, 356, 336),
    eyes_y_px=196,
    eye_height_m=1.52,
    body_px=(512, 2030),
    margin_px=40,
    lateral_m=(0.55, 0.52),
    distance_m=(15.0, 1.45),
    blurred_s=((3.5, 4.1), (6.8, 7.2)),
)

WALKERS = (COLLINS, HOPPER)


def portrait(walker: Walker) -> Picture:
    """The public-domain portrait, BGR uint8, from the package that carries it."""
    try:
        if walker is COLLINS:
            from skimage import data

            rgb: Picture = data.astronaut()  # type: ignore[no-untyped-call]
            return np.ascontiguousarray(rgb[..., ::-1])
        from matplotlib import cbook
    except ImportError as error:
        raise MissingDependencyError(
            "the portraits come with scikit-image and matplotlib: pip install scikit-image matplotlib"
        ) from error
    path = cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)
    return np.asarray(cv2.imread(str(path), cv2.IMREAD_COLOR), np.uint8)


def figure(walker: Walker, stride: float) -> Floats:
    """The whole person, premultiplied BGRA 0..1, in portrait pixels plus `margin_px` at both sides.

    `stride` is the moment of the double step, in turns: at 0 both feet are on the floor.
    """
    layer = _Layer(walker)
    paint = _collins_body if walker is COLLINS else _hopper_body
    paint(layer, float(np.sin(2 * np.pi * stride)), walker.body_px[1])
    picture = portrait(walker)
    h, w = picture.shape[:2]
    alpha = cv2.GaussianBlur(_inside((w, h), walker.outline_px, rounds=1), (0, 0), 1.1)
    alpha = np.clip((alpha - 0.35) / 0.6, 0, 1)  # a little inside the outline: no rim of the old background
    above_edge = (h - 1 - np.arange(h, dtype=np.float32)) / (0.05 * h)
    alpha *= np.clip(above_edge, 0, 1)[:, None]  # fades into the drawn body
    layer.over(picture.astype(np.float32) / 255, alpha, (walker.margin_px, 0))
    return layer.bgra


def _inside(size: tuple[int, int], outline: Outline, rounds: int = 2) -> Floats:
    """The inside of an outline with its corners cut, 0..1, antialiased; `size` is (width, height)."""
    points = np.array(outline, np.float32)
    for _ in range(rounds):  # Chaikin's corner cutting
        after = np.roll(points, -1, axis=0)
        points = np.stack([0.75 * points + 0.25 * after, 0.25 * points + 0.75 * after], 1).reshape(-1, 2)
    mask = np.zeros((size[1], size[0]), np.uint8)
    cv2.fillPoly(mask, [np.round(points * 16).astype(np.int32)], 255, cv2.LINE_AA, shift=4)
    return mask.astype(np.float32) / 255


class _Layer:
    """What a figure is painted on, part over part."""

    def __init__(self, walker: Walker) -> None:
        width, height = walker.body_px[0] + 2 * walker.margin_px, walker.body_px[1]
        self.margin_px = walker.margin_px
        self.bgra = np.zeros((height, width, 4), np.float32)
        self.weave = np.random.default_rng(0).normal(1, 0.06, (height, width)).astype(np.float32)

    def over(self, colour: Floats, alpha: Floats, corner: tuple[int, int]) -> None:
        """Lays a part, not premultiplied, over what is there; `corner` is its (left, top)."""
        left, top = corner
        below = self.bgra[top : top + alpha.shape[0], left : left + alpha.shape[1]]
        below *= 1 - alpha[..., None]
        below[..., :3] += colour * alpha[..., None]
        below[..., 3] += alpha

    def cloth(self, bgr: tuple[int, int, int], rim_px: float, *outlines: Outline) -> None:
        """One piece of cloth out of several outlines, darker over `rim_px` towards its rim."""
        points = np.array([point for outline in outlines for point in outline], np.float32)
        points[:, 0] += self.margin_px
        height, width = self.bgra.shape[:2]
        left, top = np.maximum(np.floor(points.min(0)) - 2, 0).astype(int).tolist()
        right, bottom = np.minimum(np.ceil(points.max(0)) + 3, (width, height)).astype(int).tolist()
        moved = [[(x + self.margin_px - left, y - top) for x, y in outline] for outline in outlines]
        alpha = np.maximum.reduce([_inside((right - left, bottom - top), outline) for outline in moved])
        depth = cv2.distanceTransform((alpha > 0.5).astype(np.uint8), cv2.DIST_L2, 5)
        light = 0.55 + 0.45 * np.sin(np.clip(depth / rim_px, 0, 1) * np.pi / 2)
        light *= self.weave[top:bottom, left:right]
        self.over(np.array(bgr, np.float32) / 255 * light[..., None], alpha, (left, top))


def _limb(x: float, *rungs: tuple[float, float]) -> Outline:
    """An outline that reaches as far to the left of `x` as to the right; a rung is (y, half width)."""
    return [*((x + half, y) for y, half in rungs), *((x - half, y) for y, half in reversed(rungs))]


def _disc(x: float, y: float, half_w: float, half_h: float) -> Outline:
    turns = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    return [(x + half_w * float(np.cos(t)), y + half_h * float(np.sin(t))) for t in turns]


def _collins_body(body: _Layer, swing: float, bottom: int) -> None:
    orange = (50, 92, 216)
    boots, legs = [], []
    for x, lift in ((140, swing), (264, -swing)):
        foot = bottom - 20 - 34 * max(lift, 0.0)
        boots.append(_limb(x, (foot - 90, 46), (foot, 56)))
        legs.append(_limb(x, (500, 70), (640, 66), (foot - 40, 44)))
    body.cloth((38, 36, 40), 30, *boots)
    body.cloth(orange, 60, *legs, _limb(202, (470, 132), (580, 136), (660, 128)))
    body.cloth((60, 98, 214), 26, [(34, 470), (150, 470), (112, 545), (84, 560), (50, 536)])  # her elbow
    body.cloth((92, 38, 48), 26, [(96, 490), (192, 480), (198, 520), (176, 560), (130, 562), (96, 530)])
    body.cloth((8, 7, 8), 20, _disc(393, 452, 115, 106))  # the helmet, whose lower rim the portrait cuts off


def _hopper_body(body: _Layer, swing: float, bottom: int) -> None:
    navy = (25, 17, 17)
    shoes, legs = [], []
    for x, lift in ((172, swing), (352, -swing)):
        foot = bottom - 30 - 60 * max(lift, 0.0)
        shoes.append(_limb(x, (foot - 60, 66), (foot, 78)))
        legs.append(_limb(x, (1040, 108), (1500, 84), (foot - 30, 70)))
    body.cloth((20, 18, 18), 40, *shoes)
    body.cloth((31, 22, 22), 70, *legs)
    for side, lift in ((-1, -swing), (1, swing)):
        wrist = 1120 + 26 * lift
        outer = [(236, 430), (254, 520), (262, 600), (268, 800), (252, 1000), (236, wrist)]
        inner = [(160, wrist), (150, 800), (150, 500)]
        body.cloth(
            (128, 158, 204),
            34,
            _limb(268 + side * 200, (wrist - 10, 34), (wrist + 70, 36), (wrist + 120, 14)),
        )
        body.cloth(navy, 60, [(268 + side * x, y) for x, y in (*outer, *inner)])
    body.cloth(navy, 40, _limb(267, (440, 207), (800, 178), (1120, 202), (1140, 202)))
    body.cloth((20, 13, 13), 3, _limb(268, (600, 2), (1130, 3)))
    for y in (700, 830, 960):
        for x in (200, 322):
            body.cloth((70, 150, 196), 10, _disc(x, y, 12, 12))
