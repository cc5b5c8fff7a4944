"""Boxes, names and refusals drawn on pictures.

Green is a known person, amber an unknown one, grey a face that cannot be recognized, with the reason;
a thin white box is a face without an answer yet.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_fr.mp4 import Codec, Mp4Writer
from edge_fr.structures import Decision, Face, Faces, Frame

KNOWN_BGR = (92, 184, 54)
UNKNOWN_BGR = (20, 166, 250)
REFUSED_BGR = (158, 158, 158)
PENDING_BGR = (255, 255, 255)

Picture = NDArray[np.uint8]
Colour = tuple[int, int, int]
Rectangle = tuple[int, int, int, int]  # left, top, right, bottom; right and bottom outside

_FONT = cv2.FONT_HERSHEY_SIMPLEX


def draw(image: Picture, faces: Faces, labels: Mapping[int, Decision]) -> Picture:
    """A copy of the picture with a box around every face, and what is known about it.

    `labels` holds the current answer of the tracks that have one, by track id; `Step.decisions`
    gives it. A label is moved or shortened rather than cut off at the picture's edge.
    """
    picture = image.copy()
    boxes = [_clamped(face.box, picture) for face in faces]
    taken: list[Rectangle] = [box for box in boxes if box is not None]
    # By track, so that labels keep their places while the detector's order changes.
    order = range(len(faces)) if faces.track_ids is None else np.argsort(faces.track_ids, kind="stable")
    for i in order:
        face, box = faces[int(i)], boxes[i]
        if box is None:  # wholly outside
            continue
        decision = None if face.track_id is None else labels.get(face.track_id)
        colour, text = _said(face, decision)
        _draw_box(picture, box, colour)
        if text:
            place = _draw_label(picture, text, colour, box, taken)
            taken += [place] if place else []
    return picture


def _said(face: Face, decision: Decision | None) -> tuple[Colour, str]:
    """The colour and the words for a face."""
    if decision is not None and decision.status == "known":
        score = next((c.score for c in decision.candidates if c.identity == decision.identity), None)
        return KNOWN_BGR, f"{decision.identity}" + ("" if score is None else f"  {score:.2f}")
    if decision is not None and decision.status == "unknown":
        return UNKNOWN_BGR, "unknown"
    refusals = face.refusals or (() if decision is None else decision.refusals)
    if refusals:
        return REFUSED_BGR, str(refusals[0])
    return (PENDING_BGR, "") if decision is None else (REFUSED_BGR, "unrecognizable")


def _draw_box(picture: Picture, box: Rectangle, colour: Colour) -> None:
    """A frame whose inner rim is the box; a thin one, with room around it, where the face is small."""
    small = min(box[2] - box[0], box[3] - box[1]) < 48
    width_px = 1 if small or colour == PENDING_BGR else max(2, round(min(picture.shape[:2]) / 360))
    out = width_px + (2 if small else 0)
    height, width = picture.shape[:2]
    left, top = max(0, box[0] - out), max(0, box[1] - out)
    right, bottom = min(width, box[2] + out), min(height, box[3] + out)
    picture[top:bottom, left : left + width_px] = colour
    picture[top:bottom, right - width_px : right] = colour
    picture[top : top + width_px, left:right] = colour
    picture[bottom - width_px : bottom, left:right] = colour


def _clamped(box: NDArray[np.float32], picture: Picture) -> Rectangle | None:
    height, width = picture.shape[:2]
    left, top = (max(0, round(float(v))) for v in box[:2])
    right, bottom = min(width, round(float(box[2]))), min(height, round(float(box[3])))
    return (left, top, right, bottom) if right > left and bottom > top else None


def _draw_label(
    picture: Picture, text: str, colour: Colour, box: Rectangle, taken: list[Rectangle]
) -> Rectangle | None:
    """Writes the words near the box, and returns where; None if the picture is too small for any."""
    height, width = picture.shape[:2]
    quiet = colour == REFUSED_BGR
    scale = max(0.38, min(height, width) / (1500 if quiet else 1250))
    weight = 1 if scale < 0.9 else 2
    pad = max(3, round(7 * scale))
    text, text_w = _shortened(_drawable(text), width - 2 * pad, scale, weight)
    (_, ascent), descent = cv2.getTextSize("Ag", _FONT, scale, weight)
    tall = ascent + descent + 2 * pad
    if not text or tall > height:
        return None
    place = _free_place((text_w + 2 * pad, tall), box, (height, width), taken)
    left, top, right, bottom = place
    panel = picture[top:bottom, left:right]
    if quiet:
        panel[:] = panel // 4
        ink: Colour = (225, 225, 225)
    else:
        panel[:] = colour
        ink = (12, 12, 12)
    cv2.putText(picture, text, (left + pad, top + pad + ascent), _FONT, scale, ink, weight, cv2.LINE_AA)
    return place


def _drawable(text: str) -> str:
    """The text in letters the font has: OpenCV 4 draws ASCII only."""
    text = "".join(letter if letter.isprintable() else "?" for letter in text)
    if hasattr(cv2, "FontFace"):  # OpenCV 5
        return text
    plain = unicodedata.normalize("NFKD", text)
    return "".join(c for c in plain if not unicodedata.combining(c)).encode("ascii", "replace").decode()


def _shortened(text: str, room_px: int, scale: float, weight: int) -> tuple[str, int]:
    """As much of the text as fits, and its width; "" if not even one letter and dots do."""
    shown = text
    while True:
        wide = cv2.getTextSize(shown, _FONT, scale, weight)[0][0] + weight
        if wide <= room_px:
            return shown, wide
        if len(text) <= 1:
            return "", 0
        text = text[:-1]
        shown = text.rstrip() + "..."


def _free_place(
    size: tuple[int, int], box: Rectangle, picture_size: tuple[int, int], taken: list[Rectangle]
) -> Rectangle:
    """Above the box, else below, else further away; over something only where all is taken."""
    (wide, tall), (height, width) = size, picture_size
    apart = 4  # the frame around the box
    left = box[0] - apart if wide < 2 * (box[2] - box[0]) else (box[0] + box[2] - wide) // 2
    left = min(max(0, left), width - wide)
    tops = [
        top
        for step in range(4)
        for top in (box[1] - apart - (step + 1) * (tall + 1), box[3] + apart + step * (tall + 1))
    ]
    places = [(left, top, left + wide, top + tall) for top in tops if 0 <= top <= height - tall]
    for place in places:
        if not any(_overlap(place, other) for other in taken):
            return place
    inside = min(max(0, box[1]), height - tall)
    return places[0] if places else (left, inside, left + wide, inside + tall)


def _overlap(a: Rectangle, b: Rectangle) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


class VideoAnnotator:
    """Writes frames with their boxes and names to an MP4 file; `Mp4Writer` tells its rate and codec."""

    def __init__(self, path: str | Path, *, codec: Codec | None = None) -> None:
        self._video = Mp4Writer(path, codec=codec)

    @property
    def codec(self) -> Codec:
        """Which codec was taken."""
        return self._video.codec

    def write(self, frame: Frame, faces: Faces, labels: Mapping[int, Decision]) -> None:
        """Draws the faces and answers on the frame and appends it."""
        self._video.write(draw(frame.image, faces, labels), frame.pts_ns)

    def close(self) -> None:
        """Finishes the file; without this it does not play."""
        self._video.close()

    def __enter__(self) -> VideoAnnotator:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
