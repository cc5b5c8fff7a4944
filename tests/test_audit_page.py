"""The page of an audit: whole, self-contained, safe; and the command that writes it."""

from __future__ import annotations

import random
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timezone
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_fr._files import publish
from edge_fr.audit.figures import MEASURES, Figures
from edge_fr.audit.gathering import Gathering
from edge_fr.audit.page import About, page
from edge_fr.audit.pictures import Pictures, Shot
from edge_fr.audit.tallies import Histogram, PictureMap, Sample
from edge_fr.cli import main
from edge_fr.errors import SourceReadError
from edge_fr.pipeline import Step, StillTracks
from edge_fr.quality import QualityPolicy
from edge_fr.runner import run
from edge_fr.stream import Camera, gstreamer
from edge_fr.structures import Faces, Frame, Refusal
from samples.standoff_people import HOPPER, portrait
from tests.fake_cameras import NoRtspServer, start_server
from tests.test_pipeline import Frames, frame, one_face, pipeline
from tests.test_runner_camera import HASTY, Connection

NOON = datetime(2026, 5, 1, 12, tzinfo=timezone.utc)
HOSTILE = "<script>alert(1)</script>\"'&<img src=x onerror=alert(2)>"
VOID = {"meta", "img"}


class Checked(HTMLParser):
    """Reads a page and complains of what is not closed; keeps its tags, what they point at, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.targets: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.targets += [value or "" for name, value in attrs if name in ("src", "href", "action", "data")]
        assert not any(name.startswith("on") for name, _ in attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def gathered(pictures: Pictures | None = None, source: Frames | None = None) -> Gathering:
    """What an audit of a still face of ten frames gathers."""
    gathering = Gathering(pictures=pictures)
    run(source or Frames(10), pipeline(), sinks=[gathering], on_step=gathering.observe)  # type: ignore[arg-type]
    gathering.finish()
    return gathering


def about(camera: str = "door", source: str = "door.mp4") -> About:
    return About(camera, source, NOON, {"recognizer": "fake"})


def test_the_page_is_one_file_without_a_link_or_a_script() -> None:
    pictures = Pictures()
    figures = gathered(pictures).figures
    assert (figures.frames, figures.people, figures.recognizable) == (10, 1, 1)
    text = page(figures, about(), pictures)
    checked = Checked(text)
    assert not re.search(r"https?:|//[a-z]", re.sub(r"base64,[\w+/=]*", "", text))
    assert {"script", "a", "link", "iframe", "object"} & set(checked.tags) == set()
    assert checked.targets
    assert all(target.startswith("data:image/jpeg;base64,") for target in checked.targets)
    assert "background-image:url(data:" in text
    assert "holds pictures of people" in checked.text
    assert "default-src 'none'" in text


def test_without_pictures_nobody_is_on_the_page() -> None:
    figures = gathered().figures
    text = page(figures, about())
    assert "img" not in Checked(text).tags
    assert "base64" not in text
    assert "nobody is shown" in text


def test_the_lines_are_drawn_at_the_bounds_that_the_gate_went_by() -> None:
    figures = gathered().figures

    def lines(policy: QualityPolicy) -> list[str]:
        text = page(figures, replace(about(), policy=policy))
        histograms = re.findall(r'<svg class="bars".*?</svg>', text)
        (eyes,) = (svg for svg in histograms if 'aria-label="Between the eyes"' in svg)
        return re.findall(r'class="bound" x1="([\d.]+)"', eyes)

    (small,), (large,) = lines(QualityPolicy()), lines(QualityPolicy.without_index())
    edges = MEASURES["eyes_px"].edges
    place = [float(np.interp(px, edges, range(len(edges)))) for px in (5, 8)]
    assert float(small) / float(large) == pytest.approx(place[0] / place[1], rel=0.01)


def test_hostile_names_stay_text() -> None:
    pictures = Pictures()
    pictures.refuse(HOSTILE, Shot(b"jpeg", 9.0, 0.1, HOSTILE))
    pictures.praise(Shot(b"jpeg", 9.0, 0.1, HOSTILE))
    figures = Figures(frames=3, looks=2, live=True, outages=1, outage_reason=HOSTILE, trouble=HOSTILE)
    figures.refused[HOSTILE] = 2
    figures.lost[HOSTILE] = 1
    checked = Checked(page(figures, About(HOSTILE, HOSTILE, NOON, {HOSTILE: HOSTILE}), pictures))
    assert "script" not in checked.tags
    assert checked.targets == [target for target in checked.targets if target.startswith("data:")]
    assert checked.text.count(HOSTILE) >= 8


def test_a_page_of_nothing_says_that_nothing_was_seen() -> None:
    checked = Checked(page(Figures(frames=5, frame_size=(720, 1280)), about()))
    assert "No face was found" in checked.text
    assert "nan" not in checked.text


# --- gathering ---


def test_a_camera_that_comes_back_is_audited_on_and_its_outage_is_told() -> None:
    def broken() -> None:
        raise SourceReadError("the cable was pulled")

    stop = threading.Event()
    then = iter([broken, stop.set])
    gathering = Gathering(live=True)

    def connect(wanted: threading.Event) -> Connection:
        return Connection(next(then), wanted=wanted, handled=lambda: gathering.figures.frames)

    with Camera(connect, name="gate", live=True, policy=HASTY) as camera:
        run(camera, pipeline(), sinks=[gathering], on_step=gathering.observe, stop=stop)
    gathering.finish()
    figures = gathering.figures
    assert (figures.outages, figures.outage_reason) == (1, "the cable was pulled")
    assert figures.people == 2  # one before, one after
    assert figures.latency_ms.total == figures.frames > 0


def test_pauses_count_neither_as_time_nor_as_frames_lost() -> None:
    gathering = Gathering()
    for index, seconds in ((0, 0.0), (1, 0.1), (4, 0.4), (5, 60.0), (6, 60.1)):
        gathering.observe(
            Frame(np.zeros((9, 16, 3), np.uint8), round(seconds * 1e9), NOON, index=index),
            Step(Faces.empty(), (), {}),
        )
    figures = gathering.figures
    assert figures.seconds == pytest.approx(0.5)
    assert (figures.followed, figures.delivered) == (3, 5)
    assert figures.source_fps == pytest.approx(10)


def look(frame: Frame, *refusals: str, x: float = 0.0) -> Step:
    """One face of 16 px between the eyes, moved by x pixels."""
    faces = one_face(frame, Faces.empty())
    reasons = tuple(Refusal(name, 0.1, 0.5, "at least") for name in refusals)
    faces = faces.with_(
        boxes=faces.boxes + np.array([x, 0, x, 0], np.float32),
        track_ids=np.ones(1, np.int64),
        crops=np.full((1, 112, 112, 3), 100, np.uint8),
        quality=np.full(1, 0.5, np.float32),
        refusals=(reasons,),
    )
    return Step(faces, (), {})


@pytest.mark.parametrize(("px_a_frame", "moving"), [(0.0, False), (1.0, False), (8.0, True)])
def test_blur_is_counted_apart_for_faces_that_move(px_a_frame: float, moving: bool) -> None:
    gathering = Gathering()
    for index in range(10):  # a tenth of a second each, 13 px between the eyes
        gathering.observe(frame(index), look(frame(index), "sharpness", x=index * px_a_frame))
    figures = gathering.figures
    assert figures.moving_blurred == figures.moving
    assert figures.moving[moving] == 7  # the first three are too close in time to tell
    assert figures.moving[not moving] == 0


def test_who_was_never_recognizable_is_lost_for_what_was_against_the_best_look() -> None:
    gathering = Gathering(pictures=Pictures())
    gathering.observe(frame(0), look(frame(0), "inter_eye_distance"))
    better = look(frame(1), "sharpness")
    gathering.observe(frame(1), Step(better.faces.with_(quality=np.full(1, 0.9, np.float32)), (), {}))
    gathering.finish()
    assert gathering.figures.lost == {"sharpness": 1}
    assert gathering.figures.lost_px.total == 1
    assert gathering.pictures is not None
    assert gathering.pictures.best == []


def test_unrelated_pictures_are_people_each() -> None:
    gathering = Gathering()
    run(
        Frames(4),  # type: ignore[arg-type]
        pipeline(tracker=StillTracks()),
        sinks=[gathering],
        on_step=gathering.observe,
    )
    gathering.finish()
    assert gathering.figures.people == 4


def test_memory_does_not_grow_with_the_people_who_pass() -> None:
    gathering = Gathering(pictures=Pictures())
    run(
        Frames(300),  # type: ignore[arg-type]
        pipeline(tracker=StillTracks()),
        sinks=[gathering],
        on_step=gathering.observe,
    )
    assert len(gathering._people) == 0
    assert gathering.pictures is not None
    assert len(gathering.pictures.best) == 8


# --- counting ---


def test_histograms_tell_quantiles_and_shares_to_within_a_bin() -> None:
    counts = Histogram(np.linspace(0, 10, 11))
    counts.add(np.linspace(0, 10, 1001)[:-1])
    counts.add([np.nan])
    assert counts.total == 1000
    assert counts.quantile(0.25) == pytest.approx(2.5)
    assert counts.share_from(7.5) == pytest.approx(0.25)
    assert counts.total_from(7.5) == 300
    counts.add([-5, 99])
    assert (counts.counts[0], counts.counts[-1]) == (101, 101)


def test_a_map_holds_the_mean_of_each_cell() -> None:
    cells = PictureMap()
    cells.add(np.array([[0.0, 0.0], [0.01, 0.01], [1.0, 1.0], [0.5, 0.5]]), np.array([2.0, 4.0, 5.0, np.nan]))
    assert (cells.means[0, 0], cells.means[-1, -1]) == (3.0, 5.0)
    assert int(cells.counts.sum()) == 3


def test_a_sample_gives_everybody_the_same_chance() -> None:
    kept = np.zeros(20)
    for seed in range(2000):
        sample: Sample[int] = Sample(4, random.Random(seed))
        for item in range(20):
            sample.offer(item)
        kept[sample.kept] += 1
    assert kept.sum() == 8000
    # 400 each on average; the spread is 18, so four times that is one test in a thousand
    assert np.abs(kept - 400).max() < 72


# --- the command ---


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty frames of a portrait."""
    path = tmp_path_factory.mktemp("door") / "door.mp4"
    photo = cv2.resize(portrait(HOPPER), (256, 300), interpolation=cv2.INTER_AREA)
    video = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 10, (256, 300))
    for _ in range(20):
        video.write(photo)
    video.release()
    return path


