"""The reported degradations: reproducible, where they should be, and refused when unknown."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import skimage.data

from calibration.conditions import degrade
from edge_fr.errors import InputError

CROP = cv2.resize(skimage.data.astronaut()[20:240, 110:330, ::-1], (112, 112), interpolation=cv2.INTER_AREA)


def test_clean_changes_nothing() -> None:
    assert np.array_equal(degrade(CROP, "clean", "a.jpg"), CROP)


def test_low_resolution_is_area_down_and_cubic_up() -> None:
    small = cv2.resize(CROP, (16, 16), interpolation=cv2.INTER_AREA)
    expected = cv2.resize(small, (112, 112), interpolation=cv2.INTER_CUBIC)
    assert np.array_equal(degrade(CROP, "px16", "a.jpg"), expected)


def test_a_mask_covers_mouth_and_chin_and_leaves_eyes_and_forehead() -> None:
    for name in ("a.jpg", "b.jpg", "c.jpg", "d.jpg"):
        change = np.abs(degrade(CROP, "mask", name).astype(int) - CROP).max(axis=2)
        assert (change[80:104, 40:72] > 5).mean() > 0.9
        assert change[:48, 25:87].max() == 0


def test_a_mask_depends_on_the_picture_s_name_and_on_nothing_else() -> None:
    once, again = (degrade(CROP, "mask", "a.jpg") for _ in range(2))
    assert np.array_equal(once, again)
    assert not np.array_equal(once, degrade(CROP, "mask", "b.jpg"))


def test_joined_conditions_apply_from_left_to_right() -> None:
    expected = degrade(degrade(CROP, "mask", "a.jpg"), "px24", "a.jpg")
    assert np.array_equal(degrade(CROP, "mask+px24", "a.jpg"), expected)


@pytest.mark.parametrize("condition", ["fog", "px0", "px999", "mask+", ""])
def test_an_unknown_condition_is_refused(condition: str) -> None:
    with pytest.raises(InputError, match="expected"):
        degrade(CROP, condition, "a.jpg")
