"""A camera that comes and goes: what a loop over it needs of it, and its events."""

from __future__ import annotations

import threading
from datetime import datetime, timezone
from typing import Protocol

from edge_fr.errors import EdgeFrError
from edge_fr.events import uuid7
from edge_fr.pipeline import Pipeline
from edge_fr.stream.connection import CameraChange, CameraCounters
from edge_fr.stream.reconnect import State
from edge_fr.structures import Event, EventType, Frame


class Supply(Protocol):
    """What a loop, and those who watch it, need of a camera; `edge_fr.stream.Camera` is one."""

    wake: threading.Event

    @property
    def name(self) -> str: ...
    @property
    def live(self) -> bool: ...
    @property
    def over(self) -> bool: ...
    @property
    def state(self) -> State: ...
    @property
    def reason(self) -> str: ...
    @property
    def error(self) -> EdgeFrError | None: ...
    @property
    def hanging(self) -> int: ...
    @property
    def counters(self) -> CameraCounters: ...
    def start(self) -> None: ...
    def take(self) -> Frame | None: ...
    def take_changes(self) -> list[CameraChange]: ...
    def end(self) -> None: ...
    def close(self, timeout_s: float) -> None: ...


def turns(camera: Supply, pipeline: Pipeline) -> list[Event]:
    """The events of a camera that came or went, and before them the last ones of its tracks, which outlive
    neither a connection nor its falling silent."""
    events = list(pipeline.finish()) if camera.state == "STALE" else []
    for change in camera.take_changes():
        events += [*(() if change.online else pipeline.finish()), camera_event(change)]
    return events


def camera_event(change: CameraChange) -> Event:
    """The event of a camera that came online or went offline.

    The dedupe key is made of the camera, the moment and which of the two it was.
    """
    kind: EventType = "camera.online" if change.online else "camera.offline"
    return Event(
        event_id=uuid7(),
        dedupe_key=f"{change.camera}/{change.at.isoformat()}/{kind}",
        type=kind,
        camera=change.camera,
        captured_at=change.at,
        emitted_at=datetime.now(timezone.utc),
        pts_ns=change.pts_ns,
        reason=change.reason,
    )
