"""The curves of an evaluation, a picture of each kind."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from calibration.datasets.dataset import Dataset
from calibration.discard import DISCARD_FAR, SHARES
from calibration.evaluate import Recognition
from calibration.metrics import Floats, Ranked
from edge_fr.errors import MissingDependencyError, install_command

try:
    from matplotlib import colormaps
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
except ImportError as error:
    raise MissingDependencyError(
        f"drawing curves needs matplotlib ({error}); install it with: {install_command('calibration')}"
    ) from error

# Okabe and Ito's colours, which most colour-blind people can tell apart, without the yellow.
_COLOURS = ("#000000", "#0072B2", "#009E73", "#E69F00", "#D55E00", "#CC79A7", "#56B4E9")
_DASHES: tuple[Literal["-", "--", ":", "-."], ...] = ("-", "--", ":", "-.")  # a recognizer each
_SCORES = ("ri", "embedding_norm", "base_norm", "face_size", "detector_score", "quality_gate")
_MOST_RANKS = 20
_WIDTH_INCH, _HEIGHT_INCH, _LEGEND_INCH = 6.0, 4.8, 1.9


class _Curve(NamedTuple):
    recognizer: int
    label: str
    x: Floats
    y: Floats


def draw(dataset: Dataset, recognitions: list[Recognition], folder: Path) -> list[Path]:
    """Writes what `pictures` gives into the folder, which is made; returns the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, picture in pictures(dataset, recognitions).items():
        paths.append(folder / name)
        picture.savefig(paths[-1], dpi=120)
    return paths


def pictures(dataset: Dataset, recognitions: list[Recognition]) -> dict[str, Figure]:
    """roc.png, identification.png and discard.png, those that there is something for, by their names."""
    found: dict[str, Figure] = {}
    if dataset.pairs is not None:
        found["roc.png"] = _roc(dataset, recognitions)
    if any(measured.searches for r in recognitions for measured in r.conditions.values()):
        found["identification.png"] = _identification(dataset, recognitions)
    if any(recognition.discards for recognition in recognitions):
        found["discard.png"] = _discard(dataset, recognitions)
    return found


def _roc(dataset: Dataset, recognitions: list[Recognition]) -> Figure:
    assert dataset.pairs is not None
    curves = []
    for number, recognition in enumerate(recognitions):
        for condition, measured in recognition.conditions.items():
            assert measured.pairs is not None
            accepted = Ranked(measured.pairs).accepted(np.ones(len(measured.pairs.scores)))
            curves.append(_Curve(number, condition, *accepted.roc()))
    picture, (axes,) = _canvas(1)
    axes.set(
        title=f"Verification on {dataset.title}, {len(dataset.pairs.same)} pairs",
        xlabel="false-accept rate (share of impostor pairs)",
        ylabel="true-accept rate (share of genuine pairs)",
        xscale="log",
        xlim=_rates_of(int(np.count_nonzero(~dataset.pairs.same))),
    )
    _plot(axes, curves, steps=True)
    _legend(picture, curves, recognitions)
    return picture


def _identification(dataset: Dataset, recognitions: list[Recognition]) -> Figure:
    lookup = dataset.lookup
    assert lookup is not None
    ranks = np.arange(1.0, _MOST_RANKS + 1)
    closed_set, open_set = [], []
    for number, recognition in enumerate(recognitions):
        for condition, measured in recognition.conditions.items():
            for group, searches in measured.searches.items():
                several = len(measured.searches) > 1
                label = f"{condition}, {group}" if several else condition
                found = np.array([searches.rank_rate(int(rank)) for rank in ranks])
                closed_set.append(_Curve(number, label, ranks, found))
                if len(searches.strangers):
                    open_set.append(_Curve(number, label, *searches.curve(rank=lookup.open_rank)))
    picture, axes = _canvas(2 if open_set else 1)
    axes[0].set(
        title=f"Closed set on {dataset.title}, gallery of {len(lookup.gallery)} pictures",
        xlabel="rank (place among the gallery's pictures)",
        ylabel="probes found (share)",
        xlim=(1, _MOST_RANKS),
        xticks=[1, 5, 10, 15, 20],
    )
    _plot(axes[0], closed_set, steps=False)
    if open_set:
        within = f" within the first {lookup.open_rank}" if lookup.open_rank > 1 else " first"
        axes[1].set(
            title=f"Open set, {len(lookup.strangers)} pictures of strangers",
            xlabel="false-positive identification rate (share of strangers)",
            ylabel=f"false-negative identification rate\n(share of probes not found{within})",
            xscale="log",
            xlim=_rates_of(len(lookup.strangers)),
        )
        _plot(axes[1], open_set, steps=True)
    _legend(picture, closed_set, recognitions)
    return picture


