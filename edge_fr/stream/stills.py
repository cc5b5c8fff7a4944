"""Pictures as a source: one file, or a folder in natural order."""

from __future__ import annotations

import re
from pathlib import Path

from edge_fr.errors import ImageError, SourceOpenError
from edge_fr.image import read_picture
from edge_fr.stream.content import why_no_picture
from edge_fr.stream.source import Losses, Reading, Skipped, modified_at

PERIOD_NS = 10_000_000_000  # pictures are no video: far enough apart that no track joins two of them


class StillsReader:
    """Reads pictures one by one, PERIOD_NS apart; one that cannot be read is skipped and noted.

    `others` are entries of the folder that are no pictures: noted from the start.
    """

    name = "pictures"
    period_ns = PERIOD_NS

    def __init__(self, pictures: list[Path], others: list[Skipped]) -> None:
        self.frame_count = len(pictures)
        self.losses = Losses(skipped=others)
        self._pictures = iter(pictures)

    def read(self) -> Reading | None:
        for path in self._pictures:
            try:
                picture = read_picture(path)
            except ImageError as error:
                self.losses.skipped.append(Skipped(path.name, str(error)))
                continue
            return Reading(picture.image, None, picture.taken_at or modified_at(path), path.name)
        return None

    def close(self) -> None:
        self._pictures = iter(())


class PictureReader:
    """Reads one picture, at once: a picture that cannot be read raises ImageError here."""

    name = "pictures"
    period_ns = PERIOD_NS
    frame_count = 1

    def __init__(self, path: Path) -> None:
        self.losses = Losses()
        picture = read_picture(path)
        self._reading: Reading | None = Reading(picture.image, None, picture.taken_at or modified_at(path))

    def read(self) -> Reading | None:
        reading, self._reading = self._reading, None
        return reading

    def close(self) -> None:
        self._reading = None


def open_folder(folder: Path) -> StillsReader:
    """A reader of the pictures that lie in a folder itself, by their content; hidden files are passed over.

    Raises SourceOpenError when there is no picture.
    """
    try:
        entries = sorted((p for p in folder.iterdir() if not p.name.startswith(".")), key=natural)
    except OSError as error:
        raise SourceOpenError(f"cannot list the folder {folder}: {error.strerror}") from error
    pictures, others = [], []
    for path in entries:
        if path.is_dir():
            others.append(Skipped(path.name, "a folder; give it as a source of its own"))
        elif (reason := why_no_picture(path)) is not None:
            others.append(Skipped(path.name, reason))
        else:
            pictures.append(path)
    if not pictures:
        holds = f"holds no picture among {len(entries)} entries" if entries else "is empty"
        raise SourceOpenError(f"the folder {folder} {holds}, expected JPEG, PNG, WebP, BMP or TIFF files")
    return StillsReader(pictures, others)


def natural(path: Path) -> list[str | int]:
    """Sort key that puts picture2 before picture10."""
    parts = re.split(r"([0-9]+)", path.name.casefold())
    return [int(part) if i % 2 else part for i, part in enumerate(parts)]
