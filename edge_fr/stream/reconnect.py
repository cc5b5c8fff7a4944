"""The one state machine that keeps a camera connected: no threads, no clock and no camera of its own.

CONNECTING ──first frame──> RUNNING <──frame── STALE
    │                        │   └─no frame for a while─┘│
    │                        │                           │
    └──────failure───────> RECONNECTING <──failure───────┘        (a first frame leads to RUNNING)

from any of them: ENDED (a file's end, or closed), FAILED (what can never succeed)
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Literal, NamedTuple

from edge_fr.errors import InputError

State = Literal["CONNECTING", "RUNNING", "STALE", "RECONNECTING", "ENDED", "FAILED"]
Action = Literal["open", "give up"]


@dataclass(frozen=True, slots=True)
class ReconnectPolicy:
    """How long a camera is waited for, and how long until it is tried again.

    A connection has `open_timeout_s` for its first frame and then `read_timeout_s` for each; a camera
    that gave none for `stale_after_s` is stale. The n-th failure in a row is followed by a pause of
    `first_delay_s` * 2**(n - 1), `max_delay_s` at the most, of which chance takes away up to the share
    `jitter`, so that cameras which failed together do not come back together. A connection that ran
    for `max_delay_s` ends the row: one that breaks again and again is not tried again and again at once.

    A connection that does not react when it is given up is left to itself; no new one is opened while
    `max_abandoned` of them hang.
    """

    open_timeout_s: float = 10.0
    read_timeout_s: float = 10.0
    stale_after_s: float = 2.0
    first_delay_s: float = 1.0
    max_delay_s: float = 30.0
    jitter: float = 0.5
    max_abandoned: int = 4

    def __post_init__(self) -> None:
        for f in fields(self):
            if f.name.endswith("_s") and not 0 < getattr(self, f.name) <= 3600:
                value = getattr(self, f.name)
                raise InputError(f"{f.name} is {value}, expected more than 0 and at most 3600 seconds")
        if self.stale_after_s >= self.read_timeout_s:
            raise InputError(
                f"stale_after_s is {self.stale_after_s}, expected less than read_timeout_s "
                f"({self.read_timeout_s}): a camera is stale before it is given up"
            )
        if self.first_delay_s > self.max_delay_s:
            raise InputError(
                f"first_delay_s is {self.first_delay_s}, expected at most max_delay_s ({self.max_delay_s})"
            )
        if not 0 <= self.jitter < 1:
            raise InputError(f"jitter is {self.jitter}, expected from 0 to below 1")
        if self.max_abandoned < 1:
            raise InputError(f"max_abandoned is {self.max_abandoned}, expected 1 or more")

    def delay_ns(self, failures: int, chance: float) -> int:
        """The pause after so many failures in a row (from 1); `chance` is a number from 0 to below 1."""
        full_s = self.max_delay_s
        if failures < 64:  # 2.0**1100 would overflow in a camera that was away for a year
            full_s = min(full_s, self.first_delay_s * 2.0 ** (failures - 1))
        return round(full_s * (1 - self.jitter * chance) * 1e9)


class Turn(NamedTuple):
    """A camera that came or went, and why."""

    online: bool
    reason: str


class Link:
    """The state of one camera; whoever owns it tells it what happens and does what `tick` says.

    Times are of any clock that never goes back, in nanoseconds. `state` and `reason` (why it is not
    running) are its answer; `turns` collects the changes between online and offline, which always
    alternate: online with a connection's first frame, offline when it is given up or never came about.
    A camera that is stale is still online. A source that is not `live` is never opened twice and its
    failures are final; offline is all that it can turn.
    """

    def __init__(
        self, policy: ReconnectPolicy, *, live: bool, chance: Callable[[], float] = random.random
    ) -> None:
        self.state: State = "CONNECTING"
        self.reason = ""
        self.turns: list[Turn] = []
        self._policy = policy
        self._live = live
        self._chance = chance
        self._online: bool | None = None
        self._failures = 0  # in a row
        self._retry_ns: int | None = 0  # when to open next; None: a connection is open
        self._heard_ns: int | None = None  # when it was opened or last gave a frame; None: not waiting for it
        self._running_since_ns: int | None = None

    @property
    def over(self) -> bool:
        """Whether nothing will ever come again."""
        return self.state in ("ENDED", "FAILED")

    @property
    def due_ns(self) -> int | None:
        """When `tick` will have something to do; None: not by the passing of time."""
        if self.over:
            return None
        if self._retry_ns is not None:
            return self._retry_ns
        if self._heard_ns is None:
            return None
        return self._heard_ns + self._patience_ns()

    def tick(self, now_ns: int) -> Action | None:
        """Takes note of the time. "open": begin a connection; "give up": this one has had its time."""
        due_ns = self.due_ns
        if due_ns is None or now_ns < due_ns:
            return None
        if self._retry_ns is not None:
            self._retry_ns, self._heard_ns, self._running_since_ns = None, now_ns, None
            return "open"
        if self.state == "RUNNING" and self._live:
            self.state = "STALE"
            self.reason = f"no frame for {self._policy.stale_after_s:g} s"
            return self.tick(now_ns)  # after a long pause of the whole process it may be over as well
        what = "no frame" if self._running_since_ns is not None else "no first frame"
        self.failed(now_ns, f"{what} within {self._patience_ns() / 1e9:g} s")
        return "give up"

    def frame(self, now_ns: int) -> None:
        """A frame came from the open connection."""
        if self._running_since_ns is None:
            self._running_since_ns = now_ns
            self._turn(True, "")
        if now_ns - self._running_since_ns >= self._policy.max_delay_s * 1e9:
            self._failures = 0
        self._heard_ns = now_ns
        self.state, self.reason = "RUNNING", ""

    def hold(self) -> None:
        """No frame is asked for until the next `frame`: whoever takes them has no room."""
        self._heard_ns = None

    def failed(self, now_ns: int, reason: str, *, for_ever: bool = False) -> None:
        """The open connection broke, or could not be made; `for_ever`: trying again would not help."""
        self.reason = reason
        self._heard_ns = self._running_since_ns = None
        self._turn(False, reason)
        if for_ever or not self._live:
            self.state = "FAILED"
            return
        self.state = "RECONNECTING"
        self._failures += 1
        self._retry_ns = now_ns + self._policy.delay_ns(self._failures, self._chance())

    def postpone(self, now_ns: int, reason: str) -> None:
        """What `tick` asked for cannot be opened now: it will ask again after the longest pause."""
        self.reason = reason
        self.state = "RECONNECTING"
        self._heard_ns = None
        self._turn(False, reason)
        self._retry_ns = now_ns + round(self._policy.max_delay_s * 1e9)

    def ended(self, reason: str = "") -> None:
        """The source came to its end, or was closed."""
        if not self.over:
            self.state, self.reason = "ENDED", reason

    def _patience_ns(self) -> int:
        policy = self._policy
        if self._running_since_ns is None:
            return round(policy.open_timeout_s * 1e9)
        stale = self.state == "RUNNING" and self._live
        return round((policy.stale_after_s if stale else policy.read_timeout_s) * 1e9)

    def _turn(self, online: bool, reason: str) -> None:
        if (self._live or not online) and online is not self._online:
            self._online = online
            self.turns.append(Turn(online, reason))
