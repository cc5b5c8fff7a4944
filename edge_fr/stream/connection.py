"""One connection of a camera, and what is told of a camera."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple, Protocol

from edge_fr.stream.source import Clock
from edge_fr.structures import Frame


class Connection(Protocol):
    """What a camera needs of an open source; `Source` is one."""

    @property
    def reader(self) -> str: ...
    @property
    def clock(self) -> Clock: ...
    @property
    def dropped(self) -> int: ...
    @property
    def damaged(self) -> int: ...
    def __iter__(self) -> Iterator[Frame]: ...
    def close(self) -> None: ...


class CameraChange(NamedTuple):
    """A camera that went offline or came online, when, and why it went."""

    camera: str
    online: bool
    at: datetime
    pts_ns: int  # of its last frame, or of the first one of the new connection
    reason: str


@dataclass(frozen=True, slots=True)
class CameraCounters:
    """What a camera did since its start.

    `connects` connections gave a first frame, `failures` broke or never did. Of the `frames` that came,
    `dropped` were replaced by a newer one before they were taken (those that the reader itself dropped
    are in it as well, and not in `frames`); `damaged` could not be decoded. `stale` counts the times the
    frames stopped coming, `abandoned` the connections that were left behind because they did not react.
    """

    connects: int = 0
    failures: int = 0
    frames: int = 0
    dropped: int = 0
    damaged: int = 0
    stale: int = 0
    abandoned: int = 0


class Attempt:
    """One connection and its thread; `stop` tells it that it is no longer wanted."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.thread: threading.Thread | None = None
        self.connection: Connection | None = None
        self.origin_ns: int | None = None  # of its times, in the camera's
        self.done = False
        self.abandoned = False
