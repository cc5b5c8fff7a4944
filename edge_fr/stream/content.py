"""What a file is by its content: a picture, a video, or neither. Its name counts only where that tells
nothing."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

from edge_fr.errors import SourceOpenError
from edge_fr.picture_header import HEAD_BYTES, kind_of, read_header, refuse_too_many_pixels, what_else

MP4_FIRST = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot")
JPEG_BEGINS = b"\xff\xd8\xff"
JPEG_STREAM_SUFFIXES = frozenset({".mjpg", ".mjpeg"})
PICTURE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
_ONE_BY_NAME = PICTURE_SUFFIXES | {".jps", ".mpo"}  # FFmpeg reads one picture of what is called so
_VIDEO_STARTS = (  # Matroska, MPEG, Flash, ASF, Ogg, IVF, YUV4MPEG, parts as of a mail, lists of parts
    b"\x1a\x45\xdf\xa3",
    b"\x00\x00\x01",
    b"\x00\x00\x00\x01",
    b"FLV",
    b"\x30\x26\xb2\x75",
    b"OggS",
    b"DKIF",
    b"YUV4MPEG2",
    b"--",
    b"#EXTM3U",
    b"ffconcat",
)
_SYNC, _PACKET_BYTES = b"G", 188  # of MPEG-TS; each packet begins so
_JPEG_ENDS = b"\xff\xd9"
MOST_PICTURE_BYTES = 64 << 20  # a JPEG of 64 million pixels has some 40 MB


def is_picture(path: Path) -> bool:
    """Whether the file is one picture, or, where its content tells nothing, is called so.

    Several make a video: a GIF that moves, or JPEGs one after the other under another name than a picture's.
    """
    try:
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
            kind = kind_of(head)
            if kind == "JPEG":
                suffix = path.suffix.lower()
                several = suffix not in _ONE_BY_NAME and _another_follows(file)
                return suffix not in JPEG_STREAM_SUFFIXES and not several
            if kind == "GIF":
                return not _moves(file)
    except OSError as error:
        raise SourceOpenError(f"cannot open {str(path)!r}: {error.strerror}") from error
    return kind is not None or (path.suffix.lower() in PICTURE_SUFFIXES and not _begins_as_video(head))


def why_no_picture(path: Path) -> str | None:
    """Why an entry of a folder is no picture of it; None for one that is, or is called so. Reads its head."""
    if not path.is_file():  # a pipe nobody writes into would be waited for until the end of days
        is_there = path.exists()
        return f"{path.name} is a pipe or a device, expected a picture file" if is_there else "a broken link"
    try:
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
            if kind_of(head) == "GIF" and _moves(file):
                return "a GIF that moves is a video; give it as a source of its own"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    if kind_of(head) is not None:
        return None
    if _begins_as_video(head):
        return "a video; give it as a source of its own"
    if path.suffix.lower() in PICTURE_SUFFIXES:
        return None  # reading it tells what it is
    return "neither its name nor its content is a picture's"


def refuse_no_video(path: Path, shown: str) -> None:
    """SourceOpenError for a file that is neither picture nor video (of a text, FFmpeg makes a video of its
    letters); ImageError for a GIF of too many pixels: a small one may unfold to gigabytes."""
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    header = read_header(head)
    if header is not None and header.kind == "GIF" and header.size is not None:
        refuse_too_many_pixels(header.size, path)
    what = None if header is not None or _begins_as_video(head) else what_else(head)
    if what is not None:
        raise SourceOpenError(
            f"cannot open {shown}: it is {what}, no picture and no video (it starts with {head[:8]!r}); "
            f"was the right file copied, and whole?"
        )


def _begins_as_video(head: bytes) -> bool:
    transport = head[:1] == _SYNC and head[_PACKET_BYTES : _PACKET_BYTES + 1] == _SYNC
    return (
        transport or head[4:8] in MP4_FIRST or head.startswith(_VIDEO_STARTS) or head[8:12] == b"AVI "
    ) and kind_of(head) is None


def _another_follows(file: BinaryIO) -> bool:
    """Whether behind a JPEG the next one begins. Phones and cameras append others to a picture, too, such as
    one for the depth or for brighter screens; they list them in a segment of its own (MPF)."""
    if file.seek(0, os.SEEK_END) > MOST_PICTURE_BYTES:
        return True  # no picture has as much
    file.seek(0)
    data = file.read()
    at = 2
    while data[at : at + 1] == b"\xff" and data[at + 1 : at + 2] != b"\xda":  # up to the pixels
        if data[at + 1 : at + 2] == b"\xe2" and data[at + 4 : at + 8] == b"MPF\0":
            return False
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    end = data.find(_JPEG_ENDS, at)
    return end >= 0 and data.startswith(JPEG_BEGINS, end + 2)


def _moves(file: BinaryIO) -> bool:
    """Whether a GIF has a second picture."""
    file.seek(10)
    _skip_colours(file, file.read(3)[:1])
    pictures = 0
    while (mark := file.read(1)) in (b"!", b","):
        if mark == b"!":
            file.read(1)
        else:
            pictures += 1
            if pictures == 2:
                return True
            _skip_colours(file, file.read(9)[8:])
            file.read(1)
        while (length := file.read(1)) not in (b"", b"\0"):
            file.seek(length[0], 1)
    return False


def _skip_colours(file: BinaryIO, flags: bytes) -> None:
    if flags and flags[0] & 0x80:
        file.seek(3 << (flags[0] & 7) + 1, 1)
