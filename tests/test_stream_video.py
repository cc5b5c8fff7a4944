"""Video files through both readers: every frame, its pixels, its time, and what is said of broken files."""

from __future__ import annotations

import gc
import json
import os
import re
import shutil
import subprocess
import sys
import weakref
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta, timezone
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from edge_fr.errors import InputError, SourceOpenError, SourceReadError
from edge_fr.stream import ReaderName, gstreamer, open_source
from edge_fr.stream.containers import why_cut_short
from edge_fr.stream.uri import parse
from edge_fr.structures import Frame

# PyGObject before 3.44, JetPack's among them, imports its modules in a way that Python warns of.
pytestmark = pytest.mark.filterwarnings("ignore:DynamicImporter:ImportWarning")

WIDTH, HEIGHT, FPS, COUNT = 322, 240, 25, 60  # 322 * 3 is no multiple of 4: GStreamer pads such rows
H264 = ["-c:v", "libx264", "-crf", "12", "-bf", "2", "-g", "20", "-pix_fmt", "yuv420p"]


@pytest.fixture(params=["opencv", "gstreamer"])
def reader(request: pytest.FixtureRequest) -> ReaderName:
    if request.param == "gstreamer" and not gstreamer.is_installed():
        pytest.skip("GStreamer or PyGObject is not installed")
    name: ReaderName = request.param
    return name


@pytest.fixture(scope="module")
def drawn() -> list[NDArray[np.uint8]]:
    return [f.image for f in open_source(f"test://?width={WIDTH}&height={HEIGHT}&fps={FPS}&frames={COUNT}")]


def ffmpeg(*arguments: str | Path, stdin: bytes | None = None) -> None:
    if shutil.which("ffmpeg") is None:
        pytest.skip("the ffmpeg command is not installed")
    subprocess.run(["ffmpeg", "-v", "error", "-y", *arguments], input=stdin, check=True)


def write(path: Path, pictures: Sequence[NDArray[np.uint8]], *options: str) -> Path:
    height, width = pictures[0].shape[:2]
    raw = ["-f", "rawvideo", "-pix_fmt", "bgr24", "-s", f"{width}x{height}", "-r", str(FPS), "-i", "-"]
    exact = ["-sws_flags", "accurate_rnd+full_chroma_int"]  # the default leaves white at 250
    ffmpeg(*raw, *exact, *options, path, stdin=b"".join(p.tobytes() for p in pictures))
    return path


def probed_times_ns(path: Path) -> list[Fraction]:
    """The frames' times by ffprobe, from the first, exact."""
    if shutil.which("ffprobe") is None:
        pytest.skip("the ffprobe command is not installed")
    command = ["ffprobe", "-v", "error", "-select_streams", "v:0", "-of", "json"]
    command += ["-show_entries", "stream=time_base:frame=pts", str(path)]
    told = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    base = Fraction(told["streams"][0]["time_base"]) * 10**9
    ticks = [int(frame["pts"]) for frame in told["frames"]]
    return [(t - ticks[0]) * base for t in ticks]


def read(path: Path, reader: ReaderName) -> list[Frame]:
    with open_source(path, reader=reader, timeout_s=120) as source:
        assert source.reader == reader
        return list(source)


def off(frame: Frame, picture: NDArray[np.uint8]) -> float:
    """How many grey levels a frame is away from a picture, on average."""
    return float(np.abs(frame.image.astype(int) - picture).mean())


def assert_shows(
    frames: Sequence[Frame], pictures: Sequence[NDArray[np.uint8]], *, at_most: float = 3.5
) -> None:
    """Each frame is its own picture: nearer to it than to the ones before and after, and near.

    Half-size colour planes and x264 at CRF 12 leave 1.4 grey levels through OpenCV; GStreamer's fast
    conversion to BGR, which is 2 to 4 levels too dark, 2.7. One picture to the next is 1.3 or more.
    """
    assert len(frames) == len(pictures)
    for i, frame in enumerate(frames):
        assert frame.image.shape == pictures[i].shape
        others = [pictures[j] for j in (i - 1, i + 1) if 0 <= j < len(pictures)]
        assert off(frame, pictures[i]) < min(off(frame, other) for other in others)
        assert off(frame, pictures[i]) < at_most


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
def test_every_frame_comes_once_in_order_with_its_exact_time(
    tmp_path: Path, reader: ReaderName, drawn: list[NDArray[np.uint8]], suffix: str
) -> None:
    path = write(tmp_path / f"clip.{suffix}", drawn, *H264)
    frames = read(path, reader)
    assert_shows(frames, drawn)
    assert [f.pts_ns for f in frames] == [round(t) for t in probed_times_ns(path)]
    assert [f.index for f in frames] == list(range(COUNT))


