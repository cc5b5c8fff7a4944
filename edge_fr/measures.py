"""What can be measured of a face without a network: pose, sharpness, exposure, cropping.

Components carry their ISO/IEC 29794-5 names where it has one; the measures are the ones described at
each function, chosen so that they hold for a face of 16 px as well as for one of 600 px.
`detection_confidence` is this package's own.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_fr.structures import Faces

_Floats = NDArray[np.float64]

# Recognisers see a face about 80 px wide, softened by their first layers: detail finer than a
# twenty-fourth of the face moves SFace's score little, so pixels are judged at no more than this.
_JUDGED_SIDE_PX = 24
_DIAGONAL = 0.68  # diagonal neighbours lie further apart: makes a sharp face equally sharp both ways
_DARK, _BRIGHT = 25, 247  # grey levels; ISO/IEC 29794-5 counts the pixels beyond them


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
