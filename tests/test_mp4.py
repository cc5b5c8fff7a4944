"""A video keeps colours and time, and says so when it cannot be written."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from edge_fr.errors import EventError
from edge_fr.mp4 import Codec, Mp4Writer

TENTH_NS = 100_000_000


def plain(value: int, height: int = 48, width: int = 64) -> NDArray[np.uint8]:
    return np.full((height, width, 3), value, np.uint8)


def read(path: Path) -> tuple[list[NDArray[np.uint8]], float]:
    """All pictures of a video, and its rate."""
    reader = cv2.VideoCapture(str(path))
    pictures = []
    while True:
        more, picture = reader.read()
        if not more:
            return pictures, reader.get(cv2.CAP_PROP_FPS)
        pictures.append(np.asarray(picture, np.uint8))


def written(path: Path, times_ns: list[int]) -> list[int]:
    """The grey levels in a video that got pictures of level 0, 20, 40... at these times."""
    with Mp4Writer(path, codec="mp4v") as video:
        for i, pts_ns in enumerate(times_ns):
            video.write(plain(20 * i), pts_ns)
    # Grey survives the codec to within 4 levels, so the nearest 20 is the picture that was written.
    return [round(float(p.mean()) / 20) * 20 for p in read(path)[0]]


@pytest.fixture(params=["h264", "mp4v"])
def codec(request: pytest.FixtureRequest) -> Codec:
    if request.param == "h264" and shutil.which("ffmpeg") is None:
        pytest.skip("no ffmpeg command on this machine")
    chosen: Codec = request.param
    return chosen


def test_a_video_keeps_size_rate_length_and_colour(tmp_path: Path, codec: Codec) -> None:
    path = tmp_path / "a.mp4"
    picture = plain(0, 96, 128)
    picture[:, :64] = (30, 60, 200)  # BGR: a red
    picture[:, 64:] = (190, 120, 40)  # and a blue
    with Mp4Writer(path, codec=codec) as video:
        for i in range(15):
            video.write(picture, 5_000_000_000 + i * 80_000_000)
    pictures, fps = read(path)
    assert (len(pictures), pictures[0].shape) == (15, (96, 128, 3))
    assert fps == pytest.approx(12.5)
    # A swapped channel order would be 150 off; conversion to YUV and the quantizer cost less than 12, and 15
    # with OpenCV 4, which reads BT.709 as BT.601.
    assert np.abs(pictures[-1][20:80, 16:48].mean((0, 1)) - (30, 60, 200)).max() < 16
    assert np.abs(pictures[-1][20:80, 80:112].mean((0, 1)) - (190, 120, 40)).max() < 16


def test_a_new_video_is_for_its_owner_alone_and_another_keeps_its_rights(
    tmp_path: Path, codec: Codec
) -> None:
    shared = tmp_path / "shared.mp4"
    shared.touch()
    shared.chmod(0o640)
    for path, mode in ((tmp_path / "new.mp4", 0o600), (shared, 0o640)):
        with Mp4Writer(path, codec=codec) as video:
            video.write(plain(0), 0)
        assert len(read(path)[0]) == 1
        assert path.stat().st_mode & 0o777 == mode


def test_h264_is_taken_where_ffmpeg_is_and_mp4v_elsewhere(
    tmp_path: Path, codec: Codec, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.mp4"
    if codec == "mp4v":
        monkeypatch.setenv("PATH", str(tmp_path))
    with Mp4Writer(path) as video:
        video.write(plain(90), 0)
    assert video.codec == codec
    fourcc = int(cv2.VideoCapture(str(path)).get(cv2.CAP_PROP_FOURCC)).to_bytes(4, "little")
    assert fourcc == {"h264": b"h264", "mp4v": b"FMP4"}[codec]


def test_h264_without_ffmpeg_is_an_error_that_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    video = Mp4Writer(tmp_path / "a.mp4", codec="h264")
    video.write(plain(90), 0)
    with pytest.raises(EventError, match="apt-get install ffmpeg"):
        video.close()


def test_a_missing_picture_is_filled_with_the_one_before(tmp_path: Path) -> None:
    times = [0, 1, 2, 3, 4, 5, 9, 10]
    levels = written(tmp_path / "a.mp4", [t * TENTH_NS for t in times])
    assert levels == [0, 20, 40, 60, 80, 100, 100, 100, 100, 120, 140]


def test_an_outage_of_an_hour_takes_two_seconds(tmp_path: Path) -> None:
    times = [0, 1, 2, 3, 4, 5, 36_000, 36_001]
    levels = written(tmp_path / "a.mp4", [t * TENTH_NS for t in times])
    assert levels == [0, 20, 40, 60, 80, *[100] * 21, 120, 140]


def test_a_picture_that_jitters_keeps_its_place_and_one_too_many_is_left_out(tmp_path: Path) -> None:
    times = [0.0, 1.0, 2.1, 3.0, 3.9, 5.0, 6.3, 6.7, 7.2, 8.0]
    levels = written(tmp_path / "a.mp4", [round(t * TENTH_NS) for t in times])
    assert levels == [0, 20, 40, 60, 80, 100, 120, 140, 180]


def test_a_picture_of_another_shape_is_fitted_with_black_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    with Mp4Writer(path, codec="mp4v") as video:
        for i in range(6):
            video.write(plain(200, 96, 128), i * TENTH_NS)
        video.write(plain(200, 200, 100), 6 * TENTH_NS)  # an upright one: 48 of 128 columns
    last = read(path)[0][-1]
    assert last.shape == (96, 128, 3)
    assert last[:, 48:80].mean() > 185
    assert last[:, :32].mean() < 12
    assert last[:, 96:].mean() < 12


def test_odd_sides_are_taken(tmp_path: Path, codec: Codec) -> None:
    path = tmp_path / "a.mp4"
    with Mp4Writer(path, codec=codec) as video:
        video.write(plain(90, 49, 63), 0)
    assert [p.shape for p in read(path)[0]] == [(48, 62, 3)]


def test_a_single_picture_is_a_video_of_one_twenty_fifth_of_a_second(tmp_path: Path, codec: Codec) -> None:
    with Mp4Writer(tmp_path / "a.mp4", codec=codec) as video:
        video.write(plain(90), 7 * TENTH_NS)
    pictures, fps = read(tmp_path / "a.mp4")
    assert (len(pictures), fps) == (1, 25.0)


def test_what_was_written_before_an_error_plays(tmp_path: Path, codec: Codec) -> None:
    path = tmp_path / "a.mp4"

    def record() -> None:
        with Mp4Writer(path, codec=codec) as video:
            for i in range(8):
                video.write(plain(90), i * TENTH_NS)
            raise RuntimeError("the camera fell")

    with pytest.raises(RuntimeError, match="the camera fell"):
        record()
    assert len(read(path)[0]) == 8


def test_no_picture_makes_no_file(tmp_path: Path) -> None:
    Mp4Writer(tmp_path / "a.mp4").close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["nowhere/a.mp4", "a.avi", "a"])
def test_a_name_that_cannot_be_written_is_refused_before_the_first_picture(tmp_path: Path, name: str) -> None:
    with pytest.raises(EventError, match=r"expected a name that ends in \.mp4 in a folder that exists"):
        Mp4Writer(tmp_path / name)


def test_a_failing_encoder_is_an_error_that_names_the_file(tmp_path: Path, codec: Codec) -> None:
    path = tmp_path / "a.mp4"
    path.mkdir()  # a folder where the file should be
    video = Mp4Writer(path, codec=codec)
    video.write(plain(90), 0)
    speaker = {"h264": "ffmpeg said: .*directory", "mp4v": "OpenCV opened no MPEG-4 writer"}[codec]
    with pytest.raises(EventError, match=rf"cannot write .*a\.mp4: {speaker}"):
        video.close()
