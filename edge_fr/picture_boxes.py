"""What AVIF and JPEG 2000 say of a picture before it is decoded: their files are boxes inside boxes."""

from __future__ import annotations

import struct
from collections.abc import Iterator

_CODESTREAM = b"\xff\x4f\xff\x51"  # where JPEG 2000 itself begins, inside its boxes or without any
# By quarter turns anticlockwise, then the mirror (0: top and bottom change places, 1: left and right).
_ORIENTATIONS = {
    (0, None): 1,
    (1, None): 8,
    (2, None): 3,
    (3, None): 6,
    (0, 0): 4,
    (1, 0): 5,
    (2, 0): 2,
    (3, 0): 7,
    (0, 1): 2,
    (1, 1): 7,
    (2, 1): 4,
    (3, 1): 5,
}


def boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The name and content of each box, one after the other; ends where the data or their sense do."""
    at = 0
    while at + 8 <= len(data):
        size, name, start = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8], at + 8
        if size == 1:
            size, start = int.from_bytes(data[at + 8 : at + 16], "big"), at + 16
        end = len(data) if size == 0 else at + size
        if end < start:
            return
        yield name, data[start:end]
        at = end


def jpeg2000_size(data: bytes) -> tuple[int, int] | None:
    """The (height, width) of JPEG 2000, from the stream that is decoded and not from the box about it."""
    if not data.startswith(_CODESTREAM):
        data = next((content for name, content in boxes(data) if name == b"jp2c"), b"")
    if not data.startswith(_CODESTREAM):
        return None
    right, bottom, left, top = struct.unpack(">IIII", data[8:24])
    return max(0, bottom - top), max(0, right - left)


def avif_geometry(data: bytes) -> tuple[tuple[int, int] | None, int]:
    """The (height, width) of the largest picture in an AVIF file, and the orientation (1 to 8, as EXIF
    counts) of the one that is shown. Its own turn and mirror count here; EXIF's in AVIF says nothing."""
    meta = dict(boxes(_child(data, b"meta")[4:]))
    properties = dict(boxes(meta.get(b"iprp", b"")))
    listed = list(boxes(properties.get(b"ipco", b"")))
    sizes = [struct.unpack(">II", content[4:12])[::-1] for name, content in listed if name == b"ispe"]
    turn, mirror = 0, None
    for index in _of_item(properties.get(b"ipma", b""), _primary(meta.get(b"pitm", b""))):
        name, content = listed[index - 1] if 0 < index <= len(listed) else (b"", b"")
        if name == b"irot":
            turn = content[0] & 3
        elif name == b"imir":
            mirror = content[0] & 1
    return max(sizes, key=lambda size: size[0] * size[1], default=None), _ORIENTATIONS[turn, mirror]


def avif_exif(data: bytes) -> bytes:
    """The EXIF block of an AVIF file; empty where there is none."""
    meta = dict(boxes(_child(data, b"meta")[4:]))
    about = meta.get(b"iinf", b"")
    for name, content in boxes(about[6 if about[:1] == b"\0" else 8 :]):
        id_bytes = 4 if content[:1] == b"\3" else 2
        if name == b"infe" and content[6 + id_bytes : 10 + id_bytes] == b"Exif":
            item = int.from_bytes(content[4 : 4 + id_bytes], "big")
            block = _content_of(data, meta.get(b"iloc", b""), item)
            return block[4 + int.from_bytes(block[:4], "big") :]  # a number tells where it begins
    return b""


def _content_of(data: bytes, iloc: bytes, wanted: int) -> bytes:
    """What an item holds, where it lies in one piece in the file itself, as EXIF does."""
    if len(iloc) < 8:
        return b""
    version, at = iloc[0], 6

    def number(size: int) -> int:
        nonlocal at
        at += size
        return int.from_bytes(iloc[at - size : at], "big")

    for _ in range(number(4 if version == 2 else 2)):
        if at >= len(iloc):
            break
        item, method, _file = number(4 if version == 2 else 2), number(2 if version else 0), number(2)
        base, pieces = number(iloc[5] >> 4), number(2)
        if item == wanted:
            number(iloc[5] & 15 if version else 0)
            start, length = base + number(iloc[4] >> 4), number(iloc[4] & 15)
            return data[start : start + length] if pieces == 1 and method == 0 else b""
        at += pieces * ((iloc[5] & 15 if version else 0) + (iloc[4] >> 4) + (iloc[4] & 15))
    return b""


def _child(data: bytes, wanted: bytes) -> bytes:
    return next((content for name, content in boxes(data) if name == wanted), b"")


def _primary(pitm: bytes) -> int:
    return int.from_bytes(pitm[4:6] if pitm[:1] == b"\0" else pitm[4:8], "big")


def _of_item(ipma: bytes, item: int) -> list[int]:
    """The numbers of an item's properties, counted from 1."""
    if len(ipma) < 8:
        return []
    id_bytes, index_bytes = (2 if ipma[0] == 0 else 4), (2 if ipma[3] & 1 else 1)
    at, found = 8, []
    for _ in range(int.from_bytes(ipma[4:8], "big")):
        if at + id_bytes >= len(ipma):
            break
        owner, count = int.from_bytes(ipma[at : at + id_bytes], "big"), ipma[at + id_bytes]
        at += id_bytes + 1
        if owner == item:
            ends = range(at, at + count * index_bytes, index_bytes)
            below = (1 << 8 * index_bytes - 1) - 1  # the top bit says that a reader has to know it
            found += [int.from_bytes(ipma[i : i + index_bytes], "big") & below for i in ends]
        at += count * index_bytes
    return found
