"""Looks at a face as a camera takes them one after the other: smaller or larger, blurred, noisy, compressed.

The measurements of what a track's looks come to (`calibration.score_tables`) are made on these, because
pictures of the same person in the same minute are what tracks consist of, and no data set has them.
"""

from __future__ import annotations

import zlib

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_fr.structures import CROP_SIDE_PX

LEAST_PX = 8.0  # the side of the whole crop; the face's box takes 78/112 of it, its eyes are 35/112 apart
LEAST_WITHOUT_INDEX_PX = 26.0  # what the gate lets pass where nothing tells which small faces are hopeless
MOST_PX = 64.0
_DOWN = (cv2.INTER_AREA, cv2.INTER_LINEAR, cv2.INTER_CUBIC)
_UP = (cv2.INTER_CUBIC, cv2.INTER_LINEAR, cv2.INTER_LANCZOS4)


def camera_look(
    crop: NDArray[np.uint8], name: str, number: int, *, least_px: float = LEAST_PX
) -> NDArray[np.uint8]:
    """Look `number` at the (112, 112, 3) crop, `least_px` wide or wider; the same for the same arguments."""
    rng = np.random.default_rng([zlib.crc32(name.encode()), number])
    if rng.random() < 0.5:
        crop = np.ascontiguousarray(crop[:, ::-1])
    warp = np.array(
        cv2.getRotationMatrix2D((56, 60), float(rng.uniform(-4, 4)), float(rng.uniform(0.95, 1.05)))
    )
    warp[:, 2] = warp[:, 2] + rng.uniform(-2, 2, 2)
    size = (CROP_SIDE_PX, CROP_SIDE_PX)
    picture = np.asarray(cv2.warpAffine(crop, warp, size, borderMode=cv2.BORDER_REPLICATE), np.float64)
    picture *= rng.uniform(0.5, 1.15)
    if rng.random() < 0.3:
        picture = np.asarray(cv2.GaussianBlur(picture, (0, 0), float(rng.uniform(0.6, 2.5))))
    if rng.random() < 0.3:
        picture += rng.normal(0, rng.uniform(3, 15), picture.shape)
    level = picture.clip(0, 255).astype(np.uint8)
    side = round(float(np.exp(rng.uniform(*np.log((least_px, MOST_PX))))))
    small = np.asarray(cv2.resize(level, (side, side), interpolation=int(rng.choice(_DOWN))), np.uint8)
    if side >= 16 and rng.random() < 0.4:
        _, data = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(30, 91))])
        small = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)
    return np.asarray(cv2.resize(small, size, interpolation=int(rng.choice(_UP))), np.uint8)
