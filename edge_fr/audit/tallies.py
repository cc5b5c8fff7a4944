"""Counting that takes the same memory however long it goes on: histograms, picture maps, samples."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

_Floats = NDArray[np.float64]
_T = TypeVar("_T")

COLUMNS, ROWS = 32, 18  # cells of a map: squares in a picture of 16:9


class Histogram:
    """Counts between fixed edges; what lies beyond the outer ones is counted in the outer bins."""

    def __init__(self, edges: ArrayLike) -> None:
        self.edges: _Floats = np.asarray(edges, np.float64)
        self.counts: NDArray[np.int64] = np.zeros(len(self.edges) - 1, np.int64)

    def add(self, values: ArrayLike) -> None:
        """Counts values; NaN is not counted."""
        known = np.atleast_1d(np.asarray(values, np.float64))
        known = known[~np.isnan(known)]
        bins = np.searchsorted(self.edges, known, side="right") - 1
        np.add.at(self.counts, np.clip(bins, 0, len(self.counts) - 1), 1)

    @property
    def total(self) -> int:
        return int(self.counts.sum())

    def quantile(self, share: float) -> float:
        """The value that such a share (0..1) lies below, to within a bin; NaN where nothing was counted."""
        if self.total == 0:
            return float("nan")
        return float(np.interp(share * self.total, np.concatenate([[0], np.cumsum(self.counts)]), self.edges))

    def share_from(self, value: float) -> float:
        """The share, 0..1, of what was counted that is at least `value`, to within a bin."""
        if self.total == 0:
            return float("nan")
        below = np.interp(value, self.edges, np.concatenate([[0], np.cumsum(self.counts)]))
        return 1 - float(below) / self.total

    def total_from(self, value: float) -> int:
        """How many are in the bins from the one that holds `value` on."""
        first = int(np.searchsorted(self.edges, value, side="right")) - 1
        return int(self.counts[max(0, first) :].sum())


class PictureMap:
    """The mean of a measure by where in the picture it was taken, (ROWS, COLUMNS) cells."""

    def __init__(self) -> None:
        self.counts: NDArray[np.int64] = np.zeros((ROWS, COLUMNS), np.int64)
        self._sums: _Floats = np.zeros((ROWS, COLUMNS))

    def add(self, places: _Floats, values: _Floats) -> None:
        """Adds values (N,) at places (N, 2), x and y as shares of the picture's width and height."""
        known = ~np.isnan(values)
        column = np.clip((places[known, 0] * COLUMNS).astype(int), 0, COLUMNS - 1)
        row = np.clip((places[known, 1] * ROWS).astype(int), 0, ROWS - 1)
        np.add.at(self.counts, (row, column), 1)
        np.add.at(self._sums, (row, column), values[known])

    @property
    def means(self) -> _Floats:
        """NaN where nothing was seen."""
        return np.where(self.counts > 0, self._sums / np.maximum(self.counts, 1), np.nan)


@dataclass(slots=True)
class Sample(Generic[_T]):
    """At most `size` of all that came by, each with the same chance to be among them."""

    size: int
    chance: random.Random
    kept: list[_T] = field(default_factory=list)
    seen: int = 0

    def offer(self, item: _T) -> None:
        self.seen += 1
        if len(self.kept) < self.size:
            self.kept.append(item)
        elif (place := self.chance.randrange(self.seen)) < self.size:
            self.kept[place] = item
