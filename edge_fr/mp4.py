"""Pictures with their times, written as a video that ordinary players play."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from statistics import median
from types import TracebackType
from typing import IO, Any, Literal, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from edge_fr.errors import EventError

Codec = Literal["h264", "mp4v"]
Picture = NDArray[np.uint8]

_FRAMES_TO_MEASURE = 6
_LONGEST_GAP_S = 2


class Mp4Writer:
    """Writes BGR pictures to an MP4 file that keeps the stream's time.

    The first picture sets the size; others are fitted into it, with black beside them where the shape
    differs. The rate is the stream's own, measured on the first pictures. A picture that stays away is
    filled with the one before, for two seconds at most: an outage does not become an hour of still
    picture.

    `codec` "h264" plays everywhere, browsers too, and needs the `ffmpeg` command with libx264; "mp4v"
    needs nothing, and plays in VLC and mpv but in no browser. None takes "h264" where it can be had;
    the attribute `codec` then says which it is. Raises EventError when the file cannot be written.

    A new file is for its owner alone: it shows people. One that is there keeps its rights.
    """

    def __init__(self, path: str | Path, *, codec: Codec | None = None) -> None:
        self.path = Path(path)
        if self.path.suffix.lower() != ".mp4" or not self.path.parent.is_dir():
            raise EventError(
                f"cannot write a video to {self.path}: expected a name that ends in .mp4 in a folder that "
                f"exists"
            )
        self.codec: Codec = codec or ("h264" if _ffmpeg_has_h264() else "mp4v")
        self._size: tuple[int, int] | None = None  # (width, height)
        self._waiting: list[tuple[int, Picture]] = []  # until the rate is known
        self._encoder: _Encoder | None = None
        self._fps = 0.0
        self._start_ns = 0
        self._written = 0
        self._last: Picture | None = None

    def write(self, picture: Picture, pts_ns: int) -> None:
        """Appends a picture; `pts_ns` never goes back. The picture must not be written to afterwards."""
        if self._size is None:
            height, width = picture.shape[:2]
            self._size = (width // 2 * 2, height // 2 * 2)  # the codecs take even sides only
            if min(self._size) == 0:
                raise EventError(f"cannot write a video of {width}x{height} pixels to {self.path}")
        picture = _fitted(picture, self._size)
        if self._encoder is not None:
            self._append(self._encoder, pts_ns, picture)
            return
        self._waiting.append((pts_ns, picture))
        if len(self._waiting) == _FRAMES_TO_MEASURE:
            self._open(self._size)

    def close(self) -> None:
        """Finishes the file; without this it does not play."""
        if self._waiting and self._size is not None:
            self._open(self._size)
        encoder, self._encoder = self._encoder, None
        if encoder is not None:
            encoder.close()

    def __enter__(self) -> Mp4Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open(self, size: tuple[int, int]) -> None:
        waiting, self._waiting = self._waiting, []
        times = [pts_ns for pts_ns, _ in waiting]
        steps = [after - before for before, after in pairwise(times) if after > before]
        self._fps = min(max(round(1e9 / median(steps), 3), 1.0), 60.0) if steps else 25.0
        self._start_ns = times[0]
        _make_for_the_owner(self.path)
        encoder = (_Ffmpeg if self.codec == "h264" else _OpenCv)(self.path, size, self._fps)
        self._encoder = encoder
        for pts_ns, picture in waiting:
            self._append(encoder, pts_ns, picture)

    def _append(self, encoder: _Encoder, pts_ns: int, picture: Picture) -> None:
        """Puts the picture at its time: fills a gap before it, leaves it out if its place is taken."""
        place = round((pts_ns - self._start_ns) * self._fps / 1e9)
        longest = round(_LONGEST_GAP_S * self._fps)
        if place - self._written > longest:
            self._start_ns += round((place - self._written - longest) * 1e9 / self._fps)
            place = self._written + longest
        while self._last is not None and self._written < place:
            encoder.write(self._last)
            self._written += 1
        if self._written == place:
            encoder.write(picture)
            self._written += 1
        self._last = picture


def _make_for_the_owner(path: Path) -> None:
    """Makes the file for an encoder, if it is not there; why it cannot is the encoder's to say."""
    with suppress(OSError):
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600))


