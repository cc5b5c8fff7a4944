"""Is this face good enough to be recognised, and if not, why not?

Reasons carry the component names of ISO/IEC 29794-5 where it has one for the thing measured; the
measures here are the ones described at each function, chosen so that they hold for a face of 16 px
as well as for one of 600 px. `detection_confidence` and `recognizability` are this package's own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_fr.errors import InputError
from edge_fr.structures import Faces, Frame, Refusal

_Floats = NDArray[np.float64]
Recognizability = Callable[[NDArray[np.uint8]], NDArray[np.float32]]

# Recognisers see a face about 80 px wide, softened by their first layers: detail finer than a
# twenty-fourth of the face moves SFace's score little, so pixels are judged at no more than this.
_JUDGED_SIDE_PX = 24
_DIAGONAL = 0.68  # diagonal neighbours lie further apart: makes a sharp face equally sharp both ways
_DARK, _BRIGHT = 25, 247  # grey levels; ISO/IEC 29794-5 counts the pixels beyond them


@dataclass(frozen=True, slots=True)
class QualityPolicy:
    """The bounds of a good face, inclusive; the defaults are for surveillance, where little is refused.

    `min_score` is the detector's, `min_side_px` the shorter side of the box. The default
    `min_inter_eye_px` is where SFace begins to find more people than it misses: at one false match in
    10,000 it finds 80 % of CelebA's faces as they are (35 px between the eyes), 59 % of them scaled
    down to 9 px, 33 % at 6 px. Yaw, pitch and roll bound the absolute angle.
    `min_sharpness` is 0..1, see `sharpness`. `max_dark_share` and `max_bright_share` bound the share of
    the face's pixels below 26 and above 246 of 255 grey levels; `min_dynamic_range` is the spread of
    its grey levels from the 5th to the 95th percentile. `min_inside` is the least share of the box,
    and of the landmarks, that lies inside the frame. `min_recognizability` counts only for a gate
    that has a recognizability score.

    After a track's first accepted face, another is selected when its quality is at least `better_by`
    above that of the best one selected so far, or when the last one was selected `every_ns` ago.
    """

    min_score: float = 0.6
    min_side_px: float = 16.0
    min_inter_eye_px: float = 8.0
    max_yaw_deg: float = 60.0
    max_pitch_deg: float = 30.0
    max_roll_deg: float = 60.0
    min_sharpness: float = 0.06
    max_dark_share: float = 0.95
    max_bright_share: float = 0.5
    min_dynamic_range: float = 10.0
    min_inside: float = 0.75
    min_recognizability: float = 0.5
    better_by: float = 0.05
    every_ns: int = 400_000_000

    def __post_init__(self) -> None:
        for bound in fields(self):
            value = getattr(self, bound.name)
            if not (math.isfinite(value) and value >= 0):
                raise InputError(f"QualityPolicy.{bound.name} is {value}, expected a number of 0 or more")

    @classmethod
    def enrollment(cls) -> QualityPolicy:
        """Bounds for pictures that others will be compared with for years: frontal, sharp, well lit."""
        return cls(
            min_score=0.8,
            min_side_px=60.0,
            min_inter_eye_px=30.0,
            max_yaw_deg=25.0,
            max_pitch_deg=20.0,
            max_roll_deg=30.0,
            min_sharpness=0.14,
            max_dark_share=0.5,
            max_bright_share=0.15,
            min_dynamic_range=50.0,
            min_inside=0.98,
        )


@dataclass(frozen=True, slots=True)
class _Component:
    name: str
    bound: str  # the field of QualityPolicy
    limit: Literal["at least", "at most"]
    unit: str = ""


_COMPONENTS = (
    _Component("detection_confidence", "min_score", "at least"),
    _Component("head_size", "min_side_px", "at least", "px"),
    _Component("inter_eye_distance", "min_inter_eye_px", "at least", "px"),
    _Component("crop_of_the_face_image", "min_inside", "at least"),
    _Component("head_pose_yaw", "max_yaw_deg", "at most", "deg"),
    _Component("head_pose_pitch", "max_pitch_deg", "at most", "deg"),
    _Component("head_pose_roll", "max_roll_deg", "at most", "deg"),
    _Component("under_exposure", "max_dark_share", "at most"),
    _Component("over_exposure", "max_bright_share", "at most"),
    _Component("dynamic_range", "min_dynamic_range", "at least", "grey levels"),
    _Component("sharpness", "min_sharpness", "at least"),
)
_RECOGNIZABILITY = _Component("recognizability", "min_recognizability", "at least")


class QualityGate:
    """Judges every face of a frame and selects those worth embedding.

    Fills `quality`, `refusals` and `selected`. `quality` (0..1) ranks faces by how well a recogniser
    will match them; see `combine`. A face is selected when nothing speaks against it and, if it has a
    track, when it is the track's first, or better than those before, or due again (see QualityPolicy);
    without `track_ids` every accepted face is.

    `recognizability` is a learned score: it takes (N, 112, 112, 3) uint8 BGR crops of the faces that
    passed everything else and returns (N,) float32 in 0..1. It fills `ri` (NaN in other rows), stands
    in for `quality` where it was computed, and needs `crops`.

    The gate remembers its tracks until `forget`: use one gate for each camera.
    """

    def __init__(self, policy: QualityPolicy, *, recognizability: Recognizability | None = None) -> None:
        self.policy = policy
        self._recognizability = recognizability
        self._selected: dict[int, tuple[float, int]] = {}  # best quality and time of the last, by track

    def __call__(self, frame: Frame, faces: Faces) -> Faces:
        measured = measure(frame.image, faces)
        refusals: list[list[Refusal]] = [[] for _ in range(len(faces))]
        for component in _COMPONENTS:
            self._refuse(component, measured[component.name], refusals)
        quality = combine(measured)
        if self._recognizability is not None:
            faces = faces.with_(ri=self._recognize(faces, refusals))
            assert faces.ri is not None
            self._refuse(_RECOGNIZABILITY, faces.ri, refusals)
            quality = np.where(np.isnan(faces.ri), quality, faces.ri)
        selected = [not reasons for reasons in refusals]
        if faces.track_ids is not None:
            for i in np.flatnonzero(selected):
                selected[i] = self._is_news(int(faces.track_ids[i]), float(quality[i]), frame.pts_ns)
        return faces.with_(
            quality=quality.astype(np.float32),
            refusals=tuple(tuple(reasons) for reasons in refusals),
            selected=np.array(selected, np.bool_),
        )

    def forget(self, track_ids: Iterable[int]) -> None:
        """Drops what is remembered about tracks that ended; unknown ids are ignored."""
        for track_id in track_ids:
            self._selected.pop(track_id, None)

    def _refuse(
        self, component: _Component, values: NDArray[np.floating], refusals: list[list[Refusal]]
    ) -> None:
        bound = float(getattr(self.policy, component.bound))
        values = np.abs(values)
        bad = values < bound if component.limit == "at least" else values > bound
        for i in np.flatnonzero(bad):
            refusals[i].append(
                Refusal(component.name, float(values[i]), bound, component.limit, component.unit)
            )

    def _recognize(self, faces: Faces, refusals: list[list[Refusal]]) -> NDArray[np.float32]:
        assert self._recognizability is not None
        if faces.crops is None:
            raise InputError("recognizability needs Faces.crops; put the align stage before the QualityGate")
        ri = np.full(len(faces), np.nan, np.float32)
        passed = np.flatnonzero([not reasons for reasons in refusals])
        if len(passed):
            scores = np.asarray(self._recognizability(faces.crops[passed]), np.float32)
            if scores.shape != passed.shape or not np.isfinite(scores).all():
                raise InputError(
                    f"recognizability gave shape {scores.shape} for {len(passed)} crops, "
                    f"expected ({len(passed)},) finite numbers"
                )
            ri[passed] = scores
        return ri

    def _is_news(self, track_id: int, quality: float, now_ns: int) -> bool:
        if track_id in self._selected:
            best, last_ns = self._selected[track_id]
            # A clock that ran backwards is a new stream: its faces are news.
            due = not last_ns <= now_ns < last_ns + self.policy.every_ns
            if not due and quality < best + self.policy.better_by:
                return False
            quality = max(quality, best)
        self._selected[track_id] = (quality, now_ns)
        return True


def measure(image: NDArray[np.uint8], faces: Faces) -> dict[str, _Floats]:
    """Every component of every face of the BGR picture, (N,) each, by its ISO/IEC 29794-5 name.

    Finite whatever comes in. Where landmarks are not, the distance between the eyes and the share
    inside the frame are 0; where a box shows no pixel of the frame, so are its sharpness and dynamic
    range.
    """
    boxes = np.nan_to_num(faces.boxes.astype(np.float64), posinf=0, neginf=0)
    known = np.asarray(np.isfinite(faces.landmarks).all(axis=(1, 2)))
    landmarks = np.where(known[:, None, None], faces.landmarks.astype(np.float64), 0)
    yaw, pitch, roll = head_pose(landmarks)
    eyes = landmarks[:, 1] - landmarks[:, 0]
    inside = known * np.minimum(*_shares_inside(boxes, landmarks, image.shape[:2]))
    pixels = np.array([_pixels(image, box) for box in boxes]).reshape(len(faces), 4)
    return {
        "detection_confidence": np.nan_to_num(faces.scores.astype(np.float64)),
        "head_size": np.maximum(boxes[:, 2:] - boxes[:, :2], 0).min(axis=1),
        "inter_eye_distance": np.hypot(eyes[:, 0], eyes[:, 1]),
        "crop_of_the_face_image": inside,
        "head_pose_yaw": yaw,
        "head_pose_pitch": pitch,
        "head_pose_roll": roll,
        "under_exposure": pixels[:, 0],
        "over_exposure": pixels[:, 1],
        "dynamic_range": pixels[:, 2],
        "sharpness": pixels[:, 3],
    }


def head_pose(landmarks: NDArray[np.floating]) -> tuple[_Floats, _Floats, _Floats]:
    """Yaw, pitch and roll in degrees, (N,) each, from landmarks (N, 5, 2).

    Yaw is positive for a face turned to the right of the picture, pitch for one that looks down, roll
    for one turned clockwise. They follow from where the tip of the nose, half an eye distance in front
    of the face, lies between the eyes and the mouth. Yaw agrees with the foreshortening of the eye
    distance within 3 degrees up to 60. Pitch is weak: people's noses alone differ by 5 degrees.
    """
    left, right, nose = landmarks[:, 0], landmarks[:, 1], landmarks[:, 2]
    eyes = (left + right) / 2
    axis = (landmarks[:, 3] + landmarks[:, 4]) / 2 - eyes
    length = np.hypot(axis[:, 0], axis[:, 1])
    down = axis / np.maximum(length, 1e-9)[:, None]
    across = np.stack([down[:, 1], -down[:, 0]], axis=1)
    aside, below = ((nose - eyes) * across).sum(axis=1), ((nose - eyes) * down).sum(axis=1)
    eye_distance = np.maximum(((right - left) * across).sum(axis=1), 0)
    yaw = np.arctan2(2 * aside, eye_distance)
    # Looking straight ahead, the tip of the nose lies at 0.6 of the way from the eyes to the mouth; it
    # stands out by 0.43 of that way.
    pitch = np.arctan2(below - 0.6 * length, 0.43 * length)
    roll = np.arctan2(right[:, 1] - left[:, 1], right[:, 0] - left[:, 0])
    return np.degrees(yaw), np.degrees(pitch), np.degrees(roll)


def sharpness(grey: NDArray[np.floating]) -> float:
    """How fine the finest detail is, 0..1: a quarter of the energy of the second differences of
    neighbouring grey levels over that of the first ones, in the softest of four directions.

    Contrast cancels out, and so does the face's size: a sharp face has 0.2 to 0.4 whether it is 12
    or 120 px wide. With a Gaussian blur of a twelfth of the eye distance 0.06 to 0.13 are left, with
    one of a seventh 0.03 to 0.06. The softest direction counts, because motion blurs one direction
    only. White noise has 0.5. 0 for a region under 3 x 3 pixels.
    """
    if min(grey.shape) < 3:
        return 0.0
    middle = grey[1:-1, 1:-1]
    pairs = (  # a pixel's neighbours: across, down, and along both diagonals
        (grey[1:-1, :-2], grey[1:-1, 2:], 1.0),
        (grey[:-2, 1:-1], grey[2:, 1:-1], 1.0),
        (grey[:-2, :-2], grey[2:, 2:], _DIAGONAL),
        (grey[:-2, 2:], grey[2:, :-2], _DIAGONAL),
    )
    ratios = []
    for before, after, weight in pairs:
        first, second = after - middle, after - 2 * middle + before
        # The 1 keeps the rounding to whole grey levels from passing for detail in a flat region.
        ratios.append(weight * (second * second).mean() / ((first * first).mean() + 1))
    return float(min(ratios)) / 4


def combine(measured: dict[str, _Floats]) -> NDArray[np.floating]:
    """One number for each face, 0..1: the product of how much size, sharpness, dynamic range,
    over-exposure, pose and cropping each leave of a recogniser's score.

    The half-way points are where SFace's score of a face with its own clean picture falls to a half.
    """
    eyes, sharp = measured["inter_eye_distance"], measured["sharpness"]
    contrast, bright = measured["dynamic_range"], measured["over_exposure"]
    yaw, pitch = np.radians([measured["head_pose_yaw"], measured["head_pose_pitch"]])
    product = (
        _saturate(eyes, 5.0)
        * _saturate(sharp, 0.07)
        * _saturate(contrast, 10.0)
        * (1 - bright**2)
        * np.sqrt(np.maximum(np.cos(yaw), 0))
        * np.cos(pitch) ** 2
        * measured["crop_of_the_face_image"]
    )
    return np.asarray(product)


def _saturate(values: _Floats, half: float) -> _Floats:
    return values**2 / (values**2 + half**2)


def _shares_inside(boxes: _Floats, landmarks: _Floats, size: tuple[int, ...]) -> tuple[_Floats, _Floats]:
    """The share of each box, and of its five landmarks, that lies inside the frame."""
    far = np.array([size[1], size[0]])
    sides = np.maximum(boxes[:, 2:] - boxes[:, :2], 1e-9)
    seen = np.clip(boxes[:, 2:], 0, far) - np.clip(boxes[:, :2], 0, far)
    in_frame = ((landmarks >= 0) & (landmarks <= far)).all(axis=2)
    return np.maximum(seen / sides, 0).prod(axis=1), in_frame.mean(axis=1)


def _pixels(image: NDArray[np.uint8], box: _Floats) -> tuple[float, float, float, float]:
    """Dark share, bright share, dynamic range and sharpness of the pixels inside the box."""
    margin = (box[2:] - box[:2]) / 16  # the corners and edges of a box show what is behind the face
    corners = np.rint([box[:2] + margin, box[2:] - margin])
    (x0, y0), (x1, y1) = np.clip(corners, 0, (image.shape[1], image.shape[0])).astype(int)
    region = image[y0:y1, x0:x1]
    if region.size == 0:
        return 0.0, 0.0, 0.0, 0.0
    shrink = _JUDGED_SIDE_PX / min(region.shape[:2])
    if shrink < 1:
        resized = cv2.resize(region, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
        region = np.asarray(resized, np.uint8)
    grey = cv2.cvtColor(region, cv2.COLOR_BGR2GRAY)
    levels = np.sort(grey, axis=None)
    low, high = levels[len(levels) // 20], levels[-1 - len(levels) // 20]
    dark = np.searchsorted(levels, _DARK, side="right") / len(levels)
    bright = 1 - np.searchsorted(levels, _BRIGHT, side="left") / len(levels)
    return float(dark), float(bright), float(high) - float(low), sharpness(grey.astype(np.float32))
