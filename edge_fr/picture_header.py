"""What a picture file says of itself before it is decoded: kind, size, which way up, when it was taken.

A small file may unfold to gigabytes, so that the size has to be known first. Which way up a picture is,
OpenCV heeds in some kinds and versions and not in others: it is read here, and applied once
(`turned_upright`).
"""

from __future__ import annotations

import codecs
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_fr.errors import ImageError
from edge_fr.picture_boxes import avif_exif, avif_geometry, jpeg2000_size

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG, _JPEG_END = b"\xff\xd8", b"\xff\xd9"
_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_START_OF_SCAN = 0xDA
_WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xD8)})
_TIFF = {b"II*\0": "<", b"MM\0*": ">"}
_ANY_BRAND = (b"mif1", b"msf1")  # of pictures in boxes, whatever compressed them
_BRANDS = dict.fromkeys((b"heic", b"heix", b"heim", b"heis", *_ANY_BRAND), "HEIC")
_BRANDS |= dict.fromkeys((b"avif", b"avis"), "AVIF")
_OTHERS = {b"%PDF": "a PDF file", b"PK\x03\x04": "a ZIP file", b"\x1f\x8b": "a gzip file"}
_OTHERS |= {b"<svg": "a SVG file", b"<!DO": "a HTML file", b"<htm": "a HTML file", b"ID3": "sound"}
_OTHERS |= {
    b"8BPS": "a Photoshop picture",
    b"\x76\x2f\x31\x01": "an OpenEXR picture",
    b"#?RA": "a HDR picture",
}
_OTHERS |= {b"Y\xa6j\x95": "a Sun raster picture", b"\0\0\1\0": "an icon"}
_OTHERS |= dict.fromkeys((b"II+\0", b"MM\0+"), "a TIFF picture of the large kind (BigTIFF)")
_PNM = re.compile(rb"P[1-6](?:\s|#[^\n]*\n)+(\d{1,9})(?:\s|#[^\n]*\n)+(\d{1,9})\s")
_MOST_PNM_HEADER = 4096
_JPEG_2000 = (b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51")
_ORIENTATION, _TAKEN_AT, _TAKEN_OFFSET, _EXIF = 0x0112, 0x9003, 0x9011, 0x8769  # tags of EXIF
_WIDTH, _HEIGHT = 0x0100, 0x0101  # tags of TIFF
_MOST_TAGS = 1000
MAX_IMAGE_PIXELS = 64_000_000  # a decoded picture of that size takes 192 MB
HEAD_BYTES = 512  # as much of a file tells its kind


@dataclass(frozen=True, slots=True)
class PictureHeader:
    """`kind` is that of `kind_of`, or moving WebP; `size` (height, width) as it is stored,
    None if unknown; `orientation` 1 to 8 as EXIF counts; `complete` False for a JPEG without its
    end."""

    kind: str
    size: tuple[int, int] | None = None
    orientation: int = 1
    taken_at: datetime | None = None
    complete: bool = True


def kind_of(head: bytes) -> str | None:
    """The kind of picture that begins so, in HEAD_BYTES or all that there are; None if it is none."""
    if head.startswith(_JPEG + b"\xff"):
        return "JPEG"
    if head.startswith(_PNG):
        return "PNG"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WebP"
    if head.startswith(b"BM") and head[14:18] in _BMP_HEADERS:
        return "BMP"
    if head[:4] in _TIFF:
        return "TIFF"
    if head[:6] in (b"GIF87a", b"GIF89a"):
        return "GIF"
    if head.startswith(_JPEG_2000):
        return "JPEG 2000"
    if re.match(rb"P[1-6]\s[\s\d#]", head):
        return "PNM"
    if head[4:8] == b"ftyp":
        listed = head[16 : int.from_bytes(head[:4], "big")]
        others = {listed[at : at + 4] for at in range(0, len(listed), 4)}
        return "AVIF" if head[8:12] in _ANY_BRAND and b"avif" in others else _BRANDS.get(head[8:12])
    return None


_BMP_HEADERS = frozenset(struct.pack("<I", size) for size in (12, 40, 52, 56, 64, 108, 124))


def what_else(head: bytes) -> str | None:
    """A word for a file that is no picture, by its beginning."""
    if not head:
        return "empty"
    for start, name in _OTHERS.items():
        if head.lstrip(b"\t\n\r ").startswith(start):
            return name
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "text"
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(head)  # the last letter may be cut
    except UnicodeDecodeError:
        return None
    return "text" if all(c.isprintable() or c.isspace() for c in text) else None


def read_header(data: bytes) -> PictureHeader | None:
    """The header of a picture file; None for what is no picture. What is damaged is left at its defaults."""
    kind = kind_of(data[:HEAD_BYTES])
    if kind is None:
        return None
    try:
        return _READERS[kind](data) if kind in _READERS else PictureHeader(kind)
    except (struct.error, IndexError):
        return PictureHeader(kind, complete=kind != "JPEG")


def turned_upright(image: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """The picture as EXIF's orientation (1 to 8) says that it is to be seen."""
    if orientation in (5, 6, 7, 8):
        image = image.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    return np.ascontiguousarray(image)


def refuse_too_many_pixels(size: tuple[int, int], path: Path) -> None:
    """ImageError for a picture of more than MAX_IMAGE_PIXELS."""
    height, width = size
    if height * width > MAX_IMAGE_PIXELS:
        raise ImageError(
            f"{path} has {width} x {height} = {height * width / 1e6:.0f} million pixels, expected at most "
            f"{MAX_IMAGE_PIXELS / 1e6:.0f} million; scale it down first"
        )


def _jpeg(data: bytes) -> PictureHeader:
    """Some OpenCV versions fill the missing part with grey and say nothing: the end is looked for."""
    size, orientation, taken_at = None, 1, None
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker in _START_OF_FRAME:
            size = struct.unpack(">HH", data[at + 5 : at + 9])
        if marker == 0xE1 and data[at + 4 : at + 10] == b"Exif\0\0":
            orientation, taken_at = _exif(
                data[at + 10 : at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")]
            )
        if marker == _START_OF_SCAN:
            complete = data.rfind(_JPEG_END, at) > 0
            return PictureHeader("JPEG", size, orientation, taken_at, complete)
        if marker == 0xFF or marker in _WITHOUT_LENGTH:
            at += 1 if marker == 0xFF else 2
        else:
            at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return PictureHeader("JPEG", size, orientation, taken_at, complete=False)


def _png(data: bytes) -> PictureHeader:
    width, height = struct.unpack(">II", data[16:24])
    orientation, taken_at, at = 1, None, 8
    while at + 12 <= len(data):
        length, name = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        if name == b"eXIf":
            orientation, taken_at = _exif(data[at + 8 : at + 8 + length])
        at += 12 + length
    return PictureHeader("PNG", (height, width), orientation, taken_at)


def _webp(data: bytes) -> PictureHeader:
    size, orientation, taken_at, at, kind = None, 1, None, 12, "WebP"
    while at + 8 <= len(data):
        name, length = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        body = data[at + 8 : at + 8 + length]
        if name == b"VP8X":
            kind = "moving WebP" if body[0] & 2 else "WebP"
            size = int.from_bytes(body[7:10], "little") + 1, int.from_bytes(body[4:7], "little") + 1
        elif name == b"VP8 " and size is None:
            width, height = struct.unpack("<HH", body[6:10])
            size = height & 0x3FFF, width & 0x3FFF
        elif name == b"VP8L" and size is None:
            bits = int.from_bytes(body[1:5], "little")
            size = (bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1
        elif name == b"EXIF":
            orientation, taken_at = _exif(body.removeprefix(b"Exif\0\0"))
        at += 8 + length + length % 2
    return PictureHeader(kind, size, orientation, taken_at)


def _bmp(data: bytes) -> PictureHeader:
    narrow = data[14:18] == _12_BYTES
    width, height = struct.unpack("<HH" if narrow else "<ii", data[18 : 22 if narrow else 26])
    return PictureHeader("BMP", (abs(height), abs(width)))


_12_BYTES = struct.pack("<I", 12)


def _tiff(data: bytes) -> PictureHeader:
    """OpenCV turns a TIFF upright itself, whatever it is asked for."""
    sides: dict[int, int] = {}
    for tag, value in _tags(data, _TIFF[data[:4]], struct.unpack(_TIFF[data[:4]] + "I", data[4:8])[0]):
        if isinstance(value, int):  # of two that contradict, decoders take either
            sides[tag] = max(value, sides.get(tag, 0))
    size = (sides[_HEIGHT], sides[_WIDTH]) if _HEIGHT in sides and _WIDTH in sides else None
    return PictureHeader("TIFF", size, 1, _exif(data)[1])


def _gif(data: bytes) -> PictureHeader:
    width, height = struct.unpack("<HH", data[6:10])
    return PictureHeader("GIF", (height, width))


def _pnm(data: bytes) -> PictureHeader:
    found = _PNM.match(data[:_MOST_PNM_HEADER])
    return PictureHeader("PNM", (int(found[2]), int(found[1])) if found else None)


def _jpeg2000(data: bytes) -> PictureHeader:
    return PictureHeader("JPEG 2000", jpeg2000_size(data))


def _avif(data: bytes) -> PictureHeader:
    return PictureHeader("AVIF", *avif_geometry(data), _exif(avif_exif(data).removeprefix(b"Exif\0\0"))[1])


_READERS = {"JPEG": _jpeg, "PNG": _png, "WebP": _webp, "BMP": _bmp, "TIFF": _tiff, "GIF": _gif}
_READERS |= {"PNM": _pnm, "JPEG 2000": _jpeg2000, "AVIF": _avif}


def _exif(data: bytes) -> tuple[int, datetime | None]:
    """Orientation and time of a TIFF structure; the time is local where it has no offset."""
    order = _TIFF.get(data[:4])
    if order is None or len(data) < 8:
        return 1, None
    tags = dict(_tags(data, order, struct.unpack(order + "I", data[4:8])[0]))
    orientation = tags.get(_ORIENTATION, 1)
    inner = tags.get(_EXIF)
    taken = dict(_tags(data, order, inner)) if isinstance(inner, int) else {}
    valid = isinstance(orientation, int) and 1 <= orientation <= 8
    return int(orientation) if valid else 1, _time(taken.get(_TAKEN_AT), taken.get(_TAKEN_OFFSET))


def _tags(data: bytes, order: str, at: int) -> Iterator[tuple[int, int | bytes]]:
    """The numbers and texts of a directory of tags; what lies outside the data is left out."""
    if at + 2 > len(data):
        return
    (count,) = struct.unpack(order + "H", data[at : at + 2])
    for entry in range(min(count, _MOST_TAGS)):
        start = at + 2 + 12 * entry
        if start + 12 > len(data):
            return
        tag, kind, number = struct.unpack(order + "HHI", data[start : start + 8])
        if kind == 3 and number == 1:
            yield tag, struct.unpack(order + "H", data[start + 8 : start + 10])[0]
        elif kind == 4 and number == 1:
            yield tag, struct.unpack(order + "I", data[start + 8 : start + 12])[0]
        elif kind == 2:
            where = start + 8 if number <= 4 else struct.unpack(order + "I", data[start + 8 : start + 12])[0]
            yield tag, data[where : where + number]


def _time(text: int | bytes | None, offset: int | bytes | None) -> datetime | None:
    if not isinstance(text, bytes):
        return None
    zone = offset.rstrip(b"\0 ").decode("ascii", "replace") if isinstance(offset, bytes) else ""
    written = text.rstrip(b"\0 ").decode("ascii", "replace")
    try:
        if zone:
            return datetime.strptime(f"{written} {zone}", "%Y:%m:%d %H:%M:%S %z")
        return datetime.strptime(written, "%Y:%m:%d %H:%M:%S").astimezone()
    except (ValueError, OverflowError, OSError):
        return None
