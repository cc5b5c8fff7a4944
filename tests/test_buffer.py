"""The reading thread: order, loss, errors, and that it never outlives its reader."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from datetime import datetime, timezone

import numpy as np
import pytest
from waiting import wait_for

from edge_fr.errors import SourceReadError
from edge_fr.stream.buffer import FrameBuffer
from edge_fr.structures import Frame


def frame(index: int) -> Frame:
    return Frame(np.zeros((2, 2, 3), np.uint8), index, datetime.now(timezone.utc), index=index)


def readers() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name == "edge-fr-reader"]


def test_no_frame_of_a_file_is_lost_however_slow_the_reader() -> None:
    got = []
    for f in FrameBuffer((frame(i) for i in range(20)), live=False, size=2):
        time.sleep(0.002)
        got.append(f.index)
    assert got == list(range(20))


def test_a_live_source_is_never_held_back_and_the_newest_frame_wins() -> None:
    read_all = threading.Event()

    def camera() -> Iterator[Frame]:
        yield from map(frame, range(50))
        read_all.set()

    buffer = FrameBuffer(camera(), live=True, size=2)
    got = []
    for f in buffer:
        assert read_all.wait(60)  # the camera went on to its end while the first frame was handled
        got.append(f.index)
    assert got[-1] == 49
    assert len(got) + buffer.dropped == 50
    assert buffer.dropped > 40


def test_an_error_of_the_source_arrives_after_the_frames_before_it() -> None:
    def broken() -> Iterator[Frame]:
        yield frame(0)
        yield frame(1)
        raise SourceReadError("broke off")

    frames = iter(FrameBuffer(broken(), live=False))
    assert [next(frames).index, next(frames).index] == [0, 1]
    with pytest.raises(SourceReadError, match="broke off"):
        next(frames)
    wait_for(lambda: not readers())  # closing waits five seconds, and a thread may stand still for longer


def test_leaving_early_stops_the_reading_thread() -> None:
    def endless() -> Iterator[Frame]:
        index = 0
        while True:
            yield frame(index)
            index += 1

    frames = iter(FrameBuffer(endless(), live=False))
    assert next(frames).index == 0
    frames.close()  # type: ignore[attr-defined]
    wait_for(lambda: not readers())  # closing waits five seconds, and a thread may stand still for longer
