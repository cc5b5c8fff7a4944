"""What the judgement on held-out people counts, with an embedding whose scores are known."""

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from edge_fr.errors import InputError
from export.training.data import Faces
from export.training.judge import judge
from export.training.masks import MaskRenderer

PEOPLE, PICTURES = 40, 3


def faces(people: int = PEOPLE) -> Faces:
    """Each person is a grey level, each picture a little noise on it."""
    rng = np.random.default_rng(0)
    identity = np.repeat(np.arange(people), PICTURES)
    levels = (20 + 5 * identity)[:, None, None, None] + rng.integers(0, 3, (len(identity), 112, 112, 3))
    ones = np.ones(len(identity))
    return Faces(levels.astype(np.uint8), 0 * identity, identity, ones.astype(bool), "drawn")


def by_level(crops: Tensor, *, common: float = 0.0) -> Tensor:
    """Unit embeddings that turn with the grey level; plain pictures have `common` of one direction."""
    turn = crops.mean((1, 2, 3)) / 40
    plain = (crops.std((1, 2, 3)) < 0.3).float()
    found = torch.stack([torch.cos(turn), torch.sin(turn), common * plain], 1)
    return functional.normalize(found)


def judged(common: float) -> dict[str, dict[str, float]]:
    drawn = faces()
    rows = np.arange(len(drawn.identity))
    return judge(
        lambda crops: by_level(crops, common=common), drawn, rows, MaskRenderer(None), ("clean", "px8")
    )


def test_on_good_faces_the_strangers_above_the_threshold_are_those_it_was_found_with() -> None:
    found = judged(0.0)
    assert found["clean"]["far_at_clean_1e-3"] == pytest.approx(1e-3, abs=1e-4)
    assert found["clean"]["tar_at_far_1e-2"] == 1
    assert found["px8"]["tar_at_far_1e-2"] == 1  # a grey level survives


def test_poor_faces_that_lie_elsewhere_are_refused_at_the_threshold_of_good_ones() -> None:
    found = judged(3.0)
    assert found["px8"]["far_at_clean_1e-3"] == 0
    assert found["px8"]["tar_at_far_1e-2"] == 1  # their own threshold is lower


def test_one_person_cannot_be_judged() -> None:
    with pytest.raises(InputError, match="judging needs 2"):
        judge(by_level, faces(1), np.arange(PICTURES), MaskRenderer(None))
