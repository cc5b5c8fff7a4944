"""The part of the picture in which faces are looked for."""

from __future__ import annotations

import numpy as np
import pytest

from edge_fr.errors import InputError
from edge_fr.region import WHOLE, Region
from edge_fr.structures import Faces

PICTURE = np.arange(100 * 200 * 3, dtype=np.uint32).astype(np.uint8).reshape(100, 200, 3)


def one_face(x: float, y: float) -> Faces:
    box = np.array([[x, y, x + 10, y + 10]], np.float32)
    return Faces(box, np.ones(1, np.float32), np.full((1, 5, 2), (x, y), np.float32))


def test_what_is_found_in_the_cut_lies_at_the_same_pixel_of_the_picture() -> None:
    region = Region(0.25, 0.5, 0.75, 1.0)
    cut = region.cut(PICTURE)
    assert cut.shape == (50, 100, 3)
    placed = region.place(one_face(7, 9), PICTURE)
    x, y = placed.boxes[0, :2].astype(int)
    assert (PICTURE[y, x] == cut[9, 7]).all()
    assert placed.landmarks[0, 0].tolist() == [x, y]


def test_the_whole_picture_is_not_copied_and_faces_stay_where_they_are() -> None:
    assert np.shares_memory(WHOLE.cut(PICTURE), PICTURE)
    faces = one_face(3, 4)
    assert WHOLE.place(faces, PICTURE) is faces


def test_a_sliver_of_a_tiny_picture_is_still_a_pixel() -> None:
    tiny = np.zeros((2, 2, 3), np.uint8)
    assert Region(0.99, 0.99, 1.0, 1.0).cut(tiny).shape == (1, 1, 3)
    assert Region(0.0, 0.0, 0.01, 0.01).cut(tiny).shape == (1, 1, 3)


@pytest.mark.parametrize("box", [(0.5, 0, 0.5, 1), (0, 0, 1.1, 1), (-0.1, 0, 1, 1), (0, float("nan"), 1, 1)])
def test_a_region_outside_the_picture_is_refused(box: tuple[float, float, float, float]) -> None:
    with pytest.raises(InputError, match=r"region is \(.*expected left, top, right and bottom in shares"):
        Region(*box)
