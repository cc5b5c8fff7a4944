"""Measures recognizers on labelled pictures under stated conditions.

Verification puts the condition on the second picture of each pair only: a good enrolment against a poor
probe. Identification compares probes under the condition with a gallery that is left as it is. Every
recognizer sees the same pixels, and the draws of all intervals are the same. A picture is embedded once,
as it is; insightface's evaluations, of .bin files as of IJB, add the embedding of its mirror image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from calibration.conditions import UNCHANGED, captured, check, enlarge
from calibration.datasets.dataset import Dataset, Numbers, PairList, Templates
from calibration.discard import Discard, Reliability, discards, reliability
from calibration.drift import Drift, drift
from calibration.identification import Searches, Vectors, identification, search
from calibration.metrics import Figure, Floats, Pairs, verification
from calibration.quality_scores import quality_scores
from edge_fr.detect import Detector
from edge_fr.embed import Embedder, Embeddings
from edge_fr.engine import ModelCard
from edge_fr.errors import InputError
from edge_fr.structures import CROP_SIDE_PX

BATCH = 32
_UNIT = 1e-3  # FP16 rounds a unit norm by less
RELIABILITY_FMR = "1e-4"  # the reliability's threshold, a key of the card's impostor_scores


@dataclass(frozen=True, eq=False)
class Measured:
    """What one recognizer did under one condition: figures of the scored pairs, if the dataset has
    pairs, what each group of probes found with the figures of that, and how far its answers for the
    pictures are from those of the first recognizer, if both have the same weights in different
    precisions."""

    pairs: Pairs | None
    figures: dict[str, Figure]
    searches: dict[str, Searches]
    identification: dict[str, dict[str, Figure]]
    drift: Drift | None = None


@dataclass(frozen=True, eq=False)
class Recognition:
    """All of one recognizer: by condition, and by quality score the curve over all conditions together,
    with the ratio of the `ri` curve's area to it where the recognizer has an `ri`. The quality score
    `base_norm` of the second recognizer and those after it is the first one's embedding norm, where that
    tells anything. `reliability` says what an `ri` promises where the card has a score for one false match
    in 10,000, and `false_match_rate` which share of the impostor pairs of all conditions together reaches
    that score. So many `draws` are behind each interval."""

    card: ModelCard
    conditions: dict[str, Measured]
    discards: dict[str, Discard]
    ri_area_ratios: dict[str, Figure]
    reliability: list[Reliability]
    false_match_rate: float | None
    draws: int


@dataclass(frozen=True, eq=False)
class Seen:
    """Embeddings of all pictures under one condition; NaN in rows that the condition does not need."""

    vectors: Vectors
    scores: dict[str, Floats]  # quality, by name, (N,)
    drift: Drift | None


def evaluate(
    dataset: Dataset,
    embedders: Sequence[Embedder],
    conditions: Iterable[str],
    *,
    detector: Detector | None = None,
    draws: int = 400,
    advance: Callable[[int], object] = lambda count: None,
) -> list[Recognition]:
    """Measures each recognizer; `advance` is told how many embeddings were computed since the last call.

    The detector is for the quality score `detector_score`. InputError for an unknown condition, before
    anything is read.
    """
    conditions = list(dict.fromkeys(conditions))
    for condition in conditions:
        check(condition)
    if draws < 1:
        raise InputError(f"draws is {draws}, expected at least 1")
    enrolled = _look(dataset, embedders, "clean", detector, advance)
    measured: list[dict[str, Measured]] = [{} for _ in embedders]
    qualities: list[list[dict[str, Floats]]] = [[] for _ in embedders]
    for condition in conditions:
        unchanged = condition in UNCHANGED
        probes = enrolled if unchanged else _look(dataset, embedders, condition, detector, advance)
        for model, (clean, poor) in enumerate(zip(enrolled, probes, strict=True)):
            found = _measure(dataset, clean.vectors, poor.vectors, draws)
            measured[model][condition] = replace(found, drift=poor.drift)
            qualities[model].append(_pair_qualities(dataset, clean.scores, poor.scores))
    recognitions = []
    for embedder, results, quality in zip(embedders, measured, qualities, strict=True):
        pairs = [result.pairs for result in results.values() if result.pairs is not None]
        curves = discards(pairs, quality, draws) if pairs and quality[0] else ({}, {})
        promise = _reliability(embedder.card, pairs, quality)
        recognitions.append(Recognition(embedder.card, results, *curves, *promise, draws))
    return recognitions


def embeddings_needed(dataset: Dataset, conditions: Iterable[str]) -> int:
    """How many embeddings `evaluate` computes for each recognizer."""
    degraded = [condition for condition in dict.fromkeys(conditions) if condition not in UNCHANGED]
    return len(dataset.names) + sum(len(_pictures(dataset, condition)) for condition in degraded)


def _pictures(dataset: Dataset, condition: str) -> Numbers:
    """The pictures that are embedded under the condition: all as they are, degraded the probes."""
    if condition in UNCHANGED:
        return np.arange(len(dataset.names))
    items = [] if dataset.pairs is None else [dataset.pairs.second]
    if dataset.lookup is not None:
        items += [*dataset.lookup.probes.values(), dataset.lookup.strangers]
    return dataset.pictures_of(np.concatenate(items))


def _judged(dataset: Dataset, condition: str) -> Numbers:
    """The pictures whose quality is needed: those of the genuine pairs that are embedded then."""
    if dataset.pairs is None or dataset.templates is not None:
        return np.zeros(0, np.int64)
    second = dataset.pairs.second[dataset.pairs.same]
    return np.r_[dataset.pairs.first[dataset.pairs.same], second] if condition in UNCHANGED else second


def _look(
    dataset: Dataset,
    embedders: Sequence[Embedder],
    condition: str,
    detector: Detector | None,
    advance: Callable[[int], object],
) -> list[Seen]:
    """Embeds the pictures under the condition with each recognizer, and judges those of genuine pairs."""
    count = len(dataset.names)
    wanted = _judged(dataset, condition)
    judged: dict[str, Floats] = {}
    answers = [_nothing(count, embedder) for embedder in embedders]
    for numbers, pictures in _batches(dataset, condition):
        for i in np.flatnonzero(np.isin(numbers, wanted)):
            for name, score in quality_scores(pictures[i], detector).items():
                judged.setdefault(name, np.full(count, np.nan))[numbers[i]] = score
        crops = np.stack([enlarge(picture) for picture in pictures])
        for rows, embedder in zip(answers, embedders, strict=True):
            for column, values in zip(rows, embedder.embed(crops), strict=True):
                if column is not None and values is not None:
                    column[numbers] = values
            advance(len(numbers))
    seen = _pictures(dataset, condition)
    first, base = answers[0], embedders[0].card
    base_norm = _telling(first).get("embedding_norm")
    found = []
    for rows, embedder in zip(answers, embedders, strict=True):
        scores, moved = _telling(rows), None
        if rows is not first:
            if base_norm is not None:
                scores["base_norm"] = base_norm
            if embedder.card.weights_digest == base.weights_digest:
                moved = drift(
                    _each(first, lambda column: column[seen]), _each(rows, lambda column: column[seen])
                )
        found.append(Seen(_fused(dataset.templates, rows), {**scores, **judged}, moved))
    return found


def _nothing(count: int, embedder: Embedder) -> Embeddings:
    """Room for the recognizer's answers to so many pictures, NaN throughout."""
    none = embedder.embed(np.empty((0, CROP_SIDE_PX, CROP_SIDE_PX, 3), np.uint8))
    return _each(none, lambda column: np.full((count, *column.shape[1:]), np.nan, np.float32))


