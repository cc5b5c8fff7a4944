"""The figures of the page's tables, as rows of words."""

from __future__ import annotations

from edge_fr.audit.distance import CLASSES, Lens, half_size
from edge_fr.audit.figures import EYES_M, Figures

Rows = list[list[str]]


def distances(figures: Figures, lens: Lens | None) -> Rows:
    """The classes of EN 62676-4 and what was measured, in pixels and, with a lens, metres; a head first."""
    half, seen = half_size(figures), figures.px_per_m
    classes = [(f"{name} (EN 62676-4)", least) for name, least in CLASSES]
    if half.found == "here":
        classes.append(("half of the looks recognizable (measured here)", half.px / EYES_M))
    rows = [["in order to", "px per metre", "px between the eyes", "looks that had it"]]
    for name, per_m in sorted(classes, key=lambda row: row[1]):
        share = f"{seen.share_from(per_m):.0%}" if seen.total else "no looks"
        rows.append([name, f"{per_m:.0f}", f"{per_m * EYES_M:.1f}", share])
    if lens is not None:
        rows[0].append("up to")
        for row, (_, per_m) in zip(rows[1:], sorted(classes, key=lambda row: row[1]), strict=True):
            row.append(f"{lens.distance_m(per_m):.1f} m")
    return rows


def key_figures(figures: Figures, clock: str) -> Rows:
    """What was seen, in numbers; `clock` is whose time the capture is, as `Source.clock` tells it."""
    rows = [
        ["looks (a face in a frame)", f"{figures.looks}, {figures.accepted} of them recognizable"],
        ["people (tracks)", f"{figures.people}, {figures.recognizable} of them became recognizable"],
    ]
    if figures.recognizable:
        middle, most = (figures.wait_s.quantile(share) for share in (0.5, 0.9))
        rows.append(["until recognizable", f"{middle:.1f} s, for one in ten more than {most:.1f} s"])
    if figures.people:
        rows.append(["in view", f"{figures.in_view_s.quantile(0.5):.1f} s (half of the people)"])
    if figures.unfollowed:
        rows.append(["seen too briefly to follow", f"{figures.unfollowed} looks"])
    size = "" if figures.frame_size is None else f", {figures.frame_size[1]} x {figures.frame_size[0]} pixels"
    rows.append(["frames", f"{figures.frames}{size}"])
    if figures.seconds:
        rows.append(["of the stream", f"{figures.seconds:.0f} s"])
        rate = f"{figures.source_fps:.1f} from the source, {figures.fps:.1f} looked at"
        rows.append(["frames a second", rate])
    if figures.latency_ms.total:
        whose = "the camera's clock" if clock == "sender" else "its arrival at this machine"
        middle, most = (figures.latency_ms.quantile(share) for share in (0.5, 0.95))
        latency = f"{middle:.0f} ms, 95 % within {most:.0f} ms, capture by {whose}"
        rows.append(["from capture to event", latency])
    losses = {"dropped": figures.dropped, "too late": figures.late, "damaged": figures.damaged}
    if any(losses.values()):
        rows.append(["frames lost", ", ".join(f"{count} {name}" for name, count in losses.items() if count)])
    if figures.live:
        last = f", at last: {figures.outage_reason}" if figures.outages else ""
        rows.append(["times offline", f"{figures.outages}{last}"])
    return rows
