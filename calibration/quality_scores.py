"""Quality scores of a face as a camera delivers it, without a recognizer's help.

`face_size` is the shorter side of the face's box in pixels, `quality_gate` the value by which the
runtime's QualityGate ranks faces, `detector_score` the score with which a detector finds the face at the
size it was captured in, 0 where it does not. Pictures are aligned crops at any size, so box and
landmarks are where alignment puts them; only the detector looks for itself.
"""

from __future__ import annotations

from datetime import datetime, timezone

import numpy as np
from numpy.typing import NDArray

from calibration.tight import detect_tight
from edge_fr.detect import Detector
from edge_fr.image import TEMPLATE
from edge_fr.quality import QualityGate, QualityPolicy
from edge_fr.structures import CROP_SIDE_PX, Faces, Frame

# Where YuNet's box lies in an aligned crop (the median of 34 faces).
FACE_BOX = np.array([19, 14, 97, 117], np.float32)
_SAME_FACE_IOU = 0.3
_CAPTURED_AT = datetime(2000, 1, 1, tzinfo=timezone.utc)  # the gate does not look at it


def quality_scores(picture: NDArray[np.uint8], detector: Detector | None) -> dict[str, float]:
    """The scores of a square picture of an aligned face; `detector_score` only with a detector."""
    scale = np.float32(picture.shape[0] / CROP_SIDE_PX)
    box = FACE_BOX * scale
    faces = Faces(box[None], np.ones(1, np.float32), TEMPLATE[None] * scale)
    judged = QualityGate(QualityPolicy())(Frame(picture, 0, _CAPTURED_AT), faces)
    assert judged.quality is not None
    scores = {
        "face_size": float((box[2:] - box[:2]).min()),
        "quality_gate": float(judged.quality[0]),
    }
    if detector is not None:
        found = detect_tight(detector, picture)
        here = found.scores[_iou(found.boxes, box) >= _SAME_FACE_IOU]
        scores["detector_score"] = float(here.max(initial=0.0))
    return scores


def _iou(boxes: NDArray[np.float32], box: NDArray[np.float32]) -> NDArray[np.float32]:
    """How much of (N, 4) boxes and one other is common to both."""
    sides = np.minimum(boxes[:, 2:], box[2:]) - np.maximum(boxes[:, :2], box[:2])
    common = np.maximum(sides, 0).prod(axis=1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1) + (box[2:] - box[:2]).prod()
    return np.asarray(common / np.maximum(areas - common, 1e-9), np.float32)
