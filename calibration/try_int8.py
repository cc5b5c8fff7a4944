"""From an FP32 recognizer and faces to an INT8 file with a verdict in its card: what `court` runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from calibration.candidates import Candidates
from calibration.convert import load, ready_for_int8, save, smaller_card
from calibration.court import BOUNDS, Bounds, Trial, search
from calibration.court_report import Case, Json, to_html, to_json, written
from calibration.datasets.dataset import Dataset
from calibration.quantize import Target
from calibration.strata import FACES, in_every_stratum, stratify
from edge_fr.errors import CardError, InputError

JUDGED_SHARE = 0.25  # of the faces: not calibrated on
_FEWEST_JUDGED = 100  # below it a first percentile is the worst face


def try_int8(
    original: Path,
    faces: Callable[[], tuple[Sequence[NDArray[np.uint8]], NDArray[np.bool_]]],
    out: Path,
    folder: Path,
    *,
    target: Target,
    bounds: Bounds = BOUNDS,
    seed: int = 0,
    dataset: Dataset | None = None,
    conditions: Sequence[str] = (),
    say: Callable[[str], object] = lambda line: None,
) -> Json:
    """Writes `out`, and into `folder` the report as <stem of out>.court.json and .html; returns the report.

    `faces` gives aligned crops in random order, and which are turned away. A quarter of them is judged on,
    each in every stratum, the rest calibrated on. The file is written whatever the verdict: a refused one
    is the best that was found. CardError for a model that is no recognizer.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)  # now: the work takes minutes
    except OSError as error:
        raise InputError(f"no report can be written into {folder} ({error}); name another folder") from error
    model, card = load(original)
    if card.task != "embed":
        raise CardError(
            f"{original} is a model for {card.task!r}, expected one for 'embed': a verdict is about what "
            f"becomes of embeddings; `python -m calibration quantize` writes the file without one"
        )
    crops, turned = faces()
    aside = round(len(crops) * JUDGED_SHARE)
    if aside < 1:
        raise InputError(f"{len(crops)} faces, expected some to calibrate on and others to judge on")
    if aside < _FEWEST_JUDGED:
        say(f"warning: judged on {aside} faces: below {_FEWEST_JUDGED} a first percentile is the worst face")
    judged = in_every_stratum(crops[:aside], FACES, seed=seed)
    calibrated = stratify(crops[aside:], FACES, seed=seed, turned=turned[aside:])
    say(f"calibrating on {len(calibrated)} faces, judging on {aside} others in {len(FACES)} strata")
    level, ranges = ready_for_int8(model, card, calibrated)
    new = smaller_card(card, calibrated, precision="int8", target=target)

    def tell(trial: Trial) -> None:
        kept = (
            f"{len(trial.kept)} layers kept, last {trial.kept[-1]}" if trial.kept else "every layer in 8 bits"
        )
        say(f"{kept}: {trial.worst if trial.breaches else 'within bounds'}")

    with TemporaryDirectory() as place:
        candidates = Candidates(
            original,
            level,
            ranges,
            new,
            judged,
            Path(place),
            target=target,
            dataset=dataset,
            conditions=conditions,
        )
        finding = search(
            candidates.shares(),
            measure=candidates.measure,
            rank=candidates.rank,
            tar_drops=candidates.tar_drops,
            bounds=bounds,
            tell=tell,
        )
    case = Case(card, target, calibrated, judged, None if dataset is None else dataset.title)
    report = to_json(case, finding, bounds)
    content, digest = written(report)
    (folder / f"{out.stem}.court.json").write_bytes(content)
    (folder / f"{out.stem}.court.html").write_bytes(to_html(report, digest))
    save(
        candidates.make(finding.chosen.kept, replace(new, verdict=finding.verdict, report_digest=digest)), out
    )
    return report
