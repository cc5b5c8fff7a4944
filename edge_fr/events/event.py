"""Events, and their JSON."""

from __future__ import annotations

import math
import secrets
import time
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import Any

import numpy as np

from edge_fr.printable import json_line
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


def to_json(event: Event, *, candidates: bool = False) -> dict[str, Any]:
    """The event as JSON values, without embeddings and crops; a number that is not finite is None.

    Of the decision's candidates those are told that reach the threshold, and the person named. `candidates`
    tells all: most of them are people who were not there.
    """
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
        box = face.box.astype(np.float64)
        if event.frame_size is None:
            values["box_px"] = [_rounded(v, 1) for v in box]
        else:
            sides = np.array(event.frame_size[::-1] * 2)
            box = box.clip(0, sides)  # a detector's box may reach out of the picture
            values["box_px"] = [_rounded(v, 1) for v in box]
            values["box_norm"] = [_rounded(v) for v in box / sides]
        values["quality"] = {
            "score": _rounded(face.quality),
            "reasons": [str(refusal) for refusal in face.refusals],
            "codes": [refusal.component for refusal in face.refusals],
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
            if candidates or c.score >= decision.threshold or c.identity == decision.identity
        ]
        values["decision"] = {
            "status": decision.status,
            "threshold": _rounded(decision.threshold),
            "target_fpir": None if decision.target_fpir is None else _rounded(decision.target_fpir, 12),
            "frames_used": decision.frames_used,
            "reasons": [str(refusal) for refusal in decision.refusals],
            "codes": [refusal.component for refusal in decision.refusals],
        }
        values["model"] = event.model
    if event.reason:
        values["reason"] = event.reason
    return values


def _rounded(value: float | None, digits: int = 4) -> float | None:
    return None if value is None or not math.isfinite(value) else round(float(value), digits)


def to_line(event: Event, *, candidates: bool = False) -> str:
    """The event as one line of JSON, see `to_json`; what a file's name holds that is no UTF-8 is escaped."""
    return json_line(to_json(event, candidates=candidates))