def _discard(dataset: Dataset, recognitions: list[Recognition]) -> Figure:
    picture, panels = _canvas(len(recognitions), beside=0)
    highest = max(float(discard.rates.max()) for r in recognitions for discard in r.discards.values())
    for axes, recognition in zip(panels, recognitions, strict=True):
        count = len(recognition.conditions)
        axes.set(
            title=f"{recognition.card.name} on {dataset.title}, {count} condition{'s'[: count > 1]}",
            xlabel="genuine pairs of the lowest quality discarded (share)",
            ylabel=f"false non-match rate of the others at FAR {DISCARD_FAR:g}",
            xlim=(SHARES[0], SHARES[-1]),
            ylim=(0, 1.1 * highest + 1e-3),
        )
        for name, colour in zip(_SCORES, _COLOURS, strict=False):
            if name in recognition.discards:
                label = name.replace("_", " ")
                axes.plot(SHARES, recognition.discards[name].rates, color=colour, label=label)
        axes.plot(SHARES, recognition.discards["oracle"].rates, "--", color="#7F7F7F", label="failures first")
        axes.legend(loc="upper right", frameon=False)
    return picture


def _rates_of(count: int) -> tuple[float, float]:
    """The rates that can be told apart with so many attempts."""
    return 1 / max(count, 2), 1.0


def _canvas(panels: int, *, beside: float = _LEGEND_INCH) -> tuple[Figure, list[Axes]]:
    size = (panels * _WIDTH_INCH + beside, _HEIGHT_INCH)
    picture = Figure(figsize=size, layout="constrained")
    axes = [picture.add_subplot(1, panels, panel + 1) for panel in range(panels)]
    for each in axes:
        each.grid(True, which="both", color="#DDDDDD", linewidth=0.6)
    return picture, axes


def _plot(axes: Axes, curves: list[_Curve], *, steps: bool) -> None:
    """Shares from 0 to 1, a colour for each label, dashes for each recognizer."""
    for curve, colour in zip(curves, _colours(curves), strict=True):
        dashes = _DASHES[curve.recognizer % len(_DASHES)]
        style = "steps-post" if steps else "default"
        axes.plot(curve.x, curve.y, color=colour, linestyle=dashes, drawstyle=style)
    axes.set_ylim(0, 1.01)


def _colours(curves: list[_Curve]) -> list[str | tuple[float, float, float, float]]:
    """The colour of each curve, by the place of its label among all labels."""
    labels = list(dict.fromkeys(curve.label for curve in curves))
    if len(labels) <= len(_COLOURS):
        return [_COLOURS[labels.index(curve.label)] for curve in curves]
    return [colormaps["viridis"](labels.index(curve.label) / len(labels)) for curve in curves]


def _legend(picture: Figure, curves: list[_Curve], recognitions: list[Recognition]) -> None:
    """Beside the panels: colours for labels, and dashes for recognizers when there are several."""
    handles = [
        Line2D([], [], color=colour, label=curve.label)
        for curve, colour in zip(curves, _colours(curves), strict=True)
        if curve.recognizer == 0
    ]
    if len(recognitions) > 1:
        handles += [
            Line2D([], [], color="#555555", linestyle=_DASHES[i % len(_DASHES)], label=recognition.card.name)
            for i, recognition in enumerate(recognitions)
        ]
    picture.legend(handles=handles, loc="outside right upper", frameon=False)
