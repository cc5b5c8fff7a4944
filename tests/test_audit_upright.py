"""An audit tries a few frames in all four turns, and says so where the camera hangs on its side."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from edge_fr.audit.upright import best_turn
from edge_fr.cli import main
from edge_fr.networks import Networks, open_networks
from samples.standoff_people import COLLINS, HOPPER, portrait


@pytest.fixture(scope="module")
def networks() -> Networks:
    return open_networks()


def wall(*people: NDArray[np.uint8]) -> NDArray[np.uint8]:
    picture = np.full((320, 300 * len(people) + 40, 3), 110, np.uint8)
    for i, photo in enumerate(people):
        picture[20:300, 20 + 300 * i : 300 + 300 * i] = cv2.resize(photo, (280, 280))
    return picture


@pytest.mark.parametrize("needed", [0, 90, 180, 270])
def test_the_turn_that_makes_faces_recognizable_is_found(needed: int, networks: Networks) -> None:
    for people in ((COLLINS,), (HOPPER, COLLINS)):
        lying = np.rot90(wall(*map(portrait, people)), needed // 90)  # anticlockwise: to be turned back
        assert best_turn(networks, np.ascontiguousarray(lying)) == needed


def test_where_nobody_is_recognizable_in_any_turn_nothing_is_said(networks: Networks) -> None:
    assert best_turn(networks, np.full((240, 320, 3), 128, np.uint8)) is None


def test_the_audit_of_a_camera_on_its_side_names_the_option_and_the_value(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = tmp_path / "side.avi"
    lying = np.ascontiguousarray(np.rot90(wall(portrait(COLLINS)), 1))
    writer = cv2.VideoWriter(str(clip), cv2.VideoWriter.fourcc(*"MJPG"), 25, lying.shape[1::-1])
    for _ in range(101):
        writer.write(lying)
    writer.release()
    page = tmp_path / "side.html"
    assert main(["audit", str(clip), "-o", str(page), "--no-pictures"]) == 0
    assert (
        "- Faces lie on their side: turn the camera, or its pictures with `rotate: 90`"
        in capsys.readouterr().out
    )
    assert "rotate: 90" in page.read_text()
    assert main(["audit", str(clip), "-o", str(page), "--no-pictures", "--rotate", "90"]) == 0
    assert "rotate" not in capsys.readouterr().out
