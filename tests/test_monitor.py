"""The pages about a running site, over HTTP, and the rule behind /healthz."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Iterable
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import pages
import pytest
from ports import free_port

from edge_fr.errors import EventError, InputError
from edge_fr.events import SinkStatus
from edge_fr.health import Health, HealthCheck
from edge_fr.monitor import Monitor, health_page

SECOND = 1_000_000_000


def lanes(**states: str) -> Any:
    return [
        SimpleNamespace(
            camera=SimpleNamespace(name=name, state=state, reason=f"why {name}"),
            pipeline=SimpleNamespace(too_slow=name.startswith("slow")),
        )
        for name, state in states.items()
    ]


def outbox(*troubles: str | None) -> Any:
    status = {f"receiver{i}": SinkStatus(3, 0, 0, 0, trouble) for i, trouble in enumerate(troubles)}
    return SimpleNamespace(status=lambda: status)


def get(url: str) -> tuple[int, Any]:
    for _ in range(9):
        with suppress(
            ConnectionError
        ):  # we stood still for five seconds before we asked, and it hung up on us
            return pages.get(url)
    return pages.get(url)


def test_pages_are_found_by_their_path_and_others_are_named() -> None:
    report = Health(True, (), {"cameras": {}})
    with Monitor("127.0.0.1", 0, {"/metrics": hello, "/healthz": health_page(lambda: report)}) as monitor:
        assert get(f"{monitor.url}/metrics") == (200, "hello")
        assert get(f"{monitor.url}/metrics?name=x") == (200, "hello")
        assert get(f"{monitor.url}/") == (404, "here are /metrics and /healthz\n")
        code, body = get(f"{monitor.url}/healthz")
        assert (code, json.loads(body)) == (200, {"ok": True, "reasons": [], "cameras": {}})


def hello(environ: Any, start_response: Any) -> Iterable[bytes]:
    start_response("200 OK", [])
    return [b"hello"]


def test_a_bad_report_is_a_503_with_its_reasons() -> None:
    report = Health(False, ("no camera is online",), {})
    with Monitor("127.0.0.1", 0, {"/healthz": health_page(lambda: report)}) as monitor:
        code, body = get(f"{monitor.url}/healthz")
    assert (code, json.loads(body)["reasons"]) == (503, ["no camera is online"])


def test_the_health_page_is_only_read() -> None:
    with Monitor("127.0.0.1", 0, {"/healthz": health_page(lambda: Health(True, (), {}))}) as monitor:
        connection = http.client.HTTPConnection(monitor.url.removeprefix("http://"), timeout=60)
        connection.request("POST", "/healthz", body=b"{}")
        answer = connection.getresponse()
        assert (answer.status, answer.headers["Allow"]) == (405, "GET, HEAD")
        connection.close()


def test_closing_it_frees_the_port_and_ends_its_thread() -> None:
    port = free_port()
    with Monitor("127.0.0.1", port, {"/metrics": hello}) as monitor:
        assert get(f"{monitor.url}/metrics")[0] == 200
        assert serving()
    assert not serving()
    with Monitor("127.0.0.1", port, {"/metrics": hello}) as again:
        assert get(f"{again.url}/metrics")[0] == 200


def serving() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "edge-fr-monitor"]


def test_a_taken_port_is_an_error_that_says_what_to_do() -> None:
    with (
        Monitor("127.0.0.1", 0, {}) as first,
        pytest.raises(
            InputError, match=r"port \d+ on 127\.0\.0\.1 is taken by another program; .*metrics\.port"
        ),
    ):
        Monitor("127.0.0.1", int(first.url.rpartition(":")[2]), {})


@pytest.mark.parametrize("address", ["203.0.113.7", "no.such.host.invalid"])
def test_an_address_that_is_not_this_machines_is_an_error_that_says_what_to_do(address: str) -> None:
    with pytest.raises(InputError, match=rf"cannot be served on {address}, port 9464: .*metrics\.address"):
        Monitor(address, 9464, {})


def test_it_speaks_ipv6() -> None:
    if not socket.has_ipv6:
        pytest.skip("this Python has no IPv6")
    try:
        monitor = Monitor("::1", 0, {"/metrics": hello})
    except InputError:
        pytest.skip("this machine has no IPv6 on loopback")
    with monitor:
        assert monitor.url.startswith("http://[::1]:")
        assert get(f"{monitor.url}/metrics") == (200, "hello")


def test_a_reader_that_stalls_holds_up_nobody_and_not_the_end() -> None:
    monitor = Monitor("127.0.0.1", 0, {"/metrics": hello})
    with socket.create_connection(("127.0.0.1", int(monitor.url.rpartition(":")[2]))) as stalled:
        stalled.sendall(b"GET /metrics HTTP/1.1\r\n")  # and nothing more
        assert get(f"{monitor.url}/metrics") == (200, "hello")
        handlers = [t for t in threading.enumerate() if "process_request_thread" in t.name]
        assert all(handler.daemon for handler in handlers)  # so that the process ends without them
        assert serving()
        monitor.close()
        assert not serving()


def test_a_site_with_a_camera_and_receivers_that_take_events_is_healthy() -> None:
    health = HealthCheck(lanes(door="RUNNING"), outbox(None, None)).report()
    assert (health.ok, health.reasons) == (True, ())
    assert health.details["cameras"] == {"door": {"state": "RUNNING", "reason": "why door"}}
    assert health.details["receivers"]["receiver1"] == {"waiting": 3, "trouble": None}


@pytest.mark.parametrize("away", ["CONNECTING", "RECONNECTING", "FAILED"])
def test_one_camera_that_is_away_is_a_detail_and_all_of_them_are_a_failure(away: str) -> None:
    degraded = HealthCheck(lanes(door=away, yard="STALE")).report()
    assert degraded.ok
    assert degraded.details["cameras"]["door"] == {"state": away, "reason": "why door"}
    alone = HealthCheck(lanes(door=away, film="ENDED")).report()
    assert (alone.ok, alone.reasons) == (False, ("no camera is online",))


def test_cameras_at_their_end_are_no_failure() -> None:
    assert HealthCheck(lanes(film="ENDED")).report().ok


def test_a_receiver_in_trouble_or_an_outbox_that_cannot_be_read_is_a_failure() -> None:
    health = HealthCheck(lanes(door="RUNNING"), outbox(None, "HTTP 503")).report()
    assert (health.ok, health.reasons) == (False, ("receiver1: HTTP 503",))

    def gone() -> None:
        raise EventError("outbox events.db cannot be read")

    health = HealthCheck(lanes(door="RUNNING"), SimpleNamespace(status=gone)).report()  # type: ignore[arg-type]
    assert (health.ok, health.reasons) == (False, ("outbox events.db cannot be read",))


def test_a_gallery_in_trouble_is_a_detail_at_first_and_a_failure_when_it_lasts() -> None:
    people = SimpleNamespace(trouble="gallery people.db is locked", age_s=9.0)
    check = HealthCheck(lanes(door="RUNNING"), gallery=people)  # type: ignore[arg-type]
    assert check.report().ok
    assert check.report().details["gallery"] == {"read_s_ago": 9.0, "trouble": "gallery people.db is locked"}
    people.age_s = 11.0
    (reason,) = check.report().reasons
    assert reason == "people are recognized as they were enrolled 11 s ago: gallery people.db is locked"
    people.trouble = None  # nobody has asked for longer: it was sound when it was last read
    assert check.report().ok
    assert "gallery" not in HealthCheck(lanes(door="RUNNING")).report().details


def test_a_camera_whose_frames_are_too_far_apart_to_follow_anybody_is_a_failure() -> None:
    health = HealthCheck(lanes(slow_door="RUNNING", hall="RUNNING")).report()
    assert health.reasons == ("slow_door: frames come more than 10 s apart, so nobody is reported",)
    assert HealthCheck(lanes(hall="RUNNING")).report().ok


def test_a_loop_that_stands_still_is_a_failure_until_it_turns_again() -> None:
    clock = [0]
    check = HealthCheck(lanes(door="RUNNING"), stuck_after_s=30, now_ns=lambda: clock[0])
    clock[0] = 30 * SECOND
    assert check.report().ok
    clock[0] = 31 * SECOND
    assert check.report().reasons == ("the loop has not turned for 31 s",)
    check.turned()
    assert check.report().ok


@pytest.mark.parametrize(
    ("states", "tried"),
    [
        (("CONNECTING", "CONNECTING"), False),
        (("CONNECTING", "RECONNECTING"), False),
        (("CONNECTING", "RUNNING"), True),
        (("RECONNECTING", "FAILED"), True),
        (("ENDED",), True),
    ],
)
def test_a_site_has_begun_when_a_camera_runs_or_all_were_tried(states: tuple[str, ...], tried: bool) -> None:
    check = HealthCheck(lanes(**{f"camera{i}": state for i, state in enumerate(states)}))
    assert check.tried is tried