def _each(rows: Embeddings, change: Callable[[Vectors], Vectors]) -> Embeddings:
    """The same change made to every column that the recognizer gives."""
    ri, mask_prob = (None if column is None else change(column) for column in (rows.ri, rows.mask_prob))
    return Embeddings(change(rows.vectors), ri, mask_prob, change(rows.norms))


def _telling(rows: Embeddings) -> dict[str, Floats]:
    """The quality scores; not the norm of a recognizer whose embeddings leave it with unit length."""
    scores = {} if rows.ri is None else {"ri": rows.ri.astype(np.float64)}
    if np.nanmax(np.abs(rows.norms - 1)) < _UNIT:
        return scores
    return {"embedding_norm": rows.norms.astype(np.float64), **scores}


def _batches(dataset: Dataset, condition: str) -> Iterator[tuple[Numbers, list[NDArray[np.uint8]]]]:
    numbers = _pictures(dataset, condition)
    for start in range(0, len(numbers), BATCH):
        some = numbers[start : start + BATCH]
        yield some, [captured(dataset.read(i), condition, dataset.names[i]) for i in some]


def _fused(templates: Templates | None, rows: Embeddings) -> Vectors:
    """The embeddings of the items: of a template, the unit sum over its media of each one's mean raw
    embedding, weighted by the pictures' weights: insightface's test mode N1D1F0, with norm and detector
    score. Its default N1D1F1 adds the embedding of each picture's mirror image, which is not done here."""
    if templates is None:
        return rows.vectors
    weight = templates.weight * rows.norms
    order = np.lexsort((templates.media, templates.template))
    template, media = templates.template[order], templates.media[order]
    starts = np.flatnonzero(np.r_[True, (np.diff(template) != 0) | (np.diff(media) != 0)])
    sums = np.add.reduceat((rows.vectors * weight[:, None])[order], starts)
    means = sums / np.diff(np.r_[starts, len(order)])[:, None]
    fused = np.add.reduceat(means, np.flatnonzero(np.r_[True, np.diff(template[starts]) != 0]))
    return np.asarray(fused / np.linalg.norm(fused, axis=1, keepdims=True), np.float32)