def _fitted(picture: Picture, size: tuple[int, int]) -> Picture:
    """The picture scaled into `size`, (width, height), with black beside it where the shape differs."""
    width, height = size
    if picture.shape[:2] == (height, width):
        return picture
    scale = min(width / picture.shape[1], height / picture.shape[0])
    inner = max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale))
    left, top = (width - inner[0]) // 2, (height - inner[1]) // 2
    canvas = np.zeros((height, width, 3), np.uint8)
    resized = cv2.resize(picture, inner, interpolation=cv2.INTER_AREA)
    canvas[top : top + inner[1], left : left + inner[0]] = resized
    return canvas


class _Encoder(Protocol):
    def write(self, picture: Picture) -> None: ...
    def close(self) -> None: ...


def _ffmpeg_has_h264() -> bool:
    ffmpeg = shutil.which("ffmpeg")
    if ffmpeg is None:
        return False
    done = subprocess.run([ffmpeg, "-hide_banner", "-encoders"], capture_output=True, text=True, check=False)
    return " libx264 " in done.stdout


class _Ffmpeg:
    """H.264 through the ffmpeg command, fed raw pictures."""

    def __init__(self, path: Path, size: tuple[int, int], fps: float) -> None:
        ffmpeg = shutil.which("ffmpeg")
        if ffmpeg is None:
            raise EventError(
                f"cannot write {path} as H.264: there is no ffmpeg command; apt-get install ffmpeg, or "
                f'give codec="mp4v"'
            )
        self._path = path
        try:
            self._complaints: IO[bytes] = tempfile.TemporaryFile(dir=path.parent)  # noqa: SIM115 - closed below
        except OSError as error:
            raise EventError(
                f"cannot write {path}: {error.strerror}; name a file in a folder that this user may write to"
            ) from error
        raw = ["-f", "rawvideo", "-pix_fmt", "bgr24", "-s", f"{size[0]}x{size[1]}", "-r", f"{fps}"]
        bt709 = ["-colorspace", "bt709", "-color_primaries", "bt709", "-color_trc", "bt709"]
        h264 = ["-vf", "scale=out_color_matrix=bt709", *bt709, "-pix_fmt", "yuv420p"]
        h264 += ["-c:v", "libx264", "-preset", "veryfast", "-crf", "20", "-movflags", "+faststart"]
        # Its own session: Ctrl-C is for us, who then close the file properly.
        self._process: subprocess.Popen[bytes] = subprocess.Popen(
            [ffmpeg, "-loglevel", "error", "-y", *raw, "-i", "pipe:0", *h264, f"file:{path}"],
            stdin=subprocess.PIPE,
            stderr=self._complaints,
            start_new_session=True,
        )

    def write(self, picture: Picture) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(np.ascontiguousarray(picture).data)
        except BrokenPipeError as error:
            self._process.wait()
            raise self._error() from error

    def close(self) -> None:
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # it went away early; its exit status says so
            self._process.stdin.close()
        failed = self._process.wait() != 0
        error = self._error() if failed else None
        self._complaints.close()
        if error is not None:
            raise error

    def _error(self) -> EventError:
        self._complaints.seek(0)
        lines = self._complaints.read().decode(errors="replace").strip().splitlines()
        return EventError(f"cannot write {self._path}: ffmpeg said: {lines[-1] if lines else 'nothing'}")


class _OpenCv:
    """MPEG-4 part 2 through OpenCV, which every build of it has."""

    def __init__(self, path: Path, size: tuple[int, int], fps: float) -> None:
        self._path = path
        self._video: Any = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), fps, size)
        if not self._video.isOpened():
            raise EventError(
                f"cannot write {path}: OpenCV opened no MPEG-4 writer there; check that the folder may be "
                f"written to"
            )

    def write(self, picture: Picture) -> None:
        self._video.write(picture)

    def close(self) -> None:
        self._video.release()
        if not self._path.is_file() or self._path.stat().st_size == 0:
            raise EventError(f"cannot write {self._path}: nothing arrived on the disk; is it full?")
