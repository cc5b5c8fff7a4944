"""Pictures stand upright with square pixels, whatever the file or the mounting of the camera says."""

from __future__ import annotations

import shutil
import struct
import subprocess
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from numpy.typing import NDArray

from edge_fr.errors import InputError
from edge_fr.stream import Mounting, open_source
from edge_fr.stream.geometry import with_square_pixels
from edge_fr.stream.gstreamer import is_installed
from edge_fr.stream.movie_header import read_movie_header

needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="no ffmpeg here to write the videos")
READERS = [
    "opencv",
    pytest.param("gstreamer", marks=pytest.mark.skipif(not is_installed(), reason="no GStreamer here")),
]
Reader = Literal["opencv", "gstreamer"]


def corners(width: int = 96, height: int = 64) -> NDArray[np.uint8]:
    """Four colours: red, green; blue, white."""
    picture = np.zeros((height, width, 3), np.uint8)
    picture[: height // 2, : width // 2], picture[: height // 2, width // 2 :] = (0, 0, 255), (0, 255, 0)
    picture[height // 2 :, : width // 2], picture[height // 2 :, width // 2 :] = (255, 0, 0), (255, 255, 255)
    return picture


def letters(picture: NDArray[np.uint8]) -> str:
    """The colours of the four corners, row by row."""
    height, width = picture.shape[:2]
    spots = [picture[y * height // 4, x * width // 4] for y in (1, 3) for x in (1, 3)]
    names = {(0, 0, 1): "R", (0, 1, 0): "G", (1, 0, 0): "B", (1, 1, 1): "W"}
    return "".join(names[tuple(int(v > 127) for v in spot)] for spot in spots)  # type: ignore[index]


def write(path: Path, *options: str, picture: NDArray[np.uint8] | None = None) -> Path:
    frames = corners() if picture is None else picture
    height, width = frames.shape[:2]
    raw = ["-f", "rawvideo", "-pix_fmt", "bgr24", "-s", f"{width}x{height}", "-r", "10", "-i", "-"]
    coded = ["-c:v", "libx264", "-pix_fmt", "yuv420p", *options, str(path)]
    command = ["ffmpeg", "-v", "error", "-y", *raw, *coded]
    subprocess.run(command, input=frames.tobytes() * 5, check=True)
    return path


def first(path: Path, reader: Reader, mounting: Mounting | None = None) -> NDArray[np.uint8]:
    with open_source(path, reader=reader, mounting=mounting) as source:
        return next(iter(source)).image


@needs_ffmpeg
@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize(("declared", "shape"), [("2/1", (64, 192)), ("1/2", (128, 96)), ("1/1", (64, 96))])
def test_pixels_that_are_not_square_become_square(
    declared: str, shape: tuple[int, int], reader: Reader, tmp_path: Path
) -> None:
    path = write(tmp_path / "clip.mp4", "-vf", f"setsar={declared}")
    image = first(path, reader)
    assert image.shape[:2] == shape
    assert letters(image) == "RGBW"


def with_matrix(path: Path, matrix: tuple[int, int, int, int]) -> Path:
    """The MP4 file with another display matrix (a, b, c, d) in its track header."""
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 40
    a, b, c, d = (value << 16 for value in matrix)
    data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    return path


MATRICES = {
    "RGBW": (1, 0, 0, 1),
    "GRWB": (-1, 0, 0, 1),
    "WBGR": (-1, 0, 0, -1),
    "BWRG": (1, 0, 0, -1),
    "BRWG": (0, 1, -1, 0),
    "RBGW": (0, 1, 1, 0),
    "GWRB": (0, -1, 1, 0),
    "WGBR": (0, -1, -1, 0),
}


@needs_ffmpeg
@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("seen", MATRICES)
def test_a_video_is_turned_and_mirrored_as_its_header_says(seen: str, reader: Reader, tmp_path: Path) -> None:
    path = with_matrix(write(tmp_path / "clip.mp4"), MATRICES[seen])
    assert letters(first(path, reader)) == seen


@needs_ffmpeg
@pytest.mark.parametrize("reader", READERS)
def test_a_video_on_its_side_with_uneven_pixels_is_both_turned_and_stretched(
    reader: Reader, tmp_path: Path
) -> None:
    path = with_matrix(write(tmp_path / "clip.mp4", "-vf", "setsar=2/1"), MATRICES["BRWG"])
    image = first(path, reader)
    assert (image.shape[:2], letters(image)) == ((192, 64), "BRWG")


@pytest.mark.parametrize(
    ("mounting", "seen", "shape"),
    [
        (Mounting(), "RGBW", (64, 96)),
        (Mounting(rotate=90), "BRWG", (96, 64)),
        (Mounting(rotate=180), "WBGR", (64, 96)),
        (Mounting(rotate=270), "GWRB", (96, 64)),
        (Mounting(flip=True), "GRWB", (64, 96)),
        (Mounting(rotate=90, flip=True), "WGBR", (96, 64)),
        (Mounting(aspect="3:1"), "RGBW", (64, 192)),
        (Mounting(aspect="3:4"), "RGBW", (128, 96)),
        (Mounting(rotate=90, aspect="3:1"), "BRWG", (192, 64)),
    ],
)
def test_a_mounting_turns_mirrors_and_stretches(
    mounting: Mounting, seen: str, shape: tuple[int, int]
) -> None:
    image = mounting.applied(corners())
    assert (letters(image), image.shape[:2]) == (seen, shape)


@needs_ffmpeg
@pytest.mark.parametrize("reader", READERS)
def test_an_aspect_that_is_given_counts_in_place_of_the_declared_one(reader: Reader, tmp_path: Path) -> None:
    path = write(tmp_path / "clip.mp4", "-vf", "setsar=1/2")
    assert first(path, reader, Mounting(aspect="16:9", rotate=90)).shape[:2] == (114, 64)


def test_pictures_and_patterns_are_mounted_too(tmp_path: Path) -> None:
    import cv2

    cv2.imwrite(str(tmp_path / "face.png"), corners())
    with open_source(tmp_path / "face.png", mounting=Mounting(rotate=90)) as source:
        assert letters(next(iter(source)).image) == "BRWG"
    with open_source("test://?width=320&height=240", mounting=Mounting(rotate=270)) as pattern:
        assert next(iter(pattern)).image.shape == (320, 240, 3)


def test_a_picture_that_stays_as_it_is_is_not_copied_and_nonsense_is_passed_over() -> None:
    picture = corners()
    assert Mounting().applied(picture) is picture
    for aspect in (0.0, -1.0, 1.01, float("nan"), float("inf"), 100.0):
        assert with_square_pixels(picture, aspect) is picture


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        ({"rotate": 45}, "rotate is 45, expected 0, 90, 180 or 270"),
        ({"aspect": "wide"}, "aspect is 'wide', expected width:height, such as 16:9"),
        ({"aspect": "0:9"}, "expected width:height"),
        ({"aspect": "99:1"}, "between 1:8 and 8:1"),
    ],
)
def test_a_mounting_that_makes_no_sense_is_refused(wrong: dict[str, object], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        Mounting(**wrong)  # type: ignore[arg-type]


@needs_ffmpeg
@pytest.mark.parametrize("name", ["clip.mp4", "clip.mov", "clip.mkv"])
def test_a_clip_was_captured_when_it_says_that_it_was_made(name: str, tmp_path: Path) -> None:
    made_at = datetime(2024, 5, 6, 7, 8, 9, tzinfo=timezone.utc)
    path = write(tmp_path / name, "-metadata", f"creation_time={made_at.isoformat()}")
    assert read_movie_header(path).made_at == made_at
    with open_source(path) as source:
        times = [frame.captured_at for frame in source]
    assert times[0] == made_at
    assert times[1] - times[0] == timedelta(milliseconds=100)


@needs_ffmpeg
def test_a_clip_that_does_not_say_was_captured_when_its_file_was_last_written(tmp_path: Path) -> None:
    path = write(tmp_path / "clip.mp4")
    assert read_movie_header(path).made_at is None  # 1904
    with open_source(path) as source:
        written = datetime.fromtimestamp(path.stat().st_mtime, timezone.utc)
        assert next(iter(source)).captured_at == written


@needs_ffmpeg
@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv"])
def test_a_header_that_is_cut_or_damaged_does_no_harm(name: str, tmp_path: Path) -> None:
    data = write(tmp_path / name, "-metadata", "creation_time=2024-05-06T07:08:09Z").read_bytes()
    path = tmp_path / "damaged"
    rng = np.random.default_rng(0)
    for n in range(200):
        noisy = bytearray(data[: int(rng.integers(4, len(data)))])
        for at in rng.integers(0, len(noisy), 8):
            noisy[at] = rng.integers(256)
        path.write_bytes(noisy if n % 2 else data[: 16 * n])
        assert read_movie_header(path).orientation in (1, 2, 4, 5, 7)
