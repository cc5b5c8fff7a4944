"""Pictures, folders of pictures, the test pattern, and how a source turns readings into frames."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import datetime, timedelta, timezone
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_fr.errors import ImageError, SourceOpenError, SourceReadError
from edge_fr.stream import open_source
from edge_fr.stream.source import Losses, Reading, Skipped, Source
from edge_fr.stream.stills import PERIOD_NS
from edge_fr.stream.uri import Address

NOON = datetime(2026, 5, 1, 12, tzinfo=timezone.utc)


def save(path: Path, grey: int, *, size: tuple[int, int] = (24, 32), at: datetime = NOON) -> None:
    assert cv2.imwrite(str(path), np.full((*size, 3), grey, np.uint8))
    os.utime(path, (at.timestamp(), at.timestamp()))


def test_a_folder_is_read_in_natural_order_with_each_files_own_time(tmp_path: Path) -> None:
    for number in (10, 9, 1, 2):
        save(tmp_path / f"img{number}.png", number, at=NOON + timedelta(hours=number))
    with open_source(f"{tmp_path}/", camera="door") as source:
        frames = list(source)
    assert [int(f.image[0, 0, 0]) for f in frames] == [1, 2, 9, 10]
    assert [f.index for f in frames] == [0, 1, 2, 3]
    assert [f.pts_ns for f in frames] == [0, PERIOD_NS, 2 * PERIOD_NS, 3 * PERIOD_NS]
    assert [f.captured_at for f in frames] == [NOON + timedelta(hours=h) for h in (1, 2, 9, 10)]
    assert [f.camera for f in frames] == [f"door/img{n}.png" for n in (1, 2, 9, 10)]  # tells which file
    assert (source.reader, source.live, source.frame_count, source.skipped) == ("pictures", False, 4, ())


def test_what_a_folder_holds_besides_good_pictures_is_skipped_and_told(tmp_path: Path) -> None:
    save(tmp_path / "a.png", 1)
    save(tmp_path / "c.JPEG", 3, size=(10, 50))
    (tmp_path / "b.jpg").write_text("not a picture at all")
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / ".hidden.png").write_text("x")
    (tmp_path / "more").mkdir()
    with open_source(tmp_path) as source:
        assert [f.image.shape for f in source] == [(24, 32, 3), (10, 50, 3)]
        assert source.frame_count == 3
    assert {s.what for s in source.skipped} == {"b.jpg", "notes.txt", "more"}
    reasons = {s.what: s.reason for s in source.skipped}
    assert "not a picture" in reasons["b.jpg"]
    assert reasons["notes.txt"] == "neither its name nor its content is a picture's"
    assert reasons["more"] == "a folder; give it as a source of its own"


def test_a_folder_without_pictures_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceOpenError, match=r"is empty, expected JPEG, PNG, WebP"):
        open_source(tmp_path)
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(SourceOpenError, match="holds no picture among 1 entries"):
        open_source(tmp_path)


def test_a_folder_of_broken_pictures_is_an_error_at_its_end(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("not a picture")
    with (
        open_source(tmp_path) as source,
        pytest.raises(SourceReadError, match=r"gave not a single frame\. a\.png: "),
    ):
        next(source)


def test_a_single_picture_is_one_frame(tmp_path: Path) -> None:
    save(tmp_path / "face.png", 7)
    with open_source(f"file://{tmp_path}/face.png") as source:
        (frame,) = source
    assert (frame.pts_ns, frame.captured_at, frame.camera, source.frame_count) == (0, NOON, "face", 1)
    assert frame.image[0, 0, 0] == 7


def test_a_text_file_named_like_a_picture_is_refused_when_it_is_opened(tmp_path: Path) -> None:
    (tmp_path / "face.jpg").write_text("hello")
    with pytest.raises(ImageError, match="is not a picture"):
        open_source(tmp_path / "face.jpg")


def test_the_pattern_is_the_same_each_time_and_moves() -> None:
    first, second = (list(open_source("test://?width=322&height=100&fps=30&frames=40")) for _ in range(2))
    assert len(first) == 40
    assert first[0].image.shape == (100, 322, 3)
    assert all((a.image == b.image).all() for a, b in zip(first, second, strict=True))
    assert all((a.image != b.image).any() for a, b in pairwise(first))
    assert [f.pts_ns for f in first[:4]] == [0, 33333333, 66666667, 100000000]
    assert first[3].captured_at == datetime(2000, 1, 1, tzinfo=timezone.utc) + timedelta(milliseconds=100)
    assert first[-1].captured_at == second[-1].captured_at


@pytest.mark.parametrize("size", [(1, 1), (3, 500), (640, 480)])
def test_the_pattern_comes_in_any_size(size: tuple[int, int]) -> None:
    (frame,) = open_source(f"test://?width={size[0]}&height={size[1]}&frames=1")
    assert frame.image.shape == (size[1], size[0], 3)


class Script:
    """A reader that plays what it is given: times (None: not told), or an error."""

    name = "script"
    frame_count = 10
    period_ns = 40

    def __init__(self, *steps: int | Exception | None) -> None:
        self.losses = Losses()
        self.closed = 0
        self._steps = iter(steps)

    def read(self) -> Reading | None:
        for step in self._steps:
            if isinstance(step, Exception):
                raise step
            return Reading(np.zeros((2, 2, 3), np.uint8), step)
        return None

    def close(self) -> None:
        self.closed += 1


FILE = Address("video", "clip.mp4", "clip.mp4", "clip")
CAMERA = Address("rtsp", "rtsp://u:p@cam/live", "rtsp://***@cam/live", "cam/live")


def times(*steps: int | None) -> list[int]:
    return [f.pts_ns for f in Source(FILE, Script(*steps))]


def test_times_count_from_the_first_frame() -> None:
    assert times(1000, 1040, 1100) == [0, 40, 100]


def test_where_the_stream_tells_no_time_it_goes_on_by_the_nominal_period() -> None:
    assert times(None, None, None) == [0, 40, 80]
    assert times(0, 50, None, 130) == [0, 50, 90, 130]


def test_a_clock_that_jumps_back_goes_on_from_where_it_was() -> None:
    assert times(500, 540, 7, 47, 47) == [0, 40, 80, 120, 120]


def test_a_video_files_frames_are_dated_by_the_file() -> None:
    frames = list(Source(FILE, Script(0, 2_000_000_000), started_at=NOON))
    assert [f.captured_at for f in frames] == [NOON, NOON + timedelta(seconds=2)]


def test_a_cut_file_gives_its_frames_and_then_says_how_many_of_how_many() -> None:
    source = Source(FILE, Script(0, 40), cut="the file is cut short")
    assert [next(source).index, next(source).index] == [0, 1]
    with pytest.raises(
        SourceReadError, match=r"^clip.mp4 broke off after 2 of about 10 frames: the file is cut"
    ):
        next(source)
    assert list(source) == []


def test_a_readers_error_carries_the_count_and_no_password_and_lets_go_of_the_camera() -> None:
    reader = Script(0, SourceReadError("no frame came within 10 s"))
    source = Source(CAMERA, reader)
    next(source)
    with pytest.raises(
        SourceReadError, match=r"^rtsp://\*\*\*@cam/live broke off after 1 of about 10 frames: no"
    ):
        next(source)
    assert reader.closed


def test_a_camera_that_ends_is_an_error_and_a_file_that_ends_is_not() -> None:
    with pytest.raises(SourceReadError, match="the stream was closed at the other end"):
        list(Source(CAMERA, Script(0)))
    assert len(list(Source(FILE, Script(0)))) == 1


def test_closing_ends_the_iteration_without_an_error() -> None:
    reader = Script(0, 40, 80)
    with Source(CAMERA, reader) as source:
        next(source)
    assert reader.closed
    assert list(source) == []


def test_an_error_that_comes_of_closing_is_the_end_and_no_error() -> None:
    class Interrupted(Script):
        def read(self) -> Reading | None:
            source.close()  # as another thread would, during the wait for a frame
            raise SourceReadError("no frame came within 10 s")

    source = Source(CAMERA, Interrupted())
    assert list(source) == []


def test_skipped_files_are_counted_as_they_come() -> None:
    reader = Script(0)
    source = Source(FILE, reader)
    reader.losses.skipped.append(Skipped("a.png", "broken"))
    assert source.skipped == (("a.png", "broken"),)


def test_the_package_loads_neither_opencv_nor_gi_before_a_source_is_opened() -> None:
    code = "import sys, edge_fr.stream; print({'cv2', 'gi'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
