"""Runs a network over aligned crops, in batches."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_fr.engine import Engine
from edge_fr.errors import CardError
from edge_fr.structures import CROP_SIDE_PX


class CropNetwork:
    """An engine whose one input is a batch of crops, in the colour order and range of its card.

    Raises CardError for an engine that takes anything else.
    """

    def __init__(self, engine: Engine, *, max_batch: int = 32) -> None:
        shape = engine.inputs[0].shape
        if len(engine.inputs) != 1 or shape[1:] != (3, CROP_SIDE_PX, CROP_SIDE_PX):
            found = [(spec.name, spec.shape) for spec in engine.inputs]
            raise CardError(
                f"{engine.card.name} takes {found}, expected one input of shape "
                f"(batch, 3, {CROP_SIDE_PX}, {CROP_SIDE_PX})"
            )
        self._engine = engine
        self._input = engine.inputs[0].name
        self._batch = shape[0] or max_batch
        self._fixed_batch = shape[0] is not None

    def __call__(self, crops: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        """(N, 112, 112, 3) uint8 BGR crops -> every output by name, (N, ...) float32; N is 1 or more."""
        batches = [
            self._run(crops[start : start + self._batch]) for start in range(0, len(crops), self._batch)
        ]
        return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}

    def _run(self, crops: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        card = self._engine.card
        low, high = card.input_range
        scale = (high - low) / 255.0
        count = len(crops)
        if self._fixed_batch and count < self._batch:
            crops = np.concatenate([crops, np.zeros((self._batch - count, *crops.shape[1:]), np.uint8)])
        # blobFromImages computes (pixel - mean) * scale in one pass over all crops
        blob = cv2.dnn.blobFromImages(
            list(crops), scale, mean=(-low / scale,) * 3, swapRB=card.colour == "RGB"
        )
        outputs = self._engine.infer({self._input: np.asarray(blob, np.float32)})
        return {name: value[:count] for name, value in outputs.items()}
