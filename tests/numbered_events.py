"""Events that carry a number, for tests that count what arrived."""

from __future__ import annotations

import json
from datetime import datetime, timezone

from edge_fr.events import uuid7
from edge_fr.structures import Event


def numbered(number: int, *, camera: str = "door", padding: int = 0) -> Event:
    """An event whose `pts_ns` is the number, and its dedupe key, too; with so many bytes more."""
    now = datetime.now(timezone.utc)
    model = {"padding": "x" * padding} if padding else {}
    return Event(
        event_id=uuid7(),
        dedupe_key=f"{camera}/{number}",
        type="camera.online",
        camera=camera if not padding else camera + "/" + model["padding"],
        captured_at=now,
        emitted_at=now,
        pts_ns=number,
    )


def number_of(body: str | bytes) -> int:
    return int(json.loads(body)["pts_ns"])
