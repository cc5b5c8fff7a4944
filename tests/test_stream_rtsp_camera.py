"""Cameras on loopback that restart, freeze, change and talk nonsense, kept connected."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from functools import partial
from itertools import islice

import pytest
import waiting

from edge_fr.stream import Camera, ReconnectPolicy, Source, gstreamer, open_camera, open_source
from edge_fr.structures import Frame
from tests.fake_cameras import GARBAGE, NoRtspServer, RawServer, silent, start_server
from tests.ports import free_port

# PyGObject before 3.44, JetPack's among them, imports its modules in a way that Python warns of.
pytestmark = pytest.mark.filterwarnings("ignore:DynamicImporter:ImportWarning")

# Quick to try again, and patient enough for a server that starts on a busy machine. A machine that stands
# still reaches these limits: a camera may be given up once more than a test means it to.
POLICY = ReconnectPolicy(
    open_timeout_s=4, read_timeout_s=3, stale_after_s=1, first_delay_s=0.1, max_delay_s=0.5
)
# These it does not reach: a connection ends only when the other end ends it.
PATIENT = ReconnectPolicy(
    open_timeout_s=60, read_timeout_s=3600, stale_after_s=3000, first_delay_s=0.1, max_delay_s=0.5
)
Start = Callable[..., tuple[int, "subprocess.Popen[str]"]]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a camera, gives its port and process; killed at the end."""
    if not gstreamer.is_installed():
        pytest.skip("GStreamer or PyGObject is not installed")
    started: list[subprocess.Popen[str]] = []

    def begin(*arguments: str) -> tuple[int, subprocess.Popen[str]]:
        try:
            port, process = start_server(*arguments)
        except NoRtspServer as error:
            pytest.skip(str(error))
        started.append(process)
        return port, process

    yield begin
    for process in started:
        process.kill()
        process.communicate()


wait_for = partial(waiting.wait_for, patience_s=300)


def next_frame(camera: Camera) -> Frame:
    taken: list[Frame] = []

    def take() -> bool:
        frame = camera.take()
        if frame is not None:
            taken.append(frame)
        return frame is not None

    wait_for(take, f"a frame; {camera.state} {camera.reason}")
    return taken[0]


def test_a_camera_that_restarts_is_there_again_and_both_are_told_once(start: Start) -> None:
    port, process = start("h264", "--port", str(free_port()))
    with open_camera(f"rtsp://admin:secret@127.0.0.1:{port}/live", policy=PATIENT) as camera:
        before = next_frame(camera)
        process.kill()
        process.wait()
        wait_for(lambda: camera.state == "RECONNECTING", "the loss")
        start("h264", "--port", str(port), "--size", "160x120")
        wait_for(lambda: camera.state == "RUNNING", "the return")
        wait_for(lambda: next_frame(camera).image.shape == (120, 160, 3), "the new size")
        after = next_frame(camera)
        changes = camera.take_changes()
        assert [c.online for c in changes] == [True, False, True]
        assert after.pts_ns > before.pts_ns
        assert after.index > before.index
        assert camera.counters.connects == 2
        assert "secret" not in f"{changes} {camera.name} {camera.uri}"
        camera.close(timeout_s=60)
    assert camera.hanging == 0


def test_a_camera_that_freezes_is_stale_then_lost_then_there_again(start: Start) -> None:
    port, process = start("h264")
    frozen, skipped_ns = threading.Event(), 0

    def now_ns() -> int:
        # The camera asks in each of its states. Whenever it is stale, the rest of its patience has passed: an
        # hour, so that no machine that stands still gets past the state without anybody seeing it.
        nonlocal skipped_ns
        if frozen.is_set() and camera.state == "STALE":
            skipped_ns += 3600 * 10**9
        return time.monotonic_ns() + skipped_ns

    def connect(stop: threading.Event) -> Source:
        return open_source(f"rtsp://127.0.0.1:{port}/live", timeout_s=3600, stop=stop)

    policy = replace(PATIENT, stale_after_s=1)
    with Camera(connect, name="gate", live=True, policy=policy, now_ns=now_ns) as camera:
        next_frame(camera)
        process.send_signal(signal.SIGSTOP)
        frozen.set()
        wait_for(lambda: camera.state == "RECONNECTING", "RECONNECTING")
        assert skipped_ns  # STALE came before it
        frozen.clear()
        process.send_signal(signal.SIGCONT)
        wait_for(lambda: camera.state == "RUNNING", "the return")
        assert [c.online for c in camera.take_changes()] == [True, False, True]
        assert camera.counters.stale >= 1


