"""Exact cosine search in memory: every template is compared with every probe.

The templates are the rows of one float32 matrix that grows by half when it is full; a removed row is
filled with the last one. An identity's score is that of its best template.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from edge_fr.errors import InputError
from edge_fr.gallery.cohort import Cohort
from edge_fr.structures import Candidate, Matches

# A half-precision engine leaves the length within 0.001 of 1 and an INT8 one within 0.01; further off
# the rows are not what an embedder puts out.
LENGTH_TOLERANCE = 0.01

_CHUNK_ROWS = 64  # a search looks at the maxima of so many rows each before it looks at rows
_SCORES_AT_ONCE = 1 << 24  # probes x rows of one matrix product: 64 MiB


def unit_rows(embeddings: NDArray[np.floating], size: int, what: str) -> NDArray[np.float32]:
    """A copy of (N, size) embeddings as float32 of length 1; InputError names what does not fit.

    Rows within 1 % of length 1 are normalised; others are refused rather than normalised, because a
    row of another length did not come out of an embedder.
    """
    try:
        rows = np.asarray(embeddings)
    except ValueError as error:
        raise InputError(f"{what} need shape (N, {size}), got rows of different lengths: {error}") from error
    if rows.ndim != 2 or rows.shape[1] != size or not np.issubdtype(rows.dtype, np.floating):
        hint = "; a single embedding is embedding[None]" if rows.shape == (size,) else ""
        raise InputError(
            f"{what} need shape (N, {size}) and a floating dtype, got {rows.shape} and {rows.dtype}{hint}"
        )
    wide = rows.astype(np.float64)
    # A value that is not finite makes the length so; numbers too large to square do as well.
    with np.errstate(over="ignore", invalid="ignore"):
        lengths = np.sqrt(np.einsum("nd,nd->n", wide, wide))
    broken = np.flatnonzero(~np.isfinite(lengths))
    if len(broken):
        raise InputError(
            f"{what} row {broken[0]} holds NaN or infinite values; rows that were not embedded are NaN, "
            f"pass only those that were: embeddings[~np.isnan(embeddings[:, 0])]"
        )
    off = np.flatnonzero(np.abs(lengths - 1.0) > LENGTH_TOLERANCE)
    if len(off):
        raise InputError(
            f"{what} row {off[0]} has length {lengths[off[0]]:.4g}, expected 1: pass what the embedder "
            f"returned, or embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True) for a fused one"
        )
    unit: NDArray[np.float32] = (wide / lengths[:, None]).astype(np.float32)
    return unit


class Index:
    """Templates of `size` values, each owned by a numbered identity.

    Owners are whatever int64 numbers the caller uses; rows have no order that lasts.
    """

    def __init__(self, size: int) -> None:
        self._rows = np.empty((0, size), np.float32)
        self._owners = np.empty((0,), np.int64)
        self._count = 0
        self._cohort: Cohort | None = None  # of the rows as they are
        self._centre = np.zeros(size)  # their mean, with it

    def __len__(self) -> int:
        return self._count

    def reserve(self, count: int) -> None:
        """Makes room for `count` rows in all, so that appending up to there copies nothing."""
        if count <= len(self._rows):
            return
        rows = np.empty((count, self._rows.shape[1]), np.float32)
        owners = np.empty((count,), np.int64)
        rows[: self._count] = self._rows[: self._count]
        owners[: self._count] = self._owners[: self._count]
        self._rows, self._owners = rows, owners

    def append(self, owners: NDArray[np.int64], rows: NDArray[np.float32]) -> None:
        """Adds (M, size) rows of unit length, copied, and their (M,) owners."""
        end = self._count + len(rows)
        if end > len(self._rows):
            self.reserve(max(end, len(self._rows) * 3 // 2))
        self._rows[self._count : end] = rows
        self._owners[self._count : end] = owners
        self._count = end
        self._cohort = None

    @property
    def cohort(self) -> Cohort:
        """What the rows, one an identity, tell of strangers; worked out when they have changed."""
        if self._cohort is None:
            rows = self._rows[: self._count]
            self._cohort = Cohort.of(rows)
            self._centre = rows.mean(axis=0, dtype=np.float64) if len(rows) else self._centre * 0
        return self._cohort

    def extend(self, other: Index) -> None:
        """Adds all rows of another index, copied."""
        self.append(other._owners[: len(other)], other._rows[: len(other)])

    def owner_counts(self) -> dict[int, int]:
        """How many rows each owner has."""
        owners, counts = np.unique(self._owners[: self._count], return_counts=True)
        return dict(zip(owners.tolist(), counts.tolist(), strict=True))

    def remove(self, owners: NDArray[np.int64]) -> None:
        """Drops every row of these owners; owners without rows are passed over."""
        gone = np.isin(self._owners[: self._count], owners)
        left = self._count - int(gone.sum())
        holes = np.flatnonzero(gone[:left])
        movers = left + np.flatnonzero(~gone[left:])
        self._rows[holes] = self._rows[movers]
        self._owners[holes] = self._owners[movers]
        self._count = left
        self._cohort = None

    def search(self, probes: NDArray[np.float32], k: int, names: Mapping[int, str]) -> Matches:
        """The k best identities for each of (P, size) probes of unit length, as `Gallery.search` says."""
        if self._count == 0:
            return Matches(((),) * len(probes))
        rows = self._rows[: self._count]
        step = max(1, _SCORES_AT_ONCE // self._count)
        found: list[tuple[Candidate, ...]] = []
        for start in range(0, len(probes), step):
            some = probes[start : start + step]
            for probe, scores in zip(some, some @ rows.T, strict=True):
                found.append(self._best(probe, scores, k, names))
        return Matches(tuple(found), self._others(probes, [some[0].score for some in found]))

    def lookalikes(self, least: float, names: Mapping[int, str]) -> tuple[tuple[str, str, float], ...]:
        """As `Gallery.lookalikes` says; every pair is compared."""
        rows, found = self._rows[: self._count], []
        step = max(1, _SCORES_AT_ONCE // max(self._count, 1))
        for start in range(0, self._count, step):
            scores = rows[start : start + step] @ rows.T
            for i, j in zip(*np.nonzero(scores >= least), strict=True):
                if j > start + i:
                    pair = sorted(names[int(self._owners[row])] for row in (start + i, j))
                    found.append((pair[0], pair[1], float(scores[i, j])))
        return tuple(sorted(found, key=lambda row: (-row[2], row)))

    def _others(self, probes: NDArray[np.float32], best: list[float]) -> tuple[float | None, ...]:
        """The mean score of each probe with everybody but its best match."""
        people = self.cohort.people
        if people < 2:
            return (None,) * len(probes)
        means = probes @ self._centre
        return tuple((people * float(m) - b) / (people - 1) for m, b in zip(means, best, strict=True))

    def _best(
        self, probe: NDArray[np.float32], scores: NDArray[np.float32], k: int, names: Mapping[int, str]
    ) -> tuple[Candidate, ...]:
        # A float32 product of two unit vectors is off by at most about size * 2^-24, and by how much
        # depends on how it was blocked. Rows within twice that of the best of their identity are
        # compared again in float64, so that a score depends on nothing but the two vectors and equal
        # templates tie. The 2 more terms cover lengths and the subtraction of slack itself.
        slack = np.float32(2.0 * (len(probe) + 2) * 2.0**-24)
        rows = self._leading(scores, k + 1, slack)
        owners, place = np.unique(self._owners[rows], return_inverse=True)
        coarse = np.full(len(owners), -np.inf, np.float32)
        np.maximum.at(coarse, place, scores[rows])
        near = np.flatnonzero(scores[rows] >= coarse[place] - slack)
        fine = np.full(len(owners), -np.inf)
        np.maximum.at(fine, place[near], self._cosines(rows[near], probe))
        ranked = sorted(zip((-fine).tolist(), [names[owner] for owner in owners.tolist()], strict=True))
        following = [-minus for minus, _ in ranked[1:]] + [None]
        return tuple(
            Candidate(identity=name, score=-minus, margin=None if after is None else -minus - after)
            for (minus, name), after in zip(ranked[:k], following, strict=False)
        )

    def _leading(self, scores: NDArray[np.float32], want: int, slack: np.float32) -> NDArray[np.int64]:
        """Rows among which the `want` best identities are sure to have their best templates.

        At least m rows reach the m-th largest chunk maximum; when all that reach it belong to `want`
        identities or more, no row below it can be the best of one of these. Otherwise m grows.
        """
        chunks = len(scores) // _CHUNK_ROWS
        maxima = scores[: chunks * _CHUNK_ROWS].reshape(_CHUNK_ROWS, chunks).max(axis=0)
        m = want
        while m <= chunks:
            floor = np.partition(maxima, -m)[-m]
            rows = np.flatnonzero(scores >= floor)
            if len(np.unique(self._owners[rows])) >= want:
                return np.flatnonzero(scores >= floor - slack)
            m *= 4
        return np.arange(len(scores))

    def _cosines(self, rows: NDArray[np.int64], probe: NDArray[np.float32]) -> NDArray[np.float64]:
        wide = probe.astype(np.float64)
        block = 8192  # rows at a time: many equal templates must not cost a float64 copy of them all
        parts = [
            (self._rows[rows[start : start + block]].astype(np.float64) * wide).sum(axis=1)
            for start in range(0, len(rows), block)
        ]
        return np.concatenate(parts).clip(-1.0, 1.0)
