"""Stand-ins that satisfy the package's protocols, handed over through constructors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_fr.engine import ModelCard, TensorSpec

Feeds = Mapping[str, NDArray[Any]]


def card(**changes: Any) -> ModelCard:
    """An embedder's card of size 4, with the given fields changed."""
    values: dict[str, Any] = {
        "name": "fake",
        "task": "embed",
        "colour": "RGB",
        "input_range": (0.0, 255.0),
        "weights_digest": "sha256:fake",
        "licence": "Apache-2.0",
        "training_data": "none",
        "embedding_size": 4,
    }
    return ModelCard(**{**values, **changes})


def spec(name: str, *shape: int | None) -> TensorSpec:
    return TensorSpec(name, shape, np.dtype(np.float32))


@dataclass
class FakeEngine:
    """An engine whose outputs a function computes; `calls` keeps every feed."""

    compute: Callable[[Feeds], dict[str, NDArray[Any]]]
    card: ModelCard = field(default_factory=card)
    inputs: tuple[TensorSpec, ...] = (spec("x", None, 3, 112, 112),)
    outputs: tuple[TensorSpec, ...] = (spec("embedding", None, 4),)
    calls: list[Feeds] = field(default_factory=list)

    def infer(self, feeds: Feeds) -> dict[str, NDArray[Any]]:
        self.calls.append(dict(feeds))
        return self.compute(feeds)


class MovedClock:
    """Stands still until the test moves it. A camera looks at it again after the real time that it means to
    wait, so the policy's limits have to be short."""

    def __init__(self) -> None:
        self.ns = 0

    def __call__(self) -> int:
        return self.ns

    def skip(self, seconds: float) -> None:
        self.ns += round(seconds * 1e9)