def test_the_command_writes_the_page_and_says_what_to_change(
    door: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "audit.html"
    assert main(["audit", str(door), "--camera", HOSTILE, "-o", str(out), "--fov", "90"]) == 0
    printed = capsys.readouterr()
    assert printed.out.splitlines()[0] == str(out)
    assert "- Nothing to change was found, but little was seen" in printed.out
    checked = Checked(out.read_text(encoding="utf-8"))
    assert f"Camera audit: {HOSTILE}" in checked.text
    assert "1 of 1 person became recognizable" in checked.text
    assert "a lens of 90 degrees" in checked.text
    assert [path.name for path in tmp_path.iterdir()] == ["audit.html"]  # nothing half written is left


def test_the_command_stops_after_so_many_minutes_of_a_video_and_shows_nobody_if_asked(
    door: Path, tmp_path: Path
) -> None:
    out = tmp_path / "audit.html"
    assert main(["audit", str(door), "--minutes", str(1 / 60), "--no-pictures", "-o", str(out)]) == 0
    text = out.read_text(encoding="utf-8")
    assert "<td>11, 256 x 300 pixels</td>" in text  # a second of ten frames, and the one that ends it
    assert "img" not in Checked(text).tags
    assert "base64" not in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-o", "/no/such/folder/audit.html"], "cannot write the page to /no/such/folder/audit.html"),
        (["-o", "/"], "cannot write the page to /"),
        (["--fov", "180"], "--fov is 180, expected degrees between 0 and 180"),
        (["--minutes", "0"], "--minutes is 0, expected more than 0"),
        (["--minutes", "nan"], "--minutes is nan, expected more than 0"),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_is_watched(
    arguments: list[str],
    message: str,
    door: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["audit", str(door), *arguments]) == 1
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_video_that_breaks_off_is_audited_as_far_as_it_goes(tmp_path: Path) -> None:
    whole = tmp_path / "whole.avi"
    video = cv2.VideoWriter(str(whole), cv2.VideoWriter.fourcc(*"MJPG"), 10, (320, 240))
    for i in range(40):
        video.write(np.random.default_rng(i).integers(0, 255, (240, 320, 3), np.uint8))
    video.release()
    cut, out = tmp_path / "cut.avi", tmp_path / "audit.html"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    assert main(["audit", str(cut), "-o", str(out)]) == 1
    assert "The audit ended early" in Checked(out.read_text(encoding="utf-8")).text


def test_ctrl_c_writes_what_there_is(tmp_path: Path) -> None:
    out = tmp_path / "audit.html"
    command = [sys.executable, "-m", "edge_fr.cli", "audit", "test://", "-o", str(out)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert "watching test://" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        printed, error = process.communicate(timeout=600)
    assert process.returncode == 130
    assert printed.startswith(str(out))
    assert "Traceback" not in error
    assert "No face was found" in Checked(out.read_text(encoding="utf-8")).text


@pytest.fixture
def rtsp() -> Iterator[str]:
    """The address of a real network camera on loopback."""
    if not gstreamer.is_installed():
        pytest.skip("GStreamer or PyGObject is not installed")
    try:
        port, process = start_server("h264")
    except NoRtspServer as error:
        pytest.skip(str(error))
    yield f"rtsp://admin:s3cret@127.0.0.1:{port}/live"
    process.kill()
    process.communicate()


def test_a_live_camera_is_watched_for_so_many_minutes_and_its_latency_told(rtsp: str, tmp_path: Path) -> None:
    out = tmp_path / "audit.html"
    command = [sys.executable, "-m", "edge_fr.cli", "audit", rtsp, "-o", str(out), "--minutes"]
    for minutes in ("0.25", "1", "4"):  # more where this machine stood still until the time was over
        done = subprocess.run([*command, minutes], capture_output=True, text=True, timeout=900, check=False)
        if "gave not a single frame" not in done.stderr:
            break
    assert done.returncode == 0, done.stderr
    text = Checked(out.read_text(encoding="utf-8")).text
    assert "from capture to event" in text
    assert "times offline" in text
    assert "s3cret" not in text + done.stdout + done.stderr


def test_a_camera_that_is_never_there_gives_no_page(tmp_path: Path) -> None:
    out = tmp_path / "audit.html"
    address = "rtsp://admin:s3cret@127.0.0.1:9/live"
    command = [sys.executable, "-m", "edge_fr.cli", "audit", address, "-o", str(out), "--minutes", "0.02"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 1
    assert "gave not a single frame" in done.stderr
    assert "s3cret" not in done.stderr
    assert not out.exists()


def test_a_page_is_made_for_its_owner_alone_and_one_that_is_there_keeps_its_rights(tmp_path: Path) -> None:
    shared = tmp_path / "shared.html"
    shared.touch()
    shared.chmod(0o640)
    for path, mode in ((tmp_path / "new.html", 0o600), (shared, 0o640)):
        publish(b"<p>a face</p>", path, private=True)
        assert path.read_text() == "<p>a face</p>"
        assert path.stat().st_mode & 0o777 == mode
