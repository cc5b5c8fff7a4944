"""HTTP Live Streaming: a playlist of short files, each fetched, decoded and given at its own pace.

Fetched here and not by a library, because none of those that decode checks certificates and sends passwords
for every file of a stream.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urljoin

import cv2
import numpy as np

from edge_fr.errors import EdgeFrError, InputError, SourceOpenError, SourceReadError
from edge_fr.stream.opencv import quiet
from edge_fr.stream.source import Losses, Reading
from edge_fr.stream.uri import Address
from edge_fr.stream.web import Web

_MOST_BYTES = 256 << 20  # of a file of the stream: a minute of 30 Mbit/s
_GLANCE_S = 0.1
_REMEMBERED = 100


class Playlist(NamedTuple):
    """The files that a playlist names by their addresses, newest last, and the one that begins them all."""

    files: list[str]
    header: str | None
    target_s: float
    ended: bool


class HlsReader:
    """A stream in the best quality that its playlist offers; opening and each read may take `timeout_s`, and
    three times as long as one of its files.

    Begins with the newest file, and goes on to the newest: what was missed is passed over. `captured_at` is
    when a picture is due here, some files' length after it was taken.
    """

    name = "hls"
    frame_count = None
    period_ns = 40_000_000

    def __init__(
        self, address: Address, *, certificate: Path | None, timeout_s: float, stop: threading.Event | None
    ) -> None:
        self.losses = Losses()
        self._timeout_s = timeout_s
        self._stop = stop or threading.Event()
        self._closed = False
        self._web = Web(address.target, certificate=certificate, timeout_s=timeout_s)
        self._url = self._web.url
        self._header: tuple[str, bytes] | None = None
        self._seen: deque[str] = deque(maxlen=_REMEMBERED)
        self._start_ns: int | None = None  # of the pictures, on our clock
        self._offset_ns = 0  # of the file that is read
        self._last_ns = 0
        self._pictures = self._read_all()
        try:
            self._first = next(self._pictures, None)
        except InputError as error:
            raise InputError(f"cannot open {address.shown}: {error}") from error
        except EdgeFrError as error:
            raise SourceOpenError(address.hide(f"cannot open {address.shown}: {error}")) from error
        if self._first is None:
            raise SourceOpenError(f"cannot open {address.shown}: told to stop, or its playlist is empty")

    def read(self) -> Reading | None:
        reading, self._first = self._first, None
        return reading if reading is not None else next(self._pictures, None)

    def close(self) -> None:
        self._closed = True

    def _over(self) -> bool:
        return self._closed or self._stop.is_set()

    def _read_all(self) -> Iterator[Reading]:
        while (url := self._next_file()) is not None:
            yield from self._paced(self._content(url))
            self._offset_ns = self._last_ns + self.period_ns

    def _next_file(self) -> str | None:
        """The newest file not seen yet, once there is one; None: told to stop. Raises SourceReadError."""
        asked_at = time.monotonic()
        while not self._over():
            playlist = self._playlist()
            new = [url for url in playlist.files if url not in self._seen]
            if new:
                chosen = new[0] if playlist.ended else new[-1]
                self._seen.extend([chosen] if playlist.ended else new)
                self._load_header(playlist.header)
                return chosen
            if playlist.ended:
                raise SourceReadError("the playlist says that the stream has ended")
            if time.monotonic() - asked_at > max(self._timeout_s, 3 * playlist.target_s):
                raise SourceReadError(
                    f"no new file came within {max(self._timeout_s, 3 * playlist.target_s):g} s"
                )
            self._wait(min(playlist.target_s / 2, 2.0))
        return None

    def _wait(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while not self._over() and (left := until - time.monotonic()) > 0:
            time.sleep(min(_GLANCE_S, left))

    def _playlist(self) -> Playlist:
        text = self._fetch(self._url).decode(errors="replace")
        best = best_variant(text, self._url)
        if best is not None:
            self._url = best
            text = self._fetch(best).decode(errors="replace")
        return parse_playlist(text, self._url)

    def _load_header(self, url: str | None) -> None:
        if url is None:
            self._header = None
        elif self._header is None or self._header[0] != url:
            self._header = (url, self._fetch(url))

    def _content(self, url: str) -> bytes:
        return (self._header[1] if self._header else b"") + self._fetch(url)

    def _fetch(self, url: str) -> bytes:
        try:
            with self._web.open(url) as answer:
                content = answer.read(_MOST_BYTES)
        except SourceOpenError as error:
            raise SourceReadError(str(error)) from error
        except (OSError, ValueError) as error:
            raise SourceReadError(f"a file of the stream broke off: {error}") from error
        return bytes(content)

    def _paced(self, content: bytes) -> Iterator[Reading]:
        """The pictures of one file, each when it is due."""
        first_ms: float | None = None
        with _in_memory(content) as path:
            with quiet:
                capture = cv2.VideoCapture(path, cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 2])
            try:
                if not capture.isOpened():
                    self.losses.damaged += 1
                    return
                while not self._over() and capture.grab():
                    ok, image = capture.retrieve()
                    if not ok:
                        self.losses.damaged += 1
                        continue
                    at_ms = capture.get(cv2.CAP_PROP_POS_MSEC)
                    first_ms = at_ms if first_ms is None else first_ms
                    self._last_ns = self._offset_ns + round(max(0.0, at_ms - first_ms) * 1e6)
                    now_ns = time.monotonic_ns()
                    if self._start_ns is None or self._start_ns + self._last_ns < now_ns - 1_000_000_000:
                        self._start_ns = now_ns - self._last_ns  # late by a second: from here on at its pace
                    self._wait((self._start_ns + self._last_ns - now_ns) / 1e9)
                    yield Reading(np.asarray(image, np.uint8), self._last_ns, datetime.now(timezone.utc))
            finally:
                capture.release()


@contextmanager
def _in_memory(content: bytes) -> Iterator[str]:
    """The path of a file that lies on no disk, for a library that wants one."""
    file = os.memfd_create("edge-fr-hls")
    with os.fdopen(file, "wb") as memory:
        memory.write(content)
        memory.flush()
        yield f"/proc/self/fd/{file}"


def best_variant(text: str, url: str) -> str | None:
    """Of a playlist of playlists the address of the one with the most bits a second; None: it is none."""
    found = re.findall(r"^#EXT-X-STREAM-INF:(.*)\r?\n(?:#.*\n)*([^#\r\n]+)", text, re.MULTILINE)
    if not found:
        return None

    def bits(attributes: str) -> int:
        match = re.search(r"(?:^|,)BANDWIDTH=(\d+)", attributes)
        return int(match[1]) if match else 0

    best: str = max(found, key=lambda row: bits(row[0]))[1]
    return urljoin(url, best.strip())


def parse_playlist(text: str, url: str) -> Playlist:
    """What a playlist names. SourceReadError for a text that is none, InputError for a stream that is
    encrypted or in parts of files."""
    lines = [line.strip() for line in text.splitlines()]
    if not lines or not lines[0].startswith("#EXTM3U"):
        raise SourceReadError(f"what came is no playlist: it begins with {text[:20]!r}, expected '#EXTM3U'")
    tags = {name: value for line in lines if line.startswith("#") for name, _, value in [line.partition(":")]}
    if "#EXT-X-KEY" in tags and "METHOD=NONE" not in tags["#EXT-X-KEY"]:
        raise InputError("its stream is encrypted (#EXT-X-KEY), expected one that is not")
    if "#EXT-X-BYTERANGE" in tags:
        raise InputError(
            "its stream is in parts of files (#EXT-X-BYTERANGE), expected a file for each segment"
        )
    header = re.search(r'URI="([^"]*)"', tags.get("#EXT-X-MAP", ""))
    target = tags.get("#EXT-X-TARGETDURATION", "")
    files = [urljoin(url, line) for line in lines if line and not line.startswith("#")]
    return Playlist(
        files,
        urljoin(url, header[1]) if header else None,
        float(target) if target.replace(".", "", 1).isdigit() else 6.0,
        "#EXT-X-ENDLIST" in tags,
    )
