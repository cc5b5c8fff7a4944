"""Pictures by their content: kind, size before anything is decoded, which way up, and when taken."""

from __future__ import annotations

import os
import struct
import zlib
from datetime import datetime, timedelta, timezone
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from edge_fr.errors import ImageError, SourceOpenError
from edge_fr.image import read_image, read_picture
from edge_fr.picture_header import MAX_IMAGE_PIXELS, kind_of, read_header
from edge_fr.stream import open_source
from edge_fr.stream.content import MOST_PICTURE_BYTES
from tests.web_camera import WebCamera, mjpeg

HEIC = struct.pack(">I", 24) + b"ftypheic" + b"\0" * 4 + b"mif1heic" + b"\0" * 40


def corners() -> NDArray[np.uint8]:
    """A 40 x 24 picture of four colours, so that every turn and mirror image shows."""
    picture = np.zeros((40, 24, 3), np.uint8)
    picture[:20, :12], picture[:20, 12:] = (0, 0, 255), (0, 255, 0)
    picture[20:, :12], picture[20:, 12:] = (255, 0, 0), (255, 255, 255)
    return picture


def turned(orientation: int) -> NDArray[np.uint8]:
    """`corners` as it is to be seen."""
    stored = corners()
    seen = {
        1: stored,
        2: stored[:, ::-1],
        3: stored[::-1, ::-1],
        4: stored[::-1],
        5: cv2.transpose(stored),
        6: cv2.rotate(stored, cv2.ROTATE_90_CLOCKWISE),
        7: cv2.transpose(stored)[::-1, ::-1],
        8: cv2.rotate(stored, cv2.ROTATE_90_COUNTERCLOCKWISE),
    }[orientation]
    return np.asarray(seen, np.uint8)


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
    seen = turned(orientation)
    path = tmp_path / f"face{suffix}"
    path.write_bytes(with_exif(suffix, exif(orientation, order=order)))
    read = read_image(path)
    assert read.shape == seen.shape
    assert colours(read) == colours(seen)


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


