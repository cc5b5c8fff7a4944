"""The events of a camera that comes and goes."""

from __future__ import annotations

from datetime import datetime, timezone

from edge_fr.events import uuid7
from edge_fr.stream.connection import CameraChange
from edge_fr.structures import Event, EventType


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
