"""What the looks at one person come to."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from edge_fr.evidence import Evidence
from edge_fr.structures import Face

ANNA, BERTA = np.eye(2, dtype=np.float32)


def look(
    embedding: NDArray[np.float32], ri: float | None = None, quality: float = 0.5, mask: float | None = None
) -> Face:
    points = np.zeros((5, 2), np.float32)
    return Face(np.zeros(4, np.float32), 1.0, points, 1, None, quality, (), embedding, ri, mask)


def test_good_looks_count_for_more() -> None:
    evidence = Evidence()
    evidence.add(look(ANNA, ri=0.9))
    evidence.add(look(BERTA, ri=0.3))
    # 0.9 of one axis and 0.3 of the other, in float32
    assert evidence.probe == pytest.approx(np.array([0.9, 0.3]) / np.hypot(0.9, 0.3), abs=1e-6)
    assert (evidence.looks, evidence.best_ri) == (2, 0.9)
    assert evidence.ri == pytest.approx((0.9 * 0.9 + 0.3 * 0.3) / 1.2)


def test_a_look_worth_nothing_still_counts() -> None:
    evidence = Evidence()
    evidence.add(look(ANNA, quality=0.0))
    assert evidence.probe.tolist() == [1.0, 0.0]


def test_what_the_recognizer_does_not_tell_stays_open() -> None:
    evidence = Evidence()
    evidence.add(look(ANNA))
    assert (evidence.ri, evidence.best_ri, evidence.mask_prob) == (None, None, None)


def test_old_looks_fade_so_that_the_picture_can_change() -> None:
    evidence = Evidence()
    for _ in range(1000):
        evidence.add(look(ANNA, ri=1.0, mask=1.0))
    for _ in range(20):
        evidence.add(look(BERTA, ri=1.0, mask=0.0))
    assert evidence.probe[1] > evidence.probe[0]
    assert evidence.mask_prob is not None
    assert evidence.mask_prob < 0.2
