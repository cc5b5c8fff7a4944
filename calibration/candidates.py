"""The INT8 models that a court looks at: made from one set of ranges, compared with their original."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from calibration import harm
from calibration.convert import as_input, labelled, save
from calibration.court import Breach, Cost, Harm, Kept
from calibration.datasets.dataset import Dataset
from calibration.drift import drift
from calibration.evaluate import evaluate
from calibration.metrics import Pairs, Ranked, measurable
from calibration.quantize import Target, kept_by_rule, to_int8
from calibration.ranges import Range
from calibration.strata import CalibrationSet
from edge_fr.embed import Embedder, Embeddings
from edge_fr.engine import Engine, ModelCard, open_engine
from edge_fr.errors import EngineError, InputError

SAMPLE = 32  # faces of the stratum in breach that layers are ranked on: a second or so a layer
_ROUNDS = 15  # of timing, one call to each model by turns
_TAR = "tar_at_far_1e-2"
_NO_DRAWS = 1  # the bootstrap's intervals are not asked for
_FAR = 1e-2  # of _TAR


def check_pairs(dataset: Dataset) -> None:
    """InputError for labelled faces that give no TAR at FAR 1e-2, by which candidates are judged."""
    if dataset.pairs is None:
        raise InputError(
            f"{dataset.title} has no pairs of faces, from which a TAR could be told; give a --dataset that "
            f"has some: lfw:DIR, people:DIR, bin:FILE or ijb:DIR"
        )
    count = int(np.count_nonzero(~dataset.pairs.same))
    if not measurable(_FAR, count):
        raise InputError(
            f"{dataset.title} has {count} pairs of two people, expected at least {1 / _FAR:.0f}: with "
            f"fewer there is no TAR at a FAR of 1e-2 to judge by; give a larger --dataset, or none"
        )


class Candidates:
    """Makes an INT8 model with any layers kept in floating point, and measures it against the original.

    `level` and `ranges` are what `ready_for_int8` gives; `card` is for the models made; `judged` are faces
    that were not calibrated on. Files are written into `folder`.
    """

    def __init__(
        self,
        original: Path,
        level: ModelProto,
        ranges: Mapping[str, Range],
        card: ModelCard,
        judged: CalibrationSet,
        folder: Path,
        *,
        target: Target,
        dataset: Dataset | None = None,
        conditions: Sequence[str] = (),
    ) -> None:
        if dataset is not None:
            check_pairs(dataset)
        self._original, self._level, self._ranges, self._card = original, level, ranges, card
        self._judged, self._folder, self._target = judged, folder, target
        self._dataset, self._conditions = dataset, conditions
        self._embedder = Embedder(open_engine(original))
        self._before = {name: self._embedder.embed(crops) for name, crops in judged.strata.items()}
        self._tars = {} if dataset is None else self._tar(self._embedder, dataset)

    def shares(self) -> dict[str, float]:
        """The part of the multiply-adds of every layer that can be quantised."""
        picture = as_input(self._card)(self._judged.first(1).strata["clean"])
        ruled = kept_by_rule(self._level)
        found = harm.shares(self._level, picture.shape)
        return {name: share for name, share in found.items() if name not in ruled}

    def make(self, kept: Collection[str], card: ModelCard | None = None) -> ModelProto:
        """The INT8 model with these layers kept."""
        made = to_int8(self._level, self._ranges, target=self._target, keep=kept)
        return labelled(made, card or self._card)

    def measure(self, kept: Kept) -> Cost:
        """What `search` asks for."""
        path = self._write(kept)
        embedder = Embedder(open_engine(path, unproven=True))
        after = {name: _answers(embedder, crops) for name, crops in self._judged.strata.items()}
        original_ms = ms = None
        if self._target == "cpu":
            original_ms, ms = self._time(path)
        return Cost(
            strata={name: drift(self._before[name], found) for name, found in after.items()},
            mask_auc_drop=_mask_auc_drop(self._before, after),
            size_bytes=path.stat().st_size,
            original_ms=original_ms,
            ms=ms,
        )

    def rank(self, kept: Kept, breach: Breach) -> list[Harm]:
        """What `search` asks for, on the first SAMPLE faces of the stratum in breach."""
        # A condition of the labelled faces is no stratum; clean faces are what pairs are made of.
        stratum = breach.stratum if breach.stratum in self._judged.strata else "clean"
        crops = self._judged.strata[stratum][:SAMPLE]

        def answer(more: Collection[str]) -> Embeddings:
            return _answers(Embedder(open_engine(self._write((*kept, *more)), unproven=True)), crops)

        left = [name for name in self.shares() if name not in kept]
        return harm.rank(left, replace(breach, stratum=stratum), self._embedder.embed(crops), answer)

    def tar_drops(self, kept: Kept) -> dict[str, float]:
        """What `search` asks for: by condition how much TAR at FAR 1e-2 falls; empty without a dataset."""
        if self._dataset is None:
            return {}
        found = self._tar(Embedder(open_engine(self._write(kept), unproven=True)), self._dataset)
        return {condition: self._tars[condition] - tar for condition, tar in found.items()}

    def _tar(self, embedder: Embedder, dataset: Dataset) -> dict[str, float]:
        (found,) = evaluate(dataset, [embedder], self._conditions or dataset.conditions, draws=_NO_DRAWS)
        return {name: measured.figures[_TAR].value for name, measured in found.conditions.items()}

    def _write(self, kept: Collection[str]) -> Path:
        path = self._folder / "candidate.onnx"
        save(self.make(kept), path)
        return path

    def _time(self, path: Path) -> tuple[float, float]:
        """Median milliseconds a face, one at a time on one thread, of the original and of the other."""
        crop = as_input(self._card)(self._judged.first(1).strata["clean"])
        runs: list[tuple[Callable[[], object], list[float]]] = []
        for model in (self._original, path):
            runs.append((_call(open_engine(model, threads=1, unproven=True), crop), []))
        for _ in range(_ROUNDS):
            for call, times in runs:
                start = time.perf_counter()
                call()
                times.append((time.perf_counter() - start) * 1e3)
        original, smaller = (statistics.median(times) for _, times in runs)
        return original, smaller


def _answers(embedder: Embedder, crops: NDArray[np.uint8]) -> Embeddings:
    """What a candidate answers; zeros from one that gives no usable answer (a vector of length zero, NaN):
    no answer is as far from the original as an answer can be."""
    try:
        return embedder.embed(crops)
    except EngineError:
        nothing = np.zeros(len(crops), np.float32)
        none = embedder.embed(crops[:0])
        return Embeddings(
            np.zeros((len(crops), none.vectors.shape[1]), np.float32),
            None if none.ri is None else nothing,
            None if none.mask_prob is None else nothing,
            nothing,
        )


def _call(engine: Engine, value: NDArray[np.float32]) -> Callable[[], object]:
    feeds = {engine.inputs[0].name: value}
    engine.infer(feeds)  # the first call also sets up memory
    return lambda: engine.infer(feeds)


def _mask_auc_drop(before: Mapping[str, Embeddings], after: Mapping[str, Embeddings]) -> float | None:
    """How much less often a masked face has a greater `mask_prob` than a clean one."""

    def auc(found: Mapping[str, Embeddings]) -> float | None:
        masked, clean = found["masked"].mask_prob, found["clean"].mask_prob
        if masked is None or clean is None:
            return None
        scores = np.concatenate([masked, clean]).astype(np.float64)
        same = np.arange(len(scores)) < len(masked)
        return Ranked(Pairs(scores, same, None, None)).auc(np.ones(len(scores)))

    was, now = auc(before), auc(after)
    return None if was is None or now is None else was - now
