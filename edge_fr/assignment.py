"""Which face goes to which track, when all of them are rated against each other."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_Floats = NDArray[np.float64]

_SAME_PLACE = 6.0  # two pairs whose ratings differ by less, 20 to 1 in likelihood, could be exchanged


def assign(costs: _Floats) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows and columns of the pairs with the least total cost; a cost of 0 or more is never taken.

    The optimum, not the nearest pair first: when two people side by side have walked further than
    the space between them, the nearest pair is the wrong one, and taking it leaves both wrong.
    """
    possible = costs < 0
    rows_choice, columns_choice = possible.sum(axis=1), possible.sum(axis=0)
    # Most faces have one track within reach, which has only them: these need no search.
    single = possible & (rows_choice == 1)[:, None] & (columns_choice == 1)
    rows, columns = np.nonzero(single)
    rows_left = np.flatnonzero((rows_choice > 0) & ~single.any(axis=1))
    columns_left = np.flatnonzero((columns_choice > 0) & ~single.any(axis=0))
    if len(rows_left) == 0:
        return rows, columns
    left = np.minimum(costs[np.ix_(rows_left, columns_left)], 0)
    if len(rows_left) <= len(columns_left):
        chosen = np.stack([np.arange(len(rows_left)), _shortest_paths(left)])
    else:
        chosen = np.stack([_shortest_paths(left.T), np.arange(len(columns_left))])
    chosen = chosen[:, left[chosen[0], chosen[1]] < 0]
    return np.append(rows, rows_left[chosen[0]]), np.append(columns, columns_left[chosen[1]])


def could_be_exchanged(
    costs: _Floats, rows: NDArray[np.intp], columns: NDArray[np.intp]
) -> NDArray[np.bool_]:
    """For each pair, whether the track could as well have another of the faces, or the face another track."""
    near = np.minimum(costs, 0.0)  # what is out of reach is no rival
    taken = near[rows, columns]
    rivals = near.copy()
    rivals[rows, columns] = np.inf
    rival = np.minimum(
        rivals[rows].min(axis=1, initial=np.inf), rivals[:, columns].min(axis=0, initial=np.inf)
    )
    return np.asarray((rival < 0) & (rival - taken < _SAME_PLACE), np.bool_)


def _shortest_paths(costs: _Floats) -> NDArray[np.intp]:
    """The column of every row in the cheapest full assignment, for no more rows than columns.

    The Hungarian method in its form with shortest augmenting paths (Jonker and Volgenant 1987).
    """
    n, m = costs.shape
    row_price, column_price = np.zeros(n), np.zeros(m)
    column_of, row_of = np.full(n, -1), np.full(m, -1)
    for start in range(n):
        length, before = np.full(m, np.inf), np.full(m, -1)
        done = np.zeros(m, np.bool_)
        seen_rows = []
        row, shortest = start, 0.0
        while True:
            through = shortest + costs[row] - row_price[row] - column_price
            nearer = ~done & (through < length)
            length[nearer], before[nearer] = through[nearer], row
            column = int(np.where(done, np.inf, length).argmin())
            shortest = float(length[column])
            done[column] = True
            if row_of[column] < 0:
                break
            row = int(row_of[column])
            seen_rows.append(row)
        row_price[start] += shortest
        row_price[seen_rows] += shortest - length[column_of[seen_rows]]
        column_price[done] -= shortest - length[done]
        while column >= 0:
            row_of[column] = row = before[column]
            column, column_of[row] = column_of[row], column
    return column_of
