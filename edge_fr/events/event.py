"""Events, and their JSON."""

from __future__ import annotations

import json
import secrets
import time
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import Any

from edge_fr.structures import MASKED, Decision, Event, EventType, Face, Frame

_TYPE_OF: dict[str, EventType] = {
    "known": "face.identified",
    "unknown": "face.unknown",
    "unrecognizable": "face.unrecognizable",
}


def uuid7() -> str:
    """A UUID of version 7 (RFC 9562): its first 48 bits are the Unix time in milliseconds."""
    value = (time.time_ns() // 1_000_000) << 80 | secrets.randbits(80)
    value = value & ~(0xF << 76) | 0x7 << 76  # version
    value = value & ~(0x3 << 62) | 0x2 << 62  # variant
    text = f"{value:032x}"
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


@dataclass(frozen=True, eq=False, slots=True)
class Sighting:
    """A track as it was last seen: what an event tells of it, without the picture."""

    camera: str
    first_seen: datetime
    captured_at: datetime
    pts_ns: int
    frame_size: tuple[int, int]  # (height, width)
    face: Face


def sighting(frame: Frame, face: Face, first_seen: datetime) -> Sighting:
    """The face of a track in the frame; `first_seen` is the capture time of the track's first frame."""
    height, width = frame.image.shape[:2]
    face = replace(face, crop=None)
    return Sighting(frame.camera, first_seen, frame.captured_at, frame.pts_ns, (height, width), face)


def face_event(
    seen: Sighting,
    track_id: int,
    number: int,
    decision: Decision,
    model: dict[str, str],
    *,
    ended: bool = False,
) -> Event:
    """The track's event of that `number` (from 1): a new answer or its end, as of when it was last seen.

    The dedupe key is made of the camera, the track, when it was first seen, the event's number and what
    is said, so that the same stretch of video gives the same keys again.
    """
    kind: EventType = "face.ended" if ended else _TYPE_OF[decision.status]
    happened = f"{seen.first_seen.isoformat()}/{track_id}/{number}"
    return Event(
        event_id=uuid7(),
        dedupe_key=f"{seen.camera}/{happened}/{kind}/{decision.identity or ''}",
        type=kind,
        camera=seen.camera,
        captured_at=seen.captured_at,
        emitted_at=datetime.now(timezone.utc),
        pts_ns=seen.pts_ns,
        track_id=track_id,
        frame_size=seen.frame_size,
        face=seen.face,
        decision=decision,
        model=model,
    )


def to_json(event: Event) -> dict[str, Any]:
    """The event as JSON values. Embeddings and crops are never part of it."""
    values: dict[str, Any] = {
        "event_id": event.event_id,
        "dedupe_key": event.dedupe_key,
        "type": event.type,
        "camera": event.camera,
        "track_id": event.track_id,
        "captured_at": event.captured_at.isoformat(),
        "emitted_at": event.emitted_at.isoformat(),
        "pts_ns": event.pts_ns,
    }
    if event.face is not None:
        face = event.face
        values["box_px"] = [round(float(v), 1) for v in face.box]
        if event.frame_size is not None:
            height, width = event.frame_size
            x0, y0, x1, y1 = (float(v) for v in face.box)
            values["box_norm"] = [round(v, 4) for v in (x0 / width, y0 / height, x1 / width, y1 / height)]
        values["quality"] = {
            "score": _rounded(face.quality),
            "reasons": [str(refusal) for refusal in face.refusals],
        }
        values["ri"] = _rounded(face.ri)
    if event.decision is not None:
        decision = event.decision
        if decision.frames_used:  # what the answer rests on, not the face as it was last seen
            values["ri"] = _rounded(decision.ri)
        if decision.mask_prob is not None:
            state = "masked" if decision.mask_prob >= MASKED else "bare"
            values["mask"] = {"state": state, "score": _rounded(decision.mask_prob)}
        values["identity"] = decision.identity
        values["candidates"] = [
            {"identity": c.identity, "score": _rounded(c.score), "margin": _rounded(c.margin)}
            for c in decision.candidates
        ]
        values["decision"] = {
            "status": decision.status,
            "threshold": _rounded(decision.threshold),
            "target_fpir": decision.target_fpir,
            "frames_used": decision.frames_used,
            "reasons": [str(refusal) for refusal in decision.refusals],
        }
        values["model"] = event.model
    if event.reason:
        values["reason"] = event.reason
    return values


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def to_line(event: Event) -> str:
    """The event as one line of JSON; a file name that is no UTF-8 keeps its bytes as escapes."""
    text = json.dumps(to_json(event), ensure_ascii=False)
    return text.encode("utf-8", "backslashreplace").decode()
