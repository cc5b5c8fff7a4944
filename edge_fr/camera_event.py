"""The events of a camera that comes and goes."""

from __future__ import annotations

from datetime import datetime, timezone

from edge_fr.events import uuid7
from edge_fr.structures import Event, EventType


def camera_event(camera: str, *, online: bool, at: datetime, pts_ns: int, reason: str = "") -> Event:
    """A camera that came online or went offline at that moment; `reason` is why it went.

    The dedupe key is made of the camera, the moment and which of the two it was.
    """
    kind: EventType = "camera.online" if online else "camera.offline"
    return Event(
        event_id=uuid7(),
        dedupe_key=f"{camera}/{at.isoformat()}/{kind}",
        type=kind,
        camera=camera,
        captured_at=at,
        emitted_at=datetime.now(timezone.utc),
        pts_ns=pts_ns,
        reason=reason,
    )
