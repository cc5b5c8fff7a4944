"""From a folder of pictures or a video to what a model is calibrated on, through the runtime's own stages.

Faces are found, judged and aligned as the pipeline does it, so that the model sees in calibration what it
will see in use. A test picture among them would flatter every figure measured later: it is an error.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from calibration.datasets.pictures import SUFFIXES, pictures_in
from edge_fr.cards import file_digest
from edge_fr.detect import Detector
from edge_fr.errors import InputError
from edge_fr.image import align, read_image
from edge_fr.measures import head_pose
from edge_fr.quality import QualityGate
from edge_fr.stream import open_source
from edge_fr.structures import CROP_SIDE_PX, Faces, Frame

TURNED_DEG = 25.0  # of yaw: from here on an eye begins to disappear
_EVERY_NS = 200_000_000  # of a video: frames nearer to each other show the same faces again
_NAMED = 5  # how many culprits an error lists


@dataclass(eq=False)
class Gathered:
    """Aligned crops (112, 112, 3) BGR, whether each face is `turned`, and what was left out: faces by the
    reasons of their refusal (one face may have several), pictures without a face by name."""

    crops: list[NDArray[np.uint8]] = field(default_factory=list)
    turned: list[bool] = field(default_factory=list)
    refused: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    faceless: list[str] = field(default_factory=list)


class Forbidden:
    """Pictures and people that must not be in a calibration set.

    `source` is a folder of pictures, or a text or CSV file whose first column holds names of pictures,
    names of people, or sha256:... of picture files.
    """

    def __init__(self, source: Path) -> None:
        self._names: set[str] = set()
        self._digests: set[str] = set()
        if source.is_dir():
            files = pictures_in(source, expected="the pictures that must not be calibrated on")
            self._names = {file.stem for file in files}
            self._digests = {file_digest(file) for file in files}
            return
        try:
            with source.open(newline="", encoding="utf-8") as file:
                cells = [row[0].strip() for row in csv.reader(file) if row and row[0].strip()]
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise InputError(f"{source} cannot be read ({error}), expected a folder, or a list") from error
        for cell in cells:
            if cell.startswith("sha256:"):
                self._digests.add(cell.removeprefix("sha256:"))
            else:
                name = Path(cell)
                self._names.add(name.stem if name.suffix.lower() in SUFFIXES else cell)
        if not cells:
            raise InputError(f"{source} is empty, expected a name or sha256:... in each line")

    def refuse(self, files: list[Path]) -> None:
        """InputError that names the pictures which are, or show somebody who is, forbidden.

        Whom a picture shows is told by its folder's name, or by its own without a number at the end.
        """
        found = [file for file in files if self._names & _names(file) or file_digest(file) in self._digests]
        if found:
            more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
            named = ", ".join(str(file) for file in found[:_NAMED])
            raise InputError(
                f"{len(found)} of {len(files)} pictures must not be calibrated on, as the results are "
                f"measured on them or on the people they show: {named}{more}; take them out"
            )


def gather_faces(
    source: Path, detector: Detector, gate: QualityGate, forbidden: Forbidden | None
) -> Gathered:
    """Every face of a folder's pictures (subfolders too) or of a video that passes the quality gate."""
    found = Gathered()
    for name, frame in _frames(source, forbidden):
        faces = gate(frame, detector(frame, Faces.empty()))
        if len(faces) == 0:
            found.faceless.append(name)
            continue
        assert faces.refusals is not None
        passed = np.array([not reasons for reasons in faces.refusals])
        found.refused += int((~passed).sum())
        found.reasons.update(r.component for reasons in faces.refusals for r in reasons)
        kept = faces[passed]
        yaw, _, _ = head_pose(kept.landmarks)
        found.crops.extend(align(frame.image, kept.landmarks))
        found.turned.extend(bool(abs(angle) >= TURNED_DEG) for angle in yaw)
    return found


def gather_aligned(source: Path, forbidden: Forbidden | None) -> Gathered:
    """A folder of crops that are aligned already; InputError for a picture of another size."""
    files = pictures_in(source, expected="aligned crops of 112x112 px")
    if forbidden is not None:
        forbidden.refuse(files)
    found = Gathered()
    for file in files:
        image = read_image(file)
        if image.shape != (CROP_SIDE_PX, CROP_SIDE_PX, 3):
            raise InputError(
                f"{file} is {image.shape[1]}x{image.shape[0]}, expected an aligned crop of 112x112; without "
                f"--aligned the faces are found and aligned"
            )
        found.crops.append(image)
        found.turned.append(False)
    return found


def gather_frames(source: Path, forbidden: Forbidden | None) -> list[NDArray[np.uint8]]:
    """Whole pictures of a folder or a video, for a detector."""
    return [frame.image for _, frame in _frames(source, forbidden)]


def _frames(source: Path, forbidden: Forbidden | None) -> Iterator[tuple[str, Frame]]:
    if source.is_dir():
        files = pictures_in(source, expected="pictures, or a video")
        if forbidden is not None:
            forbidden.refuse(files)
        for index, file in enumerate(files):
            yield file.name, Frame(read_image(file), index, datetime.now(timezone.utc))
        return
    if forbidden is not None:
        forbidden.refuse([source])
    with open_source(source) as frames:
        due_ns = 0
        for frame in frames:
            if frame.pts_ns >= due_ns:
                due_ns = frame.pts_ns + _EVERY_NS
                yield f"frame {frame.index}", frame


def _names(file: Path) -> set[str]:
    return {file.stem, file.parent.name, re.sub(r"[_-]?\d+$", "", file.stem)} - {""}
