"""Picture files to aligned crops."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.datasets.dataset import Crops
from calibration.tight import detect_tight
from edge_fr.detect import Detector
from edge_fr.errors import InputError
from edge_fr.image import align, read_image
from edge_fr.structures import CROP_SIDE_PX

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp")
_CROP_SHAPE = (CROP_SIDE_PX, CROP_SIDE_PX, 3)
_MIN_SCORE = 0.5  # a face with less is more often somewhere else


def crop_reader(files: list[Path], folder: Path, detector: Detector | None, whole: set[str]) -> Crops:
    """Reads files as aligned crops: a 112x112 picture is one, in any other the detector's largest face
    is aligned. Where it finds none the picture is taken whole, and its path below `folder` goes into
    `whole`."""

    def read(i: int) -> NDArray[np.uint8]:
        image = read_image(files[i])
        if image.shape == _CROP_SHAPE:
            return image
        if detector is None:
            raise InputError(
                f"{files[i]} is {image.shape[1]}x{image.shape[0]}, expected an aligned 112x112 crop; name a "
                f"detector to find and align the faces: --detector yunet"
            )
        faces = detect_tight(detector, image)
        faces = faces[faces.scores >= _MIN_SCORE]
        if len(faces) == 0:
            whole.add(files[i].relative_to(folder).as_posix())
            return np.asarray(cv2.resize(image, _CROP_SHAPE[:2], interpolation=cv2.INTER_CUBIC), np.uint8)
        largest = int((faces.boxes[:, 2:] - faces.boxes[:, :2]).prod(axis=1).argmax())
        (crop,) = align(image, faces.landmarks[largest][None])
        return np.asarray(crop, np.uint8)

    return Crops(read)


def pictures_in(folder: Path, *, expected: str) -> list[Path]:
    """The pictures in a folder and those below it, by name; InputError when there is none."""
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not found:
        what = "is no folder" if not folder.is_dir() else "holds no picture"
        raise InputError(f"{folder} {what}; expected {expected}")
    return found


def require_files(files: Collection[Path], source: Path) -> None:
    """InputError when pictures that `source` names are missing; looks at each folder once."""
    there = {
        folder: {path.name for path in folder.iterdir()} if folder.is_dir() else set[str]()
        for folder in {file.parent for file in files}
    }
    missing = sorted(file for file in files if file.name not in there[file.parent])
    if missing:
        raise InputError(
            f"{len(missing)} of the {len(files)} pictures that {source} names are missing, the first is "
            f"{missing[0]}"
        )


def read_lines(path: Path, *, expected: str) -> list[str]:
    """The lines of a text file; InputError when it is missing, empty or no text."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read ({error}); expected {expected}") from error
    if not lines:
        raise InputError(f"{path} is empty; expected {expected}")
    return lines
