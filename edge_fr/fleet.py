"""Many cameras, one set of models: whose frame comes next, and what became of it.

One thread takes the newest frames of the cameras that are due, detects faces in all of them together,
embeds the faces of all of them together, and hands the events to the sinks. There is no queue between a
camera and this thread: a frame that is not taken is replaced by the camera's next one.

When the machine cannot do all that is asked, each camera gets the same share of the rate it asked for
(one without a rate counts as 25 frames a second), and the latency stays what a round takes: a round holds
as many frames as fit into a stated time.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from itertools import chain, islice
from typing import NamedTuple

from edge_fr.camera_event import Supply, turns
from edge_fr.errors import EdgeFrError, InputError
from edge_fr.lane import Lane
from edge_fr.networks import Networks
from edge_fr.pipeline import Step
from edge_fr.runner import Sink, Summary, deliver, ending, joined, tell
from edge_fr.stream.freshness import MAX_AGE_S, is_current
from edge_fr.structures import Event, Frame
from edge_fr.timing import RunTimes

_IDLE_NS = 250_000_000  # how often a fleet without work looks whether it is to stop
_CLOSING_NS = 2_000_000_000  # how long a fleet waits at its end for cameras that hang, all together
_KEEPS_UP = 0.9  # of the frames that came and were asked for


class Load(NamedTuple):
    """Whether the machine keeps up, and the share of the asked rate that the worst camera gets."""

    keeps_up: bool
    share: float


class Fleet:
    """Runs the lanes of many cameras in one thread, the caller's.

    `networks` are the models that all lanes' pipelines were made with. A round takes at most `max_batch`
    frames, and no more than can be handled in `max_round_s`, as far as the last rounds tell; one at least.
    `on_step` sees every frame with what it gave, `on_lost` hears at once why a camera failed for good,
    `on_load` when the machine stops keeping up and when it does again; `on_turn` is called in every turn of
    the loop: once a round, and four times a second while it waits. A frame of a live camera that is older
    than `max_age_s` is not looked at: whoever it shows may be gone. Cameras may be added and removed from any
    thread while it runs. Pass `summary` to have the counts when `run` raises.
    """

    def __init__(
        self,
        networks: Networks,
        *,
        sinks: Sequence[Sink] = (),
        max_batch: int = 8,
        max_round_s: float = 0.25,
        max_age_s: float = MAX_AGE_S,
        on_step: Callable[[Lane, Frame, Step], None] | None = None,
        on_lost: Callable[[EdgeFrError], None] | None = None,
        on_load: Callable[[Load], None] | None = None,
        on_turn: Callable[[], None] | None = None,
        summary: Summary | None = None,
        now_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        if max_batch < 1 or max_round_s <= 0:
            raise InputError(
                f"max_batch is {max_batch} and max_round_s {max_round_s}, expected 1 and 0 or more"
            )
        self.summary = summary or Summary()
        self.wake = threading.Event()
        self._networks = networks
        self._sinks = sinks
        self._max_batch = max_batch
        self._max_round_ns = round(max_round_s * 1e9)
        self._cost_ns = 0.0  # what a frame took of late
        self._max_age_s = max_age_s
        self._on_step = on_step
        self._on_lost = on_lost
        self._on_load = on_load
        self._on_turn = on_turn
        self._now_ns = now_ns
        self._lanes: dict[str, Lane] = {}
        self._asked: deque[Lane | str] = deque()  # lanes to add, names to remove
        self._ending: list[Supply] = []  # cameras that were asked to end and are still to be closed
        self._failed: list[EdgeFrError] = []  # why cameras did, for the end
        self._keeps_up = True
        self._virtual_ns = 0
        self._running = threading.Lock()

    @property
    def lanes(self) -> tuple[Lane, ...]:
        """The lanes under way."""
        return tuple(self._lanes.values())

    def add(self, lane: Lane) -> None:
        """Takes a lane in; its camera is started by the fleet and closed by it."""
        self._asked.append(lane)
        self.wake.set()

    def remove(self, name: str) -> None:
        """Ends the camera of that name and its tracks; one that is not there is no error."""
        self._asked.append(name)
        self.wake.set()

    def run(self, stop: threading.Event) -> None:
        """Until `stop` is set or all cameras are over; then all tracks are ended and cameras closed.

        A camera that failed for good leaves the others alone. Raises at the end why each of them did, and
        at once what a stage or a sink raised; in either case the events of all tracks were written.
        InputError when it runs already, in another thread.
        """
        if not self._running.acquire(blocking=False):
            raise InputError("this fleet runs already, in another thread; make one for each thread")
        try:
            self._run(stop)
        finally:
            self._running.release()

    def _run(self, stop: threading.Event) -> None:
        started, times = time.perf_counter(), self._networks.times.begin()
        try:
            with ending(self._end_all):
                self._loop(stop, times)
        except EdgeFrError as error:  # not a mistake of ours: an old reason would take its place
            if self._failed:
                raise joined([error, *self._failed]) from error
            raise
        else:
            self._raise(self._failed)
        finally:
            self.summary.wall_s += time.perf_counter() - started
            self.summary.stages = times.summary()

    def _loop(self, stop: threading.Event, times: RunTimes) -> None:
        while not stop.is_set():
            self.wake.clear()  # before looking: what comes from here on wakes it again
            if self._on_turn is not None:
                self._on_turn()
            self._obey()
            self._hear()
            now_ns = self._now_ns()
            chosen = self._choose(now_ns)
            if chosen:
                self._process(chosen)
                times.settle()
                cost_ns = (self._now_ns() - now_ns) / len(chosen)
                self._cost_ns += 0.2 * (cost_ns - self._cost_ns) if self._cost_ns else cost_ns
            elif self._lanes or self._asked:
                self.wake.wait(self._pause_s(now_ns))
            else:
                return
            self._watch_load(self._now_ns())

    def _obey(self) -> None:
        while self._asked:
            asked = self._asked.popleft()
            if isinstance(asked, str):
                self._raise(self._end(asked))
                continue
            if asked.camera.name in self._lanes:
                raise InputError(f"two cameras are called {asked.camera.name!r}; give each a name of its own")
            asked.camera.wake = self.wake
            asked.due_ns = self._now_ns()
            self._lanes[asked.camera.name] = asked
            asked.camera.start()

    def _hear(self) -> None:
        """What cameras came and went."""
        for lane in self.lanes:
            self._tell(turns(lane.camera, lane.pipeline))
            if lane.camera.over:
                self._raise(self._end(lane.camera.name))

    def _choose(self, now_ns: int) -> list[tuple[Lane, Frame]]:
        """The next round: at most one frame of each camera that is due.

        First those that had the smallest share of their rates (start-time fair queueing, Goyal, Vin and
        Cheng 1996): each frame moves a camera's virtual time on by its period, and the earliest is next.
        """
        due = [lane for lane in self.lanes if lane.due_ns <= now_ns]
        limit = self._max_batch
        if self._cost_ns:
            limit = max(1, min(limit, int(self._max_round_ns / self._cost_ns)))
        chosen: list[tuple[Lane, Frame]] = []
        for lane in sorted(due, key=lambda lane: lane.virtual_ns):
            if len(chosen) == limit:
                break
            frame = lane.camera.take()
            if frame is None:
                continue
            virtual_ns = max(self._virtual_ns, lane.virtual_ns)
            lane.served(now_ns, self._virtual_ns)
            self._virtual_ns = virtual_ns
            if lane.camera.live and not is_current(frame.captured_at, _now(), self._max_age_s):
                lane.too_old += 1
                continue
            chosen.append((lane, frame))
        return chosen

    def _process(self, chosen: list[tuple[Lane, Frame]]) -> None:
        networks, times = self._networks, self._networks.times
        pictures = [lane.pictures(frame) for lane, frame in chosen]
        found = iter(
            times.shared("detect", len(chosen), networks.detector.detect_many, list(chain(*pictures)))
        )
        looked = []
        for (lane, frame), own in zip(chosen, pictures, strict=True):
            looked.append(lane.pipeline.look(frame, lane.place(list(islice(found, len(own))), frame)))
        embedded = times.shared("embed", len(chosen), networks.embedder.embed_many, looked)
        for (lane, frame), faces in zip(chosen, embedded, strict=True):
            step = lane.pipeline.conclude(frame, faces)
            self.summary.frames += 1
            self.summary.faces += len(step.faces)
            lane.faces += len(step.faces)
            lane.unfollowed = lane.pipeline.unfollowed
            self._tell(step.events)
            lane.latency_s = (_now() - frame.captured_at).total_seconds()
            if self._on_step is not None:
                self._on_step(lane, frame, step)

    def _tell(self, events: Sequence[Event]) -> None:
        tell(events, self._sinks, self.summary)

    def _raise(self, failures: list[EdgeFrError]) -> None:
        if failures:
            raise joined(failures)

    def _end_all(self) -> list[EdgeFrError]:
        lost = [error for name in list(self._lanes) for error in self._end(name)]
        give_up_ns = self._now_ns() + _CLOSING_NS
        for camera in self._ending:
            camera.close(max(0, give_up_ns - self._now_ns()) / 1e9)
        return lost

    def _end(self, name: str) -> list[EdgeFrError]:
        """Ends a camera and its tracks, and waits for nothing; returns what the sinks could not take."""
        lane = self._lanes.pop(name, None)
        if lane is None:
            return []
        lane.camera.end()
        for camera in [camera for camera in self._ending if not camera.hanging]:
            camera.close(0)
            self._ending.remove(camera)
        self._ending.append(lane.camera)
        self.summary.dropped += lane.camera.counters.dropped
        self.summary.late += lane.too_old
        self.summary.damaged += lane.camera.counters.damaged
        if (error := lane.camera.error) is not None:
            self._failed.append(type(error)(f"{name}: {error}"))
            if self._on_lost is not None:
                self._on_lost(self._failed[-1])
        last = [*lane.pipeline.finish(), *turns(lane.camera, lane.pipeline)]
        lane.unfollowed = lane.pipeline.unfollowed
        self.summary.unfollowed += lane.unfollowed
        self.summary.too_slow |= lane.pipeline.too_slow
        return deliver(last, self._sinks, self.summary)

    def _pause_s(self, now_ns: int) -> float:
        waits = [lane.due_ns - now_ns for lane in self.lanes if lane.due_ns > now_ns]
        return min([_IDLE_NS, *waits]) / 1e9

    def _watch_load(self, now_ns: int) -> None:
        counted = [lane.count(now_ns) for lane in self.lanes]
        if not any(counted):
            return
        share = min(lane.share for lane in self.lanes)
        if (share >= _KEEPS_UP) != self._keeps_up:
            self._keeps_up = share >= _KEEPS_UP
            if self._on_load is not None:
                self._on_load(Load(self._keeps_up, share))


def _now() -> datetime:
    return datetime.now(timezone.utc)