def test_times_of_a_rate_that_is_no_whole_number_are_right_to_a_nanosecond(
    tmp_path: Path, reader: ReaderName, drawn: list[NDArray[np.uint8]]
) -> None:
    path = write(tmp_path / "clip.mp4", drawn, "-vf", "setpts=N/(30000/1001)/TB", "-r", "30000/1001", *H264)
    got = [f.pts_ns for f in read(path, reader)]
    # GStreamer rounds each time down to a nanosecond, and the first one's is subtracted: one off at most.
    assert np.abs(np.subtract(got, [float(t) for t in probed_times_ns(path)])).max() <= 1
    assert got[30] == 1_001_000_000


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_a_variable_frame_rate_keeps_its_times(
    tmp_path: Path, reader: ReaderName, drawn: list[NDArray[np.uint8]], suffix: str
) -> None:
    kept = [i for i in range(COUNT) if i % 7 == 3 or i % 5 == 0]
    select = "select='not(mod(n,7)-3)+not(mod(n,5))'"
    path = write(tmp_path / f"clip.{suffix}", drawn, "-vf", select, "-vsync", "vfr", *H264)
    frames = read(path, reader)
    assert_shows(frames, [drawn[i] for i in kept])
    assert [f.pts_ns for f in frames] == [i * 40_000_000 for i in kept]
    assert [f.pts_ns for f in frames] == [round(t) for t in probed_times_ns(path)]


def test_h265_is_read_too(tmp_path: Path, reader: ReaderName, drawn: list[NDArray[np.uint8]]) -> None:
    path = write(
        tmp_path / "clip.mp4",
        drawn,
        "-c:v",
        "libx265",
        "-crf",
        "12",
        "-pix_fmt",
        "yuv420p",
        "-x265-params",
        "log-level=none",
    )
    assert_shows(read(path, reader), drawn)


def test_a_codec_without_a_decoder_named_here_is_read(
    tmp_path: Path, reader: ReaderName, drawn: list[NDArray[np.uint8]]
) -> None:
    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), FPS, (WIDTH, HEIGHT))
    for picture in drawn:
        writer.write(picture)
    writer.release()
    frames = read(path, reader)
    assert [f.pts_ns for f in frames] == [i * 40_000_000 for i in range(COUNT)]
    assert_shows(frames, drawn)


def test_an_animated_gif_keeps_the_delay_of_each_picture(
    tmp_path: Path, drawn: list[NDArray[np.uint8]]
) -> None:
    kept = [i for i in range(COUNT) if i % 7 == 3 or i % 5 == 0]
    select = "select='not(mod(n,7)-3)+not(mod(n,5))'"
    path = write(tmp_path / "wave.gif", drawn, "-vf", select, "-vsync", "vfr")
    with open_source(path) as source:
        frames = list(source)
    assert (source.reader, source.frame_count, len(frames)) == ("opencv", len(kept), len(kept))
    assert [f.pts_ns for f in frames] == [i * 40_000_000 for i in kept]
    # 256 colours of no particular choice, dithered: 16.5 were measured.
    assert_shows(frames, [drawn[i] for i in kept], at_most=20)


def test_gstreamer_is_refused_for_a_gif_because_it_gives_no_times(tmp_path: Path) -> None:
    (tmp_path / "wave.gif").touch()
    with pytest.raises(InputError, match="use reader='opencv'"):
        open_source(tmp_path / "wave.gif", reader="gstreamer")


def test_a_stream_without_times_goes_by_its_nominal_rate(
    tmp_path: Path, reader: ReaderName, drawn: list[NDArray[np.uint8]]
) -> None:
    path = write(tmp_path / "clip.h264", drawn, *H264)
    with open_source(path, reader=reader) as source:
        assert [f.pts_ns for f in source] == [i * 40_000_000 for i in range(COUNT)]