def test_a_size_that_changes_in_the_stream_is_no_interruption(start: Start) -> None:
    port, process = start("h264", "--then", "160x120")
    with open_camera(f"rtsp://127.0.0.1:{port}/live", policy=PATIENT) as camera:
        assert next_frame(camera).image.shape == (240, 322, 3)
        process.send_signal(signal.SIGUSR1)
        wait_for(lambda: next_frame(camera).image.shape == (120, 160, 3), "the new size")
        assert camera.counters.connects == 1


def test_a_camera_that_accepts_and_says_nothing_is_given_up_and_found_when_it_speaks(start: Start) -> None:
    start("h264")  # skips where there is none
    with RawServer(silent, free_port()) as frozen:
        camera = open_camera(f"rtsp://127.0.0.1:{frozen.port}/live", policy=POLICY)
        camera.start()
        wait_for(lambda: camera.counters.failures >= 2, "two failures")
        # The camera's limit, the reader's own and GStreamer's are the same: any may be the first to say so.
        said = r"no (first frame|frame came) within 4 s|Timeout while waiting for server response"
        assert re.search(said, camera.take_changes()[0].reason)
    with closing(camera):
        start("h264", "--port", str(frozen.port))
        next_frame(camera)
        wait_for(lambda: camera.hanging == 0, "what hung")


@pytest.mark.parametrize("nonsense", GARBAGE)
def test_nonsense_is_a_failure_and_the_camera_is_found_when_it_comes_to_itself(
    start: Start, nonsense: str
) -> None:
    start("h264")
    with RawServer(GARBAGE[nonsense], free_port()) as server:
        camera = open_camera(f"rtsp://127.0.0.1:{server.port}/live", policy=POLICY)
        camera.start()
        wait_for(lambda: camera.counters.failures >= 2, "two failures")
        assert camera.state == "RECONNECTING"
        assert camera.hanging <= POLICY.max_abandoned
        # Whatever hangs (GStreamer 1.22 cannot leave a header that never ends), closing does not.
        bystander = open_camera(f"rtsp://127.0.0.1:{server.port}/live", policy=POLICY)
        bystander.start()
        wait_for(lambda: server.connections >= 3, "a connection")
        asked_at = time.monotonic()
        bystander.close(timeout_s=0.5)
        assert time.monotonic() - asked_at < 120  # half a second on a machine that has nothing else to do
        assert [c.online for c in camera.take_changes()] == [False]
    with closing(camera):
        start("h264", "--port", str(server.port))
        next_frame(camera)
        wait_for(lambda: camera.hanging == 0, "what hung")
        assert camera.take_changes()[0].online


def delayed(from_port: int, delay_s: float) -> RawServer:
    """A network of `delay_s` seconds before a camera: what the camera sends arrives that much later."""

    def relay(connection: socket.socket, over: threading.Event) -> None:
        with socket.create_connection(("127.0.0.1", from_port)) as camera:

            def ask() -> None:
                try:
                    while data := connection.recv(65536):
                        camera.sendall(data)
                except OSError:
                    pass  # one of the two went away
                finally:
                    with suppress(OSError):  # the camera was faster
                        camera.shutdown(socket.SHUT_RDWR)

            asking = threading.Thread(target=ask)
            asking.start()
            try:
                sent: list[tuple[float, bytes]] = []
                camera.settimeout(0.02)
                while True:
                    try:
                        data = camera.recv(65536)
                        if not data:
                            return
                        sent.append((time.monotonic(), data))
                    except TimeoutError:
                        pass
                    while sent and time.monotonic() - sent[0][0] >= delay_s:
                        connection.sendall(sent.pop(0)[1])
            finally:
                connection.shutdown(socket.SHUT_RDWR)
                asking.join()

    return RawServer(relay)


def test_pictures_are_dated_by_the_camera_once_its_sender_reports_come(start: Start) -> None:
    if gstreamer.load().ElementFactory.make("rtspsrc").find_property("add-reference-timestamp-meta") is None:
        pytest.skip("GStreamer before 1.22 passes no sender times on")
    # GStreamer's server may never send a report while it offers a stream, such as sound, that is not wanted.
    port, _ = start("h264", "--silent")
    with (
        delayed(port, 0.6) as network,
        open_source(f"rtsp://127.0.0.1:{network.port}/live", timeout_s=120) as source,
    ):
        first, ages = next(source), []
        # Before the first report it is its arrival, unless this machine stood still until a report was here.
        age = datetime.now(timezone.utc) - first.captured_at
        assert age < timedelta(seconds=300)
        assert source.clock == "arrival" or age > timedelta(seconds=0.55)
        for frame in islice(source, 1000):  # 40 s; a report is due every five
            if source.clock == "sender":
                ages.append((datetime.now(timezone.utc) - frame.captured_at).total_seconds())
            if len(ages) == 20:
                break
    assert len(ages) == 20, "no sender report came"
    assert min(ages) > 0.55  # the network's 0.6 s, less what two clock readings may differ
