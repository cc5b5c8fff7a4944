"""A picture of how each tracked face grew from first sight to its answer, and why it was refused before."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.figure import Figure

from edge_fr import Decision, Event, Faces, Frame
from edge_fr.errors import MissingDependencyError

MOST_TRACKS = 8
MOST_SIGHTINGS = 200
COLUMNS = 8
GROWTH = 1.04  # a face is kept again when it grew by so much
GREEN, AMBER, GREY, INK, PALE = "#2b8a3e", "#d9730d", "#868e96", "#212529", "#ced4da"


@dataclass(frozen=True)
class Sighting:
    """A face in one frame: the pixels around it, BGR, and what the quality gate said."""

    pts_ns: int
    crop: NDArray[np.uint8]
    size_px: float
    quality: float | None
    refusals: tuple[str, ...]


@dataclass
class Track:
    """One person's walk through the picture."""

    sightings: list[Sighting] = field(default_factory=list)
    answers: list[tuple[int, Decision]] = field(default_factory=list)  # with the time, pts_ns


class ContactSheet:
    """Collects faces and answers while a pipeline runs: give it every frame, and use it as a sink.

    Keeps the first tracks, and of each the moments at which the face had grown or the gate changed its
    mind, so that it does not fill the memory of a camera that runs all day.
    """

    def __init__(self) -> None:
        self.tracks: dict[int, Track] = {}

    def see(self, frame: Frame, faces: Faces) -> None:
        """Takes one frame's faces, with all columns filled."""
        for face in faces:
            if face.track_id is None or face.track_id < 0:
                continue
            if face.track_id not in self.tracks and len(self.tracks) == MOST_TRACKS:
                continue
            seen = self.tracks.setdefault(face.track_id, Track()).sightings
            size_px = float(min(face.box[2] - face.box[0], face.box[3] - face.box[1]))
            grown = not seen or size_px >= GROWTH * max(s.size_px for s in seen)
            changed = seen and bool(seen[-1].refusals) != bool(face.refusals)
            if (grown or changed) and len(seen) < MOST_SIGHTINGS:
                refusals = tuple(map(str, face.refusals))
                crop = _around(frame.image, face.box)
                seen.append(Sighting(frame.pts_ns, crop, size_px, face.quality, refusals))

    def write(self, event: Event) -> None:
        """Takes an answer."""
        if event.decision is None or event.type == "face.ended" or event.track_id is None:
            return
        if event.track_id in self.tracks:
            self.tracks[event.track_id].answers.append((event.pts_ns, event.decision))

    def save(self, path: Path, *, credit: str = "") -> None:
        """Writes the sheet as a PNG, one row a track."""
        self.figure(credit).savefig(path)

    def figure(self, credit: str = "") -> Figure:
        """The sheet as a matplotlib figure."""
        rows = [track for _, track in sorted(self.tracks.items())]
        page = _Page(0.4 + COLUMNS * _STEP + 2.6, 1.2 + max(1, len(rows)) * _ROW)
        page.text(0.4, 0.28, "From first sight to an answer", 17, weight="bold")
        page.text(
            0.4,
            0.68,
            f"Faces as the camera saw them, every pixel enlarged; px is the shorter side. {credit}",
            9,
            GREY,
        )
        if not rows:
            page.text(0.4, 1.3, "No face was followed.", 12)
        for number, track in enumerate(rows):
            _draw_row(page, 1.2 + number * _ROW, track)
        return page.figure


def chosen(track: Track) -> list[int]:
    """Which sightings are shown, COLUMNS at most: from the first to the answer, evenly by size.

    The last one refused, the first one recognizable and the worst one refused after it are always
    among them.
    """
    seen = track.sightings
    first_good = next((i for i, s in enumerate(seen) if not s.refusals), None)
    until_ns = track.answers[-1][0] if track.answers else seen[-1].pts_ns
    last = max([i for i, s in enumerate(seen) if s.pts_ns <= until_ns], default=0)
    picked = {0, last}
    if first_good is not None:
        last = max(last, first_good)
        picked |= {max(0, first_good - 1), first_good, last}
        relapses = [i for i in range(first_good, last) if seen[i].refusals]
        picked |= set(sorted(relapses, key=lambda i: seen[i].quality or 0.0)[:1])
    size = np.log([s.size_px for s in seen])
    while len(picked) < min(COLUMNS, last + 1):  # the one least like those picked
        rest = [i for i in range(last + 1) if i not in picked]
        picked.add(max(rest, key=lambda i: min(abs(size[i] - size[p]) for p in picked)))
    return sorted(picked)


