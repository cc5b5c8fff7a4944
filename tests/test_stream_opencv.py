"""What FFmpeg inside OpenCV is told through the environment while cameras are being opened."""

from __future__ import annotations

import os
import threading

import pytest

from edge_fr.errors import SourceOpenError
from edge_fr.stream import open_source
from tests.fake_cameras import RawServer, silent

OPTIONS = "OPENCV_FFMPEG_CAPTURE_OPTIONS"


def open_silent_ones(server: RawServer, timeouts_s: tuple[float, ...]) -> list[str | None]:
    """Opens a camera that says nothing, once with each time limit, all at once; the options that were set
    when all had connected, and when each of them was given up."""

    def give_up(timeout_s: float) -> None:
        with pytest.raises(SourceOpenError):
            open_source(f"rtsp://127.0.0.1:{server.port}/live", reader="opencv", timeout_s=timeout_s)

    threads = [threading.Thread(target=give_up, args=(timeout_s,)) for timeout_s in timeouts_s]
    for thread in threads:
        thread.start()
    while server.connections < len(threads):
        threading.Event().wait(0.01)
    seen = [os.environ.get(OPTIONS)]
    for thread in threads:
        thread.join()
        seen.append(os.environ.get(OPTIONS))
    return seen


def test_a_camera_is_opened_without_waiting_for_its_rate_until_the_last_one_is_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(OPTIONS, raising=False)
    with RawServer(silent) as server:
        told = "rtsp_transport;tcp|fpsprobesize;0"
        assert open_silent_ones(server, (1, 8)) == [told, told, None]


def test_options_that_somebody_set_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(OPTIONS, "rtsp_transport;udp|timeout;1000000")
    with RawServer(silent) as server:
        # Over UDP it asks for more than one connection at most.
        assert set(open_silent_ones(server, (1,))) == {"rtsp_transport;udp|timeout;1000000"}