def test_a_files_frames_are_dated_by_its_modification_time(
    tmp_path: Path, reader: ReaderName, drawn: list[NDArray[np.uint8]]
) -> None:
    path = write(tmp_path / "clip.mp4", drawn[:5], *H264)
    noon = datetime(2026, 5, 1, 12, tzinfo=timezone.utc)
    os.utime(path, (noon.timestamp(), noon.timestamp()))
    dated = [f.captured_at for f in read(path, reader)]
    assert dated == [noon + timedelta(milliseconds=40 * i) for i in range(5)]


def test_a_video_lying_on_its_side_comes_upright(
    tmp_path: Path, reader: ReaderName, drawn: list[NDArray[np.uint8]]
) -> None:
    flat = write(tmp_path / "flat.mp4", drawn, *H264)
    path = tmp_path / "clip.mp4"
    ffmpeg("-i", flat, "-c", "copy", "-metadata:s:v:0", "rotate=90", path)
    ffmpeg("-i", path, "-frames:v", "1", tmp_path / "upright.png")  # which way is up, by ffmpeg itself
    upright = cv2.imread(str(tmp_path / "upright.png"))
    assert upright.shape == (WIDTH, HEIGHT, 3), "this ffmpeg wrote no rotation"
    turn = min((1, -1), key=lambda k: float(np.abs(upright.astype(int) - np.rot90(drawn[0], k)).mean()))
    assert_shows(read(path, reader), [np.rot90(p, turn) for p in drawn])


def test_each_frame_owns_its_pixels(
    tmp_path: Path, reader: ReaderName, drawn: list[NDArray[np.uint8]]
) -> None:
    path = write(tmp_path / "clip.mp4", drawn[:8], *H264)
    with open_source(path, reader=reader) as source:
        first = next(source)
        before = first.image.copy()
        rest = list(source)
    assert first.image.flags.c_contiguous
    assert first.image.flags.writeable
    assert (first.image == before).all()
    assert not any(np.shares_memory(first.image, f.image) for f in rest)


def test_a_closed_gstreamer_source_leaves_nothing_behind(
    tmp_path: Path, drawn: list[NDArray[np.uint8]]
) -> None:
    if not gstreamer.is_installed():
        pytest.skip("GStreamer or PyGObject is not installed")
    path = write(tmp_path / "clip.mp4", drawn[:5], *H264)
    for _ in range(3):  # a camera that is connected to again and again must not fill the memory
        reader = gstreamer.GStreamerReader(parse(path), timeout_s=120)
        assert reader.read() is not None
        kept = weakref.ref(reader)
        reader.close()
        del reader
        gc.collect()
        assert kept() is None


def changing(folder: Path, drawn: list[NDArray[np.uint8]]) -> Path:
    small = [cv2.resize(p, (160, 120), interpolation=cv2.INTER_AREA) for p in drawn[:25]]
    parts = [
        write(folder / "a.ts", small, *H264),
        write(folder / "b.ts", drawn[25:50], *H264, "-output_ts_offset", "1"),
    ]
    path = folder / "both.ts"
    path.write_bytes(b"".join(p.read_bytes() for p in parts))
    return path


def test_a_size_that_changes_in_the_stream_goes_through(
    tmp_path: Path, drawn: list[NDArray[np.uint8]]
) -> None:
    if not gstreamer.is_installed():
        pytest.skip("GStreamer or PyGObject is not installed")
    frames = read(changing(tmp_path, drawn), "gstreamer")
    assert [f.image.shape for f in frames] == [(120, 160, 3)] * 25 + [(HEIGHT, WIDTH, 3)] * 25
    assert_shows(frames[25:], drawn[25:50])


