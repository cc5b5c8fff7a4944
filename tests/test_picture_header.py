"""Pictures by their content: kind, size before anything is decoded, which way up, and when taken."""

from __future__ import annotations

import struct
import zlib
from datetime import datetime, timedelta, timezone
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from edge_fr.errors import ImageError, SourceOpenError
from edge_fr.image import read_image, read_picture
from edge_fr.picture_header import kind_of, read_header
from edge_fr.stream import open_source

HEIC = struct.pack(">I", 24) + b"ftypheic" + b"\0" * 4 + b"mif1heic" + b"\0" * 40


def corners() -> NDArray[np.uint8]:
    """A 40 x 24 picture of four colours, so that every turn and mirror image shows."""
    picture = np.zeros((40, 24, 3), np.uint8)
    picture[:20, :12], picture[:20, 12:] = (0, 0, 255), (0, 255, 0)
    picture[20:, :12], picture[20:, 12:] = (255, 0, 0), (255, 255, 255)
    return picture


def exif(orientation: int, taken: bytes = b"", offset: bytes = b"", order: str = "<") -> bytes:
    """An EXIF block: the orientation, and the time in its inner directory."""
    outer = struct.pack(order + "HHHIHH", 2, 0x0112, 3, 1, orientation, 0)
    inner_at = 8 + 2 + 2 * 12 + 4
    outer += struct.pack(order + "HHIII", 0x8769, 4, 1, inner_at, 0)
    texts = [(0x9003, taken.ljust(5, b"\0")), (0x9011, offset.ljust(5, b"\0"))]
    at, bodies = inner_at + 2 + len(texts) * 12 + 4, b""
    inner = struct.pack(order + "H", len(texts))
    for tag, text in texts:
        inner += struct.pack(order + "HHII", tag, 2, len(text), at + len(bodies))
        bodies += text
    mark = b"II*\0" if order == "<" else b"MM\0*"
    return mark + struct.pack(order + "I", 8) + outer + inner + b"\0\0\0\0" + bodies


def encoded(suffix: str, picture: NDArray[np.uint8]) -> bytes:
    options = {".webp": [cv2.IMWRITE_WEBP_QUALITY, 101], ".jpg": [cv2.IMWRITE_JPEG_QUALITY, 100]}
    done, data = cv2.imencode(suffix, picture, options.get(suffix, []))
    assert done
    return bytes(data)


