"""Videos and cameras through OpenCV, whose wheels carry FFmpeg and V4L2.

What comes with it: a picture whose size changes inside a video is scaled to the first size; a camera
that delivers faster than it is read falls behind instead of dropping; the reason of a failure is not
told; a large video without colour tags is taken as BT.601, where GStreamer takes BT.709.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from datetime import datetime, timezone
from typing import Any

import cv2
import numpy as np

from edge_fr.cores import core_count
from edge_fr.errors import SourceOpenError, SourceReadError
from edge_fr.stream.source import Losses, Reading
from edge_fr.stream.uri import Address

log_levels: Any = cv2.utils.logging if hasattr(cv2.utils, "logging") else cv2  # moved with OpenCV 5
# After a damaged packet grab() fails once and then goes on; at the end it fails for ever. A loss longer
# than this many frames is taken for the end.
_FAILURES_AT_THE_END = 250


class OpenCvReader:
    """One cv2.VideoCapture; opening and each read may take `timeout_s`. `upright` has pictures turned as the
    file says, which knows no mirror image."""

    name = "opencv"

    def __init__(self, address: Address, *, timeout_s: float, upright: bool = True) -> None:
        self.losses = Losses()
        self._address = address
        self._timeout_s = timeout_s
        self._first = True
        self._lock = threading.Lock()  # release() during grab() would crash
        self._capture = _open(address, timeout_s)
        if not self._capture.isOpened():
            raise SourceOpenError(_why_not_open(address))
        if not upright:
            self._capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 0)
        turned = upright and round(self._capture.get(cv2.CAP_PROP_ORIENTATION_META)) % 180 == 90
        self._pixel_aspect = self._declared_aspect(turned)
        fps = self._capture.get(cv2.CAP_PROP_FPS)
        self.period_ns = round(1e9 / fps) if 0 < fps < 1000 else 40_000_000
        count = self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        self.frame_count = int(count) if not address.live and 0 < count < 1e12 else None

    def read(self) -> Reading | None:
        with self._lock:
            if not self._capture.isOpened():
                return None
            failures = 0
            while True:
                asked_at = time.monotonic()
                if self._capture.grab():
                    ok, image = self._capture.retrieve()
                    if ok:
                        break
                failures += 1
                if self._address.live:
                    raise SourceReadError(self._why_no_frame(time.monotonic() - asked_at))
                if failures > _FAILURES_AT_THE_END:
                    return None
            # After a timeout FFmpeg still hands out the old frames inside the decoder, one per timeout.
            waited_s = time.monotonic() - asked_at
            if self._address.live and waited_s > self._timeout_s:
                raise SourceReadError(self._why_no_frame(waited_s))
            self.losses.damaged += failures
            pts_ms = self._capture.get(cv2.CAP_PROP_POS_MSEC)  # of the frame just grabbed
        unknown = pts_ms <= 0 and not self._first  # 0 is the first frame's time, or none at all
        self._first = False
        now = datetime.now(timezone.utc) if self._address.live else None
        pts_ns = None if unknown else round(pts_ms * 1e6)
        return Reading(np.asarray(image, np.uint8), pts_ns, now, pixel_aspect=self._pixel_aspect)

    def _declared_aspect(self, turned: bool) -> float:
        """The width of a pixel for its height, of the picture as it is handed out."""
        across, down = (self._capture.get(key) for key in (cv2.CAP_PROP_SAR_NUM, cv2.CAP_PROP_SAR_DEN))
        if across <= 0 or down <= 0:
            return 1.0
        return down / across if turned else across / down

    def close(self) -> None:
        with self._lock:
            self._capture.release()

    def _why_no_frame(self, waited_s: float) -> str:
        if waited_s > self._timeout_s:
            return f"no frame came within {self._timeout_s:g} s"
        return "the connection was closed, or what came could not be decoded"


def _open(address: Address, timeout_s: float) -> cv2.VideoCapture:
    timeout_ms = max(1, round(timeout_s * 1000))
    with ExitStack() as during:
        during.enter_context(quiet)
        if address.kind == "v4l2":
            wanted = {
                "width": cv2.CAP_PROP_FRAME_WIDTH,
                "height": cv2.CAP_PROP_FRAME_HEIGHT,
                "fps": cv2.CAP_PROP_FPS,
            }
            asked = [number for key, value in address.options.items() for number in (wanted[key], value)]
            return cv2.VideoCapture(address.target, cv2.CAP_V4L2, asked)
        if address.live:
            during.enter_context(_at_once)
        limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, timeout_ms, cv2.CAP_PROP_READ_TIMEOUT_MSEC, timeout_ms]
        # Each decoder thread holds a frame of a live stream back. A file is read ahead of the models, which
        # need the other half of the cores: with decoders on all of them both are slower.
        threads = 2 if address.live else max(1, core_count() // 2)
        limits += [cv2.CAP_PROP_N_THREADS, threads]
        return cv2.VideoCapture(address.target, cv2.CAP_FFMPEG, limits)


def _why_not_open(address: Address) -> str:
    if address.kind == "v4l2":
        return (
            f"cannot open the camera {address.target}; is it plugged in, not in use elsewhere, and are you "
            "in the group `video`? `v4l2-ctl --list-devices --list-formats-ext` shows what there is"
        )
    if address.kind == "rtsp":
        return (
            f"cannot open {address.shown}: no connection, wrong user or password, or no such stream; "
            f"`ffprobe -rtsp_transport tcp` with the full address tells which"
        )
    return (
        f"cannot open {address.shown} as a video: it is no video, it was cut short, or its codec is unknown; "
        f"`ffprobe {address.shown}` tells which"
    )


class _Together:
    """Enters a context when the first thread comes and leaves it when the last one goes: what it sets is
    the process's, and several cameras may be opening."""

    def __init__(self, context: Callable[[], AbstractContextManager[None]]) -> None:
        self._context = context
        self._lock = threading.Lock()
        self._inside = 0
        self._undo = ExitStack()

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._undo.enter_context(self._context())
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._undo.close()


@contextmanager
def _variable(name: str, value: str) -> Iterator[None]:
    """For FFmpeg inside OpenCV; what whoever started this process set stays."""
    if name in os.environ:
        yield
        return
    os.environ[name] = value
    try:
        yield
    finally:
        os.environ.pop(name, None)


@contextmanager
def _silence() -> Iterator[None]:
    """FFmpeg and OpenCV print nothing; what failed is in our own error.

    FFmpeg inside OpenCV reads its level once in a process, when the first video is opened.
    """
    level = log_levels.getLogLevel()
    log_levels.setLogLevel(0)
    try:
        with _variable("OPENCV_FFMPEG_LOGLEVEL", "-8"):  # AV_LOG_QUIET
            yield
    finally:
        log_levels.setLogLevel(level)


def _without_probing() -> AbstractContextManager[None]:
    """FFmpeg does not wait for some thirty pictures to tell their rate, three seconds at 10 a second, after
    which all of them would come at once, as if they were taken now."""
    return _variable("OPENCV_FFMPEG_CAPTURE_OPTIONS", "rtsp_transport;tcp|fpsprobesize;0")


quiet, _at_once = _Together(_silence), _Together(_without_probing)
