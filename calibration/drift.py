"""How far a smaller model's answers have moved from those of the model it was made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calibration.metrics import Floats, spearman
from edge_fr.embed import Embedder, Embeddings
from edge_fr.errors import InputError


@dataclass(frozen=True)
class Drift:
    """One stratum's change: cosine of each face's two embeddings, their mean and first percentile; rank
    correlation of `ri`; mean and greatest absolute change of `mask_prob`. None for what a model has not."""

    faces: int
    mean_cosine: float
    p1_cosine: float
    ri_spearman: float | None
    mask_shift: float | None
    worst_mask_shift: float | None


def drift(before: Embeddings, after: Embeddings) -> Drift:
    """The change from one model's answers to another's, for the same crops in the same order."""
    if before.vectors.shape != after.vectors.shape or len(before.vectors) == 0:
        raise InputError(
            f"embeddings of shape {before.vectors.shape} and {after.vectors.shape} cannot be compared"
        )
    for name in ("ri", "mask_prob"):
        if (getattr(before, name) is None) != (getattr(after, name) is None):
            raise InputError(f"only one of the two models gives {name}")
    cosines = np.einsum("nd,nd->n", before.vectors, after.vectors, dtype=np.float64)
    correlation = None
    if before.ri is not None and after.ri is not None:
        correlation = _rank_correlation(before.ri.astype(np.float64), after.ri.astype(np.float64))
    shifts = None
    if before.mask_prob is not None and after.mask_prob is not None:
        shifts = np.abs(before.mask_prob - after.mask_prob)
    return Drift(
        faces=len(cosines),
        mean_cosine=float(cosines.mean()),
        p1_cosine=float(np.percentile(cosines, 1)),
        ri_spearman=correlation,
        mask_shift=None if shifts is None else float(shifts.mean()),
        worst_mask_shift=None if shifts is None else float(shifts.max()),
    )


def _rank_correlation(before: Floats, after: Floats) -> float:
    """0 where one of the models gives every face the same value: that is no order."""
    if np.ptp(before) == 0 or np.ptp(after) == 0:
        return 0.0
    return spearman(before, after)


def drifts(before: Embedder, after: Embedder, strata: Mapping[str, NDArray[np.uint8]]) -> dict[str, Drift]:
    """The change in every stratum; crops are (N, 112, 112, 3) uint8 BGR."""
    return {name: drift(before.embed(crops), after.embed(crops)) for name, crops in strata.items()}


def lines(found: Mapping[str, Drift]) -> list[str]:
    """A table for the terminal."""
    head = f"{'stratum':16} {'faces':>6} {'mean cos':>9} {'p1 cos':>9} {'ri rank':>9} {'mask':>9}"

    def cell(value: float | None) -> str:
        return f"{'-' if value is None else format(value, '.4f'):>9}"

    rows = [
        f"{name:16} {d.faces:6d} {cell(d.mean_cosine)} {cell(d.p1_cosine)} {cell(d.ri_spearman)} "
        f"{cell(d.mask_shift)}"
        for name, d in found.items()
    ]
    return [head, *rows]
