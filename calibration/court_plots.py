"""The plots of a court's page, drawn from its report."""

from __future__ import annotations

import io
from typing import Any

from edge_fr.errors import MissingDependencyError, install_command

try:
    from matplotlib.figure import Figure
except ImportError as error:
    raise MissingDependencyError(
        f"a court's page needs matplotlib ({error}); install it with: {install_command('calibration')}"
    ) from error

Json = dict[str, Any]

_MOST_LAYERS = 20  # of harm: the page's table has all
_BLUE, _RED, _GREY = "#0072B2", "#D55E00", "#999999"  # Okabe and Ito's


def plots(report: Json) -> dict[str, bytes]:
    """PNG files by title."""
    drawn = {
        "Cosine between the original's and the INT8 model's embeddings": _strata_plot(report),
        "What each choice of layers costs and gains": _trials_plot(report),
    }
    if report["harms"]:
        drawn["What each layer recovers alone"] = _harms_plot(report)
    return {title: _png(picture) for title, picture in drawn.items()}


def _png(picture: Figure) -> bytes:
    data = io.BytesIO()
    picture.savefig(data, format="png", dpi=110)
    return data.getvalue()


def _strata_plot(report: Json) -> Figure:
    """Each stratum's cosines, and rank correlation of ri if any, with every layer in 8 bits and as chosen."""
    first, chosen = report["trials"][0], report["trials"][report["chosen"]]
    shown = [("every layer in 8 bits", first, _GREY, 0.15)]
    if chosen is not first:
        shown.append((f"chosen: {len(chosen['kept'])} layers kept", chosen, _BLUE, -0.15))
    names = list(first["strata"])
    picture = Figure(figsize=(9, 3.6), layout="constrained")
    figures = [
        name for name in ("mean_cosine", "p1_cosine", "ri_spearman") if first["worst"][name] is not None
    ]
    panels = zip(picture.subplots(1, len(figures), sharey=True), figures, strict=True)
    for axes, figure in panels:
        for label, trial, colour, shift in shown:
            values = [trial["strata"][name][figure] for name in names]
            places = [place + shift for place in range(len(names))]
            axes.plot(values, places, "o", color=colour, label=label)
        bound = report["bounds"][figure]
        axes.axvline(bound, color=_RED, linestyle="--", label="bound")
        axes.locator_params(axis="x", nbins=5)
        axes.set(
            title=f"{figure.replace('_', ' ')}, at least {bound:g}",
            yticks=range(len(names)),
            ylim=(len(names) - 0.5, -0.5),
        )
        axes.set_yticklabels([name.replace("_", " ") for name in names])
        axes.grid(axis="x", alpha=0.3)
    picture.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    return picture


def _trials_plot(report: Json) -> Figure:
    """Worst mean cosine against size and, where it was timed, speed."""
    sides = [("size in MB", [trial["size_bytes"] / 1e6 for trial in report["trials"]])]
    if report["trials"][0]["speedup"] is not None:
        sides.append(("times as fast as the original", [trial["speedup"] for trial in report["trials"]]))
    worst = [trial["worst"]["mean_cosine"] for trial in report["trials"]]
    picture = Figure(figsize=(9, 3.6), layout="constrained")
    for axes, (label, values) in zip(picture.subplots(1, len(sides), squeeze=False)[0], sides, strict=True):
        axes.plot(values, worst, "o", color=_GREY)
        axes.plot(values[report["chosen"]], worst[report["chosen"]], "o", color=_BLUE, label="chosen")
        for number, place in enumerate(zip(values, worst, strict=True)):
            axes.annotate(str(number), place, textcoords="offset points", xytext=(5, 4), fontsize=8)
        bound = report["bounds"]["mean_cosine"]
        axes.axhline(bound, color=_RED, linestyle="--", label=f"bound {bound:g}")
        axes.locator_params(axis="x", nbins=5)
        axes.set(xlabel=label, ylabel="mean cosine of the worst stratum")
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
    return picture


def _harms_plot(report: Json) -> Figure:
    """The most harmful layers for each figure that they were ranked by."""
    ranked: dict[str, list[Json]] = {}
    for harm in report["harms"]:
        ranked.setdefault(f"{harm['of']}, {harm['stratum'].replace('_', ' ')}", []).append(harm)
    most = min(_MOST_LAYERS, max(map(len, ranked.values())))
    picture = Figure(figsize=(9, (1.2 + 0.24 * most) * len(ranked)), layout="constrained")
    kept = report["trials"][report["chosen"]]["kept"]
    for axes, (title, harms) in zip(
        picture.subplots(len(ranked), squeeze=False)[:, 0], ranked.items(), strict=True
    ):
        shown = harms[:most]
        colours = [_BLUE if harm["layer"] in kept else _GREY for harm in shown]
        axes.barh([harm["layer"] for harm in shown], [harm["recovered"] for harm in shown], color=colours)
        axes.invert_yaxis()
        axes.tick_params(labelsize=8)
        axes.set(title=f"recovered of {title} (blue: kept)", xlabel="by keeping this layer alone")
        axes.grid(axis="x", alpha=0.3)
    return picture
