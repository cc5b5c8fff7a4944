"""An evaluation as JSON and as lines for people."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import cv2
import numpy as np

from calibration.datasets.dataset import Dataset
from calibration.discard import LARGEST_SHARE, Discard
from calibration.evaluate import DISCARD_FAR, RELIABILITY_FMR, Measured, Recognition
from calibration.identification import Searches
from calibration.metrics import Figure, short
from edge_fr.engine import ModelCard

_DISCARDED = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)
Json = dict[str, Any]


def to_json(dataset: Dataset, recognitions: list[Recognition], detector: ModelCard | None = None) -> Json:
    """The first recognizer's figures under `conditions` and `edc`, and under `others` those of each
    further one with its paired `difference` from the first, and its `drift` where it is the same training
    in another precision."""
    base, *others = recognitions
    return {
        "dataset": {
            "title": dataset.title,
            "digest": dataset.digest,
            "pictures": len(dataset.names),
            "taken_whole": len(dataset.whole),  # no face was found in them
            **({} if dataset.pairs is None else {"pairs": len(dataset.pairs.same)}),
            **(
                {}
                if dataset.lookup is None
                else {"gallery": len(dataset.lookup.gallery), "strangers": len(dataset.lookup.strangers)}
            ),
        },
        "opencv": cv2.__version__,  # its resizing makes the low-resolution conditions
        "edc_settings": {"threshold_at_far": DISCARD_FAR, "area_to_share": LARGEST_SHARE},
        "ri_reliability_fmr": RELIABILITY_FMR,
        "detector": None if detector is None else _model(detector),
        **_recognition(dataset, base),
        "others": [
            {
                **_recognition(dataset, other),
                "difference": _difference(base, other),
                "drift": {
                    name: asdict(measured.drift)
                    for name, measured in other.conditions.items()
                    if measured.drift is not None
                },
            }
            for other in others
        ],
    }


def lines(dataset: Dataset, recognitions: list[Recognition]) -> Iterator[str]:
    """The main figures, a line for each condition and recognizer."""
    base = recognitions[0]
    for recognition in recognitions:
        yield f"{recognition.card.name} {recognition.card.precision} on {dataset.title}"
        for name, measured in recognition.conditions.items():
            words = [f"  {name:<10}"]
            for figure in ("tar_at_far_1e-2", "auc", "accuracy"):
                if figure in measured.figures:
                    words.append(f"{figure} {_text(measured.figures[figure])}")
            if recognition is not base and "tar_at_far_1e-2" in measured.figures:
                change = (
                    measured.figures["tar_at_far_1e-2"] - base.conditions[name].figures["tar_at_far_1e-2"]
                )
                words.append(
                    f"change {change.value:+.4f} [{change.interval[0]:+.4f}, {change.interval[1]:+.4f}]"
                )
            if measured.drift is not None:
                words.append(f"mean cosine {measured.drift.mean_cosine:.4f}")
                if measured.drift.ri_spearman is not None:
                    words.append(f"ri rank {measured.drift.ri_spearman:.4f}")
            for group, searches in measured.searches.items():
                words.append(f"rank-1{'' if group == 'all' else ' ' + group} {searches.rank_rate(1):.4f}")
            yield "  ".join(words)
        for name, discard in recognition.discards.items():
            start = f"of {discard.rates[0]:.4f}"
            yield f"  error versus discard by {name:<15} area {_text(discard.area)} {start}"
        for row in recognition.reliability:
            found = f"{row.matched:.3f} of {row.pairs} pairs match"
            yield f"  ri {row.low:.1f} to {row.high:.1f}: {found} at a false-match rate of {RELIABILITY_FMR}"


def headlines(data: str, recognition: Recognition) -> dict[str, float]:
    """What a model card says of an evaluation: "<data>/<condition>/<figure>" and its value."""
    return {
        f"{data}/{condition}/{name}": round(measured.figures[name].value, 5)
        for condition, measured in recognition.conditions.items()
        for name in ("tar_at_far_1e-2", "auc")
        if name in measured.figures
    }


def _text(figure: Figure) -> str:
    low, high = figure.interval
    return f"{figure.value:.4f} [{low:.4f}, {high:.4f}]"


def _recognition(dataset: Dataset, recognition: Recognition) -> Json:
    return {
        "model": _model(recognition.card),
        "conditions": {
            name: _measured(dataset, measured) for name, measured in recognition.conditions.items()
        },
        "edc": {
            name: _discard(discard, recognition.ri_area_ratios.get(name))
            for name, discard in recognition.discards.items()
        },
        **(
            {"ri_reliability": [row._asdict() for row in recognition.reliability]}
            if recognition.reliability
            else {}
        ),
    }


def _model(card: ModelCard) -> Json:
    told = {"name": card.name, "weights_digest": card.weights_digest, "precision": card.precision}
    if card.calibration_digest is not None:
        told["calibration_digest"] = card.calibration_digest
    return told


def _measured(dataset: Dataset, measured: Measured) -> Json:
    result: Json = {name: _figure(figure) for name, figure in measured.figures.items()}
    if measured.searches:
        found = {group: _searches(dataset, searches) for group, searches in measured.searches.items()}
        result["identification"] = found
    return result


def _searches(dataset: Dataset, searches: Searches) -> Json:
    assert dataset.lookup is not None
    result: Json = {"probes": len(searches.rank)}
    for rank in dataset.lookup.ranks:
        result[f"rank{rank}"] = round(searches.rank_rate(rank), 5)
    within = dataset.lookup.open_rank
    for fpir in dataset.lookup.fpirs:
        if fpir * len(searches.strangers) >= 1:  # with fewer strangers the rate cannot be told from 0
            name = f"fnir_at_fpir_{short(fpir)}" + (f"_within_rank{within}" if within > 1 else "")
            result[name] = round(searches.fnir_at_fpir(fpir, rank=within), 5)
    return result


def _discard(discard: Discard, ratio: Figure | None) -> Json:
    result: Json = {"area": _figure(discard.area)}
    for share in _DISCARDED:
        result[f"fnmr_at_{share:g}"] = round(discard.rate_at(share), 5)
    if ratio is not None:
        result["ri_area_over_this"] = _figure(ratio)
    return result


def _difference(base: Recognition, other: Recognition) -> Json:
    return {
        condition: {
            name: _figure(figure - base.conditions[condition].figures[name])
            for name, figure in measured.figures.items()
        }
        for condition, measured in other.conditions.items()
        if measured.figures
    }


def _figure(figure: Figure) -> Json:
    return {"value": round(figure.value, 5), "interval": [round(end, 5) for end in np.array(figure.interval)]}
