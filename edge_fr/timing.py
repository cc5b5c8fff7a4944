"""Where the time of a frame goes: what each stage took of it, and what the models took of that."""

from __future__ import annotations

import threading
import time
from array import array
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

from edge_fr.engine import Engine, ModelCard, TensorSpec

_P = ParamSpec("_P")
_R = TypeVar("_R")
ENGINE = "engine:"  # begins the names under which models are timed; their task follows
_KEPT = 10_000  # samples a stage: enough for a p95 that means something, bounded for a run of months


class _Stage:
    """The newest _KEPT durations in ns, in memory that is taken at once and never grows, and all in sum."""

    def __init__(self) -> None:
        self._ring = array("q", bytes(8 * _KEPT))
        self.count = 0
        self.total_ns = 0

    def add(self, duration_ns: int) -> None:
        self._ring[self.count % _KEPT] = duration_ns
        self.count += 1
        self.total_ns += duration_ns

    def after(self, count: int) -> NDArray[np.int64]:
        """Those that came after the first `count`, as far as they are kept, in no order."""
        numbers = np.arange(max(count, self.count - _KEPT), self.count)
        return np.array(self._ring, np.int64)[numbers % _KEPT]


class _Mark(NamedTuple):
    """How far the times of a stage had come: so many, so long."""

    noted: int
    total_ns: int


class StageTimes:
    """Durations by stage name, each of one frame. The newest 10,000 of each are kept for percentiles; totals
    are exact.

    A model's are the sum of its calls within a stage: a detector may look at a frame twice, or at parts of
    it. What a model does outside of all stages, such as its first run, is no frame's and not noted. May be
    used from several threads. `listener`, if there is one, is told each name and duration in ns as it is
    noted, in the same thread.
    """

    def __init__(self) -> None:
        self.listener: Callable[[str, int], None] | None = None
        self._stages: dict[str, _Stage] = {}
        self._lock = threading.Lock()  # of the durations
        self._thread = threading.local()  # `engines`: the models' calls within the stage under way, in ns

    def timed(self, name: str, call: Callable[_P, _R], *args: _P.args, **kwargs: _P.kwargs) -> _R:
        """Calls it and notes under `name` how long that took, of one frame."""
        return self._timed(name, 1, lambda: call(*args, **kwargs))

    def shared(
        self, name: str, frames: int, call: Callable[_P, _R], *args: _P.args, **kwargs: _P.kwargs
    ) -> _R:
        """The same for what is done for several frames together: each is noted with its share."""
        return self._timed(name, frames, lambda: call(*args, **kwargs))

    def _timed(self, name: str, frames: int, call: Callable[[], _R]) -> _R:
        around, engines = getattr(self._thread, "engines", None), dict[str, int]()
        self._thread.engines = engines
        start = time.perf_counter_ns()
        try:
            result = call()
        finally:
            self._thread.engines = around
        engines = {name: time.perf_counter_ns() - start, **engines}
        for what, duration_ns in engines.items():
            for _ in range(frames):
                self.add(what, round(duration_ns / frames))
        return result

    def called(self, engine: str, duration_ns: int) -> None:
        """A model ran for so long, for the stage that is under way in this thread."""
        engines = getattr(self._thread, "engines", None)
        if engines is not None:
            engines[engine] = engines.get(engine, 0) + duration_ns

    def add(self, name: str, duration_ns: int) -> None:
        """Notes what a stage took of one frame."""
        with self._lock:
            if name not in self._stages:
                self._stages[name] = _Stage()
            self._stages[name].add(duration_ns)
        if self.listener is not None:
            self.listener(name, duration_ns)

    def total_s(self, name: str) -> float:
        """Seconds spent in a stage so far; 0 for one that never ran."""
        return self._stages[name].total_ns / 1e9 if name in self._stages else 0.0

    def begin(self) -> RunTimes:
        """The times from now on."""
        return RunTimes(self)

    def mark(self) -> dict[str, _Mark]:
        """How far each stage has come."""
        with self._lock:
            return {name: _Mark(stage.count, stage.total_ns) for name, stage in self._stages.items()}

    def summary(
        self, since: Mapping[str, _Mark] | None = None, settled: Mapping[str, _Mark] | None = None
    ) -> dict[str, dict[str, float]]:
        """For each stage in order of first use: p50_ms, p95_ms, total_s.

        All of what came after the mark `since`; percentiles only of what came after `settled`, too, where
        there is any.
        """
        rows, none = {}, _Mark(0, 0)
        with self._lock:
            for name, stage in self._stages.items():
                begun = (since or {}).get(name, none)
                if stage.count == begun.noted:
                    continue
                first = (settled or {}).get(name, begun).noted
                samples = stage.after(first if stage.count > first else begun.noted)
                p50, p95 = np.percentile(samples, [50, 95]) / 1e6
                rows[name] = {
                    "p50_ms": round(float(p50), 3),
                    "p95_ms": round(float(p95), 3),
                    "total_s": round((stage.total_ns - begun.total_ns) / 1e9, 4),
                }
        return rows


class RunTimes:
    """The times of one run: without what was noted before it, with what others note meanwhile."""

    def __init__(self, times: StageTimes) -> None:
        self._times = times
        self._began = times.mark()
        self._settled: dict[str, _Mark] | None = None

    def settle(self) -> None:
        """The first frame is through: models take memory in it, so that it counts in no percentile. Later
        calls do nothing."""
        if self._settled is None:
            self._settled = self._times.mark()

    def summary(self) -> dict[str, dict[str, float]]:
        """Those so far, as of `StageTimes.summary`."""
        return self._times.summary(self._began, self._settled)


class TimedEngine:
    """An engine that notes every call under `engine:<task>`, see `StageTimes`."""

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
        start = time.perf_counter_ns()
        result = self._engine.infer(feeds)
        self._times.called(self._name, time.perf_counter_ns() - start)
        return result
