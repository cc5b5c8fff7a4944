"""Durations by stage: what is kept, and how much memory that takes."""

from __future__ import annotations

import threading
import tracemalloc

import pytest

from edge_fr.timing import StageTimes


def test_percentiles_are_of_the_newest_and_totals_of_all() -> None:
    times = StageTimes()
    for milliseconds in (1, 3):
        for _ in range(10_000):
            times.add("detect", milliseconds * 1_000_000)
    times.add("embed", 5_000_000)
    assert times.summary() == {
        "detect": {"p50_ms": 3.0, "p95_ms": 3.0, "total_s": 40.0},
        "embed": {"p50_ms": 5.0, "p95_ms": 5.0, "total_s": 0.005},
    }


def test_a_stages_memory_is_taken_with_its_first_duration() -> None:
    times = StageTimes()
    times.add("detect", 1)
    tracemalloc.start()
    try:
        for duration_ns in range(10_000):
            times.add("detect", 1_000_000 + duration_ns)
        grown, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert grown < 1000  # the total is another number; a number for each would be 320,000


def test_all_calls_of_a_model_in_a_frame_are_one_time_of_that_frame() -> None:
    times = StageTimes()

    def look_twice() -> None:
        times.called("engine:detect", 30_000_000)  # at the whole picture
        times.called("engine:detect", 2_000_000)  # and a part of it

    for _ in range(3):
        times.timed("detect", look_twice)
    rows = times.summary()
    assert list(rows) == ["detect", "engine:detect"]  # the part after the whole
    assert rows["engine:detect"] == {"p50_ms": 32.0, "p95_ms": 32.0, "total_s": 0.096}


def test_frames_that_go_through_a_stage_together_have_equal_shares_of_it() -> None:
    times, heard = StageTimes(), []
    times.listener = lambda name, duration_ns: heard.append((name, duration_ns))
    times.shared("detect", 4, times.called, "engine:detect", 40_000_000)
    times.shared("detect", 1, times.called, "engine:detect", 10_000_000)
    assert times.summary()["engine:detect"] == {"p50_ms": 10.0, "p95_ms": 10.0, "total_s": 0.05}
    assert [duration for name, duration in heard if name == "engine:detect"] == [10_000_000] * 5
    assert [name for name, _ in heard].count("detect") == 5


def test_what_a_model_does_outside_of_all_stages_is_no_frames_time() -> None:
    times = StageTimes()
    times.called("engine:detect", 5_000_000)  # its first run, or somebody's still picture

    def fails() -> None:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        times.timed("detect", fails)
    times.called("engine:detect", 5_000_000)
    assert times.summary() == {}
    inside, called = threading.Event(), threading.Event()

    def elsewhere() -> None:
        inside.wait()
        times.called("engine:detect", 5_000_000)
        called.set()

    def stage() -> None:
        inside.set()
        called.wait()

    thread = threading.Thread(target=elsewhere)
    thread.start()
    times.timed("track", stage)
    thread.join()
    assert list(times.summary()) == ["track"]


def test_a_run_tells_its_own_times_and_its_first_frame_is_in_the_total_alone() -> None:
    times = StageTimes()
    for _ in range(100):
        times.add("detect", 900_000_000)  # an earlier run
        times.add("embed", 900_000_000)
    run = times.begin()
    times.add("detect", 500_000_000)
    times.add("gate", 300_000_000)
    assert run.summary()["detect"]["p50_ms"] == 500.0  # of one frame it is all there is
    run.settle()
    for _ in range(3):
        times.add("detect", 10_000_000)
        run.settle()  # does nothing any more
    assert run.summary() == {
        "detect": {"p50_ms": 10.0, "p95_ms": 10.0, "total_s": 0.53},
        "gate": {"p50_ms": 300.0, "p95_ms": 300.0, "total_s": 0.3},
    }


def test_a_run_of_more_frames_than_are_kept_has_the_newest_in_its_percentiles() -> None:
    times = StageTimes()
    times.add("detect", 900_000_000)
    run = times.begin()
    for milliseconds in (1, 3):
        for _ in range(10_000):
            times.add("detect", milliseconds * 1_000_000)
    assert run.summary() == {"detect": {"p50_ms": 3.0, "p95_ms": 3.0, "total_s": 40.0}}
