"""Durations by stage: what is kept, and how much memory that takes."""

from __future__ import annotations

import tracemalloc

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
