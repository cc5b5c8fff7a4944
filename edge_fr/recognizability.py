"""A small network that says of a crop whether the recognizer will make anything of it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edge_fr.crops import CropNetwork
from edge_fr.engine import Engine, ModelCard, require_task
from edge_fr.errors import CardError


class RecognizabilityNetwork:
    """The gate's network: crops in, recognizability out; it goes before one recognizer and no other.

    Raises CardError when the engine is no gate, has no output `ri`, or guards another recognizer: an
    index says what one recognizer can do.
    """

    def __init__(self, engine: Engine, recognizer: ModelCard, *, max_batch: int = 32) -> None:
        card = engine.card
        require_task(card, "gate", card.name)
        if card.guards != recognizer.weights_digest:
            raise CardError(
                f"the gate {card.name} guards the recognizer with {card.guards}, but {recognizer.name} has "
                f"{recognizer.weights_digest}; give the gate that was trained with it, or none"
            )
        names = [spec.name for spec in engine.outputs]
        if "ri" not in names:
            raise CardError(f"{card.name} has outputs {', '.join(names)}, expected one named 'ri'")
        self._network = CropNetwork(engine, max_batch=max_batch)

    def __call__(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(N, 112, 112, 3) uint8 BGR crops -> (N,) float32, 0..1; N may be 0."""
        if len(crops) == 0:
            return np.empty(0, np.float32)
        return self._network(crops)["ri"].reshape(-1)
