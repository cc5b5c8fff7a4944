"""The reported degradations: reproducible, where they should be, and refused when unknown."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import skimage.data

from calibration.conditions import captured, check, degrade, enlarge
from calibration.datasets.folders import REPORTED
from edge_fr.errors import InputError

CROP = cv2.resize(skimage.data.astronaut()[20:240, 110:330, ::-1], (112, 112), interpolation=cv2.INTER_AREA)


@pytest.mark.parametrize("condition", ["clean", "as is", "clean+as is"])
def test_clean_changes_nothing_and_gives_a_copy(condition: str) -> None:
    result = degrade(CROP, condition, "a.jpg")
    assert np.array_equal(result, CROP)
    assert not np.shares_memory(result, CROP)


def test_low_resolution_is_area_down_and_cubic_up() -> None:
    small = cv2.resize(CROP, (16, 16), interpolation=cv2.INTER_AREA)
    expected = cv2.resize(small, (112, 112), interpolation=cv2.INTER_CUBIC)
    assert np.array_equal(degrade(CROP, "px16", "a.jpg"), expected)


def test_what_a_camera_captures_is_as_small_as_the_face_was() -> None:
    small = cv2.resize(CROP, (16, 16), interpolation=cv2.INTER_AREA)
    assert np.array_equal(captured(CROP, "px16", "a.jpg"), small)
    assert captured(CROP, "px16+mask", "a.jpg").shape == CROP.shape
    for condition in ("px8", "mask+px24", "px24+px12", "mask", "clean"):
        picture = captured(CROP, condition, "a.jpg")
        assert np.array_equal(enlarge(picture), degrade(CROP, condition, "a.jpg"))


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


@pytest.mark.parametrize("condition", ["fog", "px0", "px999", "px16px", "px1e1", "mask+", "", "px9999999999"])
def test_an_unknown_condition_is_refused(condition: str) -> None:
    with pytest.raises(InputError, match="expected"):
        degrade(CROP, condition, "a.jpg")
    with pytest.raises(InputError, match="expected"):
        check(condition)


def test_every_reported_condition_passes_the_check() -> None:
    for condition in REPORTED:
        check(condition)
