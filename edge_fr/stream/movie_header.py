"""What a video file's own header says: when it was made, and whether it is to be seen mirrored.

Decoders heed a turn that the header asks for, but not a mirror image, and tell no time.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import BinaryIO, NamedTuple

_MOST_HEADER_BYTES = 64 << 20
_EBML, _SEGMENT, _INFO, _DATE = 0x1A45DFA3, 0x18538067, 0x1549A966, 0x4461
_CLUSTER = 0x1F43B675
_MP4_EPOCH = datetime(1904, 1, 1, tzinfo=timezone.utc)
_MATROSKA_EPOCH = datetime(2001, 1, 1, tzinfo=timezone.utc)
_EARLIEST = datetime(1990, 1, 1, tzinfo=timezone.utc)  # a clock that was never set says 1904, 1970 or 1980
# Where the axes of the stored picture point to, by EXIF's numbers for mirror images.
_MIRRORED = {(-1, 0, 0, 1): 2, (1, 0, 0, -1): 4, (0, 1, 1, 0): 5, (0, -1, -1, 0): 7}


class MovieHeader(NamedTuple):
    """`made_at` is None where it is not told; `orientation` is EXIF's number for a mirror image (2, 4, 5 or
    7), and 1 for everything that decoders turn themselves."""

    made_at: datetime | None = None
    orientation: int = 1


def read_movie_header(path: Path) -> MovieHeader:
    """The header of an MP4, QuickTime or Matroska file; the default for others, and for damaged ones."""
    with path.open("rb") as file:
        head = file.read(12)
        try:
            if head[:4] == _EBML.to_bytes(4, "big"):
                return MovieHeader(_matroska_date(file))
            if head[4:8].isalpha():
                return _mp4(file)
        except (struct.error, IndexError, OverflowError):
            return MovieHeader()
    return MovieHeader()


def _mp4(file: BinaryIO) -> MovieHeader:
    file.seek(0, 2)
    length, at = file.tell(), 0
    while at + 8 <= length:
        file.seek(at)
        head = file.read(16)
        size, kind = int.from_bytes(head[:4], "big"), head[4:8]
        if size == 1:
            size = int.from_bytes(head[8:16], "big")
        if kind == b"moov" and size <= _MOST_HEADER_BYTES:
            file.seek(at)
            return _movie(file.read(size))
        if size < 8:
            break
        at += size
    return MovieHeader()


def _movie(moov: bytes) -> MovieHeader:
    made_at, orientation = None, 1
    for kind, body in _boxes(moov[8:]):
        if kind == b"mvhd":
            seconds = int.from_bytes(body[4:12] if body[0] else body[4:8], "big")
            made_at = _believable(_MP4_EPOCH + timedelta(seconds=seconds))
        elif kind == b"trak":
            inner = dict(_boxes(body))
            handler = dict(_boxes(inner.get(b"mdia", b""))).get(b"hdlr", b"")
            header = inner.get(b"tkhd", b"")
            if handler[8:12] == b"vide" and header:
                start = 52 if header[0] else 40
                a, b, _, c, d = struct.unpack(">5i", header[start : start + 20])
                orientation = _MIRRORED.get((_sign(a), _sign(b), _sign(c), _sign(d)), 1)
    return MovieHeader(made_at, orientation)


def _sign(value: int) -> int:
    return (value > 0) - (value < 0)


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 0
    while at + 8 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        if size < 8:
            return
        yield data[at + 4 : at + 8], data[at + 8 : at + size]
        at += size


def _matroska_date(file: BinaryIO) -> datetime | None:
    file.seek(0)
    data = file.read(1 << 20)  # the information stands before the pictures
    for number, body in _elements(data):
        if number == _SEGMENT:
            for inner, info in _elements(body):
                if inner == _INFO:
                    date = dict(_elements(info)).get(_DATE)
                    if date is not None:
                        ns = int.from_bytes(date, "big", signed=True)
                        return _believable(_MATROSKA_EPOCH + timedelta(microseconds=ns // 1000))
                if inner in (_INFO, _CLUSTER):
                    return None
    return None


def _elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """EBML elements; one whose size is unknown, or beyond the data, goes on to their end."""
    at = 0
    while at < len(data):
        id_length = 9 - data[at].bit_length()
        if id_length > 4 or at + id_length >= len(data):
            return
        number = int.from_bytes(data[at : at + id_length], "big")
        at += id_length
        length = 9 - data[at].bit_length()
        if length > 8:
            return
        size = int.from_bytes(data[at : at + length], "big") & ((1 << 7 * length) - 1)
        at += length
        yield number, data[at : at + size]
        at += size


def _believable(made_at: datetime) -> datetime | None:
    return made_at if _EARLIEST <= made_at <= datetime.now(timezone.utc) + timedelta(days=1) else None