def test_opencv_scales_a_size_that_changes_to_the_first(
    tmp_path: Path, drawn: list[NDArray[np.uint8]]
) -> None:
    frames = read(changing(tmp_path, drawn), "opencv")
    assert [f.image.shape for f in frames] == [(120, 160, 3)] * 50
    shrunk = cv2.resize(drawn[40], (160, 120), interpolation=cv2.INTER_AREA)
    # Scaled whole, not cut off: a corner of that size would be 60 away. OpenCV 4 skips pixels: 14.
    assert off(frames[40], shrunk) < 20


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi"])
def test_a_truncated_video_gives_its_frames_and_then_says_where_it_broke_off(
    tmp_path: Path, reader: ReaderName, drawn: list[NDArray[np.uint8]], suffix: str
) -> None:
    options = (
        ["-c:v", "mpeg4"]
        if suffix == "avi"
        else [*H264, "-movflags", "+faststart"][: 10 + 2 * (suffix == "mp4")]
    )
    whole = write(tmp_path / f"whole.{suffix}", drawn, *options)
    path = tmp_path / f"cut.{suffix}"
    path.write_bytes(whole.read_bytes()[: whole.stat().st_size * 6 // 10])
    got = []
    with (
        open_source(path, reader=reader) as source,
        pytest.raises(
            SourceReadError, match=r"cut\.\w+ broke off after \d+ of about \d+ frames: .*cut short"
        ) as e,
    ):
        got.extend(source)
    assert f"after {len(got)} of about {source.frame_count}" in str(e.value)
    assert COUNT // 4 < len(got) < COUNT
    assert got[10].pts_ns == 400_000_000
    assert len(read(whole, reader)) == COUNT


def test_a_truncated_gif_is_told_too(tmp_path: Path, drawn: list[NDArray[np.uint8]]) -> None:
    whole = write(tmp_path / "whole.gif", drawn)
    path = tmp_path / "cut.gif"
    path.write_bytes(whole.read_bytes()[:-2000])
    with pytest.raises(SourceReadError, match="lacks the mark that ends a GIF"):
        read(path, "opencv")


def test_an_mp4_without_its_index_cannot_be_opened(
    tmp_path: Path, reader: ReaderName, drawn: list[NDArray[np.uint8]]
) -> None:
    whole = write(tmp_path / "whole.mp4", drawn, *H264)
    path = tmp_path / "cut.mp4"
    path.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    with pytest.raises(SourceOpenError, match=r"cannot open .*cut\.mp4"):
        open_source(path, reader=reader)


def test_frames_damaged_in_the_middle_are_counted_and_the_rest_is_read(
    tmp_path: Path, reader: ReaderName, drawn: list[NDArray[np.uint8]]
) -> None:
    path = write(tmp_path / "clip.mp4", drawn, *H264, "-movflags", "+faststart")
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + len(data) // 10] = bytes([0xFF]) * (len(data) // 10)
    path.write_bytes(data)
    with open_source(path, reader=reader) as source:
        frames = list(source)
        assert source.damaged > 0
        assert len(frames) + source.damaged == COUNT
    assert frames[-1].pts_ns == (COUNT - 1) * 40_000_000


def test_messages_do_not_pile_up_while_frames_flow(tmp_path: Path, drawn: list[NDArray[np.uint8]]) -> None:
    pytest.importorskip("gi")
    path = write(tmp_path / "clip.mp4", drawn, *H264)
    with open_source(path, reader="gstreamer") as source:
        for _ in range(COUNT // 2):
            next(source)
        bus, waiting = source._reader._bus, 0  # type: ignore[attr-defined]
        while bus.pop() is not None:
            waiting += 1
    assert waiting < 5  # dozens when nobody takes them; one or two may come between the frame and this look


def test_a_whole_video_has_no_damage(
    tmp_path: Path, reader: ReaderName, drawn: list[NDArray[np.uint8]]
) -> None:
    path = write(tmp_path / "clip.mp4", drawn, *H264)
    with open_source(path, reader=reader) as source:
        assert (len(list(source)), source.frame_count, source.damaged) == (COUNT, COUNT, 0)


@pytest.mark.parametrize("content", [b"", b"hello\n" * 100, bytes(range(256)) * 20])
def test_a_file_that_is_no_video_is_refused_and_nothing_is_printed(
    tmp_path: Path, reader: ReaderName, content: bytes
) -> None:
    """In a process of its own: FFmpeg's loudness is settled by the first video of a process."""
    (tmp_path / "clip.mp4").write_bytes(content)
    script = (
        "import sys\n"
        "from edge_fr.errors import SourceOpenError\n"
        "from edge_fr.stream import open_source\n"
        "try:\n"
        "    open_source(sys.argv[1], reader=sys.argv[2], timeout_s=120)\n"
        "except SourceOpenError as error:\n"
        "    sys.exit(str(error))\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "clip.mp4"), reader]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert re.fullmatch(r"cannot open .*clip\.mp4.*\n", done.stderr)
    assert done.stdout == ""


def test_a_sound_file_is_refused(tmp_path: Path, reader: ReaderName) -> None:
    ffmpeg("-f", "lavfi", "-i", "sine=duration=1", tmp_path / "clip.mp4")
    with pytest.raises(SourceOpenError, match=r"cannot open .*clip\.mp4(: it holds no| as a) video"):
        open_source(tmp_path / "clip.mp4", reader=reader, timeout_s=120)


def test_sound_beside_the_picture_is_passed_over(
    tmp_path: Path, reader: ReaderName, drawn: list[NDArray[np.uint8]]
) -> None:
    silent = write(tmp_path / "silent.mp4", drawn, *H264)
    ffmpeg("-f", "lavfi", "-i", "sine=duration=2.4", "-i", silent, "-c:v", "copy", tmp_path / "clip.mp4")
    assert_shows(read(tmp_path / "clip.mp4", reader), drawn)


def test_an_odd_file_name_is_only_a_name(
    tmp_path: Path, reader: ReaderName, drawn: list[NDArray[np.uint8]], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = write(tmp_path / "plain.mp4", drawn[:5], *H264)
    monkeypatch.chdir(tmp_path)
    for name in ("cam1:front door.mp4", 'a "b" ! c.mp4', "-x.mp4", "50%d.mp4"):
        shutil.copy(plain, name)
        assert len(read(Path(name), reader)) == 5


def test_the_first_video_of_a_process_leaves_its_settings_as_they_were(
    tmp_path: Path, drawn: list[NDArray[np.uint8]]
) -> None:
    path = write(tmp_path / "clip.mp4", drawn[:3], *H264)
    code = (
        "import os, sys; from edge_fr.stream import open_source; "
        "from edge_fr.stream.opencv import log_levels; "
        "before = dict(os.environ), log_levels.getLogLevel(); "
        "list(open_source(sys.argv[1])); "
        "print(before == (dict(os.environ), log_levels.getLogLevel()))"
    )
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
    assert (done.stdout.strip(), done.stderr) == ("True", "")


def test_containers_that_tell_their_size_are_checked_and_others_are_not(
    tmp_path: Path, drawn: list[NDArray[np.uint8]]
) -> None:
    for suffix in ("mp4", "mkv", "avi", "gif", "ts", "webm"):
        options = ["-c:v", "libvpx"] if suffix == "webm" else []
        path = write(tmp_path / f"clip.{suffix}", drawn[:10], *options)
        assert why_cut_short(path) is None, suffix
        data = path.read_bytes()
        for lost in (1, 100, len(data) // 2):
            path.write_bytes(data[:-lost])
            assert (why_cut_short(path) is None) == (suffix == "ts"), (suffix, lost)
    (tmp_path / "odd.mp4").write_bytes(data[:4])
    assert why_cut_short(tmp_path / "odd.mp4") is None


@pytest.mark.parametrize("rest", [bytes(3), bytes(1000), b"\x00\x00\xff\xff\x01\x02\x03\x04" + bytes(100)])
def test_what_follows_the_last_box_of_an_mp4_is_not_taken_for_a_cut(
    tmp_path: Path, drawn: list[NDArray[np.uint8]], rest: bytes
) -> None:
    path = write(tmp_path / "clip.mp4", drawn[:5], *H264)
    path.write_bytes(path.read_bytes() + rest)
    assert why_cut_short(path) is None


def test_a_recording_whose_size_was_never_written_back_is_not_taken_for_cut(
    tmp_path: Path, drawn: list[NDArray[np.uint8]]
) -> None:
    whole = write(tmp_path / "whole.mkv", drawn[:5], *H264)
    command = [
        "ffmpeg",
        "-v",
        "error",
        "-i",
        whole,
        "-c",
        "copy",
        "-f",
        "matroska",
        "-",
    ]  # a pipe: no way back
    path = tmp_path / "live.mkv"
    path.write_bytes(subprocess.run(command, capture_output=True, check=True).stdout)
    assert why_cut_short(path) is None


@pytest.mark.parametrize(
    ("name", "count", "last_ns"),
    [("street_1080p.mp4", 105, 4_160_000_000), ("face-demographics-walking-and-pause.gif", 41, None)],
)
def test_a_recorded_video_is_read_whole(
    shared_data: Callable[[str], Path], name: str, count: int, last_ns: int | None
) -> None:
    path = shared_data(f"video/{name}")
    with open_source(path) as source:
        times = [f.pts_ns for f in source]  # the pictures together would take 650 MB
    assert len(times) == count
    assert times == [round(t) for t in probed_times_ns(path)]
    assert last_ns in (None, times[-1])
