"""What the soak benchmark calls flat memory, and what it does not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.bench.soak import KINDS, MOST_BYTES, MOST_LOG_BYTES, faults, slope

FRAMES = [1000.0 * (i + 1) for i in range(80)]


def test_a_line_through_memory_that_grows_steadily_has_its_growth_as_slope() -> None:
    fitted, lower, upper = slope(FRAMES, [3e8 + 5000 * i for i in range(80)])
    assert fitted == pytest.approx(5000)
    assert upper - lower < 1  # a straight line leaves nothing to doubt


def test_memory_that_only_goes_up_and_down_has_zero_within_its_interval() -> None:
    # A walk back to the middle: samples that follow each other are alike, as those of memory are.
    outside, rng = 0, np.random.default_rng(0)
    for _ in range(400):
        walk = np.zeros(80)
        for i in range(1, 80):
            walk[i] = 0.5 * walk[i - 1] + rng.normal(0, 1e5)
        _, lower, upper = slope(FRAMES, list(3e8 + walk))
        outside += not lower <= 0 <= upper
    # 5 % where the means of blocks are independent; those of this walk are alike: 7 %.
    assert outside / 400 < 0.12


def report(**changes: Any) -> dict[str, Any]:
    counts = {"threads": 60, "handles": 70}
    return {
        "rss_bytes_per_1000_frames": {"slope": 0, "lower": -9000, "upper": MOST_BYTES},
        "after_warm_up": counts,
        "at_end": counts,
        "largest_files": {"outbox.db-wal": 1 << 20, "events.jsonl": 1 << 30},
        "events": dict.fromkeys(KINDS, 1),
        "undelivered": 0,
        "exit_code": 0,
        **changes,
    }


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"rss_bytes_per_1000_frames": {"upper": MOST_BYTES + 1}}, f"memory: up to {MOST_BYTES + 1} bytes"),
        ({"at_end": {"threads": 99, "handles": 70}}, "threads: 60 after the warm-up, 99 at the end"),
        ({"at_end": {"threads": 60, "handles": 99}}, "handles: 70 after the warm-up, 99 at the end"),
        ({"largest_files": {"people.db-wal": MOST_LOG_BYTES + 1}}, "people.db-wal: "),
        ({"events": dict.fromkeys(KINDS[1:], 1)}, f"no {KINDS[0]} ever came"),
        ({"undelivered": 2}, "2 events did not reach the webhook"),
        ({"exit_code": -9}, "it ended with -9, expected 0"),
    ],
)
def test_each_thing_that_a_run_did_not_hold_to_is_said(changes: dict[str, Any], said: str) -> None:
    assert faults(report()) == []
    (only,) = faults(report(**changes))
    assert only.startswith(said)
