"""The reconnect state machine on a clock that the test moves: states, time-outs, pauses, turns."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_fr.errors import InputError
from edge_fr.stream.reconnect import Link, ReconnectPolicy, Turn

S = 1_000_000_000
POLICY = ReconnectPolicy(
    open_timeout_s=10, read_timeout_s=6, stale_after_s=2, first_delay_s=1, max_delay_s=30, jitter=0
)


def link(policy: ReconnectPolicy = POLICY, *, live: bool = True, chance: float = 0.0) -> Link:
    return Link(policy, live=live, chance=lambda: chance)


def running(at_ns: int = 0) -> Link:
    machine = link()
    assert machine.tick(at_ns) == "open"
    machine.frame(at_ns)
    return machine


def test_a_camera_is_connecting_until_its_first_frame() -> None:
    machine = link()
    assert machine.tick(0) == "open"
    assert (machine.state, machine.due_ns, machine.turns) == ("CONNECTING", 10 * S, [])
    assert machine.tick(9 * S) is None
    machine.frame(9 * S)
    assert (machine.state, machine.reason, machine.turns) == ("RUNNING", "", [Turn(True, "")])


def test_a_camera_that_gives_no_first_frame_is_given_up_and_tried_again() -> None:
    machine = link()
    machine.tick(0)
    assert machine.tick(10 * S) == "give up"
    assert (machine.state, machine.reason) == ("RECONNECTING", "no first frame within 10 s")
    assert machine.turns == [Turn(False, "no first frame within 10 s")]
    assert machine.due_ns == 11 * S
    assert machine.tick(11 * S - 1) is None
    assert machine.tick(11 * S) == "open"
    assert machine.state == "RECONNECTING"  # until its first frame


def test_frames_that_stop_make_a_camera_stale_then_lost() -> None:
    machine = running()
    machine.frame(1 * S)
    assert machine.tick(3 * S - 1) is None
    assert machine.state == "RUNNING"
    assert machine.tick(3 * S) is None
    assert (machine.state, machine.reason, machine.due_ns) == ("STALE", "no frame for 2 s", 7 * S)
    assert machine.tick(7 * S) == "give up"
    assert (machine.state, machine.reason) == ("RECONNECTING", "no frame within 6 s")
    assert machine.turns == [Turn(True, ""), Turn(False, "no frame within 6 s")]


def test_a_stale_camera_that_gives_a_frame_was_online_all_the_time() -> None:
    machine = running()
    machine.tick(2 * S)
    machine.frame(3 * S)
    assert (machine.state, machine.reason, machine.due_ns) == ("RUNNING", "", 5 * S)
    assert machine.turns == [Turn(True, "")]


def test_a_process_that_slept_through_both_limits_gives_the_connection_up_at_once() -> None:
    machine = running()
    assert machine.tick(100 * S) == "give up"
    assert machine.state == "RECONNECTING"


def test_pauses_double_up_to_their_bound() -> None:
    machine, now_ns, pauses = link(), 0, []
    for _ in range(8):
        assert machine.tick(now_ns) == "open"
        machine.failed(now_ns, "refused")
        assert machine.due_ns is not None
        pauses.append((machine.due_ns - now_ns) / S)
        now_ns = machine.due_ns
    assert pauses == [1, 2, 4, 8, 16, 30, 30, 30]
    assert machine.turns == [Turn(False, "refused")]  # told once, however often it fails


def test_a_year_of_failures_still_has_a_pause() -> None:
    assert POLICY.delay_ns(10_000_000, 0.0) == 30 * S


@given(st.integers(1, 2000), st.floats(0, 1, exclude_max=True), st.floats(0, 1, exclude_max=True))
def test_chance_only_ever_shortens_a_pause_and_by_no_more_than_its_share(
    failures: int, chance: float, jitter: float
) -> None:
    full_ns = POLICY.delay_ns(failures, 0.0)
    pause_ns = replace(POLICY, jitter=jitter).delay_ns(failures, chance)
    assert round(full_ns * (1 - jitter)) - 1 <= pause_ns <= full_ns  # 1 ns: rounding


def test_two_cameras_that_failed_together_do_not_come_back_together() -> None:
    policy = replace(POLICY, jitter=0.5)
    first, second = link(policy, chance=0.1), link(policy, chance=0.9)
    for machine in (first, second):
        machine.tick(0)
        machine.failed(0, "the switch was restarted")
    assert (first.due_ns, second.due_ns) == (0.95 * S, 0.55 * S)


def test_only_a_connection_that_ran_long_enough_begins_the_pauses_afresh() -> None:
    machine = link()
    for failures, ran_s, pause_s in [(1, 0, 1), (2, 29, 2), (3, 30, 1)]:
        start_ns = machine.due_ns or 0
        assert machine.tick(start_ns) == "open", failures
        machine.frame(start_ns)
        machine.frame(start_ns + ran_s * S)
        machine.failed(start_ns + ran_s * S, "broke")
        assert machine.due_ns == start_ns + (ran_s + pause_s) * S


def test_what_can_never_succeed_is_not_tried_again() -> None:
    machine = link()
    machine.tick(0)
    machine.failed(0, "no such plugin", for_ever=True)
    assert (machine.state, machine.over, machine.due_ns) == ("FAILED", True, None)
    assert machine.tick(1000 * S) is None
    assert machine.turns == [Turn(False, "no such plugin")]
    machine.ended("closed")
    assert machine.state == "FAILED"


def test_a_file_is_read_once_and_turns_only_when_it_fails_which_is_final() -> None:
    machine = link(live=False)
    machine.tick(0)
    machine.frame(0)
    assert machine.tick(5 * S) is None
    assert (machine.state, machine.due_ns) == ("RUNNING", 6 * S)  # a file is never stale
    machine.hold()
    assert machine.due_ns is None  # nobody waits for the file: it waits for us
    machine.frame(100 * S)
    assert machine.turns == []
    machine.failed(101 * S, "broke off")
    assert (machine.state, machine.turns) == ("FAILED", [Turn(False, "broke off")])


def test_a_source_that_ended_stays_ended() -> None:
    machine = running()
    machine.ended("closed")
    assert (machine.state, machine.reason, machine.due_ns) == ("ENDED", "closed", None)


def test_what_cannot_be_opened_now_is_asked_for_again_after_the_longest_pause() -> None:
    machine = link()
    assert machine.tick(0) == "open"
    machine.postpone(0, "4 connections hang")
    assert (machine.state, machine.reason, machine.due_ns) == ("RECONNECTING", "4 connections hang", 30 * S)
    assert machine.turns == [Turn(False, "4 connections hang")]
    assert machine.tick(30 * S) == "open"


happenings = st.lists(
    st.tuples(st.sampled_from(["tick", "frame", "fail"]), st.integers(0, 40 * S)), max_size=60
)


@given(happenings)
def test_whatever_happens_offline_and_online_alternate_and_something_is_always_due(
    happenings: list[tuple[str, int]],
) -> None:
    machine, now_ns, is_open = link(), 0, False
    for what, passed_ns in happenings:
        now_ns += passed_ns
        if what == "tick":
            action = machine.tick(now_ns)
            is_open = action == "open" or (is_open and action is None)
        elif is_open and what == "frame":
            machine.frame(now_ns)
        elif is_open:
            machine.failed(now_ns, "broke")
            is_open = False
        assert machine.due_ns is not None
        assert machine.due_ns <= now_ns + 30 * S
        assert machine.state in ("CONNECTING", "RUNNING", "STALE", "RECONNECTING")
    said = [turn.online for turn in machine.turns]
    assert all(a is not b for a, b in pairwise(said))
    if said:
        assert said[-1] is (machine.state in ("RUNNING", "STALE"))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"open_timeout_s": 0}, "open_timeout_s is 0, expected more than 0"),
        ({"max_delay_s": float("nan")}, "max_delay_s is nan"),
        ({"stale_after_s": 6}, "stale_after_s is 6, expected less than read_timeout_s"),
        ({"first_delay_s": 31}, "first_delay_s is 31, expected at most max_delay_s"),
        ({"jitter": 1}, "jitter is 1, expected from 0 to below 1"),
        ({"max_abandoned": 0}, "max_abandoned is 0"),
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(changes: dict[str, float], said: str) -> None:
    with pytest.raises(InputError, match=said):
        replace(POLICY, **changes)
