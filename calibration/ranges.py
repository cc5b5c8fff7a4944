"""What values each tensor of a model takes on a stratified set: the ranges that 8 bits have to span.

A range is taken in every stratum by itself, and the widest one counts: one percentile over all pictures
would leave the tails to whichever stratum has the most of them. On SFace a percentile of 99.99 leaves mean
cosines of .993 to .996 in the strata; 99.9 cuts off what matters (.979 to .987), and the extremes waste steps
(.979 to .992).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, ValueInfoProto

from edge_fr._onnxruntime import onnxruntime  # imported there, where its telemetry is off
from edge_fr.errors import InputError, ModelError

Floats = NDArray[np.float32]
Batches = Mapping[str, Iterable[Floats]]  # by stratum, inputs of the model; iterable more than once

PERCENTILE = 99.99
_BINS = 8192
_COUNTED = 1 << 15  # values of a tensor that are counted for each picture; the extremes are those of all


@dataclass(frozen=True)
class Range:
    """The span (`low` <= 0 <= `high`) to be represented, and the greatest absolute value seen at all."""

    low: float
    high: float
    peak: float

    @property
    def reach(self) -> float:
        """The half width of the span when it has to be symmetric."""
        return max(-self.low, self.high)


class Histogram:
    """Counts of a stream of values, in equal bins over [-span, span); the span doubles as they grow.

    A doubling merges bins in pairs, so that the counts are those of one pass with the last span.
    """

    def __init__(self) -> None:
        self.span = 2.0**-20
        self.counts = np.zeros(_BINS, np.int64)
        self.least, self.greatest = 0.0, 0.0
        self._batches = 0

    def add(self, values: Floats) -> None:
        """Takes the extremes of a batch of tensors, and counts at most _COUNTED values of each picture,
        evenly spread; ModelError when one is not finite."""
        low, high = float(values.min()), float(values.max())
        if not (np.isfinite(low) and np.isfinite(high)):
            raise ModelError("holds NaN or infinity")
        self.least, self.greatest = min(self.least, low), max(self.greatest, high)
        while max(-low, high) >= self.span:
            pairs = self.counts.reshape(-1, 2).sum(axis=1)
            quarter = _BINS // 4
            self.counts = np.concatenate([np.zeros(quarter, np.int64), pairs, np.zeros(quarter, np.int64)])
            self.span *= 2
        flat = values.reshape(-1)
        step = -(-flat.size // (_COUNTED * len(values)))
        row = np.ascontiguousarray(flat[self._batches % step :: step])[None]  # other places each time
        self._batches += 1
        counted = cv2.calcHist([row], [0], None, [_BINS], [-self.span, self.span])
        self.counts += counted.reshape(-1).astype(np.int64)

    def limits(self, percentile: float) -> tuple[float, float]:
        """Between which values all but the tails lie, each tail holding 100 - `percentile` percent."""
        if percentile >= 100:
            return self.least, self.greatest
        below = np.cumsum(self.counts)
        tail = below[-1] * (1 - percentile / 100)
        width = 2 * self.span / _BINS
        low = -self.span + width * int(np.searchsorted(below, tail, side="right"))
        high = -self.span + width * (int(np.searchsorted(below, below[-1] - tail)) + 1)
        return max(low, self.least), min(high, self.greatest)


def observe(model: ModelProto, batches: Batches, *, percentile: float = PERCENTILE) -> dict[str, Range]:
    """The range of every tensor of the prepared model, the input's included: see `count` and `widest`."""
    return widest(count(model, batches), percentile=percentile)


def count(model: ModelProto, batches: Batches) -> dict[str, dict[str, Histogram]]:
    """The values of every tensor of the prepared model, the input's included, by stratum and tensor.

    Memory is bounded by what one batch makes. InputError when a stratum is empty; ModelError for a
    tensor that is not finite, by its name.
    """
    session, names = _tapped(model)
    found: dict[str, dict[str, Histogram]] = {}
    for stratum, inputs in batches.items():
        histograms = {name: Histogram() for name in names}
        seen = 0
        for batch in inputs:
            seen += len(batch)
            for name, value in _run(session, names, batch):
                try:
                    histograms[name].add(value)
                except ModelError as error:
                    raise ModelError(f"tensor {name!r} {error} on stratum {stratum!r}") from error
        if not seen:
            raise InputError(f"stratum {stratum!r} is empty: there is nothing to take its ranges from")
        found[stratum] = histograms
    return found


def widest(
    counted: Mapping[str, Mapping[str, Histogram]], *, percentile: float = PERCENTILE
) -> dict[str, Range]:
    """The range of every tensor: the widest over the strata of the limits that leave 100 - `percentile`
    percent of the values to either side. InputError when there is no stratum."""
    if not 50 < percentile <= 100:
        raise InputError(f"percentile is {percentile}, expected more than 50 and at most 100")
    if not counted:
        raise InputError("there is no stratum to take ranges from")
    found: dict[str, Range] = {}
    for histograms in counted.values():
        for name, histogram in histograms.items():
            low, high = histogram.limits(percentile)
            old = found.get(name, Range(0.0, 0.0, 0.0))
            peak = max(-histogram.least, histogram.greatest, old.peak)
            found[name] = Range(min(low, old.low), max(high, old.high), peak)
    return found


def channel_peaks(model: ModelProto, batches: Batches) -> dict[str, Floats]:
    """The greatest absolute value of every channel of every tensor of four dimensions, (C,) each."""
    session, names = _tapped(model)
    found: dict[str, Floats] = {}
    for inputs in batches.values():
        for batch in inputs:
            for name, value in _run(session, names, batch):
                if value.ndim == 4:
                    peaks = np.maximum(value.max(axis=(0, 2, 3)), -value.min(axis=(0, 2, 3)))
                    found[name] = np.maximum(peaks, found.get(name, 0.0))
    return found


def _tapped(model: ModelProto) -> tuple[onnxruntime.InferenceSession, list[str]]:
    """A session that answers with every tensor of floats, and their names: the input's, then theirs."""
    tapped = ModelProto()
    tapped.CopyFrom(model)
    names = [name for node in model.graph.node for name in node.output]
    outputs = {output.name for output in model.graph.output}
    tapped.graph.output.extend(ValueInfoProto(name=name) for name in names if name not in outputs)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        tapped.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    floats = {output.name for output in session.get_outputs() if output.type == "tensor(float)"}
    return session, [session.get_inputs()[0].name, *(name for name in names if name in floats)]


def _run(
    session: onnxruntime.InferenceSession, names: list[str], batch: Floats
) -> Iterable[tuple[str, Floats]]:
    yield names[0], batch
    yield from zip(names[1:], session.run(names[1:], {names[0]: batch}), strict=True)
