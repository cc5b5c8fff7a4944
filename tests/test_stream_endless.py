"""Pictures that never end, over the network and in files: an error that says so, and bounded memory."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_fr.errors import ImageError, SourceOpenError
from edge_fr.image import read_image
from edge_fr.stream import ReaderName, gstreamer, open_source
from edge_fr.stream.containers import MOST_PICTURE_BYTES, why_endless
from tests.fake_cameras import RawServer, endless_picture, gigantic_picture, jpeg_sender

MIB = 1 << 20
# Reads a source in a process that may have so much address space, and prints why it could not and how many
# MiB more than before it had at the most.
CHILD = """
import resource, sys
from edge_fr.errors import EdgeFrError
from edge_fr.stream import open_source
import cv2
if sys.argv[2] == "gstreamer":
    from edge_fr.stream import gstreamer
    gstreamer.load()
resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    list(open_source(sys.argv[1], reader=sys.argv[2], timeout_s=float(sys.argv[3])))
except EdgeFrError as error:
    print(type(error).__name__, error)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.fixture(params=["opencv", "gstreamer"])
def reader(request: pytest.FixtureRequest) -> ReaderName:
    if request.param == "gstreamer" and not gstreamer.is_installed():
        pytest.skip("GStreamer or PyGObject is not installed")
    name: ReaderName = request.param
    return name


def told(uri: str | Path, reader: str, timeout_s: float) -> tuple[str, int]:
    """What the child says, and how many MiB it grew by."""
    command = [sys.executable, "-W", "ignore", "-c", CHILD, str(uri), reader, str(timeout_s)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    *said, grown = done.stdout.splitlines()
    return " ".join(said), int(grown)


# On one machine it grew by 2 GiB within four seconds before there was a bound.
@pytest.mark.parametrize(("packets", "most_mib"), [(endless_picture, 400), (gigantic_picture, 200)])
def test_a_camera_whose_picture_never_ends_is_given_up_before_memory_is(
    reader: ReaderName, packets: Callable[[], Iterator[bytes]], most_mib: int
) -> None:
    # GStreamer gives up by what came, FFmpeg, which keeps no more than 16 MiB, by the time. It throws
    # pieces of a gigantic one away: how much comes in the time depends on the machine.
    by_size = reader == "gstreamer" and packets is endless_picture
    either = reader == "gstreamer" and packets is gigantic_picture
    size, late = "MiB came, and no picture in them had an end", "no frame came within 3 s"
    expected = (size, late) if either else (size,) if by_size else (late,)
    for _ in range(10):
        with RawServer(jpeg_sender(packets)) as camera:
            said, grown = told(f"rtsp://127.0.0.1:{camera.port}/live", reader, 240 if by_size else 3)
        assert f"rtsp://127.0.0.1:{camera.port}/live" in said
        assert grown < most_mib
        if said.endswith(expected):
            break
        # This machine stood still for three seconds before a picture began: given up in other words. Again.
        assert said.startswith("SourceOpenError cannot open ")
    assert said.endswith(expected)


def jpeg() -> bytes:
    noise = np.random.default_rng(0).integers(0, 255, (240, 320, 3), np.uint8)
    return bytes(cv2.imencode(".jpg", noise)[1])


def part(length: int) -> bytes:
    return b"--part\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % length


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("clip.mjpeg", jpeg() * 3 + jpeg()[:5000]),
        ("overwritten.mjpeg", b""),
        ("named otherwise", jpeg() + jpeg()[:5000]),
        ("parts.bin", part(len(jpeg())) + jpeg() + b"\r\n" + part(99_999_999_999) + jpeg()[:5000]),
        ("clip.h264", b"\0\0\0\x01\x67"),
        ("clip.265", b""),
    ],
)
def test_a_file_whose_picture_never_ends_is_refused_before_it_is_opened(
    tmp_path: Path, reader: ReaderName, name: str, head: bytes
) -> None:
    path = tmp_path / name
    path.write_bytes(head)
    os.truncate(path, 1024 * MIB)  # zeros, which take no room on the disk
    said, grown = told(path, reader, 60)
    assert said.startswith(f"SourceOpenError cannot open {path}: a picture that begins by byte ")
    assert said.endswith(" does not end within 64 MiB; it is no video, or was overwritten")
    assert grown < 50  # GStreamer's plugins are loaded, a chunk is read; without the look 2 GiB


def test_pictures_that_end_are_read_from_a_bare_stream_of_them(tmp_path: Path, reader: ReaderName) -> None:
    path = tmp_path / "clip.mjpeg"
    path.write_bytes(jpeg() * 30)
    with open_source(path, reader=reader) as source:
        assert len(list(source)) == 30


def test_a_picture_may_have_64_mib_wherever_its_beginning_lies(tmp_path: Path) -> None:
    path = tmp_path / "clip.mjpeg"
    begins = [0, MIB - 1, MIB - 1 + MOST_PICTURE_BYTES - 3, 2 * MOST_PICTURE_BYTES - 1]  # over a chunk's end
    with path.open("wb") as file:
        for at in begins:
            file.seek(at)
            file.write(b"\xff\xd8\xff")
    assert why_endless(path) is None
    with path.open("ab") as file:
        file.truncate(3 * MOST_PICTURE_BYTES + MIB)
    assert why_endless(path) == f"a picture that begins by byte {begins[-1]} does not end within 64 MiB"


def test_a_container_that_states_sizes_is_not_searched(tmp_path: Path) -> None:
    path = tmp_path / "clip.m4v"  # Apple's name for an MP4, and FFmpeg's for a bare MPEG-4 stream
    path.write_bytes(b"\0\0\0\x18ftypM4V ")
    os.truncate(path, 2 * MOST_PICTURE_BYTES)
    assert why_endless(path) is None


@pytest.mark.parametrize("name", ["clip.mjpeg", "face.jpg"])
def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(SourceOpenError, match=rf"'.*{name}' is a pipe or a device and no file, expected a"):
        open_source(tmp_path / name)


def test_a_pipe_among_pictures_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(jpeg())
    os.mkfifo(tmp_path / "b.jpg")
    with open_source(tmp_path) as source:
        assert len(list(source)) == 1
        assert "b.jpg is a pipe or a device, expected a picture file" in source.skipped[0].reason


def test_a_picture_file_that_is_larger_than_any_picture_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "face.jpg"
    path.write_bytes(jpeg()[:5000])
    os.truncate(path, 1 << 40)
    with pytest.raises(ImageError, match=r"has 1099511627776 bytes, more than any picture of 64 million pix"):
        read_image(path)
