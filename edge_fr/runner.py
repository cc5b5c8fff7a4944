"""Drives a source through a pipeline and hands its events to sinks."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Protocol

from edge_fr.camera_event import turns
from edge_fr.errors import EdgeFrError
from edge_fr.pipeline import Pipeline, Step
from edge_fr.stream import Camera, Skipped, Source, is_current
from edge_fr.stream.buffer import FrameBuffer
from edge_fr.stream.freshness import MAX_AGE_S
from edge_fr.structures import Event, Frame

_GLANCE_S = 0.1  # how often a waiting loop looks whether it is to stop


class Sink(Protocol):
    """Where events go."""

    def write(self, event: Event) -> None: ...


@dataclass(slots=True)
class Summary:
    """What a run did: `dropped` frames were replaced by newer ones, `late` ones came too late to be
    announced as now, `damaged` ones could not be decoded, `skipped` pictures could not be read;
    `unfollowed` faces came and went and were never in a track. `too_slow` says that frames came so far apart
    that nobody could be followed, and so nobody was reported. `stages` tells by stage what one frame took
    (p50_ms, p95_ms, without the first, in which models take their memory) and all of them (total_s, of the
    last run where several had this summary); those of models, `engine:`, are part of their stages' times."""

    frames: int = 0
    dropped: int = 0
    late: int = 0
    faces: int = 0
    unfollowed: int = 0
    too_slow: bool = False
    wall_s: float = 0.0
    events: Counter[str] = field(default_factory=Counter)
    damaged: int = 0
    skipped: tuple[Skipped, ...] = ()
    stages: dict[str, dict[str, float]] = field(default_factory=dict)

    @property
    def fps(self) -> float:
        return self.frames / self.wall_s if self.wall_s else 0.0


def run(
    source: Source | Camera,
    pipeline: Pipeline,
    *,
    sinks: Sequence[Sink] = (),
    on_step: Callable[[Frame, Step], None] | None = None,
    stop: threading.Event | None = None,
    summary: Summary | None = None,
    max_age_s: float = MAX_AGE_S,
) -> Summary:
    """Drives a source through a pipeline until the source ends or `stop` is set.

    A started `Camera` may go and come back: its tracks end when it stops, and sinks are told that it is
    offline or online. Of a live source no frame older than `max_age_s` is handled.

    Every event goes to every sink, whatever happens to another sink or event; what a sink could not
    take is raised afterwards. When the source or a stage fails, the tracks are ended and their events
    written before the error goes on; pass `summary` to have the counts then.
    """
    summary = summary or Summary()
    started = time.perf_counter()
    times, unfollowed_before = pipeline.times.begin(), pipeline.unfollowed
    buffer: FrameBuffer | None = None
    feed: Generator[Frame, None, None]
    if isinstance(source, Camera):
        feed = _watch(source, stop, lambda: tell(turns(source, pipeline), sinks, summary))
    else:
        buffer = FrameBuffer(source, live=source.live, stop=stop)
        feed = iter(buffer)
    try:
        with ending(lambda: deliver(pipeline.finish(), sinks, summary)), closing(feed) as frames:
            waiting = time.perf_counter_ns()
            for frame in frames:
                if source.live and not is_current(frame.captured_at, datetime.now(timezone.utc), max_age_s):
                    summary.late += 1
                    continue
                pipeline.times.add("wait", time.perf_counter_ns() - waiting)
                step = pipeline.process(frame)
                summary.frames += 1
                summary.faces += len(step.faces)
                tell(step.events, sinks, summary)
                if on_step is not None:
                    on_step(frame, step)
                times.settle()
                waiting = time.perf_counter_ns()
    finally:
        losses = source.counters if isinstance(source, Camera) else source
        summary.dropped += losses.dropped + (buffer.dropped if buffer is not None else 0)
        summary.damaged += losses.damaged
        summary.skipped += () if isinstance(source, Camera) else source.skipped
        summary.unfollowed += pipeline.unfollowed - unfollowed_before
        summary.too_slow |= pipeline.too_slow
        summary.wall_s += time.perf_counter() - started
        summary.stages = times.summary()
    return summary


def _watch(
    camera: Camera, stop: threading.Event | None, hear: Callable[[], None]
) -> Generator[Frame, None, None]:
    """A camera's frames until it is over; then raises why it failed. Calls `hear` before it takes each, and
    ten times a second while there is none."""
    while stop is None or not stop.is_set():
        over = camera.over
        hear()
        frame = camera.take()
        if frame is not None:
            yield frame
        elif not over:
            camera.wake.wait(_GLANCE_S)
            camera.wake.clear()
        elif camera.error is not None:
            raise camera.error
        else:
            return


@contextmanager
def ending(last: Callable[[], list[EdgeFrError]]) -> Iterator[None]:
    """Calls `last` however its block ends, and raises what that returns, after what the block raised."""
    try:
        yield
    except BaseException as error:
        if failures := last():
            first = [error] if isinstance(error, EdgeFrError) else []
            raise joined([*first, *failures]) from error
        raise
    if failures := last():
        raise joined(failures)


def tell(events: Iterable[Event], sinks: Sequence[Sink], summary: Summary) -> None:
    """Gives every event to every sink, and raises what they could not take."""
    if failures := deliver(events, sinks, summary):
        raise joined(failures)


def deliver(events: Iterable[Event], sinks: Sequence[Sink], summary: Summary) -> list[EdgeFrError]:
    """Gives every event to every sink; returns what they could not take."""
    failures = []
    for event in events:
        summary.events[event.type] += 1
        for sink in sinks:
            try:
                sink.write(event)
            except EdgeFrError as error:
                failures.append(error)
    return failures


def joined(errors: list[EdgeFrError]) -> EdgeFrError:
    """One error that says all of them, of the first one's type."""
    return errors[0] if len(errors) == 1 else type(errors[0])("\n".join(map(str, errors)))
