"""What Prometheus reads of a site: counted where it happens, bounded in its labels, and without names."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from edge_fr.camera_event import camera_event
from edge_fr.errors import EventError
from edge_fr.events import SinkStatus
from edge_fr.lane import Lane
from edge_fr.metrics import SiteMetrics
from edge_fr.pipeline import Step
from edge_fr.quality import COMPONENTS, QualityPolicy
from edge_fr.sensors import Sensor
from edge_fr.stream.connection import CameraChange, CameraCounters
from edge_fr.stream.reconnect import State
from edge_fr.structures import Faces, Frame, Refusal
from edge_fr.timing import StageTimes

ROOT = Path(__file__).resolve().parents[1]
FRAME = Frame(np.zeros((9, 16, 3), np.uint8), 0, datetime.now(timezone.utc), "door")


def camera(name: str = "door", *, live: bool = True, state: str = "RUNNING", **counters: int) -> Any:
    return SimpleNamespace(
        name=name, live=live, state=state, reason="", hanging=1, counters=CameraCounters(**counters)
    )


def lane_of(camera: Any, **fields: Any) -> Lane:
    lane = Lane(camera, None, fps=fields.pop("fps", None))  # type: ignore[arg-type]
    for name, value in fields.items():
        setattr(lane, name, value)
    return lane


def outbox(status: dict[str, SinkStatus] | EventError) -> Any:
    def answer() -> dict[str, SinkStatus]:
        if isinstance(status, EventError):
            raise status
        return status

    return SimpleNamespace(status=answer)


def gallery(trouble: str | None = None, age_s: float = 0.5) -> Any:
    return SimpleNamespace(trouble=trouble, age_s=age_s)


def read(metrics: SiteMetrics) -> dict[tuple[str, ...], float]:
    """The page as Prometheus's own parser reads it: name and label values to value."""
    status: list[str] = []
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/metrics", "QUERY_STRING": ""}
    body = b"".join(metrics.app(environ, lambda code, headers: status.append(code)))  # type: ignore[arg-type,func-returns-value,return-value]
    assert status == ["200 OK"]
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    }


def faces(refusals: Iterable[tuple[Refusal, ...]], embedded: Iterable[bool]) -> Faces:
    rows = tuple(refusals)
    n = len(rows)
    embeddings = np.full((n, 4), np.nan, np.float32)
    embeddings[np.fromiter(embedded, bool, n)] = 0.5
    return Faces(
        np.zeros((n, 4), np.float32),
        np.ones(n, np.float32),
        np.zeros((n, 5, 2), np.float32),
        refusals=rows,
        embeddings=embeddings,
    )


def refusal(component: str) -> Refusal:
    return Refusal(component, 1.0, 2.0, "at least")


def test_faces_are_counted_by_what_became_of_them_and_by_every_reason_against_them() -> None:
    lane = lane_of(camera())
    metrics = SiteMetrics([lane])
    small, dark, own = refusal("head_size"), refusal("under_exposure"), refusal("hat_of_today")
    step = Step(faces([(), (), (small,), (small, dark), (own,)], [True, False, False, False, False]), (), {})
    metrics.saw(lane, FRAME, step)
    metrics.saw(lane, FRAME, Step(Faces.empty(), (), {}))
    seen = read(metrics)
    assert {key[2]: value for key, value in seen.items() if key[0] == "edge_fr_faces_total"} == {
        "embedded": 1,
        "refused": 3,
        "passed over": 1,
    }
    refused = {key[2]: value for key, value in seen.items() if key[0] == "edge_fr_faces_refused_total"}
    assert {reason for reason, count in refused.items() if count} == {"head_size", "under_exposure", "other"}
    assert refused["head_size"] == 2
    assert set(refused) == {*COMPONENTS, "other"}


def test_every_bound_of_the_quality_gate_has_its_reason() -> None:
    # better_by and every_ns choose among good faces; all else refuses
    assert len(COMPONENTS) == len(set(COMPONENTS)) == len(QualityPolicy.__slots__) - 2


def test_the_latency_is_of_live_cameras_and_a_clock_ahead_of_ours_is_no_time_at_all() -> None:
    live, ahead = lane_of(camera("live"), latency_s=0.4), lane_of(camera("ahead"), latency_s=-3.0)
    file = lane_of(camera("file", live=False), latency_s=86_400.0)
    metrics = SiteMetrics([live, ahead, file])
    for lane in (live, ahead, file):
        metrics.saw(lane, FRAME, Step(Faces.empty(), (), {}))
    seen = read(metrics)
    name = "edge_fr_capture_to_event_seconds"
    assert [seen[f"{name}_count", c] for c in ("live", "ahead", "file")] == [1, 1, 0]
    assert [seen[f"{name}_sum", c] for c in ("live", "ahead")] == [0.4, 0.0]
    assert (seen[f"{name}_bucket", "live", "0.3"], seen[f"{name}_bucket", "live", "0.5"]) == (0, 1)


def test_stages_and_models_are_timed_apart_and_own_stages_are_one() -> None:
    metrics = SiteMetrics([])
    times = StageTimes()
    times.listener = metrics.took
    times.add("detect", 30_000_000)
    times.add("engine:embed", 7_000_000)
    times.add("my_stage", 1_000_000)
    times.add("your_stage", 1_000_000)
    seen = read(metrics)
    assert seen["edge_fr_stage_seconds_sum", "detect"] == pytest.approx(0.03)
    assert seen["edge_fr_engine_seconds_sum", "embed"] == pytest.approx(0.007)
    assert seen["edge_fr_stage_seconds_count", "other"] == 2
    assert seen["edge_fr_stage_seconds_count", "track"] == 0
    assert times.total_s("detect") == 0.03  # a listener takes nothing away


