"""One connection to a camera, file or folder, as an iterator of frames."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import TracebackType
from typing import Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from edge_fr.errors import SourceReadError
from edge_fr.picture_header import turned_upright
from edge_fr.stream.geometry import Mounting
from edge_fr.stream.uri import Address
from edge_fr.structures import Frame

Clock = Literal["sender", "arrival", "file"]


class Skipped(NamedTuple):
    """A file of a folder that gave no frame, and why."""

    what: str
    reason: str


class Reading(NamedTuple):
    """What a reader got: a picture of its own, the stream's time (None: not told), the wall clock (live),
    and whether that is the camera's own."""

    image: NDArray[np.uint8]
    pts_ns: int | None
    captured_at: datetime | None = None
    name: str | None = None  # of a picture in a folder
    by_sender: bool = False
    pixel_aspect: float = 1.0  # the width of a pixel for its height, as the stream declares it


@dataclass(slots=True)
class Losses:
    """What a reader could not deliver so far."""

    skipped: list[Skipped] = field(default_factory=list)
    damaged: int = 0
    dropped: int = 0


class Reader(Protocol):
    """What a reader is to a `Source`: pictures in order, then None."""

    @property
    def name(self) -> str: ...
    @property
    def frame_count(self) -> int | None: ...
    @property
    def period_ns(self) -> int:
        """The nominal time from one frame to the next, used where the stream tells no time."""
        ...

    @property
    def losses(self) -> Losses: ...
    def read(self) -> Reading | None:
        """The next picture, or None at the end. Raises SourceReadError with the bare reason."""
        ...

    def close(self) -> None: ...


def modified_at(path: Path) -> datetime:
    """The file's modification time."""
    return datetime.fromtimestamp(path.stat().st_mtime, timezone.utc)


class Source:
    """One connection to a camera, file or folder: a context manager and an iterator of `Frame`.

    `pts_ns` counts from the first frame. It is the stream's own time; where the stream tells none, or
    jumps back, it goes on by the nominal frame period. `captured_at` is, for a live source, the wall
    clock when the picture reached this machine, or was taken where the camera says so believably;
    `clock` tells which. For a video file it is when the file says that it was made, or else its
    modification time, plus `pts_ns`, so that two runs agree; for a picture, when it says that it was taken,
    or else its file's modification time.

    Frames are upright and have square pixels, and stand as `mounting` says.

    `Frame.camera` is `camera`, and for a picture of a folder `camera/file`.

    A file that was cut short gives its frames up to the break and then raises SourceReadError. A live
    source has no end: when it stops, that is a SourceReadError, and connecting again takes a new Source.
    Read from one thread; `close`, from any thread, ends the iteration.
    """

    def __init__(
        self,
        address: Address,
        reader: Reader,
        *,
        camera: str | None = None,
        started_at: datetime | None = None,
        cut: str | None = None,
        mounting: Mounting | None = None,
        orientation: int = 1,
    ) -> None:
        self.uri = address.shown
        self.camera = address.camera if camera is None else camera
        self.live = address.live
        self.frame_count = reader.frame_count
        self.reader = reader.name
        self.clock: Clock = "arrival" if address.live else "file"
        """Whose time `captured_at` of the last frame is: the camera's ("sender": its RTCP sender reports),
        this machine's when the frame arrived, or the file's."""
        self._reader = reader
        self._started_at = started_at or datetime.now(timezone.utc)
        self._cut = cut
        self._mounting = mounting or Mounting()
        self._orientation = orientation  # what the reader leaves to be done
        self._origin_ns: int | None = None
        self._last_ns = 0
        self._index = 0
        self._ended = False

    @property
    def skipped(self) -> tuple[Skipped, ...]:
        """The files of a folder that gave no frame so far."""
        return tuple(self._reader.losses.skipped)

    @property
    def damaged(self) -> int:
        """Frames of a video that could not be decoded so far, where the reader is told of them."""
        return self._reader.losses.damaged

    @property
    def dropped(self) -> int:
        """Frames of a live source that a newer one replaced before they were read, to within one."""
        return self._reader.losses.dropped

    def __iter__(self) -> Iterator[Frame]:
        return self

    def __next__(self) -> Frame:
        if self._ended:
            raise StopIteration
        try:
            reading = self._reader.read()
        except SourceReadError as error:
            if self._ended:  # another thread closed it meanwhile
                raise StopIteration from error
            self.close()
            raise self._broken(str(error)) from error
        if reading is None:
            self._finish()
            raise StopIteration
        if self.live:
            self.clock = "sender" if reading.by_sender else "arrival"
        pts_ns = self._time(reading.pts_ns)
        captured_at = reading.captured_at or self._started_at + timedelta(microseconds=pts_ns // 1000)
        camera = f"{self.camera}/{reading.name}" if reading.name else self.camera
        image = reading.image
        if self._orientation != 1:
            image = turned_upright(image, self._orientation)
        image = self._mounting.applied(image, reading.pixel_aspect)
        frame = Frame(image, pts_ns, captured_at, camera, self._index)
        self._index += 1
        return frame

    def close(self) -> None:
        """Lets go of the camera or file; the iteration is then over. May be called twice."""
        self._ended = True
        self._reader.close()

    def __enter__(self) -> Source:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _time(self, raw_ns: int | None) -> int:
        follows_ns = self._last_ns + self._reader.period_ns if self._index else 0
        if raw_ns is None:
            self._last_ns = follows_ns
            return follows_ns
        if self._origin_ns is None or raw_ns - self._origin_ns < self._last_ns:
            self._origin_ns = raw_ns - follows_ns
        self._last_ns = raw_ns - self._origin_ns
        return self._last_ns

    def _finish(self) -> None:
        closed_by_caller = self._ended
        self.close()
        if closed_by_caller:
            return
        if self.live:
            raise self._broken("the stream was closed at the other end")
        if self._index == 0:
            reasons = [f"{s.what}: {s.reason}" for s in self.skipped[:3]]
            raise SourceReadError(f"{self.uri} gave not a single frame. {'; '.join(reasons)}".rstrip(". "))
        if self._cut:
            raise self._broken(self._cut)

    def _broken(self, reason: str) -> SourceReadError:
        of = f" of about {self.frame_count}" if self.frame_count else ""
        return SourceReadError(f"{self.uri} broke off after {self._index}{of} frames: {reason}")
