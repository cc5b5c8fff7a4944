"""Where the time of a frame goes: per-stage samples, and an engine that times itself."""

from __future__ import annotations

import time
from array import array
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

from edge_fr.engine import Engine, ModelCard, TensorSpec

_P = ParamSpec("_P")
_R = TypeVar("_R")
ENGINE = "engine:"  # begins the names under which models are timed; their task follows
_KEPT = 10_000  # samples a stage: enough for a p95 that means something, bounded for a run of months


class _Newest:
    """The newest _KEPT durations in ns, in memory that is taken at once and never grows."""

    def __init__(self) -> None:
        self._ring = array("q", bytes(8 * _KEPT))
        self._count = 0

    def add(self, duration_ns: int) -> None:
        self._ring[self._count % _KEPT] = duration_ns
        self._count += 1

    def values(self) -> NDArray[np.int64]:
        """In no order."""
        return np.array(self._ring[: self._count], np.int64)


class StageTimes:
    """Durations by stage name. The newest 10,000 of each are kept for percentiles; totals are exact.

    `listener`, if there is one, is told each name and duration in ns as it is noted, in the same thread.
    """

    def __init__(self) -> None:
        self.listener: Callable[[str, int], None] | None = None
        self._samples: defaultdict[str, _Newest] = defaultdict(_Newest)
        self._totals: defaultdict[str, int] = defaultdict(int)

    def timed(self, name: str, call: Callable[_P, _R], *args: _P.args, **kwargs: _P.kwargs) -> _R:
        """Calls it and notes under `name` how long that took."""
        start = time.perf_counter_ns()
        result = call(*args, **kwargs)
        self.add(name, time.perf_counter_ns() - start)
        return result

    def add(self, name: str, duration_ns: int) -> None:
        self._samples[name].add(duration_ns)
        self._totals[name] += duration_ns
        if self.listener is not None:
            self.listener(name, duration_ns)

    def total_s(self, name: str) -> float:
        """Seconds spent in a stage so far; 0 for one that never ran."""
        return self._totals.get(name, 0) / 1e9

    def summary(self) -> dict[str, dict[str, float]]:
        """For each stage in order of first use: p50_ms, p95_ms, total_s."""
        rows = {}
        for name, samples in self._samples.items():
            p50, p95 = np.percentile(samples.values(), [50, 95]) / 1e6
            rows[name] = {
                "p50_ms": round(float(p50), 3),
                "p95_ms": round(float(p95), 3),
                "total_s": round(self.total_s(name), 4),
            }
        return rows


class TimedEngine:
    """An engine that notes every call under `engine:<task>`."""

    def __init__(self, engine: Engine, times: StageTimes) -> None:
        self._engine = engine
        self._times = times
        self._name = f"{ENGINE}{engine.card.task}"

    @property
    def card(self) -> ModelCard:
        return self._engine.card

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        return self._engine.inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        return self._engine.outputs

    def infer(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        return self._times.timed(self._name, self._engine.infer, feeds)
