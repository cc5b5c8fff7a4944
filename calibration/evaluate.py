"""Measures a recognizer on labelled pairs under stated conditions.

Verification puts the condition on the second picture of each pair only: a good enrolment against a poor
probe. Identification enrolls the first picture of everybody who has several and probes with the second
under the condition; people with one picture are the strangers of the open-set figures.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.conditions import degrade
from calibration.datasets import Dataset
from calibration.metrics import Pairs, fnir_at_fpir, rank1, verification
from edge_fr.embed import Embedder, Embeddings

BATCH = 32


def embed_all(
    dataset: Dataset, embedder: Embedder, pictures: Iterable[int], condition: str
) -> tuple[NDArray[np.int64], Embeddings]:
    """Embeds the distinct `pictures` under the condition; returns their numbers in order, and the rows."""
    numbers = np.unique(np.fromiter(pictures, np.int64))
    parts = []
    for start in range(0, len(numbers), BATCH):
        crops = [
            degrade(dataset.read(i), condition, dataset.names[i]) for i in numbers[start : start + BATCH]
        ]
        parts.append(embedder.embed(np.stack(crops)))

    def column(values: list[NDArray[np.float32] | None]) -> NDArray[np.float32] | None:
        rows = [v for v in values if v is not None]
        return np.concatenate(rows) if rows else None

    vectors, *scores = (column(list(values)) for values in zip(*parts, strict=True))
    assert vectors is not None
    return numbers, Embeddings(vectors, *scores)


def evaluate(
    dataset: Dataset, embedder: Embedder, conditions: Iterable[str], *, draws: int = 400
) -> dict[str, Any]:
    """The figures of each condition, with what they were measured on and by which model."""
    numbers, clean = embed_all(dataset, embedder, range(len(dataset.names)), "clean")
    assert len(numbers) == len(dataset.names)  # every picture, so row i is picture i
    result: dict[str, Any] = {}
    for condition in conditions:
        if condition == "clean":
            probes = clean.vectors
        else:
            used, degraded = embed_all(
                dataset, embedder, [*dataset.second, *_identification(dataset)[1]], condition
            )
            probes = np.full_like(clean.vectors, np.nan)
            probes[used] = degraded.vectors
        scores = np.einsum("pd,pd->p", clean.vectors[dataset.first], probes[dataset.second])
        people = np.c_[dataset.people[dataset.first], dataset.people[dataset.second]]
        pairs = Pairs(scores.astype(np.float64), dataset.same, people, dataset.folds)
        result[condition] = {
            **verification(pairs, draws=draws),
            "identification": identification(dataset, clean.vectors, probes),
        }
    return {
        "model": {
            "name": embedder.card.name,
            "weights_digest": embedder.card.weights_digest,
            "precision": embedder.card.precision,
        },
        "dataset": {"title": dataset.title, "digest": dataset.digest, "pairs": len(dataset.first)},
        "opencv": cv2.__version__,  # its resizing makes the low-resolution conditions
        "conditions": result,
    }


def _identification(dataset: Dataset) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Picture numbers: enrolled, their probes (all later pictures), and one of each stranger."""
    people, first, counts = np.unique(dataset.people, return_index=True, return_counts=True)
    enrolled = first[counts > 1]
    known = np.isin(dataset.people, people[counts > 1])
    later = np.ones(len(dataset.people), bool)
    later[first] = False
    strangers = first[counts == 1]
    return enrolled, np.r_[np.flatnonzero(known & later), strangers], strangers


def identification(
    dataset: Dataset, gallery: NDArray[np.float32], probes: NDArray[np.float32]
) -> dict[str, float | int]:
    """Closed- and open-set figures; rows of both arrays are picture numbers."""
    enrolled, probing, strangers = _identification(dataset)
    mated = np.setdiff1d(probing, strangers)
    if len(enrolled) == 0 or len(strangers) == 0:
        return {}
    scores = (probes[mated] @ gallery[enrolled].T).astype(np.float64)
    others = (probes[strangers] @ gallery[enrolled].T).astype(np.float64)
    people, owners = dataset.people[mated], dataset.people[enrolled]
    return {
        "gallery": len(enrolled),
        "probes": len(mated),
        "strangers": len(strangers),
        "rank1": round(rank1(scores, people, owners), 5),
        "fnir_at_fpir_1e-2": round(fnir_at_fpir(scores, people, owners, others, 1e-2), 5),
        "fnir_at_fpir_1e-1": round(fnir_at_fpir(scores, people, owners, others, 1e-1), 5),
    }
