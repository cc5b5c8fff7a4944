"""Values that do not fit are refused where they are made, with what to do."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

import numpy as np
import pytest

from edge_fr.errors import InputError
from edge_fr.structures import Faces, Frame

BOXES = np.zeros((2, 4), np.float32)
SCORES = np.zeros(2, np.float32)
LANDMARKS = np.zeros((2, 5, 2), np.float32)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            {"boxes": [[1, 2, 3, 4]] * 2},
            r"boxes needs shape \(N, 4\) and dtype float32, got list; np.asarray\(",
        ),
        ({"boxes": ((1, 2, 3, 4),) * 2}, r"got tuple; np.asarray\(boxes, np.float32\) makes an array of it"),
        ({"boxes": None}, "boxes needs shape .* got NoneType$"),
        ({"boxes": np.array(3, np.float32)}, r"boxes needs shape \(N, 4\) .* got \(\) and float32$"),
        ({"boxes": BOXES.astype(object)}, r"got \(2, 4\) and object; boxes.astype\(np.float32\) converts it"),
        ({"boxes": BOXES.astype(bool)}, r"and bool; boxes.astype\(np.float32\) converts it"),
        ({"boxes": BOXES.astype(np.int64)}, r"and int64; boxes.astype\(np.float32\) converts it"),
        ({"boxes": BOXES[:, :3]}, r"boxes needs shape \(2, 4\) .* got \(2, 3\) and float32$"),
        ({"scores": [0.5, 0.5]}, r"scores needs shape \(2,\) and dtype float32, got list"),
        ({"scores": SCORES[:1]}, r"scores needs shape \(2,\) .* got \(1,\)"),
        ({"landmarks": LANDMARKS.tolist()}, r"landmarks needs shape \(2, 5, 2\) .* got list"),
        ({"track_ids": [1, 2]}, r"np.asarray\(track_ids, np.int64\)"),
        ({"track_ids": np.zeros(2, np.int32)}, r"track_ids.astype\(np.int64\) converts it"),
        ({"selected": np.zeros(2, np.uint8)}, "selected needs shape .* dtype bool, got"),
        ({"embeddings": np.zeros((3, 8), np.float32)}, r"embeddings needs shape \(2, D\)"),
        ({"embeddings": np.zeros((), np.float32)}, r"embeddings needs shape \(2, D\) .* got \(\)"),
    ],
)
def test_a_column_that_does_not_fit_is_named_with_what_to_do(columns: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Faces(**{"boxes": BOXES, "scores": SCORES, "landmarks": LANDMARKS, **columns})


def test_a_column_may_be_a_view_of_something_larger() -> None:
    wide = np.arange(16, dtype=np.float32).reshape(2, 8)
    assert Faces(wide[:, ::2], SCORES, LANDMARKS)[1].box.tolist() == [8, 10, 12, 14]


@pytest.mark.parametrize("image", [[[[0, 0, 0]]], None, "door.jpg"])
def test_a_frame_of_what_is_no_array_is_refused(image: Any) -> None:
    with pytest.raises(InputError, match=f"as an array of NumPy, got {type(image).__name__}"):
        Frame(image, 0, datetime.now(timezone.utc))