def with_exif(suffix: str, block: bytes) -> bytes:
    data = encoded(suffix, corners())
    if suffix == ".jpg":
        body = b"Exif\0\0" + block
        return data[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + data[2:]
    if suffix == ".png":
        chunk = b"eXIf" + block
        packed = struct.pack(">I", len(block)) + chunk + struct.pack(">I", zlib.crc32(chunk))
        return data[:33] + packed + data[33:]
    canvas = (23).to_bytes(3, "little") + (39).to_bytes(3, "little")
    extended = b"VP8X" + struct.pack("<I", 10) + b"\x08\0\0\0" + canvas
    block += b"\0" * (len(block) % 2)
    body = b"WEBP" + extended + data[12:] + b"EXIF" + struct.pack("<I", len(block)) + block
    return b"RIFF" + struct.pack("<I", len(body)) + body


def colours(picture: NDArray[np.uint8]) -> list[list[int]]:
    height, width = picture.shape[:2]
    spots = [(y * height // 4, x * width // 4) for y in (1, 3) for x in (1, 3)]
    return [[round(float(v) / 255) for v in picture[spot]] for spot in spots]


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_turned_upright_once(suffix: str, order: str, orientation: int, tmp_path: Path) -> None:
    upright = corners()
    seen = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: cv2.transpose(upright),
        6: cv2.rotate(upright, cv2.ROTATE_90_CLOCKWISE),
        7: cv2.transpose(upright)[::-1, ::-1],
        8: cv2.rotate(upright, cv2.ROTATE_90_COUNTERCLOCKWISE),
    }[orientation]
    path = tmp_path / f"face{suffix}"
    path.write_bytes(with_exif(suffix, exif(orientation, order=order)))
    read = read_image(path)
    assert read.shape == seen.shape
    assert colours(read) == colours(np.asarray(seen, np.uint8))


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
def test_a_picture_was_captured_when_it_was_taken(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"face{suffix}"
    path.write_bytes(with_exif(suffix, exif(1, b"2024:05:06 07:08:09", b"+02:00")))
    taken = datetime(2024, 5, 6, 7, 8, 9, tzinfo=timezone(timedelta(hours=2)))
    assert read_picture(path).taken_at == taken
    with open_source(path) as source:
        assert next(iter(source)).captured_at == taken
    path.write_bytes(with_exif(suffix, exif(1, b"2024:05:06 07:08:09")))  # its own time zone is not told
    assert read_picture(path).taken_at == datetime(2024, 5, 6, 7, 8, 9).astimezone()
    for nonsense in (b"0000:00:00 00:00:00", b"yesterday", b""):
        path.write_bytes(with_exif(suffix, exif(1, nonsense)))
        assert read_picture(path).taken_at is None


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".bmp", ".tiff"])
@pytest.mark.parametrize("name", ["face.jfif", "face.jpg_large", "face", "face.mp4", "face.JPG_orig"])
def test_a_picture_is_one_whatever_its_name(suffix: str, name: str, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    (folder / name).write_bytes(encoded(suffix, corners()))
    for given in (folder / name, folder):
        with open_source(given) as source:
            assert source.reader == "pictures"
            assert [frame.image.shape for frame in source] == [(40, 24, 3)]


def test_a_video_is_one_though_it_is_named_like_a_picture(tmp_path: Path) -> None:
    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    for level in range(5):
        writer.write(np.full((48, 64, 3), 40 * level, np.uint8))
    writer.release()
    named = path.rename(tmp_path / "clip.jpg")
    with open_source(named) as source:
        assert source.reader != "pictures"
        assert len(list(source)) == 5


def _webp(name: bytes, body: bytes) -> bytes:
    return b"RIFF" + struct.pack("<I", 30) + b"WEBP" + name + struct.pack("<I", len(body)) + body


_60_000 = struct.pack(">II", 60_000, 60_000)
HUGE = {
    "png": b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR" + _60_000 + b"\x08\2\0\0\0",
    "vp8l": _webp(b"VP8L", b"\x2f" + struct.pack("<I", 16_382 | 16_382 << 14) + b"\0" * 13),
    "vp8": _webp(b"VP8 ", b"\0\0\0\x9d\x01\x2a" + struct.pack("<HH", 16_383, 16_383) + b"\0" * 8),
    "vp8x": _webp(b"VP8X", b"\0" * 4 + (59_999).to_bytes(3, "little") * 2) + b"\0" * 8,
    "bmp": b"BM" + b"\0" * 12 + struct.pack("<Iii", 40, 60_000, -60_000) + b"\1\0\x18\0" + b"\0" * 40,
    "gif": b"GIF89a" + struct.pack("<HH", 60_000, 60_000) + b"\0" * 20,
    "tiff": b"II*\0"
    + struct.pack("<IHHHIHH", 8, 2, 256, 3, 1, 60_000, 0)
    + struct.pack("<HHII", 257, 4, 1, 60_000)
    + b"\0" * 8,
}


@pytest.mark.parametrize("kind", HUGE)
def test_a_small_file_that_unfolds_to_gigabytes_is_refused_from_its_header(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "small.picture"
    path.write_bytes(HUGE[kind])
    with pytest.raises(ImageError, match=r"million pixels, expected at most 64 million; scale it down first"):
        read_image(path)
    with pytest.raises((ImageError, SourceOpenError), match="million pixels"):
        open_source(path)


def test_what_cannot_be_read_is_named_with_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "face.jpg"
    path.write_bytes(HEIC)
    with pytest.raises(ImageError, match=r"is a HEIC picture, .* make a JPEG of it"):
        read_image(path)
    with pytest.raises(ImageError, match="HEIC"):
        open_source(path.rename(tmp_path / "IMG_0001.heic"))
    for content, what in (
        (b"%PDF-1.7 ...", "a PDF"),
        (b"dear all,\n", "text"),
        (b"<!DOCTYPE html>", "a HTML"),
    ):
        path.write_bytes(content)
        with pytest.raises(ImageError, match=f"is not a picture, but {what}"):
            open_source(path)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".bmp", ".tiff"])
def test_a_header_that_is_cut_or_damaged_anywhere_does_no_harm(suffix: str) -> None:
    can_tell = suffix in (".jpg", ".png", ".webp")
    data = with_exif(suffix, exif(6, b"2024:05:06 07:08:09")) if can_tell else encoded(suffix, corners())
    rng = np.random.default_rng(0)
    damaged = [data[:end] for end in range(len(data))]
    for _ in range(300):
        noisy = bytearray(data)
        for at in rng.integers(8, len(data), 6):
            noisy[at] = rng.integers(256)
        damaged.append(bytes(noisy))
    for content in damaged:
        header = read_header(content)
        assert header is None or 1 <= header.orientation <= 8


def test_other_kinds_are_no_pictures() -> None:
    for head in (b"", b"BM is a word", b"RIFF\0\0\0\0AVI LIST", b"\0\0\0\x18ftypisom", b"hello"):
        assert kind_of(head) is None
