"""A source that is kept connected, read in threads of its own, and asked for its newest frame."""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timezone
from types import TracebackType

from edge_fr import heap
from edge_fr.errors import EdgeFrError, InputError, MissingDependencyError, SourceReadError
from edge_fr.stream.connection import Attempt, CameraChange, CameraCounters, Connection
from edge_fr.stream.reconnect import Link, ReconnectPolicy, State
from edge_fr.stream.source import Clock
from edge_fr.structures import Frame

_AHEAD = 2  # frames of a file that wait to be taken


class Camera:
    """One camera, connected again whenever it goes away; a file is read once, to its end.

    `open` makes a connection; it is called in a thread of its own, which reads the connection, closes it,
    and may hang without harm. Its argument is set when the connection is no longer wanted. The owner
    calls `start`, then `take` and `take_changes` whenever `wake` is set, and `end`; none of them ever waits
    for the camera, only `close` does, for a while. Both threads of a camera are its own: one that hangs
    touches no other.

    Of a live camera the newest frame waits to be taken; of a file every frame, and reading waits with
    it. `pts_ns` goes on from one connection to the next, with the time between them, and `index` counts
    all frames; tracks should be ended whenever the camera is not RUNNING.

    An InputError or MissingDependencyError while opening is final (FAILED): the address or the machine
    has to change. Everything else may pass, a refused password too, and is tried again for ever. What
    goes wrong with a file is final.
    """

    def __init__(
        self,
        open: Callable[[threading.Event], Connection],
        *,
        name: str,
        live: bool,
        uri: str = "",
        policy: ReconnectPolicy | None = None,
        wake: threading.Event | None = None,
        chance: Callable[[], float] = random.random,
        now_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self.name = name
        self.uri = uri or name
        self.live = live
        self.frame_count: int | None = None  # as of a Source: nobody knows
        self.wake = wake or threading.Event()
        """Set whenever there may be something to take; the owner clears it, and may share it."""
        self.error: EdgeFrError | None = None
        """Why it FAILED."""
        self._open = open
        self._policy = policy or ReconnectPolicy()
        self._now_ns = now_ns
        self._news = threading.Condition()  # guards all that follows
        self._link = Link(self._policy, live=live, chance=chance)
        self._waiting: deque[Frame] = deque()
        self._changes: deque[CameraChange] = deque()
        self._counters = CameraCounters()
        self._lost_before = (0, 0)  # dropped and damaged by earlier connections
        self._attempt: Attempt | None = None
        self._left: list[Attempt] = []  # connections given up that may still be under way
        self._start_ns: int | None = None  # of pts_ns, on our clock
        self._last_pts_ns = -1
        self._reader = ""
        self._clock: Clock = "arrival" if live else "file"
        self._supervisor = threading.Thread(target=self._supervise, name=f"edge-fr-{name}", daemon=True)

    def start(self) -> None:
        """Begins to connect; returns at once. A camera is started once."""
        self._supervisor.start()

    def take(self) -> Frame | None:
        """The newest frame of a live camera, the next one of a file; None: nothing new. Never waits."""
        with self._news:
            if not self._waiting:
                return None
            frame = self._waiting.popleft()
            if not self.live:
                self._news.notify_all()  # there is room
            if self._waiting or self._link.over:
                self.wake.set()
            return frame

    def take_changes(self) -> list[CameraChange]:
        """How the camera went and came since the last call, oldest first: offline and online alternate.

        A file goes only when it fails, and that is told once its frames were taken. What is not taken is
        kept.
        """
        with self._news:
            if self._waiting and not self.live:
                return []
            changes = list(self._changes)
            self._changes.clear()
            return changes

    @property
    def state(self) -> State:
        with self._news:  # whoever sees FAILED finds `error` set
            return self._link.state

    @property
    def reason(self) -> str:
        """Why it is not RUNNING; empty while it is."""
        with self._news:
            return self._link.reason

    @property
    def over(self) -> bool:
        """Whether it ENDED or FAILED and all its frames were taken."""
        with self._news:
            return self._link.over and not self._waiting

    @property
    def reader(self) -> str:
        """What reads the camera, or read it last: "gstreamer", "opencv", ..."""
        return self._reader

    @property
    def clock(self) -> Clock:
        """Whose time `captured_at` of the newest frame is: "sender", "arrival" or "file"."""
        return self._clock

    @property
    def hanging(self) -> int:
        """Connections that were given up and have not come back yet."""
        with self._news:
            return len(self._still_hanging())

    @property
    def counters(self) -> CameraCounters:
        with self._news:
            dropped, damaged = self._losses()
            ours = self._counters
            return replace(ours, dropped=ours.dropped + dropped, damaged=ours.damaged + damaged)

    def end(self) -> None:
        """Asks the camera to end, and does not wait for it."""
        with self._news:
            self._link.ended("closed")
            self._waiting.clear()
            self._let_go()
            self._news.notify_all()

    def close(self, timeout_s: float = 2.0) -> None:
        """Ends the camera, within `timeout_s`; a connection that hangs is left to itself then."""
        self.end()
        give_up = time.monotonic() + timeout_s
        with self._news:
            threads = [self._supervisor, *(attempt.thread for attempt in self._left)]
        for thread in threads:
            if thread is not None and thread.ident is not None:
                thread.join(max(0.0, give_up - time.monotonic()))
        with self._news:
            self._count_abandoned()

    def __enter__(self) -> Camera:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _supervise(self) -> None:
        with self._news:
            while not self._link.over:
                now_ns = self._now_ns()
                before = self._link.state
                action = self._link.tick(now_ns)
                if action == "open":
                    self._begin(now_ns)
                elif action == "give up":
                    self._count(failures=1)
                    self._let_go()
                    if self._link.state == "FAILED":
                        self.error = SourceReadError(f"{self.uri}: {self._link.reason}")
                if before == "RUNNING" and self._link.state != "RUNNING":
                    self._count(stale=1)
                self._tell()
                due_ns = self._link.due_ns
                self._news.wait(None if due_ns is None else max(0, due_ns - self._now_ns()) / 1e9)

    def _begin(self, now_ns: int) -> None:
        self._count_abandoned()
        hanging = len(self._still_hanging())
        if hanging >= self._policy.max_abandoned:
            self._link.postpone(now_ns, f"{hanging} connections hang; waiting for one of them to come back")
            return
        attempt = self._attempt = Attempt()
        attempt.thread = threading.Thread(
            target=self._connect, args=(attempt,), name=f"edge-fr-{self.name}-reader", daemon=True
        )
        try:
            attempt.thread.start()
        except RuntimeError as error:  # this machine has no thread left; it may have one later
            attempt.done = True
            self._conclude(error)

    def _connect(self, attempt: Attempt) -> None:
        """One connection, from its opening to its end."""
        failure: Exception | None = None
        try:
            connection = self._open(attempt.stop)
            try:
                with self._news:
                    attempt.connection = connection
                    self._reader = connection.reader
                for frame in connection:
                    if not self._deliver(attempt, connection, frame):
                        break
            finally:
                connection.close()
        except Exception as error:  # whatever it is must not end the camera; it is told as the reason
            failure = error
        heap.trim()
        with self._news:
            attempt.done = True
            if attempt is self._attempt:
                self._conclude(failure)
                self._tell()
                self._news.notify_all()

    def _conclude(self, failure: Exception | None) -> None:
        self._let_go()
        if failure is None and not self.live:
            self._link.ended()
            return
        reason = "the stream was closed at the other end"
        if failure is not None:
            ours = isinstance(failure, EdgeFrError)
            reason = str(failure) if ours else f"{type(failure).__name__}: {failure}"
        self._count(failures=1)
        final = isinstance(failure, (InputError, MissingDependencyError))
        self._link.failed(self._now_ns(), reason, for_ever=final)
        if self._link.state == "FAILED":
            self.error = failure if isinstance(failure, EdgeFrError) else EdgeFrError(reason)

    def _deliver(self, attempt: Attempt, connection: Connection, frame: Frame) -> bool:
        """Puts a frame where it can be taken; False: this connection is no longer wanted."""
        with self._news:
            while not self.live and len(self._waiting) >= _AHEAD and attempt is self._attempt:
                self._link.hold()
                self._news.wait()
            if attempt is not self._attempt:
                return False
            now_ns = self._now_ns()
            if attempt.origin_ns is None:
                attempt.origin_ns = self._origin(now_ns, frame.pts_ns)
                self._count(connects=1)
            self._last_pts_ns = attempt.origin_ns + frame.pts_ns
            frame = replace(frame, pts_ns=self._last_pts_ns, index=self._counters.frames)
            replaced = len(self._waiting) if self.live else 0
            if replaced:
                self._waiting.clear()
            self._waiting.append(frame)
            self._count(frames=1, dropped=replaced)
            self._clock = connection.clock
            expected = self.state == "RUNNING" and self._link.due_ns is not None
            self._link.frame(now_ns)
            self._tell()
            if not expected:  # or the supervisor looks only when it meant to
                self._news.notify_all()
            return True

    def _origin(self, now_ns: int, pts_ns: int) -> int:
        """What to add to a connection's times, so that they go on from the last ones."""
        if self._start_ns is None:
            self._start_ns = now_ns
        since_start_ns = now_ns - self._start_ns if self.live else 0
        return max(since_start_ns, self._last_pts_ns + 1) - pts_ns

    def _let_go(self) -> None:
        """Parts with the connection; its thread ends by itself, soon or late."""
        attempt, self._attempt = self._attempt, None
        if attempt is None:
            return
        if attempt.connection is not None:
            lost = attempt.connection.dropped, attempt.connection.damaged
            self._lost_before = (self._lost_before[0] + lost[0], self._lost_before[1] + lost[1])
        attempt.stop.set()
        self._left.append(attempt)
        self._news.notify_all()

    def _still_hanging(self) -> list[Attempt]:
        self._left = [a for a in self._left if not a.done]
        return self._left

    def _count_abandoned(self) -> None:
        for attempt in self._still_hanging():
            if not attempt.abandoned:
                attempt.abandoned = True
                self._count(abandoned=1)

    def _count(self, **more: int) -> None:
        counted = {name: getattr(self._counters, name) + n for name, n in more.items()}
        self._counters = replace(self._counters, **counted)

    def _losses(self) -> tuple[int, int]:
        dropped, damaged = self._lost_before
        connection = self._attempt.connection if self._attempt is not None else None
        if connection is not None:
            dropped, damaged = dropped + connection.dropped, damaged + connection.damaged
        return dropped, damaged

    def _tell(self) -> None:
        """Makes the link's news the owner's."""
        for turn in self._link.turns:
            now = datetime.now(timezone.utc)
            pts_ns = max(0, self._last_pts_ns)
            self._changes.append(CameraChange(self.name, turn.online, now, pts_ns, turn.reason))
        self._link.turns.clear()
        self.wake.set()
