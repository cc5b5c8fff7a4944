"""Which of the pictures given for one person are kept."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edge_fr.enrolment import SAME_PICTURE, Look, of_one_person, once_each
from edge_fr.structures import Face

NONE = np.zeros((0, 4), np.float32)
ANNA, BERTA, CARLA, _ = np.eye(4, dtype=np.float32)
POINTS = np.zeros((5, 2), np.float32)


def look(name: str, template: NDArray[np.float32]) -> Look:
    unit = np.asarray(template / np.linalg.norm(template), np.float32)
    return Look(name, Face(POINTS[0], 1.0, POINTS, None, None, 1.0, (), unit, None, None), unit)


def names(looks: list[Look]) -> list[str]:
    return [one.name for one in looks]


def test_ten_copies_of_a_picture_are_one() -> None:
    kept, refused = once_each([look(str(n), ANNA + 0.01 * n * BERTA / 10) for n in range(10)], NONE)
    assert names(kept) == ["0"]
    assert refused == [(str(n), f"{SAME_PICTURE} as 0") for n in range(1, 10)]


def test_a_picture_that_is_enrolled_is_not_kept_again_and_another_of_the_person_is() -> None:
    kept, refused = once_each([look("old", ANNA), look("new", ANNA + 0.3 * BERTA)], ANNA[None])
    assert names(kept) == ["new"]
    assert refused == [("old", f"{SAME_PICTURE} as one that is enrolled")]


def test_of_four_of_which_the_first_is_somebody_else_three_are_kept() -> None:
    looks = [look("else", BERTA), *(look(f"anna {n}", ANNA + 0.3 * n * CARLA) for n in range(3))]
    kept, refused = of_one_person("Anna", looks, NONE, 0.5)
    assert names(kept) == ["anna 0", "anna 1", "anna 2"]
    ((name, reason),) = refused
    assert name == "else"
    assert reason.startswith("does not look like the other pictures of 'Anna' (score 0.00)")


def test_what_is_enrolled_decides_where_there_is_something() -> None:
    looks = [look("berta 1", BERTA), look("berta 2", BERTA + 0.2 * CARLA), look("anna", ANNA + 0.2 * CARLA)]
    kept, refused = of_one_person("Anna", looks, ANNA[None], 0.5)
    assert (names(kept), [name for name, _ in refused]) == (["anna"], ["berta 1", "berta 2"])


def test_of_two_that_disagree_the_first_is_kept() -> None:
    kept, refused = of_one_person("Anna", [look("a", ANNA), look("b", BERTA)], NONE, 0.5)
    assert (names(kept), [name for name, _ in refused]) == (["a"], ["b"])
    assert of_one_person("Anna", [], NONE, 0.5) == ([], [])