def test_what_cameras_and_lanes_count_is_read_when_it_is_asked_for() -> None:
    door = camera(frames=90, dropped=7, damaged=2, connects=3, failures=4, stale=5, abandoned=6)
    lane = lane_of(door, fps=10, taken=50, too_old=8, rate=7.5, share=0.75)
    metrics = SiteMetrics([lane, lane_of(camera("yard", state="FAILED"))])
    seen = read(metrics)
    frames = {key[2]: value for key, value in seen.items() if key[:2] == ("edge_fr_frames_total", "door")}
    assert frames == {"looked at": 42, "dropped": 7, "too old": 8, "damaged": 2}
    for name, value in {
        "connects_total": 3,
        "failures_total": 4,
        "stale_total": 5,
        "abandoned_total": 6,
        "hanging": 1,
        "asked_fps": 10,
        "fps": 7.5,
        "share": 0.75,
    }.items():
        assert seen[f"edge_fr_camera_{name}", "door"] == value
    assert ("edge_fr_camera_asked_fps", "yard") not in seen
    states = {key[1:]: value for key, value in seen.items() if key[0] == "edge_fr_camera_state"}
    assert len(states) == 2 * len(get_args(State))
    assert [key for key, value in states.items() if value] == [("door", "RUNNING"), ("yard", "FAILED")]
    lane.taken = 60
    assert read(metrics)["edge_fr_frames_total", "door", "looked at"] == 52


def test_faces_that_came_and_went_too_soon_are_counted_by_camera() -> None:
    seen = read(SiteMetrics([lane_of(camera(), unfollowed=7)]))
    assert seen["edge_fr_faces_unfollowed_total", "door"] == 7


def test_events_are_counted_by_camera_and_type_from_zero_on() -> None:
    metrics = SiteMetrics([lane_of(camera())])
    assert read(metrics)["edge_fr_events_total", "door", "face.unknown"] == 0
    gone = camera_event(CameraChange("door", False, FRAME.captured_at, 0, "no frame within 10 s"))
    metrics.write(gone)
    assert read(metrics)["edge_fr_events_total", "door", "camera.offline"] == 1


def test_each_receiver_of_the_outbox_is_told_of() -> None:
    status = {
        "webhook": SinkStatus(5, 100, 2, 1, "HTTP 503"),
        "mqtt": SinkStatus(0, 108, 0, 0, None),
    }
    seen = read(SiteMetrics([], outbox(status)))
    assert seen[("edge_fr_outbox_readable",)] == 1
    for name, values in {
        "waiting": (5, 0),
        "delivered_total": (100, 108),
        "refused_total": (2, 0),
        "lost_total": (1, 0),
        "trouble": (1, 0),
    }.items():
        assert tuple(seen[f"edge_fr_outbox_{name}", who] for who in status) == values


def test_an_outbox_that_cannot_be_read_says_so_and_hides_nothing_else() -> None:
    seen = read(SiteMetrics([lane_of(camera(connects=3))], outbox(EventError("the disk is gone"))))
    assert seen[("edge_fr_outbox_readable",)] == 0
    assert seen["edge_fr_camera_connects_total", "door"] == 3
    assert not [key for key in seen if key[0] == "edge_fr_outbox_waiting"]


def test_a_gallery_that_cannot_be_read_says_so_and_how_old_is_what_is_searched() -> None:
    for trouble, readable in ((None, 1), ("locked", 0)):
        seen = read(SiteMetrics([], gallery=gallery(trouble, 7.5)))
        assert seen[("edge_fr_gallery_readable",)] == readable
        assert seen[("edge_fr_gallery_age_seconds",)] == 7.5


def test_the_process_and_what_sensors_say_are_told_of() -> None:
    sensors = [lambda: [Sensor("VDD_IN", "W", 7.5)], lambda: [Sensor("cpu-thermal", "C", 48.5)]]
    seen = read(SiteMetrics([], sensors=sensors))
    assert seen["edge_fr_power_watts", "VDD_IN"] == 7.5
    assert seen["edge_fr_temperature_celsius", "cpu-thermal"] == 48.5
    assert seen[("process_threads",)] >= 1
    assert seen[("process_open_fds",)] >= 3
    assert seen[("process_resident_memory_bytes",)] > 1 << 20
    assert not [key for key in read(SiteMetrics([])) if key[0].startswith(("edge_fr_power", "edge_fr_temp"))]


def test_the_readme_names_every_metric_and_none_that_is_not_there() -> None:
    sensors = [lambda: [Sensor("VDD_IN", "W", 7.5), Sensor("cpu-thermal", "C", 48.5)]]
    status = {"webhook": SinkStatus(0, 0, 0, 0, None)}
    lanes = [lane_of(camera(), fps=10)]
    seen = read(SiteMetrics(lanes, outbox(status), gallery=gallery(), sensors=sensors))
    there = {re.sub("_(bucket|count|sum|created)$", "", name) for name, *_ in seen}
    table = (ROOT / "README.md").read_text().partition("| metric | what |")[2].partition("\n\n")[0]
    named = set(re.findall(r"`(edge_fr_\w+)", table))
    counted = {name.removesuffix("_total") for name in named}
    assert counted == {name.removesuffix("_total") for name in there if name.startswith("edge_fr_")}


def test_two_sites_in_one_process_do_not_share_a_count() -> None:
    first, second = SiteMetrics([lane_of(camera())]), SiteMetrics([lane_of(camera())])
    first.took("detect", 1)
    assert read(first)["edge_fr_stage_seconds_count", "detect"] == 1
    assert read(second)["edge_fr_stage_seconds_count", "detect"] == 0
