"""Whether a site does what it is there for, for whoever supervises it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from edge_fr.errors import EventError
from edge_fr.events import Outbox
from edge_fr.gallery import Gallery
from edge_fr.lane import Lane

STUCK_AFTER_S = 30.0  # the loop turns four times a second, or as often as a round of pictures is done
OUTDATED_AFTER_S = 10.0  # an enrolment may lock the gallery for a few seconds, a backup take its place


class Health(NamedTuple):
    """The verdict, why it is a bad one, and the details that JSON can hold."""

    ok: bool
    reasons: tuple[str, ...]
    details: dict[str, Any]


class HealthCheck:
    """Judges a fleet's lanes, its loop, and its outbox and gallery, if it has them.

    A site is not healthy when

    - the fleet's loop has not turned for `stuck_after_s`: pictures are no longer looked at;
    - a receiver of the outbox did not take what was last sent to it, or the outbox cannot be read: events
      are kept, and nobody learns of them;
    - the gallery has been in trouble, and was last read more than 10 s ago: people who were removed since are
      still recognized, those who were enrolled are not;
    - frames of a camera come so far apart that nobody can be followed, and so nobody is reported;
    - no camera is online, of those that have not come to their end.

    A camera that is away while another is online is told in the details and is no failure: one camera at
    a time may be cleaned. A stale one is still online; its connection is given up soon, or its frames come.
    """

    def __init__(
        self,
        lanes: Sequence[Lane],
        outbox: Outbox | None = None,
        *,
        gallery: Gallery | None = None,
        stuck_after_s: float = STUCK_AFTER_S,
        now_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._lanes = lanes
        self._outbox = outbox
        self._gallery = gallery
        self._stuck_after_s = stuck_after_s
        self._now_ns = now_ns
        self._turned_ns = now_ns()

    def turned(self) -> None:
        """The fleet's loop has turned: hand this to the fleet as `on_turn`."""
        self._turned_ns = self._now_ns()

    @property
    def tried(self) -> bool:
        """Whether a camera runs, or all were tried: the site has begun."""
        states = [lane.camera.state for lane in self._lanes]
        return "RUNNING" in states or "CONNECTING" not in states

    def report(self) -> Health:
        """The verdict now; from any thread."""
        idle_s = (self._now_ns() - self._turned_ns) / 1e9
        reasons = []
        if idle_s > self._stuck_after_s:
            reasons.append(f"the loop has not turned for {idle_s:.0f} s")
        cameras = {lane.camera.name: (lane.camera.state, lane.camera.reason) for lane in self._lanes}
        expected = [state for state, _ in cameras.values() if state != "ENDED"]
        if expected and not any(state in ("RUNNING", "STALE") for state in expected):
            reasons.append("no camera is online")
        for lane in self._lanes:
            if lane.pipeline.too_slow:
                reasons.append(f"{lane.camera.name}: frames come more than 10 s apart, so nobody is reported")
        receivers: dict[str, Any] = {}
        if self._outbox is not None:
            try:
                for name, status in self._outbox.status().items():
                    receivers[name] = {"waiting": status.waiting, "trouble": status.trouble}
                    if status.trouble is not None:
                        reasons.append(f"{name}: {status.trouble}")
            except EventError as error:
                reasons.append(str(error))
        details: dict[str, Any] = {
            "loop_turned_s_ago": round(idle_s, 3),
            "cameras": {name: {"state": state, "reason": why} for name, (state, why) in cameras.items()},
            "receivers": receivers,
        }
        if self._gallery is not None:
            trouble, age_s = self._gallery.trouble, self._gallery.age_s
            details["gallery"] = {"read_s_ago": round(age_s, 3), "trouble": trouble}
            if trouble is not None and age_s > OUTDATED_AFTER_S:
                reasons.append(f"people are recognized as they were enrolled {age_s:.0f} s ago: {trouble}")
        return Health(not reasons, tuple(reasons), details)
