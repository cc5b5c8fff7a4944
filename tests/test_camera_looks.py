"""The looks that tracks are measured on: drawn by name and number, and poorer than the crop."""

from __future__ import annotations

import numpy as np
from drawn_people import crop

from calibration.camera_looks import camera_look


def test_a_look_is_the_same_for_the_same_name_and_number_and_another_for_others() -> None:
    face = crop("Anna", 1)
    look = camera_look(face, "anna.jpg", 0)
    assert look.shape == face.shape
    assert look.dtype == np.uint8
    assert np.array_equal(look, camera_look(face, "anna.jpg", 0))
    for name, number in (("anna.jpg", 1), ("bea.jpg", 0)):
        assert not np.array_equal(look, camera_look(face, name, number))


def test_looks_lose_detail_and_leave_the_crop_as_it_is() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (112, 112, 3), np.uint8)
    before = noise.copy()
    for number in range(20):
        # white noise is all detail; of 64 px and fewer a quarter of its power is left at the most
        assert camera_look(noise, "noise", number).std() < 0.75 * noise.std()
    assert np.array_equal(noise, before)
