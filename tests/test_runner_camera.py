"""A run over a camera that goes away and comes back: its tracks, its own events, and what is too late."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from datetime import datetime, timedelta, timezone

import numpy as np
import pytest
from fakes import MovedClock

from edge_fr.camera_event import camera_event
from edge_fr.errors import MissingDependencyError, SourceReadError
from edge_fr.events import to_json
from edge_fr.pipeline import Step
from edge_fr.runner import Summary, run
from edge_fr.stream import Camera, ReconnectPolicy
from edge_fr.stream.connection import CameraChange
from edge_fr.stream.source import Clock
from edge_fr.structures import Event, Frame
from tests.test_pipeline import Keep, pipeline

# Time-outs that no machine reaches, however long it stands still.
HASTY = ReconnectPolicy(
    open_timeout_s=3600, read_timeout_s=3600, stale_after_s=3000, first_delay_s=0.01, max_delay_s=0.05
)


class Connection:
    """Thirty frames of a still scene, 40 ms apart in the stream, then whatever `then` does.

    Each comes when `handled`, which counts frames, says that the one before it was: or the newest frame
    might be the only one seen. A live one that `then` does not break stays until it is not `wanted`: its end
    would be news of its own.
    """

    reader, dropped, damaged = "script", 0, 0
    clock: Clock = "arrival"

    def __init__(
        self,
        then: Callable[[], object],
        *,
        wanted: threading.Event | None = None,
        handled: Callable[[], int] | None = None,
        age_s: float = -3600.0,  # in the future, which is never too late
    ) -> None:
        self.then, self.wanted, self.handled, self.age_s = then, wanted, handled, age_s

    def __iter__(self) -> Iterator[Frame]:
        for index in range(30):
            before = self.handled() if self.handled is not None else 0
            captured_at = datetime.now(timezone.utc) - timedelta(seconds=self.age_s)
            yield Frame(np.full((120, 160, 3), 90, np.uint8), index * 40_000_000, captured_at, "gate")
            give_up = time.monotonic() + 60
            while self.handled is not None and self.handled() == before:
                assert time.monotonic() < give_up, "a frame was not handled for a minute"
                time.sleep(0.001)
        self.then()
        if self.wanted is not None:
            self.wanted.wait(60)

    def close(self) -> None:
        pass


def broken() -> None:
    raise SourceReadError("the cable was pulled")


def test_tracks_end_when_the_camera_goes_and_begin_anew_when_it_is_back() -> None:
    stop, sink, summary = threading.Event(), Keep(), Summary()
    then = iter([broken, stop.set])

    def connect(wanted: threading.Event) -> Connection:
        return Connection(next(then), wanted=wanted, handled=lambda: summary.frames)

    with Camera(connect, name="gate", live=True, policy=HASTY) as camera:
        run(camera, pipeline(), sinks=[sink], stop=stop, summary=summary)
    assert sink.types == [
        "camera.online",
        "face.identified",
        "face.ended",
        "camera.offline",
        "camera.online",
        "face.identified",
        "face.ended",
    ]
    assert sink.events[3].reason == "the cable was pulled"
    first, second = sink.events[1], sink.events[5]
    assert first.track_id != second.track_id
    assert first.pts_ns < second.pts_ns
    assert camera.counters.frames == summary.frames + summary.dropped == 60
    assert summary.events["camera.offline"] == 1


def test_tracks_end_as_soon_as_a_camera_falls_silent() -> None:
    stop, sink, summary = threading.Event(), Keep(), Summary()
    ended, clock = threading.Event(), MovedClock()
    policy = ReconnectPolicy(stale_after_s=0.2, read_timeout_s=3600, open_timeout_s=3600)

    class Watch:
        def write(self, event: Event) -> None:
            if event.type == "face.ended":
                ended.set()

    def silent() -> None:
        clock.skip(0.2)
        assert ended.wait(60)
        stop.set()

    def connect(wanted: threading.Event) -> Connection:
        return Connection(silent, wanted=wanted, handled=lambda: summary.frames)

    with Camera(connect, name="gate", live=True, policy=policy, now_ns=clock) as camera:
        run(camera, pipeline(), sinks=[sink, Watch()], stop=stop, summary=summary)
    assert sink.types == ["camera.online", "face.identified", "face.ended"]


@pytest.mark.parametrize("cut", [False, True])
def test_a_file_is_seen_to_its_last_frame_whether_or_not_it_was_cut_there(cut: bool) -> None:
    sink = Keep()

    def until_it_was_read(frame: Frame, step: Step) -> None:
        while frame.index == 27 and camera.state == "RUNNING":  # the last two wait
            threading.Event().wait(0.005)

    cut_short = pytest.raises(SourceReadError, match="the cable was pulled") if cut else nullcontext()
    clip = Connection(broken if cut else bool)
    with Camera(lambda _: clip, name="clip", live=False, policy=HASTY) as camera, cut_short:
        run(camera, pipeline(), sinks=[sink], on_step=until_it_was_read)
    assert sink.types == ["face.identified", "face.ended", *(["camera.offline"] if cut else [])]
    assert sink.events[1].pts_ns == 29 * 40_000_000  # when the face was seen last


def test_frames_that_come_too_late_are_not_announced_as_now() -> None:
    stop, sink, summary = threading.Event(), Keep(), Summary()

    def connect(wanted: threading.Event) -> Connection:
        return Connection(stop.set, wanted=wanted, handled=lambda: summary.late, age_s=10)

    with Camera(connect, name="gate", live=True, policy=HASTY) as camera:
        run(camera, pipeline(), sinks=[sink], stop=stop, summary=summary, max_age_s=9.0)
    assert sink.types == ["camera.online"]
    assert (summary.frames, summary.late) == (0, 30)


def test_a_camera_that_can_never_succeed_ends_the_run_with_its_error_and_its_event() -> None:
    def missing(_: threading.Event) -> Connection:
        raise MissingDependencyError("GStreamer has no nvarguscamerasrc")

    sink, summary = Keep(), Summary()
    with (
        Camera(missing, name="gate", live=True) as camera,
        pytest.raises(MissingDependencyError, match="no nvarguscamerasrc"),
    ):
        run(camera, pipeline(), sinks=[sink], summary=summary)
    assert sink.types == ["camera.offline"]


def test_a_camera_event_says_when_and_why_and_twice_the_same_has_one_key() -> None:
    noon = datetime(2026, 5, 1, 12, tzinfo=timezone.utc)
    event, again = (
        camera_event(CameraChange("gate", False, noon, 7, "no frame within 10 s")) for _ in range(2)
    )
    values = to_json(event)
    assert values["type"] == "camera.offline"
    assert (values["camera"], values["captured_at"], values["pts_ns"]) == ("gate", noon.isoformat(), 7)
    assert (values["reason"], values["track_id"]) == ("no frame within 10 s", None)
    assert event.dedupe_key == again.dedupe_key
    assert event.event_id != again.event_id
    back = camera_event(CameraChange("gate", True, noon, 7, ""))
    assert back.dedupe_key != event.dedupe_key
    assert "reason" not in to_json(back)


@pytest.mark.parametrize("flags", [["--json"], []])
def test_the_command_waits_for_a_camera_that_is_not_there_and_shows_no_password(flags: list[str]) -> None:
    with socket.socket() as nobody:  # bound and not listening: refuses
        nobody.bind(("127.0.0.1", 0))
        address = f"rtsp://admin:s3cret@127.0.0.1:{nobody.getsockname()[1]}/live"
        command = [sys.executable, "-m", "edge_fr.cli", "run", address, *flags]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert process.stdout is not None
        line = process.stdout.readline()
        process.send_signal(signal.SIGINT)
        rest, told = process.communicate(timeout=600)
    assert process.returncode == 130, told
    if flags:
        event = json.loads(line)
        assert (event["type"], event["camera"]) == ("camera.offline", address.rpartition("@")[2])
        assert "cannot open rtsp://***@127.0.0.1" in event["reason"]
    else:
        assert "camera.offline cannot open rtsp://***@127.0.0.1" in line
    assert "s3cret" not in line + rest + told