def _measure(dataset: Dataset, clean: Vectors, poor: Vectors, draws: int) -> Measured:
    pairs, figures, searches, identified = None, {}, {}, {}
    if dataset.pairs is not None:
        pairs = Pairs(
            _scores(dataset.pairs, clean, poor), dataset.pairs.same, _people(dataset), dataset.pairs.folds
        )
        figures = verification(pairs, fars=dataset.pairs.fars, draws=draws)
    if dataset.lookup is not None and dataset.people is not None:
        lookup, people = dataset.lookup, dataset.people
        searches = {
            group: search(
                clean[lookup.gallery],
                people[lookup.gallery],
                poor[probes],
                people[probes],
                poor[lookup.strangers],
            )
            for group, probes in lookup.probes.items()
            if len(probes) and len(lookup.gallery)
        }
        identified = {
            group: identification(
                found, ranks=lookup.ranks, fpirs=lookup.fpirs, within=lookup.open_rank, draws=draws
            )
            for group, found in searches.items()
        }
    return Measured(pairs, figures, searches, identified)


def _scores(pairs: PairList, clean: Vectors, poor: Vectors) -> Floats:
    scores = np.empty(len(pairs.first))
    step = 100_000  # 15 million pairs do not fit into memory at once
    for start in range(0, len(scores), step):
        rows = slice(start, start + step)
        scores[rows] = np.einsum("pd,pd->p", clean[pairs.first[rows]], poor[pairs.second[rows]])
    return scores


def _people(dataset: Dataset) -> Numbers | None:
    if dataset.people is None or dataset.pairs is None:
        return None
    return np.stack([dataset.people[dataset.pairs.first], dataset.people[dataset.pairs.second]], axis=1)


def _pair_qualities(dataset: Dataset, clean: dict[str, Floats], poor: dict[str, Floats]) -> dict[str, Floats]:
    """The quality of each genuine pair by each score: the lower one of its two pictures."""
    if dataset.pairs is None or dataset.templates is not None:
        return {}
    first, second = dataset.pairs.first[dataset.pairs.same], dataset.pairs.second[dataset.pairs.same]
    return {name: np.minimum(clean[name][first], poor[name][second]) for name in clean}


def _reliability(
    card: ModelCard, pairs: list[Pairs], qualities: list[dict[str, Floats]]
) -> tuple[list[Reliability], float | None]:
    """The share of genuine pairs, over all conditions, that reach the card's score for one false match in
    10,000, by their ri, and of the impostor pairs; nothing without both."""
    if RELIABILITY_FMR not in card.impostor_scores or not pairs or "ri" not in qualities[0]:
        return [], None
    threshold = card.impostor_scores[RELIABILITY_FMR]
    genuine = np.concatenate([p.scores[p.same] for p in pairs])
    impostors = np.concatenate([p.scores[~p.same] for p in pairs])
    ri = np.concatenate([quality["ri"] for quality in qualities])
    return reliability(genuine, ri, threshold), float((impostors >= threshold).mean())
