"""Crops to embeddings, in batches."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_fr.engine import Engine, ModelCard, require_task
from edge_fr.errors import CardError, EngineError
from edge_fr.structures import CROP_SIDE_PX, Faces, Frame

_CROP_SHAPE = (CROP_SIDE_PX, CROP_SIDE_PX, 3)


class Embeddings(NamedTuple):
    """One row a crop: `vectors` (N, D) float32 of unit length; `ri` and `mask_prob` (N,) float32 in
    0..1, None for a recognizer that has no such output; `norms` (N,) float32, the lengths that the
    vectors had when they left the network."""

    vectors: NDArray[np.float32]
    ri: NDArray[np.float32] | None
    mask_prob: NDArray[np.float32] | None
    norms: NDArray[np.float32]


class Embedder:
    """Runs a recognizer on aligned crops.

    The engine takes one NCHW float32 input in the colour order and range of its card. It gives one
    output, or several of which `embedding` is required and `ri` and `mask_prob` are used. An engine
    whose tensors do not fit its card is a CardError.
    """

    def __init__(self, engine: Engine, *, max_batch: int = 32) -> None:
        card = engine.card
        require_task(card, "embed", card.name)
        outputs = {spec.name: spec for spec in engine.outputs}
        embedding = outputs.get("embedding") or (engine.outputs[0] if len(outputs) == 1 else None)
        if embedding is None:
            raise CardError(f"{card.name} has outputs {', '.join(outputs)}, expected one named 'embedding'")
        shape = engine.inputs[0].shape
        if len(engine.inputs) != 1 or shape[1:] != (3, CROP_SIDE_PX, CROP_SIDE_PX):
            raise CardError(
                f"{card.name} takes {[(spec.name, spec.shape) for spec in engine.inputs]}, expected one "
                f"input of shape (batch, 3, {CROP_SIDE_PX}, {CROP_SIDE_PX})"
            )
        if embedding.shape[1:] != (card.embedding_size,):
            raise CardError(
                f"{card.name} gives embeddings of shape {embedding.shape}, its card says size "
                f"{card.embedding_size}"
            )
        self._engine = engine
        self._input = engine.inputs[0].name
        self._embedding = embedding.name
        self._scores = tuple(name for name in ("ri", "mask_prob") if name in outputs)
        self._batch = shape[0] or max_batch
        self._fixed_batch = shape[0] is not None

    @property
    def card(self) -> ModelCard:
        """The recognizer's card."""
        return self._engine.card

    def embed(self, crops: NDArray[np.uint8]) -> Embeddings:
        """Embeds (N, 112, 112, 3) uint8 BGR crops; N may be 0."""
        size = self.card.embedding_size or 0
        vectors = np.empty((len(crops), size), np.float32)
        scores = {name: np.empty(len(crops), np.float32) for name in self._scores}
        for start in range(0, len(crops), self._batch):
            rows = slice(start, start + self._batch)
            outputs = self._embed_batch(crops[rows])
            vectors[rows] = outputs[self._embedding]
            for name, values in scores.items():
                values[rows] = outputs[name].reshape(-1)
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        if (norms == 0).any():
            raise EngineError(f"{self.card.name} gave an embedding of length zero")
        return Embeddings(vectors / norms, scores.get("ri"), scores.get("mask_prob"), norms[:, 0])

    def __call__(self, frame: Frame, faces: Faces) -> Faces:
        """Fills embeddings (and ri, mask_prob where the model has them) of the selected rows."""
        rows = np.flatnonzero(faces.selected) if faces.selected is not None else np.arange(len(faces))
        vectors = np.full((len(faces), self.card.embedding_size or 0), np.nan, np.float32)
        if len(rows) == 0 or faces.crops is None:
            return faces.with_(embeddings=vectors)
        result = self.embed(faces.crops[rows])
        vectors[rows] = result.vectors
        filled = faces.with_(embeddings=vectors)
        for name in self._scores:
            values = getattr(faces, name)
            values = np.full(len(faces), np.nan, np.float32) if values is None else values.copy()
            values[rows] = getattr(result, name)
            filled = filled.with_(**{name: values})
        return filled

    def _embed_batch(self, crops: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        low, high = self.card.input_range
        scale = (high - low) / 255.0
        count = len(crops)
        if self._fixed_batch and count < self._batch:
            padding = np.zeros((self._batch - count, *_CROP_SHAPE), np.uint8)
            crops = np.concatenate([crops, padding])
        # blobFromImages computes (pixel - mean) * scale in one pass over all crops
        blob = cv2.dnn.blobFromImages(
            list(crops), scale, mean=(-low / scale,) * 3, swapRB=self.card.colour == "RGB"
        )
        outputs = self._engine.infer({self._input: np.asarray(blob, np.float32)})
        return {name: value[:count] for name, value in outputs.items()}
