"""Crops to embeddings, in batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge_fr.crops import CropNetwork
from edge_fr.engine import Engine, ModelCard, require_task
from edge_fr.errors import CardError, EngineError
from edge_fr.structures import Faces, Frame


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
        if embedding.shape[1:] != (card.embedding_size,):
            raise CardError(
                f"{card.name} gives embeddings of shape {embedding.shape}, its card says size "
                f"{card.embedding_size}"
            )
        self._card = card
        self._network = CropNetwork(engine, max_batch=max_batch)
        self._embedding = embedding.name
        self._scores = tuple(name for name in ("ri", "mask_prob") if name in outputs)

    @property
    def card(self) -> ModelCard:
        """The recognizer's card."""
        return self._card

    @property
    def tells_ri(self) -> bool:
        """Whether the recognizer says how recognizable a face is."""
        return "ri" in self._scores

    def embed(self, crops: NDArray[np.uint8]) -> Embeddings:
        """Embeds (N, 112, 112, 3) uint8 BGR crops; N may be 0."""
        if len(crops) == 0:
            none = np.empty(0, np.float32)
            scores = dict.fromkeys(self._scores, none)
            vectors = np.empty((0, self.card.embedding_size or 0), np.float32)
            return Embeddings(vectors, scores.get("ri"), scores.get("mask_prob"), none)
        outputs = self._network(crops)
        vectors = outputs[self._embedding]
        scores = {name: outputs[name].reshape(-1) for name in self._scores}
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        if (norms == 0).any():
            raise EngineError(f"{self.card.name} gave an embedding of length zero")
        return Embeddings(vectors / norms, scores.get("ri"), scores.get("mask_prob"), norms[:, 0])

    def templates(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """What a gallery keeps of (N, 112, 112, 3) uint8 BGR crops: (N, D) float32 of unit length, the
        direction between the embeddings of each crop and of its mirror image.

        Which side of the face is lit and turned to the camera counts for less in it, so that poor pictures
        find it more often; strangers reach it with a score that is .001 higher. Costs two embeddings.
        """
        both = self.embed(crops).vectors + self.embed(np.ascontiguousarray(crops[:, :, ::-1])).vectors
        return np.asarray(both / np.linalg.norm(both, axis=1, keepdims=True), np.float32)

    def __call__(self, frame: Frame, faces: Faces) -> Faces:
        """Fills embeddings (and ri, mask_prob where the model has them) of the selected rows."""
        return self.embed_many([faces])[0]

    def embed_many(self, faces_of_frames: Sequence[Faces]) -> list[Faces]:
        """The same for the faces of several frames, whose crops go through the engine together."""
        chosen = [_chosen(faces) for faces in faces_of_frames]
        crops = [
            f.crops[rows]
            for f, rows in zip(faces_of_frames, chosen, strict=True)
            if f.crops is not None and len(rows)
        ]
        result = self.embed(np.concatenate(crops)) if crops else None
        filled, start = [], 0
        for faces, rows in zip(faces_of_frames, chosen, strict=True):
            vectors = np.full((len(faces), self.card.embedding_size or 0), np.nan, np.float32)
            if result is None or faces.crops is None or len(rows) == 0:
                filled.append(faces.with_(embeddings=vectors))
                continue
            end = start + len(rows)
            vectors[rows] = result.vectors[start:end]
            columns: dict[str, NDArray[np.float32]] = {"embeddings": vectors}
            for name in self._scores:
                before = getattr(faces, name)
                values = np.full(len(faces), np.nan, np.float32) if before is None else before.copy()
                values[rows] = getattr(result, name)[start:end]
                columns[name] = values
            filled.append(faces.with_(**columns))
            start = end
        return filled


def _chosen(faces: Faces) -> NDArray[np.intp]:
    """The rows to embed."""
    return np.arange(len(faces)) if faces.selected is None else np.flatnonzero(faces.selected)
