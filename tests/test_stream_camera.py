"""A camera over connections that a script makes: hanging, breaking, hasty; and the rule on late pictures."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest
from fakes import MovedClock
from waiting import wait_for

from edge_fr.errors import InputError, MissingDependencyError, SourceOpenError, SourceReadError
from edge_fr.stream import Camera, ReconnectPolicy, is_current, open_camera
from edge_fr.stream.sender import SenderClock, from_ntp
from edge_fr.stream.source import Clock
from edge_fr.structures import Frame

# No pause to speak of, and time-outs that no machine reaches, however long it stands still.
HASTY = ReconnectPolicy(
    open_timeout_s=3600, read_timeout_s=3600, stale_after_s=3000, first_delay_s=0.01, max_delay_s=0.05
)
# So short that a machine with other work reaches them by itself: only for a clock that the test moves, or
# where everything hangs anyway.
IMPATIENT = ReconnectPolicy(
    open_timeout_s=0.3, read_timeout_s=0.3, stale_after_s=0.1, first_delay_s=0.01, max_delay_s=0.05
)
NOON = datetime(2026, 5, 1, 12, tzinfo=timezone.utc)
Step = Callable[[threading.Event], object]


def frame(pts_ns: int = 0) -> Frame:
    return Frame(np.zeros((2, 2, 3), np.uint8), pts_ns, datetime.now(timezone.utc))


class Scripted:
    """One connection: frames and functions (called, and what they raise comes out of it), then its end."""

    reader, dropped, damaged = "script", 0, 0
    clock: Clock = "arrival"

    def __init__(self, *steps: Frame | Step, dropped: int = 0, damaged: int = 0) -> None:
        self.steps, self.dropped, self.damaged = steps, dropped, damaged
        self.closed = threading.Event()
        self.stop = threading.Event()

    def __iter__(self) -> Iterator[Frame]:
        for step in self.steps:
            if isinstance(step, Frame):
                yield step
            else:
                step(self.stop)

    def close(self) -> None:
        self.closed.set()


class Opener:
    """Gives one connection after the other; an exception is raised, the last entry repeats."""

    def __init__(self, *connections: Scripted | Exception) -> None:
        self.connections = connections
        self.calls = 0

    def __call__(self, stop: threading.Event) -> Scripted:
        connection = self.connections[min(self.calls, len(self.connections) - 1)]
        self.calls += 1
        if isinstance(connection, Exception):
            raise connection
        connection.stop = stop
        return connection


def breaks(_: threading.Event) -> None:
    raise SourceReadError("the cable was pulled")


def until_stopped(stop: threading.Event) -> None:
    assert stop.wait(60)


def live(
    *connections: Scripted | Exception,
    policy: ReconnectPolicy = HASTY,
    now_ns: Callable[[], int] = time.monotonic_ns,
) -> Camera:
    return Camera(Opener(*connections), name="gate", live=True, policy=policy, now_ns=now_ns)


def test_a_camera_that_breaks_off_is_opened_again_and_says_so() -> None:
    with live(Scripted(frame(), breaks), Scripted(frame(), until_stopped)) as camera:
        wait_for(lambda: camera.counters.connects == 2)
        assert camera.state == "RUNNING"
        changes = camera.take_changes()
    assert [(c.camera, c.online, c.reason) for c in changes] == [
        ("gate", True, ""),
        ("gate", False, "the cable was pulled"),
        ("gate", True, ""),
    ]
    camera.close(timeout_s=60)
    assert changes[0].at < changes[1].at < changes[2].at
    assert camera.take_changes() == []
    assert camera.state == "ENDED"
    assert (camera.counters.failures, camera.counters.frames, camera.counters.abandoned) == (1, 2, 0)


def test_a_stream_that_the_other_end_closes_is_opened_again() -> None:
    with live(Scripted(frame()), Scripted(frame(), until_stopped)) as camera:
        wait_for(lambda: camera.counters.connects == 2)
        assert camera.take_changes()[1].reason == "the stream was closed at the other end"


def test_a_refusal_is_tried_again_and_told_once() -> None:
    refused = SourceOpenError("cannot open rtsp://***@gate/live: Unauthorized")
    with live(refused, refused, refused, Scripted(frame(), until_stopped)) as camera:
        wait_for(lambda: camera.counters.connects == 1)
        assert [c.reason for c in camera.take_changes()] == [str(refused), ""]
        assert camera.counters.failures == 3


@pytest.mark.parametrize("error", [InputError("OpenCV cannot read it"), MissingDependencyError("no plugin")])
def test_what_no_new_try_can_mend_is_final(error: Exception) -> None:
    with live(error) as camera:
        wait_for(lambda: camera.over)
        assert (camera.state, camera.reason, camera.error) == ("FAILED", str(error), error)
        assert [(c.online, c.reason) for c in camera.take_changes()] == [(False, str(error))]
    assert camera.state == "FAILED"
    assert camera.counters.failures == 1


def test_an_error_of_another_library_is_told_by_its_kind_and_tried_again() -> None:
    with live(ZeroDivisionError("a bug"), Scripted(frame(), until_stopped)) as camera:
        wait_for(lambda: camera.counters.connects == 1)
        assert camera.take_changes()[0].reason == "ZeroDivisionError: a bug"


def test_the_newest_frame_of_a_live_camera_waits_and_the_others_are_counted() -> None:
    with live(Scripted(*(frame(i) for i in range(10)), until_stopped, dropped=5, damaged=2)) as camera:
        wait_for(lambda: camera.counters.frames == 10)
        newest = camera.take()
        assert newest is not None
        assert newest.index == 9
        assert camera.take() is None
        counters = camera.counters
        assert (counters.frames, counters.dropped, counters.damaged) == (10, 9 + 5, 2)
        camera.close(timeout_s=60)
    assert camera.counters == counters  # what the reader lost is still known when it is closed


def test_no_frame_of_a_file_is_lost_however_slow_the_owner() -> None:
    opener, got = Opener(Scripted(*(frame(i) for i in range(20)))), []
    with Camera(opener, name="clip", live=False, policy=HASTY) as camera:
        while camera.wake.wait(60) and not camera.over:
            camera.wake.clear()
            taken = camera.take()  # once each time it is woken
            if taken is not None:
                time.sleep(0.002)
                got.append((taken.index, taken.pts_ns))
        assert camera.take_changes() == []  # a file that is whole neither comes nor goes
    assert got == [(i, i) for i in range(20)]
    assert (camera.state, camera.counters.dropped, opener.calls) == ("ENDED", 0, 1)


def test_a_file_whose_frames_nobody_takes_is_not_given_up_for_it() -> None:
    scripted, clock = Scripted(*(frame(i) for i in range(5))), MovedClock()
    with Camera(Opener(scripted), name="clip", live=False, policy=IMPATIENT, now_ns=clock) as camera:
        for count in (2, 3, 4):  # of these two wait to be taken, and the next one for room
            wait_for(lambda n=count: camera.counters.frames == n and camera._link.due_ns is None)  # type: ignore[misc]
            clock.skip(1)  # more than three read time-outs
            assert camera.state == "RUNNING"
            assert camera.take() is not None  # wakes the camera, which looks at the clock
        wait_for(lambda: camera.take() is None and camera.over)
    assert (camera.counters.frames, camera.counters.failures) == (5, 0)


def test_a_patient_opening_does_not_make_the_camera_slow_to_see_that_it_is_stale() -> None:
    policy = ReconnectPolicy(open_timeout_s=3600, read_timeout_s=3600, stale_after_s=0.1)
    with live(Scripted(frame(), until_stopped), policy=policy) as camera:
        wait_for(lambda: camera.state == "STALE")
        assert camera.reason == "no frame for 0.1 s"


def test_a_file_that_hangs_is_given_up_and_failed() -> None:
    back = threading.Event()
    hangs, clock = Scripted(frame(), lambda _: back.wait(60)), MovedClock()
    with Camera(Opener(hangs), name="clip", live=False, policy=IMPATIENT, now_ns=clock) as camera:
        wait_for(lambda: camera.counters.frames == 1)
        clock.skip(1)
        wait_for(lambda: camera.error)
        assert (camera.state, camera.reason) == ("FAILED", "no frame within 0.3 s")
        assert isinstance(camera.error, SourceReadError)
        assert str(camera.error) == "clip: no frame within 0.3 s"
        back.set()


def test_what_a_file_was_broken_by_is_kept_and_told_after_its_frames() -> None:
    with Camera(Opener(Scripted(frame(), breaks)), name="clip", live=False, policy=HASTY) as camera:
        wait_for(lambda: camera.state == "FAILED")
        assert not camera.over  # its frame is still there
        assert camera.take_changes() == []
        assert camera.take() is not None
        assert camera.over
        assert [(c.online, c.reason) for c in camera.take_changes()] == [(False, "the cable was pulled")]
        assert str(camera.error) == "the cable was pulled"


def test_a_connection_that_hangs_is_left_behind_and_closes_itself_when_it_comes_back() -> None:
    back, clock = threading.Event(), MovedClock()
    hangs = Scripted(frame(), lambda _: back.wait(60), frame(7))
    with live(hangs, Scripted(frame(), until_stopped), policy=IMPATIENT, now_ns=clock) as camera:
        wait_for(lambda: camera.counters.frames == 1)
        clock.skip(1)
        wait_for(lambda: camera.state == "RECONNECTING")
        clock.skip(0.05)  # the longest pause
        wait_for(lambda: camera.counters.connects == 2)
        assert (camera.counters.abandoned, camera.hanging, hangs.closed.is_set()) == (1, 1, False)
        assert camera.counters.stale >= 1
        back.set()
        wait_for(lambda: camera.hanging == 0)
        assert hangs.closed.is_set()
        assert camera.counters.abandoned == 1


def test_an_opening_that_hangs_is_left_behind_too() -> None:
    back, tries, clock = threading.Event(), [], MovedClock()

    def open_slowly_at_first(stop: threading.Event) -> Scripted:
        tries.append(stop)
        if len(tries) == 1:
            back.wait(60)
        connection = Scripted(frame(), until_stopped)
        connection.stop = stop
        return connection

    with Camera(open_slowly_at_first, name="gate", live=True, policy=IMPATIENT, now_ns=clock) as camera:
        wait_for(lambda: tries)
        clock.skip(1)
        wait_for(lambda: camera.state == "RECONNECTING")
        clock.skip(0.05)  # the longest pause
        wait_for(lambda: camera.counters.connects == 1)
        assert camera.counters.abandoned == 1
        assert tries[0].is_set()  # it was told
        back.set()
        wait_for(lambda: camera.hanging == 0)


def test_no_more_connections_are_opened_than_may_hang() -> None:
    back = threading.Event()

    def hang(stop: threading.Event) -> Scripted:
        opened.append(stop)
        back.wait(60)
        raise SourceOpenError("at last")

    opened: list[threading.Event] = []
    policy = ReconnectPolicy(
        open_timeout_s=0.02, stale_after_s=0.1, first_delay_s=0.01, max_delay_s=0.05, max_abandoned=3
    )
    with Camera(hang, name="gate", live=True, policy=policy) as camera:
        wait_for(lambda: "3 connections hang; waiting for one" in camera.reason)
        wait_for(lambda: len(opened) == 3)  # a thread may have to be waited for until it begins
        threading.Event().wait(0.5)  # ten times the longest pause
        assert (len(opened), camera.hanging, camera.counters.abandoned) == (3, 3, 3)
        back.set()
        wait_for(lambda: len(opened) > 3)  # and then it goes on


@pytest.mark.parametrize(
    ("last_ns", "away_s", "next_ns"),
    [
        (80_000_000, 60, 60_000_000_000),  # a minute passed, and a minute is in the times
        (9_000_000_000_000, 0.05, 9_000_000_000_001),  # a stream that ran ahead of our clock: never back
    ],
)
def test_times_go_on_over_a_new_connection(last_ns: int, away_s: float, next_ns: int) -> None:
    clock, pulled = MovedClock(), threading.Event()

    def cable(_: threading.Event) -> None:
        assert pulled.wait(60)
        raise SourceReadError("the cable was pulled")

    camera = Camera(
        Opener(Scripted(frame(), frame(last_ns), cable), Scripted(frame(), until_stopped)),
        name="gate",
        live=True,
        policy=HASTY,
        now_ns=clock,
    )
    with camera:
        wait_for(lambda: camera.counters.frames == 2)
        first = camera.take()
        pulled.set()
        wait_for(lambda: camera.counters.failures == 1)
        clock.skip(away_s)  # no less than the longest pause
        wait_for(lambda: camera.counters.frames == 3)
        second = camera.take()
    assert first is not None
    assert second is not None
    assert (first.pts_ns, first.index) == (last_ns, 1)
    assert (second.pts_ns, second.index) == (next_ns, 2)


def test_closing_takes_no_longer_than_it_may_and_leaves_what_hangs() -> None:
    back = threading.Event()
    camera = live(Scripted(frame(), lambda _: back.wait(60)))
    camera.start()
    wait_for(lambda: camera.counters.frames == 1)
    camera.close(timeout_s=0.05)
    assert (camera.state, camera.hanging, camera.counters.abandoned) == ("ENDED", 1, 1)
    assert camera.take() is None
    back.set()
    wait_for(lambda: camera.hanging == 0)


def test_a_camera_that_is_asked_to_end_gives_nothing_more_and_is_not_waited_for() -> None:
    back = threading.Event()
    camera = live(Scripted(frame(), lambda _: back.wait(60), frame(7)))
    camera.start()
    wait_for(lambda: camera.counters.frames == 1)
    camera.end()
    assert (camera.state, camera.over, camera.take()) == ("ENDED", True, None)
    assert (camera.hanging, camera.counters.abandoned) == (1, 0)  # it may come back yet
    back.set()
    camera.close(timeout_s=60)
    assert (camera.hanging, camera.counters.abandoned, camera.counters.frames) == (0, 0, 1)


def test_a_closed_camera_leaves_no_thread() -> None:
    before = set(threading.enumerate())
    with live(Scripted(frame(), until_stopped)) as camera:
        wait_for(lambda: camera.counters.frames == 1)
        its_own = set(threading.enumerate()) - before
        assert len(its_own) == 2
        camera.close(timeout_s=60)
        assert not its_own & set(threading.enumerate())
    assert set(threading.enumerate()) <= before
    live(Scripted()).close()  # never started


def test_a_camera_that_hangs_touches_no_other() -> None:
    wake, back = threading.Event(), threading.Event()
    hangs = Camera(
        Opener(Scripted(lambda _: back.wait(60))), name="a", live=True, wake=wake, policy=IMPATIENT
    )
    runs = Camera(Opener(Scripted(*[frame()] * 3, until_stopped)), name="b", live=True, wake=wake)
    with hangs, runs:
        wait_for(lambda: runs.counters.frames == 3 and hangs.state == "RECONNECTING")
        assert wake.is_set()  # one event serves both
        assert runs.take() is not None
        back.set()


def test_pictures_are_no_camera(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds pictures, and no camera does; use open_source"):
        open_camera(tmp_path)


def test_an_address_that_means_nothing_is_refused_before_the_start() -> None:
    with pytest.raises(InputError, match=r"unknown scheme .ftp."):
        open_camera("ftp://gate/live")


def test_a_picture_is_current_up_to_the_stated_age_and_never_from_the_future() -> None:
    assert is_current(NOON, NOON + timedelta(seconds=3), 3.0)
    assert not is_current(NOON, NOON + timedelta(seconds=3, microseconds=1), 3.0)
    assert is_current(NOON, NOON - timedelta(hours=1), 3.0)


def test_ntp_times_count_from_1900() -> None:
    assert from_ntp((2_208_988_800 + 1_000) * 1_000_000_000) == datetime(
        1970, 1, 1, 0, 16, 40, tzinfo=timezone.utc
    )


def captured(*pairs: tuple[float, float]) -> list[float | None]:
    """What a connection makes of pictures sent and arrived so many seconds after noon."""
    clock, times = SenderClock(), []
    for sent_s, arrived_s in pairs:
        at = clock.captured_at(NOON + timedelta(seconds=sent_s), NOON + timedelta(seconds=arrived_s))
        times.append(None if at is None else (at - NOON).total_seconds())
    return times


def test_a_camera_whose_clock_is_set_is_believed_even_when_its_pictures_come_late() -> None:
    assert captured((0, 0.2), (1, 1.2), (2, 40)) == [0, 1, 2]


def test_a_camera_whose_clock_was_never_set_is_not_believed() -> None:
    assert captured((-3600, 0), (-3599, 1)) == [None, None]
    assert captured((3600, 0), (3601, 1)) == [None, None]


def test_a_clock_slightly_ahead_gives_no_time_after_the_arrival() -> None:
    assert captured((0.3, 0.1)) == [0.1]


def test_a_clock_that_is_set_back_or_forth_is_judged_again() -> None:
    # Believed; set back an hour, no longer; set right, which is a step forth that nothing tells from a
    # clock that caught up: not until the next connection.
    assert captured((0, 0.1), (-3600, 1), (2, 2.1)) == [0, None, None]
    assert captured((0, 0.1), (3600, 1), (2, 2.1)) == [0, None, 2]
