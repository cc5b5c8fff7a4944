"""Batches of drawn views, the same for the same seed and step wherever training was interrupted."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from export.training.data import Faces
from export.training.degradations import Recipe, view
from export.training.masks import MaskRenderer
from export.training.teacher import to_tensor


@dataclass(frozen=True)
class Batch:
    """Views and what is known of them; `row` points into the packed faces."""

    crops: torch.Tensor  # N x 3 x 112 x 112 float RGB
    cover: torch.Tensor  # N x 1 x 112 x 112, 0..1
    masked: torch.Tensor  # N, 0 or 1
    hopeless: torch.Tensor  # N, bool
    row: torch.Tensor  # N


class Loader:
    """Draws batch number `step` as a function of the seed and the step alone."""

    def __init__(
        self, faces: Faces, shares: list[float], recipe: Recipe, masks: MaskRenderer, *, batch: int, seed: int
    ) -> None:
        self._faces, self._recipe, self._masks, self._batch, self._seed = faces, recipe, masks, batch, seed
        rows = [np.flatnonzero(~faces.tune & (faces.source == i)) for i in range(len(shares))]
        self._sources = [(r, round(share * len(r))) for r, share in zip(rows, shares, strict=True)]
        self.epoch_size = sum(count for _, count in self._sources) // batch * batch
        self._epoch = -1
        self._order: NDArray[np.int64] = np.empty(0, np.int64)

    def rows(self, step: int) -> NDArray[np.int64]:
        """Which faces batch `step` shows."""
        epoch, start = divmod(step * self._batch, self.epoch_size)
        if epoch != self._epoch:
            rng = np.random.default_rng([self._seed, epoch])
            drawn = [rng.choice(rows, count, replace=False) for rows, count in self._sources]
            self._order = rng.permutation(np.concatenate(drawn))
            self._epoch = epoch
        return self._order[start : start + self._batch]

    def draw(self, step: int) -> Batch:
        """Batch number `step`."""
        rows = self.rows(step)
        views = [
            view(
                self._faces.crops[row],
                self._recipe,
                self._masks,
                np.random.default_rng([self._seed, step, i]),
            )
            for i, row in enumerate(rows)
        ]
        return Batch(
            crops=to_tensor(np.stack([v.image for v in views])),
            cover=torch.from_numpy(np.stack([v.cover for v in views])[:, None]).float() / 255,
            masked=torch.tensor([float(v.masked) for v in views]),
            hopeless=torch.tensor([v.hopeless for v in views]),
            row=torch.from_numpy(rows),
        )

    def batches(self, first: int, last: int, *, ahead: int = 3) -> Iterator[Batch]:
        """Batches `first` .. `last` - 1, drawn ahead by one thread (OpenCV releases the interpreter)."""
        cv2.setNumThreads(1)
        with ThreadPoolExecutor(1) as pool:
            coming: deque[Future[Batch]] = deque()
            for step in range(first, last):
                coming.append(pool.submit(self.draw, step))
                if len(coming) > ahead:
                    yield coming.popleft().result()
            while coming:
                yield coming.popleft().result()