def _around(image: NDArray[np.uint8], box: NDArray[np.float32]) -> NDArray[np.uint8]:
    """A square of one and a half times the face's longer side, grey where the picture ends."""
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    half = max(2, round(0.75 * float(max(box[2] - box[0], box[3] - box[1]))))
    left, top = round(float(x)) - half, round(float(y)) - half
    square = np.full((2 * half, 2 * half, 3), 222, np.uint8)
    inside = image[max(0, top) : max(0, top + 2 * half), max(0, left) : max(0, left + 2 * half)]
    y0, x0 = max(0, -top), max(0, -left)
    square[y0 : y0 + inside.shape[0], x0 : x0 + inside.shape[1]] = inside
    return square if half <= 120 else cv2.resize(square, (240, 240), interpolation=cv2.INTER_AREA)  # type: ignore[return-value]


# --- typesetting, in inches from the top left corner ---

_SIDE, _STEP, _ROW = 1.42, 1.62, 2.8


class _Page:
    def __init__(self, width: float, height: float) -> None:
        try:
            from matplotlib.figure import Figure
        except ImportError as error:
            raise MissingDependencyError(
                "the contact sheet needs matplotlib: pip install matplotlib"
            ) from error
        self.size = width, height
        self.figure = Figure(figsize=self.size, dpi=120, facecolor="white")

    def text(
        self, x: float, y: float, text: str, size: float, colour: str = INK, weight: str = "normal"
    ) -> None:
        width, height = self.size
        self.figure.text(
            x / width,
            1 - y / height,
            text,
            fontsize=size,
            color=colour,
            weight=weight,
            va="top",
            parse_math=False,
        )

    def image(self, x: float, y: float, picture: NDArray[np.uint8], colour: str, line: float) -> None:
        width, height = self.size
        axes = self.figure.add_axes((x / width, 1 - (y + _SIDE) / height, _SIDE / width, _SIDE / height))
        axes.imshow(picture[..., ::-1], interpolation="nearest")
        axes.set(xticks=[], yticks=[])
        for spine in axes.spines.values():
            spine.set(color=colour, linewidth=line)


def _draw_row(page: _Page, top: float, track: Track) -> None:
    shown = [track.sightings[i] for i in chosen(track)]
    first_good = next((s for s in track.sightings if not s.refusals), None)
    for column, sighting in enumerate(shown):
        x = 0.4 + column * _STEP
        turn = sighting is first_good
        page.image(x, top, sighting.crop, PALE if sighting.refusals else GREEN, 4 if turn else 1.5)
        page.text(x, top + 1.52, f"{sighting.size_px:.0f} px", 11, weight="bold")
        quality = "" if sighting.quality is None else f"quality {sighting.quality:.2f}, "
        page.text(x, top + 1.76, f"{quality}{sighting.pts_ns / 1e9:.1f} s", 8, GREY)
        if sighting.refusals:
            more = len(sighting.refusals) - 1
            text = _wrapped(sighting.refusals[0], 23, 4) + (f"\n(and {more} more)" if more else "")
            page.text(x, top + 1.95, text, 8)
        else:
            text = "now recognizable" if turn else "recognizable"
            page.text(x, top + 1.95, text, 8, GREEN, "bold" if turn else "normal")
    _draw_answer(page, 0.4 + COLUMNS * _STEP + 0.1, top, track)


def _draw_answer(page: _Page, x: float, top: float, track: Track) -> None:
    if not track.answers:
        page.text(x, top, "no answer yet", 13, GREY, "bold")
        return
    pts_ns, decision = track.answers[-1]
    colour = {"known": GREEN, "unknown": AMBER, "unrecognizable": GREY}[decision.status]
    page.text(x, top, decision.status, 13, colour, "bold")
    y = top + 0.3
    if decision.identity is not None:
        name = _wrapped(decision.identity, 22, 3)
        page.text(x, y, name, 13, weight="bold")
        y += 0.24 * (1 + name.count("\n")) + 0.06
    lines = [f"at {pts_ns / 1e9:.1f} s, from {decision.frames_used} frames"]
    if decision.candidates:
        best = decision.candidates[0]
        lines.append(
            f"score {best.score:.2f}" if decision.identity else f"nearest {best.identity}, {best.score:.2f}"
        )
        lines.append(f"needs {decision.threshold:.2f}")
    lines += [f"before: {earlier.status}, at {ns / 1e9:.1f} s" for ns, earlier in track.answers[-3:-1]]
    page.text(x, y, "\n".join(_wrapped(line, 36, 2) for line in lines), 9)


def _wrapped(text: str, letters: int, lines: int) -> str:
    return "\n".join(textwrap.wrap(text, letters, max_lines=lines, placeholder=" ..."))