def _box(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", 8 + len(content)) + name + content


def avif(*sizes: tuple[int, int]) -> bytes:
    """The header of an AVIF file with pictures of these (width, height)."""
    listed = b"".join(_box(b"ispe", b"\0" * 4 + struct.pack(">II", *size)) for size in sizes)
    meta = b"\0" * 4 + _box(b"iprp", _box(b"ipco", listed))
    return _box(b"ftyp", b"avif" + b"\0" * 4) + _box(b"meta", meta) + b"\0" * 8


_60_000 = struct.pack(">II", 60_000, 60_000)
HUGE = {
    "png": b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR" + _60_000 + b"\x08\2\0\0\0",
    "vp8l": _webp(b"VP8L", b"\x2f" + struct.pack("<I", 16_382 | 16_382 << 14) + b"\0" * 13),
    "vp8": _webp(b"VP8 ", b"\0\0\0\x9d\x01\x2a" + struct.pack("<HH", 16_383, 16_383) + b"\0" * 8),
    "vp8x": _webp(b"VP8X", b"\0" * 4 + (59_999).to_bytes(3, "little") * 2) + b"\0" * 8,
    "bmp": b"BM" + b"\0" * 12 + struct.pack("<Iii", 40, 60_000, -60_000) + b"\1\0\x18\0" + b"\0" * 40,
    "gif": b"GIF89a" + struct.pack("<HH", 60_000, 60_000) + b"\0" * 20,
    "moving gif": b"GIF89a" + struct.pack("<HH", 60_000, 60_000) + b"\0" * 3 + (b"," + b"\0" * 11) * 2 + b";",
    "ppm": b"P6\n# from a scanner\n60000 60000\n255\n" + b"\0" * 40,
    "jpeg 2000": b"\xff\x4f\xff\x51\0\x29\0\0" + _60_000 + b"\0" * 40,
    "avif": avif((60_000, 60_000)),
    "avif, its small copy first": avif((60, 60), (60_000, 60_000)),
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


UNTOLD = {
    # Decoders take a width written as a signed number (type 9); here it is not taken for one.
    "tiff": b"II*\0"
    + struct.pack("<IHHHIi", 8, 2, 256, 9, 1, 60_000)
    + struct.pack("<HHIi", 257, 9, 1, 60_000),
    "avif": avif(),
    "ppm": b"P6\n" + b"# and no number\n" * 500,
    "jpeg 2000": b"\0\0\0\x0cjP  \r\n\x87\n" + b"\0" * 40,
}


@pytest.mark.parametrize("kind", UNTOLD)
def test_a_picture_that_does_not_tell_its_size_is_not_unfolded(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "face"
    path.write_bytes(UNTOLD[kind])
    with pytest.raises(ImageError, match=r"is a damaged .* picture: its header does not tell its size"):
        read_image(path)


def test_of_two_widths_in_a_tiff_the_larger_counts() -> None:
    entries = [(256, 4, 1, 60_000), (256, 4, 1, 10), (257, 4, 1, 60_000)]
    data = b"II*\0" + struct.pack("<IH", 8, 3) + b"".join(struct.pack("<HHII", *entry) for entry in entries)
    header = read_header(data)
    assert header is not None
    assert header.size == (60_000, 60_000)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_avif_picture_is_turned_upright_where_opencv_reads_it(orientation: int, tmp_path: Path) -> None:
    """OpenCV 4.10 reads none, OpenCV 5.0 leaves it as it is stored."""
    image = pytest.importorskip("PIL.Image")
    if not pytest.importorskip("PIL.features").check("avif"):
        pytest.skip("this Pillow writes no AVIF")
    path, exif_of = tmp_path / "face", image.Exif()
    exif_of[0x0112], exif_of[0x0110] = orientation, "a camera"  # of the first alone Pillow keeps nothing
    exif_of.get_ifd(0x8769).update({0x9003: "2024:05:06 07:08:09", 0x9011: "+02:00"})
    image.fromarray(corners()[:, :, ::-1].copy()).save(path, "AVIF", exif=exif_of, quality=100)
    header = read_header(path.read_bytes())
    assert header is not None
    assert (header.kind, header.size, header.orientation) == ("AVIF", (40, 24), orientation)
    assert header.taken_at == datetime(2024, 5, 6, 7, 8, 9, tzinfo=timezone(timedelta(hours=2)))
    if not cv2.haveImageReader(str(path)):
        with pytest.raises(ImageError, match=r"is a AVIF picture, which OpenCV .* does not read"):
            read_image(path)
        return
    assert colours(read_image(path)) == colours(turned(orientation))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
def test_a_tiff_picture_is_turned_upright_once(orientation: int, depth: type, tmp_path: Path) -> None:
    rgb = np.ascontiguousarray(corners()[:, :, ::-1]).astype(depth) * (257 if depth is np.uint16 else 1)
    bits = 8 * rgb.itemsize
    pixels, tags = rgb.astype(rgb.dtype.newbyteorder("<")).tobytes(), []
    depths_at = 8 + 2 + 10 * 12 + 4
    for tag, kind, count, value in (
        (256, 3, 1, 24),
        (257, 3, 1, 40),
        (258, 3, 3, depths_at),
        (259, 3, 1, 1),
        (262, 3, 1, 2),
        (273, 4, 1, depths_at + 6),
        (274, 3, 1, orientation),
        (277, 3, 1, 3),
        (278, 3, 1, 40),
        (279, 4, 1, len(pixels)),
    ):
        tags.append(struct.pack("<HHII", tag, kind, count, value))
    path = tmp_path / "face"
    head = b"II*\0" + struct.pack("<IH", 8, len(tags)) + b"".join(tags) + b"\0\0\0\0"
    path.write_bytes(head + struct.pack("<HHH", bits, bits, bits) + pixels)
    assert colours(read_image(path)) == colours(turned(orientation))


def test_a_tiff_picture_was_captured_when_it_was_taken() -> None:
    header = read_header(exif(1, b"2024:05:06 07:08:09", b"-03:30", order=">"))
    assert header is not None
    assert header.taken_at == datetime(2024, 5, 6, 7, 8, 9, tzinfo=timezone(-timedelta(hours=3, minutes=30)))


@pytest.mark.parametrize("suffix", [".ppm", ".pgm", ".jp2"])
def test_a_scanner_s_and_a_passport_s_pictures_are_read(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / "face"
    picture = cv2.resize(corners(), (96, 160), interpolation=cv2.INTER_NEAREST)  # JPEG 2000 has a least size
    picture = np.asarray(picture if suffix != ".pgm" else picture[:, :, 0], np.uint8)
    path.write_bytes(encoded(suffix, picture))
    with open_source(path) as source:
        assert source.reader == "pictures"
        (frame,) = source
    assert colours(frame.image) == colours(np.dstack([picture] * 3) if suffix == ".pgm" else picture)


def test_a_gif_is_a_video_where_it_moves_and_a_picture_where_it_does_not(tmp_path: Path) -> None:
    # Two colours, one pixel (as clear and one code of LZW), and a remark before it.
    head = b"GIF89a\1\0\1\0\x80\0\0" + b"\0\0\0\xff\xff\xff" + b"!\xfe\5hello\0"
    pixel = b",\0\0\0\0\1\0\1\0\0" + b"\2\2\x4c\1\0"
    still, moving = tmp_path / "still.gif", tmp_path / "moving.gif"
    still.write_bytes(head + pixel + b";")
    moving.write_bytes(head + pixel * 3 + b";")
    with open_source(moving) as source:
        assert (source.reader, len(list(source))) == ("opencv", 3)
    if cv2.haveImageReader(str(still)):
        with open_source(still) as source:
            assert [frame.image.tolist() for frame in source] == [[[[255, 255, 255]]]]
    else:
        with pytest.raises(ImageError, match=r"is a GIF picture, which OpenCV .* does not read.*make a JPEG"):
            open_source(still)
    (tmp_path / "face.png").write_bytes(encoded(".png", corners()))
    with open_source(tmp_path) as source:
        skipped = {s.what: s.reason for s in source.skipped}
    assert skipped == {"moving.gif": "a GIF that moves is a video; give it as a source of its own"}


def test_jpegs_one_after_the_other_are_a_video_and_what_a_phone_appends_is_not(tmp_path: Path) -> None:
    jpeg = encoded(".jpg", corners())
    stream = tmp_path / "recording"
    stream.write_bytes(jpeg * 5)
    with open_source(stream) as source:
        assert (source.reader, len(list(source))) == ("opencv", 5)
    os.truncate(stream, 2 * MOST_PICTURE_BYTES)
    with pytest.raises(SourceOpenError, match="does not end within 64 MiB"):
        open_source(stream)
    listed = jpeg[:2] + b"\xff\xe2" + struct.pack(">H", 10) + b"MPF\0" + b"\0" * 4 + jpeg[2:]
    for name, content in (("IMG_1", listed + jpeg), ("IMG_1.mpo", listed + jpeg), ("IMG_2", jpeg + b"more")):
        path = tmp_path / name
        path.write_bytes(content)
        with open_source(path) as source:
            assert (source.reader, len(list(source))) == ("pictures", 1)


def test_what_is_no_video_either_is_refused_with_what_it_is(tmp_path: Path) -> None:
    for name, content, what in (
        ("notes.txt", b"dear all,\nthis is a letter\n" * 40, "text"),
        ("notes", "z\u00fcrich ".encode() * 60, "text"),  # cut within a letter
        ("wide.txt", "dear all".encode("utf-16"), "text"),
        ("manual.pdf", b"%PDF-1.7 ...", "a PDF file"),
        ("page", b"\n <!DOCTYPE html>", "a HTML file"),
        ("clip.mp4", b"", "empty"),
        ("face.psd", b"8BPS" + b"\0" * 40, "a Photoshop picture"),
    ):
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(SourceOpenError, match=f"it is {what}, no picture and no video"):
            open_source(path)
    path = tmp_path / "face.jpg"
    path.write_bytes(b"Greetings, all of you: " * 20)  # each packet of MPEG-TS begins with a G as well
    with pytest.raises(ImageError, match="is not a picture, but text"):
        open_source(path)


def test_nothing_in_a_folder_ends_or_holds_up_the_others(tmp_path: Path) -> None:
    (tmp_path / "face.png").write_bytes(encoded(".png", corners()))
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    (tmp_path / "clip.mp4").write_bytes(struct.pack(">I", 24) + b"ftypisom" + b"\0" * 12)
    with open_source(tmp_path) as source:
        assert len(list(source)) == 1
        reasons = {s.what: s.reason for s in source.skipped}
    assert reasons == {
        "clip.mp4": "a video; give it as a source of its own",
        "link": "a broken link",
        "pipe": "pipe is a pipe or a device, expected a picture file",
    }


def test_what_is_no_path_of_a_picture_is_refused_with_what_is() -> None:
    for given in ([[1, 2], [3, 4]], None, b"face.jpg", 7):
        with pytest.raises(
            ImageError, match=r"got \w+; np\.asarray\(picture, np\.uint8\) makes one of lists"
        ):
            read_image(given)  # type: ignore[arg-type]
    for name in ("face\0.jpg", "face" * 2000):
        with pytest.raises(ImageError, match="cannot be read"):
            read_image(name)


def test_a_web_camera_s_picture_that_unfolds_to_gigabytes_is_counted_as_damaged() -> None:
    whole = encoded(".jpg", corners())
    at = whole.index(b"\xff\xc0") + 5
    side = int(MAX_IMAGE_PIXELS**0.5) + 1
    huge = whole[:at] + struct.pack(">HH", side, side) + whole[at + 4 :]
    with (
        WebCamera({"/": mjpeg(lambda: [whole, huge, whole, whole])}) as camera,
        open_source(f"http://{camera.host}/", timeout_s=60) as source,  # a busy machine's patience
    ):
        assert [frame.image.shape for frame in islice(source, 2)] == [(40, 24, 3)] * 2
        assert source.damaged == 1


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


def test_a_damaged_avif_header_does_no_harm(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    if not pytest.importorskip("PIL.features").check("avif"):
        pytest.skip("this Pillow writes no AVIF")
    exif_of = image.Exif()
    exif_of[0x0112], exif_of[0x0110] = 6, "a camera"
    path = tmp_path / "face"
    image.fromarray(corners()).save(path, "AVIF", exif=exif_of)
    data, rng = path.read_bytes(), np.random.default_rng(0)
    for _ in range(3000):
        noisy = bytearray(data[: rng.integers(len(data)) if rng.integers(2) else len(data)])
        for at in rng.integers(0, max(1, len(noisy)), 4):
            noisy[at : at + 1] = bytes([rng.integers(256)])
        header = read_header(bytes(noisy))
        assert header is None or 1 <= header.orientation <= 8


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


def test_avif_and_heic_are_told_apart_where_the_first_brand_is_of_both() -> None:
    for others, kind in ((b"avifmiaf", "AVIF"), (b"heicmiaf", "HEIC"), (b"", "HEIC")):
        assert kind_of(_box(b"ftyp", b"mif1" + b"\0" * 4 + others) + b"avif") == kind


def test_other_kinds_are_no_pictures() -> None:
    for head in (b"", b"BM is a word", b"RIFF\0\0\0\0AVI LIST", b"\0\0\0\x18ftypisom", b"hello"):
        assert kind_of(head) is None
