"""`edge-fr run --config` as a service: its pages, what systemd hears of it, and its end by SIGTERM."""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from urllib.error import URLError

import cv2
import numpy as np
import pages
import pytest
from ports import free_port
from prometheus_client.parser import text_string_to_metric_families
from service_manager import ServiceManager
from webhook_receiver import SECRET, Receiver

from edge_fr import Recognizer
from samples.standoff_people import HOPPER, portrait

LIMIT_S = 600.0  # for what takes a second or two on a machine that does nothing else
# It is told every third part of it. The kernel keeps ten lines that nobody has read: of half a minute.
WATCHDOG_US = "9000000"
SITE = """
models: {threads: 1}
defaults: {decide_within_s: 1}
cameras:
  door: {source: VIDEO, fps: 5}
events:
  jsonl: events.jsonl
  outbox: outbox.db
  webhook: {url: "WHERE", secret: "${env:HOOK_SECRET}"}
metrics: {port: PORT}
"""


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A face that stays for 1000 frames: more than three minutes at the rate that is asked for."""
    path = tmp_path_factory.mktemp("video") / "long.avi"
    photo = cv2.resize(portrait(HOPPER), (240, 240), interpolation=cv2.INTER_AREA)
    frame = np.full((260, 320, 3), 100, np.uint8)
    frame[10:250, 40:280] = photo
    video = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 25, (320, 260))
    for _ in range(1000):
        video.write(frame)
    video.release()
    return path


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as it:
        yield it


def get(url: str) -> tuple[int, str]:
    """Its status and text; 0 where nothing answered: it is not there yet, or we stood still in the middle."""
    try:
        return pages.get(url)
    except (URLError, ConnectionError, TimeoutError):
        return 0, ""


def until(come_true: Callable[[], bool], service: subprocess.Popen[str]) -> None:
    give_up = time.monotonic() + LIMIT_S
    while not come_true():
        assert service.poll() is None, "it ended by itself"
        assert time.monotonic() < give_up, "it took too long"
        time.sleep(0.1)


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def waiting(outbox: Path) -> list[str]:
    with closing(sqlite3.connect(outbox)) as db:
        return [body for (body,) in db.execute("SELECT body FROM events WHERE body IS NOT NULL ORDER BY seq")]


def site(video: Path, receiver: str, port: int) -> str:
    return SITE.replace("VIDEO", str(video)).replace("WHERE", receiver).replace("PORT", str(port))


def start(folder: Path, text: str, **environment: str) -> subprocess.Popen[str]:
    (folder / "site.yaml").write_text(text)
    return subprocess.Popen(
        [sys.executable, "-m", "edge_fr.cli", "run", "--config", str(folder / "site.yaml")],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )


def test_a_service_tells_how_it_is_and_ends_its_tracks_when_it_is_asked_to_stop(
    tmp_path: Path, video: Path, receiver: Receiver
) -> None:
    port, heard, answers = free_port(), [], {"healthz": (0, ""), "metrics": (0, "")}
    with ServiceManager(str(tmp_path / "notify")) as manager:
        text = site(video, receiver.url, port)
        environment = {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": WATCHDOG_US, "HOOK_SECRET": SECRET}
        with start(tmp_path, text, **environment) as service:

            def has_delivered() -> bool:
                heard.extend(manager.heard())
                return len(receiver.taken) > 0 and heard.count("WATCHDOG=1") > 1

            def answer(page: str) -> tuple[int, str]:
                heard.extend(manager.heard())
                answers[page] = get(f"http://127.0.0.1:{port}/{page}")
                return answers[page]

            try:
                until(has_delivered, service)
                until(lambda: answer("healthz")[0] == 200, service)
                body = json.loads(answers["healthz"][1])
                assert (body["ok"], body["cameras"]["door"]["state"]) == (True, "RUNNING"), body
                settled = 'edge_fr_outbox_delivered_total{receiver="webhook"} 1.0'
                until(lambda: settled in answer("metrics")[1], service)
                service.send_signal(signal.SIGTERM)
                _, errors = service.communicate(timeout=LIMIT_S)
            finally:
                service.kill()
        heard.extend(manager.heard())
    assert service.returncode == 0, errors
    events = lines(tmp_path / "events.jsonl")
    assert [event["type"] for event in events] == ["face.unknown", "face.ended"]
    # If we stood still, it may have sent an event again, or left the last one to its next run.
    bodies = [*(post.body.decode() for post in receiver.taken), *waiting(tmp_path / "outbox.db")]
    assert [json.loads(body) for body in dict.fromkeys(bodies)] == events
    assert heard[0] == "READY=1"
    assert heard.count("STOPPING=1") == 1, heard
    assert set(heard[1:]) == {"WATCHDOG=1", "STOPPING=1"}
    check_metrics(answers["metrics"][1])


def check_metrics(page: str) -> None:
    seen = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }
    assert seen["edge_fr_camera_state", "door", "RUNNING"] == 1
    assert seen["edge_fr_frames_total", "door", "looked at"] >= 3  # so many it takes to follow a face
    assert seen["edge_fr_camera_asked_fps", "door"] == 5
    assert seen["edge_fr_faces_total", "door", "embedded"] >= 1
    assert seen["edge_fr_events_total", "door", "face.unknown"] == 1
    assert seen["edge_fr_outbox_delivered_total", "webhook"] == 1
    for stage in ("detect", "track", "align", "gate", "embed", "decide"):
        assert seen["edge_fr_stage_seconds_count", stage] >= 3
    assert seen["edge_fr_engine_seconds_count", "embed"] >= 1
    assert seen["edge_fr_capture_to_event_seconds_count", "door"] == 0  # a file shows nothing as now


def test_a_receiver_that_is_away_is_told_and_loses_nothing(tmp_path: Path, video: Path) -> None:
    port = free_port()
    where = f"http://127.0.0.1:{free_port()}/"  # nobody listens there
    text = site(video, where, port)
    with start(tmp_path, text, HOOK_SECRET=SECRET) as service:
        try:
            answers = [(0, "")]

            def is_told() -> bool:
                answers.append(get(f"http://127.0.0.1:{port}/healthz"))
                return "webhook: " in answers[-1][1]

            until(is_told, service)
            service.send_signal(signal.SIGTERM)
            _, errors = service.communicate(timeout=LIMIT_S)
        finally:
            service.kill()
    assert service.returncode == 0, errors
    code, body = answers[-1]
    assert code == 503
    assert json.loads(body)["receivers"]["webhook"]["waiting"] >= 1
    assert [event["type"] for event in lines(tmp_path / "events.jsonl")] == ["face.unknown", "face.ended"]


def test_a_gallery_that_goes_away_is_told_and_ends_nothing_and_comes_back(
    tmp_path: Path, video: Path
) -> None:
    port, answers = free_port(), [(0, "")]
    people, kept = tmp_path / "people.db", tmp_path / "kept.db"
    with Recognizer.open(people, create=True) as recognizer:
        recognizer.enroll("Grace", portrait(HOPPER))
    text = (
        f"gallery: people.db\nmodels: {{threads: 1}}\ncameras: {{door: {{source: {video}, fps: 5}}}}\n"
        f"events: {{jsonl: events.jsonl}}\nmetrics: {{port: {port}}}\n"
    )

    def health() -> tuple[int, str]:
        answers.append(get(f"http://127.0.0.1:{port}/healthz"))
        return answers[-1]

    with start(tmp_path, text) as service:
        try:
            until(lambda: len(lines(tmp_path / "events.jsonl")) == 1, service)
            os.rename(people, kept)
            until(lambda: health()[0] == 503, service)
            (reason,) = json.loads(answers[-1][1])["reasons"]
            assert f"gallery {people} is not there any more" in reason
            assert "edge_fr_gallery_readable 0.0" in get(f"http://127.0.0.1:{port}/metrics")[1]
            os.replace(kept, people)
            until(lambda: health()[0] == 200, service)
            service.send_signal(signal.SIGTERM)
            _, errors = service.communicate(timeout=LIMIT_S)
        finally:
            service.kill()
    assert service.returncode == 0, errors
    told = [line for line in errors.splitlines() if line.startswith("gallery ")]
    assert len(told) == 2  # when it began, and when it was over
    types = [(event["type"], event["identity"]) for event in lines(tmp_path / "events.jsonl")]
    assert types == [("face.identified", "Grace"), ("face.ended", "Grace")]


def test_a_taken_port_is_told_before_any_camera_is_opened(tmp_path: Path, video: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        text = f"cameras: {{door: {{source: {video}}}}}\nmetrics: {{port: {port}}}\nmodels: {{threads: 1}}\n"
        with start(tmp_path, text) as service:
            _, errors = service.communicate(timeout=LIMIT_S)
    assert service.returncode == 1
    assert f"port {port} on 127.0.0.1 is taken by another program" in errors
    assert "frames" not in errors
