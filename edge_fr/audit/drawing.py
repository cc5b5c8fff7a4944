"""The few pictures of the page, as SVG in the text: bars and maps."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray

from edge_fr.audit.tallies import COLUMNS, ROWS, Histogram, PictureMap

_WIDTH, _HEIGHT, _FOOT, _HEAD = 360, 120, 26, 12
_RAMP = np.array([(68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37)], np.float64)


def histogram(counts: Histogram, label: str, bounds: Sequence[float] = ()) -> str:
    """Bars of equal width, one a bin, and a line at each bound."""
    heights = counts.counts / max(1, int(counts.counts.max()))
    share = counts.counts / max(1, counts.total)
    tips = [
        f"{low:.3g} to {high:.3g}: {count} ({part:.0%})"
        for low, high, count, part in zip(counts.edges, counts.edges[1:], counts.counts, share, strict=False)
    ]
    return _bars(heights, tips, counts.edges, label, bounds, top=f"{share.max():.0%}" if counts.total else "")


def shares(parts: Histogram, wholes: Histogram, label: str, least: int = 5) -> str:
    """Bars from 0 to 1: how many of `wholes` are in `parts`, for every three bins with `least` or more."""
    seen = np.flatnonzero(wholes.counts)
    first = int(seen[0]) // 3 if len(seen) else 0
    last = int(seen[-1]) // 3 + 1 if len(seen) else 1
    whole = wholes.counts.reshape(-1, 3).sum(axis=1)[first:last]
    part = parts.counts.reshape(-1, 3).sum(axis=1)[first:last]
    edges = wholes.edges[::3][first : last + 1]
    share = np.where(whole >= least, part / np.maximum(whole, 1), 0)
    tips = [
        f"{low:.3g} to {high:.3g} px: {some} of {all_}"
        for low, high, some, all_ in zip(edges, edges[1:], part, whole, strict=False)
    ]
    return _bars(share, tips, edges, label, (), top="100%", middle=True)


def picture_map(cells: PictureMap, label: str, low: float, high: float) -> str:
    """The means as coloured cells, from `low` (dark) to `high` (bright)."""
    drawn = []
    for row in range(ROWS):
        for column in range(COLUMNS):
            count = int(cells.counts[row, column])
            if count == 0:
                continue
            mean = float(cells.means[row, column])
            tip, tone = f"{mean:.3g}, {count} looks", colour((mean - low) / (high - low))
            drawn.append(
                f'<rect x="{column}" y="{row}" width="1" height="1" fill="{tone}">'
                f"<title>{escape(tip)}</title></rect>"
            )
    return (
        f'<svg class="map" viewBox="0 0 {COLUMNS} {ROWS}" preserveAspectRatio="none" role="img" '
        f'aria-label="{escape(label)}">{"".join(drawn)}</svg>'
    )


def ramp() -> str:
    """The colours of a map, from dark to bright."""
    cells = "".join(f'<rect x="{i}" width="1.02" height="1" fill="{colour(i / 23)}"/>' for i in range(24))
    return f'<svg class="ramp" viewBox="0 0 24 1" preserveAspectRatio="none" aria-hidden="true">{cells}</svg>'


def colour(share: float) -> str:
    """A colour of the map for 0..1; what lies beyond gets the last one."""
    place = float(np.clip(share, 0, 1)) * (len(_RAMP) - 1)
    before = min(int(place), len(_RAMP) - 2)
    red, green, blue = (
        (_RAMP[before] + (place - before) * (_RAMP[before + 1] - _RAMP[before])).round().astype(int)
    )
    return f"#{red:02x}{green:02x}{blue:02x}"


def _bars(
    heights: NDArray[np.float64],
    tips: Sequence[str],
    edges: NDArray[np.float64],
    label: str,
    bounds: Sequence[float],
    *,
    top: str,
    middle: bool = False,
) -> str:
    step = _WIDTH / len(heights)
    floor = _HEAD + _HEIGHT
    parts = [f'<line class="axis" x1="0" x2="{_WIDTH}" y1="{floor}" y2="{floor}"/>']
    for i, (height, tip) in enumerate(zip(heights, tips, strict=True)):
        tall = float(height) * _HEIGHT
        parts.append(
            f'<rect class="bar" x="{i * step + 0.5:.1f}" y="{floor - tall:.1f}" width="{step - 1:.1f}" '
            f'height="{tall:.1f}"><title>{escape(tip)}</title></rect>'
        )
    every = -(-len(edges) // 9)
    for i in range(0, len(edges), every):
        anchor = "start" if i == 0 else "end" if i == len(edges) - 1 else "middle"
        parts.append(
            f'<text x="{i * step:.1f}" y="{floor + 14}" text-anchor="{anchor}">{edges[i]:.3g}</text>'
        )
    for bound in bounds:
        at = float(np.interp(bound, edges, np.arange(len(edges)))) * step
        parts.append(f'<line class="bound" x1="{at:.1f}" x2="{at:.1f}" y1="{_HEAD}" y2="{floor}"/>')
    if middle:
        half = floor - _HEIGHT / 2
        parts.append(f'<line class="bound" x1="0" x2="{_WIDTH}" y1="{half}" y2="{half}"/>')
    parts.append(f'<text x="0" y="{_HEAD - 2}">{escape(top)}</text>')
    return (
        f'<svg class="bars" viewBox="0 0 {_WIDTH} {_HEAD + _HEIGHT + _FOOT}" role="img" '
        f'aria-label="{escape(label)}">{"".join(parts)}</svg>'
    )
