"""Drives a source through a pipeline and hands its events to sinks."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Protocol

from edge_fr.errors import EdgeFrError
from edge_fr.pipeline import Pipeline, Step
from edge_fr.stream import Skipped, Source
from edge_fr.stream.buffer import FrameBuffer
from edge_fr.structures import Event, Frame


class Sink(Protocol):
    """Where events go."""

    def write(self, event: Event) -> None: ...


@dataclass(slots=True)
class Summary:
    """What a run did: `dropped` frames were too old to handle, `damaged` ones could not be decoded,
    `skipped` pictures could not be read; `unfollowed` faces were found but are in no track."""

    frames: int = 0
    dropped: int = 0
    faces: int = 0
    unfollowed: int = 0
    wall_s: float = 0.0
    events: Counter[str] = field(default_factory=Counter)
    damaged: int = 0
    skipped: tuple[Skipped, ...] = ()
    stages: dict[str, dict[str, float]] = field(default_factory=dict)

    @property
    def fps(self) -> float:
        return self.frames / self.wall_s if self.wall_s else 0.0


def run(
    source: Source,
    pipeline: Pipeline,
    *,
    sinks: Sequence[Sink] = (),
    on_step: Callable[[Frame, Step], None] | None = None,
    stop: threading.Event | None = None,
    summary: Summary | None = None,
) -> Summary:
    """Drives a source through a pipeline until the source ends or `stop` is set.

    Every event goes to every sink, whatever happens to another sink or event; what a sink could not
    take is raised afterwards. When the source or a stage fails, the tracks are ended and their events
    written before the error goes on; pass `summary` to have the counts then.
    """
    summary = summary or Summary()
    started = time.perf_counter()
    buffer = FrameBuffer(source, live=source.live, stop=stop)
    try:
        with closing(iter(buffer)) as frames:
            waiting = time.perf_counter_ns()
            for frame in frames:
                pipeline.times.add("wait", time.perf_counter_ns() - waiting)
                step = pipeline.process(frame)
                summary.frames += 1
                summary.faces += len(step.faces)
                if failures := _tell(step.events, sinks, summary):
                    raise _joined(failures)
                if on_step is not None:
                    on_step(frame, step)
                waiting = time.perf_counter_ns()
    except BaseException as error:
        failures = _tell(pipeline.finish(), sinks, summary)
        if failures:
            first = [error] if isinstance(error, EdgeFrError) else []
            raise _joined([*first, *failures]) from error
        raise
    else:
        if failures := _tell(pipeline.finish(), sinks, summary):
            raise _joined(failures)
    finally:
        summary.dropped = buffer.dropped + source.dropped
        summary.damaged = source.damaged
        summary.skipped = source.skipped
        summary.unfollowed = pipeline.unfollowed
        summary.wall_s = time.perf_counter() - started
        summary.stages = pipeline.times.summary()
    return summary


def _tell(events: Iterable[Event], sinks: Sequence[Sink], summary: Summary) -> list[EdgeFrError]:
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


def _joined(errors: list[EdgeFrError]) -> EdgeFrError:
    """One error that says all of them, of the first one's type."""
    return errors[0] if len(errors) == 1 else type(errors[0])("\n".join(map(str, errors)))
