"""Says whether a video file was cut short, from the sizes its own container states, and whether a picture
in it never ends.

Decoders end quietly where the bytes end, and frame counts in headers are often estimates; the
container's sizes are exact. MPEG-TS and other bare streams state no size: nothing can be said of them.

A bare stream tells the end of a picture by the next one's beginning. Where that never comes, after a
power cut that left zeros say, decoders gather all the rest of the file in memory, twice.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

from edge_fr.stream.content import JPEG_BEGINS, JPEG_STREAM_SUFFIXES, MOST_PICTURE_BYTES, MP4_FIRST

_EBML, _MATROSKA_SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"
_NAL_UNIT_BEGINS = b"\x00\x00\x01"
_NAL_SUFFIXES = (".h264", ".264", ".avc", ".h265", ".265", ".hevc", ".m4v")


def why_cut_short(path: Path) -> str | None:
    """In which way the file ends too early, or None if it is whole or nothing can be said."""
    with path.open("rb") as file:
        head = file.read(12)
        stated: int | None = None
        if head[4:8] in MP4_FIRST:
            stated = _mp4(file)
        elif head[:4] == _EBML:
            stated = _matroska(file)
        elif head[:4] == b"RIFF":
            stated = _riff(file)
        elif head[:4] == b"GIF8" and not _gif_ends(file):
            return "the file is cut short: it lacks the mark that ends a GIF; copy it again"
        length = _length(file)
    if stated is None or stated <= length:
        return None
    return f"the file is cut short: it holds {length} bytes, its own header says {stated}; copy it again"


def why_endless(path: Path) -> str | None:
    """Where in a bare stream of JPEG pictures, H.264 or the like no picture ends within
    MOST_PICTURE_BYTES, or None; reads a little of it in so many bytes then, of other files nothing."""
    with path.open("rb") as file:
        head = file.read(8)
        if head[4:8] in MP4_FIRST:
            return None
        suffix = path.suffix.lower()
        if head.startswith((JPEG_BEGINS, b"--")) or suffix in JPEG_STREAM_SUFFIXES:  # --: parts, as of a mail
            return _gap(file, JPEG_BEGINS)
        if head.startswith((_NAL_UNIT_BEGINS, b"\x00" + _NAL_UNIT_BEGINS)) or suffix in _NAL_SUFFIXES:
            return _gap(file, _NAL_UNIT_BEGINS)
        return None


def _gap(file: BinaryIO, mark: bytes) -> str | None:
    """Where `mark` does not come again within MOST_PICTURE_BYTES. Looks for the last one within reach, from
    there back: of a whole stream of a gigabyte that reads a few megabytes."""
    length, last = _length(file), 0
    while last + MOST_PICTURE_BYTES < length:
        found = _last_mark(file, mark, last + 1, last + MOST_PICTURE_BYTES)
        if found is None:
            return f"a picture that begins by byte {last} does not end within {MOST_PICTURE_BYTES >> 20} MiB"
        last = found
    return None


def _last_mark(file: BinaryIO, mark: bytes, low: int, high: int) -> int | None:
    """Where the last `mark` begins that begins at `low` or later and before `high`."""
    while high > low:
        start = max(low, high - (1 << 20))
        file.seek(start)
        found = file.read(high - start + len(mark) - 1).rfind(mark)
        if found >= 0:
            return start + found
        high = start
    return None


def _length(file: BinaryIO) -> int:
    return os.fstat(file.fileno()).st_size


def _mp4(file: BinaryIO) -> int | None:
    length, offset = _length(file), 0
    while offset < length:
        file.seek(offset)
        head = file.read(16)
        size, kind = int.from_bytes(head[:4], "big"), head[4:8]
        if len(head) < 8:
            return offset + 8 if any(head) else None
        if size == 1:
            size = int.from_bytes(head[8:16], "big")
        if size < 8 or not all(32 <= c < 127 or c == 0xA9 for c in kind):
            return None  # size 0 is "to the end of the file"; anything else is no box, after the last one
        offset += size
    return offset


def _matroska(file: BinaryIO) -> int | None:
    offset = 0
    while True:
        file.seek(offset)
        head = file.read(12)
        width = 9 - (head[4].bit_length() if len(head) > 4 else 0)  # of the size that follows the 4-byte id
        if len(head) < 4 + width or width > 8:
            return None
        size = int.from_bytes(head[4 : 4 + width], "big") & ((1 << 7 * width) - 1)
        if size == (1 << 7 * width) - 1:  # all ones: written live, size unknown
            return None
        offset += 4 + width + size
        if head[:4] == _MATROSKA_SEGMENT:
            return offset
        if head[:4] != _EBML:
            return None


def _riff(file: BinaryIO) -> int | None:
    length, offset = _length(file), 0
    while offset < length:  # a long AVI is several RIFF chunks, one after the other
        file.seek(offset)
        head = file.read(8)
        size = int.from_bytes(head[4:8], "little")
        if head[:4] != b"RIFF" or size == 0:  # 0: the recorder never came back to write it
            break
        offset += 8 + size
    return offset or None


def _gif_ends(file: BinaryIO) -> bool:
    file.seek(max(0, _length(file) - 64))
    return file.read().rstrip(b"\0").endswith(b"\x00\x3b")  # some writers pad after it
