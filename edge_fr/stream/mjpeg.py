"""JPEG pictures one after the other in one answer over HTTP: multipart/x-mixed-replace, MJPEG."""

from __future__ import annotations

import http.client
import socket
import threading
import time
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path

import cv2
import numpy as np

from edge_fr.errors import InputError, SourceOpenError, SourceReadError
from edge_fr.picture_header import MAX_IMAGE_PIXELS, read_header
from edge_fr.stream.content import MOST_PICTURE_BYTES
from edge_fr.stream.source import Losses, Reading
from edge_fr.stream.uri import Address
from edge_fr.stream.web import Web

_MULTIPART = "multipart/x-mixed-replace"
_AT_ONCE = 1 << 16  # bytes


class MjpegReader:
    """One answer of a camera's web server; opening and each read may take `timeout_s`.

    `captured_at` and `pts_ns` are those of a picture's arrival. A picture that cannot be decoded is counted.
    """

    name = "mjpeg"
    frame_count = None
    period_ns = 40_000_000

    def __init__(
        self, address: Address, *, certificate: Path | None, timeout_s: float, stop: threading.Event | None
    ) -> None:
        self.losses = Losses()
        self._timeout_s = timeout_s
        self._stop = stop or threading.Event()
        self._closed = False
        self._waiting = b""
        web = Web(address.target, certificate=certificate, timeout_s=timeout_s)
        try:
            self._answer = web.open(web.url)
            self._mark = b"--" + _boundary(self._answer)
        except SourceOpenError as error:
            raise SourceOpenError(address.hide(f"cannot open {address.shown}: {error}")) from error
        except InputError as error:
            raise InputError(f"cannot open {address.shown}: {error}") from error

    def read(self) -> Reading | None:
        while not (self._closed or self._stop.is_set()):
            content = self._part()
            if content is None:
                return None
            now, pts_ns = datetime.now(timezone.utc), time.monotonic_ns()
            whole = content.startswith(b"\xff\xd8\xff") and b"\xff\xd9" in content[-1024:]
            header = read_header(content) if whole else None
            size = header.size if header is not None else None
            fits = size is not None and size[0] * size[1] <= MAX_IMAGE_PIXELS  # before it unfolds
            image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR) if fits else None
            if image is not None:
                return Reading(np.asarray(image, np.uint8), pts_ns, now)
            self.losses.damaged += 1
        return None

    def close(self) -> None:
        self._closed = True
        connection = getattr(getattr(self._answer.fp, "raw", None), "_sock", None)
        if isinstance(connection, socket.socket):
            with suppress(OSError):  # the other end was faster
                connection.shutdown(socket.SHUT_RDWR)  # wakes who waits for it
        self._answer.close()

    def _part(self) -> bytes | None:
        """The content of the next part; None where the answer ends."""
        if self._take_until(self._mark) is None:
            return None
        head = self._take_until(b"\r\n\r\n")
        if head is None:
            return None
        length = _length(head)
        if length is None:
            content = self._take_until(self._mark)
            if content is not None:
                self._waiting = self._mark + self._waiting
            return content
        while len(self._waiting) < length:
            if not self._more():
                return None
        content, self._waiting = self._waiting[:length], self._waiting[length:]
        return content

    def _take_until(self, mark: bytes) -> bytes | None:
        """What comes before the mark, which is taken too; None where the answer ends before."""
        looked = 0
        while (found := self._waiting.find(mark, looked)) < 0:
            looked = max(0, len(self._waiting) - len(mark) + 1)
            if len(self._waiting) > MOST_PICTURE_BYTES:
                raise SourceReadError(
                    f"{len(self._waiting) >> 20} MiB came, and no picture in them had an end"
                )
            if not self._more():
                return None
        before, self._waiting = self._waiting[:found], self._waiting[found + len(mark) :]
        return before

    def _more(self) -> bool:
        try:
            more = self._answer.read1(_AT_ONCE)
        except TimeoutError as error:
            raise SourceReadError(f"no frame came within {self._timeout_s:g} s") from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            if self._closed:
                return False
            raise SourceReadError(str(error) or type(error).__name__) from error
        self._waiting += more
        return bool(more)


def _boundary(answer: http.client.HTTPResponse) -> bytes:
    """What stands between two pictures. InputError for an answer that is one picture, SourceOpenError for
    another one that is no stream."""
    kind, boundary = answer.headers.get_content_type(), answer.headers.get_boundary()
    if kind == _MULTIPART and boundary:
        return boundary.removeprefix("--").encode("latin-1")  # some write the dashes there, too
    answer.close()
    if kind.startswith("image/"):
        raise InputError(
            f"it answers one picture ({kind}), expected a stream of them ({_MULTIPART}), which the "
            "camera has at another path, or HLS (.m3u8); for the picture alone: `curl -o picture.jpg`, and "
            "that file"
        )
    raise SourceOpenError(f"it answers {kind}, expected a stream of pictures ({_MULTIPART}) or HLS (.m3u8)")


def _length(head: bytes) -> int | None:
    for line in head.splitlines():
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-length" and value.strip().isdigit():
            length = int(value)
            if length > MOST_PICTURE_BYTES:
                raise SourceReadError(
                    f"a picture is said to have {length} bytes, expected at most {MOST_PICTURE_BYTES}"
                )
            return length
    return None
