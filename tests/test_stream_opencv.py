"""What FFmpeg inside OpenCV is told through the environment while cameras are being opened."""

from __future__ import annotations

import os
import socket
import threading
import time
from contextlib import ExitStack

import pytest

from edge_fr.errors import SourceOpenError
from edge_fr.stream import open_source, opencv
from tests.fake_cameras import Answer, RawServer

OPTIONS = "OPENCV_FFMPEG_CAPTURE_OPTIONS"


def open_silent_ones(count: int) -> list[str | None]:
    """Opens so many cameras that say nothing, all at once; the options that were set when the first had
    connected, and whenever one of them had hung up. OpenCV lets one after the other connect."""
    connected = [threading.Event() for _ in range(count)]
    hang_up = [threading.Event() for _ in range(count)]

    def one(number: int) -> Answer:
        def answer(connection: socket.socket, over: threading.Event) -> None:
            connected[number].set()
            hang_up[number].wait(60)

        return answer

    def give_up(server: RawServer) -> None:
        with pytest.raises(SourceOpenError):
            open_source(f"rtsp://127.0.0.1:{server.port}/live", reader="opencv", timeout_s=120)

    with ExitStack() as servers:
        cameras = [servers.enter_context(RawServer(one(number))) for number in range(count)]
        threads = [threading.Thread(target=give_up, args=(server,)) for server in cameras]
        threads[0].start()
        assert connected[0].wait(60)
        for thread in threads[1:]:
            thread.start()
        until = time.monotonic() + 60
        while opencv._at_once._inside < count and time.monotonic() < until:
            time.sleep(0.01)
        seen = [os.environ.get(OPTIONS)]
        for thread, event in zip(threads, hang_up, strict=True):
            event.set()
            thread.join()
            seen.append(os.environ.get(OPTIONS))
    return seen


def test_a_camera_is_opened_without_waiting_for_its_rate_until_the_last_one_is_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(OPTIONS, raising=False)
    told = "rtsp_transport;tcp|fpsprobesize;0"
    assert open_silent_ones(2) == [told, told, None]


def test_options_that_somebody_set_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(OPTIONS, "rtsp_transport;udp|timeout;1000000")
    assert set(open_silent_ones(1)) == {"rtsp_transport;udp|timeout;1000000"}
