"""An evaluation as JSON and as lines for people."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import cv2
import numpy as np

from calibration.datasets.dataset import Dataset
from calibration.discard import DISCARD_FAR, LARGEST_SHARE, Discard
from calibration.evaluate import RELIABILITY_FMR, Measured, Recognition
from calibration.metrics import Figure
from calibration.quality_scores import FACE_BOX
from edge_fr.engine import ModelCard
from edge_fr.image import TEMPLATE
from edge_fr.structures import CROP_SIDE_PX

_CARD_SCORE = f"the card's score for one false match in {1 / float(RELIABILITY_FMR):,.0f}"
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
        "intervals": {"draws": base.draws, "drawn": "pairs" if dataset.people is None else "identities"},
        "edc_settings": {"threshold_at_far": DISCARD_FAR, "area_to_share": LARGEST_SHARE},
        "ri_reliability_fmr": RELIABILITY_FMR,
        "detector": None if detector is None else _model(detector),
        **_recognition(base),
        "others": [
            {
                **_recognition(other),
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
            if measured.pairs is not None and "tar_at_far_1e-2" not in measured.figures:
                words.append(f"{measured.pairs.impostors} impostor pairs are too few for a FAR of 1e-2")
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
            for group, figures in measured.identification.items():
                rank = "rank-1" if group == "all" else f"rank-1 {group}"
                words.append(f"{rank} {_text(figures['rank1'])}")
            yield "  ".join(words)
        for name, discard in recognition.discards.items():
            start = f"of {discard.rates[0]:.4f}"
            yield f"  error versus discard by {name:<15} area {_text(discard.area)} {start}"
        for row in recognition.reliability:
            found = f"{row.matched:.3f} of {row.pairs} genuine pairs reach {_CARD_SCORE}"
            yield f"  ri {row.low:.1f} to {row.high:.1f}: {found}"
        if recognition.false_match_rate is not None:
            pairs = [m.pairs.impostors for m in recognition.conditions.values() if m.pairs is not None]
            share = f"{recognition.false_match_rate:.6f} of {sum(pairs)}"
            yield f"  of the impostor pairs under the same conditions {share} reach it"
    if any("px" in name for name in base.conditions):
        face, eyes = FACE_BOX[2] - FACE_BOX[0], TEMPLATE[1, 0] - TEMPLATE[0, 0]
        sizes = f"the face in it {face / CROP_SIDE_PX:.2f} N, its eyes {eyes / CROP_SIDE_PX:.2f} N apart"
        yield f"pxN: the aligned crop is N px wide, {sizes}"


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


def _recognition(recognition: Recognition) -> Json:
    return {
        "model": _model(recognition.card),
        "conditions": {name: _measured(measured) for name, measured in recognition.conditions.items()},
        "edc": {
            name: _discard(discard, recognition.ri_area_ratios.get(name))
            for name, discard in recognition.discards.items()
        },
        **(
            {
                "ri_reliability": [row._asdict() for row in recognition.reliability],
                "ri_reliability_found_fmr": round(recognition.false_match_rate, 6),
            }
            if recognition.false_match_rate is not None
            else {}
        ),
    }


def _model(card: ModelCard) -> Json:
    told = {"name": card.name, "weights_digest": card.weights_digest, "precision": card.precision}
    if card.calibration_digest is not None:
        told["calibration_digest"] = card.calibration_digest
    return told


def _measured(measured: Measured) -> Json:
    result: Json = {}
    if measured.pairs is not None:
        result = {"genuine_pairs": measured.pairs.genuine, "impostor_pairs": measured.pairs.impostors}
    result |= {name: _figure(figure) for name, figure in measured.figures.items()}
    if measured.identification:
        result["identification"] = {
            group: {
                "probes": len(measured.searches[group].rank),
                **{name: _figure(figure) for name, figure in figures.items()},
            }
            for group, figures in measured.identification.items()
        }
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
