"""Which of the pictures given for one person are kept: each once, and those that are of one person."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge_fr.structures import Face

SAME_PICTURE = "the same picture"
_SAME_SCORE = 0.995  # of the same picture, saved twice


class Look(NamedTuple):
    """A picture that may be kept: its one face, and what a gallery would keep of it, (D,) of unit length."""

    name: str
    face: Face
    template: NDArray[np.float32]


Sorted = tuple[list[Look], list[tuple[str, str]]]
"""Looks to keep, and the names of the others with the reason."""


def fused(templates: NDArray[np.float32]) -> NDArray[np.float32]:
    """What (N, D) templates of one person have in common, (D,) of unit length."""
    total = templates.sum(axis=0)
    return np.asarray(total / np.linalg.norm(total), np.float32)


def once_each(looks: list[Look], own: NDArray[np.float32]) -> Sorted:
    """Without those that are a picture which is there already, among them or as one of the `own` (T, D)
    templates."""
    kept: list[Look] = []
    refused: list[tuple[str, str]] = []
    for look in looks:
        twin = next((k.name for k in kept if k.template @ look.template >= _SAME_SCORE), None)
        if len(own) and (own @ look.template).max() >= _SAME_SCORE:
            twin = "one that is enrolled"
        if twin is None:
            kept.append(look)
        else:
            refused.append((look.name, f"{SAME_PICTURE} as {twin}"))
    return kept, refused


def of_one_person(identity: str, looks: list[Look], own: NDArray[np.float32], least: float) -> Sorted:
    """Those that are like the person's `own` templates with a score of `least`; if there are none, like the
    look that most of them are like, the first one if there are several."""
    if not looks:
        return [], []
    templates = np.stack([look.template for look in looks])
    likes = (templates @ templates.T >= least).sum(axis=1)
    centre = fused(own) if len(own) else templates[int(likes.argmax())]
    scores = templates @ centre
    kept = [look for look, score in zip(looks, scores, strict=True) if score >= least]
    refused = [
        (
            look.name,
            f"does not look like the other pictures of {identity!r} (score {score:.2f}); give force=True or "
            f"--force to keep it all the same",
        )
        for look, score in zip(looks, scores, strict=True)
        if score < least
    ]
    return kept, refused
