"""A network camera on loopback, through both readers: pictures, times, passwords, and how it breaks."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from itertools import islice, pairwise
from pathlib import Path

import pytest

from edge_fr.errors import InputError, SourceOpenError, SourceReadError
from edge_fr.references import expand_address
from edge_fr.stream import ReaderName, Source, gstreamer, open_source
from edge_fr.stream.opencv import log_levels
from edge_fr.structures import Frame
from tests.fake_cameras import NoRtspServer, start_server
from tests.web_camera import self_signed

# PyGObject before 3.44, JetPack's among them, imports its modules in a way that Python warns of.
pytestmark = pytest.mark.filterwarnings("ignore:DynamicImporter:ImportWarning")

PATIENCE_S = 120.0  # for what comes at once, on a machine that stands still for some seconds
Camera = Callable[..., tuple[str, "subprocess.Popen[str]"]]


@pytest.fixture
def camera() -> Iterator[Camera]:
    """Starts a camera, gives its address without rtsp:// and its process; killed at the end."""
    if not gstreamer.is_installed():
        pytest.skip("GStreamer or PyGObject is not installed")
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> tuple[str, subprocess.Popen[str]]:
        try:
            port, process = start_server(*arguments)
        except NoRtspServer as error:
            pytest.skip(str(error))
        started.append(process)
        return f"127.0.0.1:{port}/live", process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture(params=["opencv", "gstreamer"])
def reader(request: pytest.FixtureRequest) -> ReaderName:
    name: ReaderName = request.param
    return name


@pytest.mark.parametrize("codec", ["h264", "h265", "jpeg"])
def test_a_network_camera_gives_pictures_and_rising_times(
    camera: Camera, reader: ReaderName, codec: str
) -> None:
    address, _ = camera(codec)
    with open_source(f"rtsp://{address}", reader=reader, timeout_s=PATIENCE_S) as source:
        frames = []
        for frame in islice(source, 3000):
            frames.append(frame)
            if len(frames) >= 20 and frame.pts_ns > 19 * 40_000_000 // 2:
                break
    width = 328 if codec == "jpeg" else 322  # JPEG over RTP counts in blocks of 8
    assert {f.image.shape for f in frames} == {(240, width, 3)}
    assert (source.reader, source.live, source.frame_count, source.camera) == (reader, True, None, address)
    steps = [b.pts_ns - a.pts_ns for a, b in pairwise(frames)]
    assert frames[0].pts_ns == 0
    assert min(steps) >= 0
    # Twenty take 760 ms by the camera's clock; GStreamer's are times of arrival, and the first come in a
    # burst, as do those that gathered while this machine stood still.
    assert frames[-1].pts_ns > 19 * 40_000_000 // 2
    white, blue = frames[-1].image[20, 20], frames[-1].image[20, 300]  # the outermost of the SMPTE bars
    assert white.min() > 225
    assert blue[0] > 150
    assert blue[1:].max() < 40


def test_pictures_come_over_udp_where_the_address_says_so(camera: Camera) -> None:
    address, process = camera("h264")
    with open_source(f"rtspu://{address}", timeout_s=60) as source:
        frames = list(islice(source, 10))
        assert "udp" in source._reader._pipeline.get_by_name("streams").get_property("protocols").value_nicks  # type: ignore[attr-defined]
        assert (source.reader, source.uri, source.camera) == ("gstreamer", f"rtspu://{address}", address)
        process.kill()
        with pytest.raises(SourceReadError, match=f"rtspu://{address} broke off after"):
            frames.extend(source)
    assert {f.image.shape for f in frames} == {(240, 322, 3)}


def test_auto_takes_gstreamer_for_a_network_camera(camera: Camera) -> None:
    address, _ = camera("h264")
    with open_source(f"rtsp://{address}", camera="gate", timeout_s=PATIENCE_S) as source:
        assert next(source).camera == "gate"
    assert source.reader == "gstreamer"


def test_live_frames_are_dated_by_the_wall_clock(camera: Camera, reader: ReaderName) -> None:
    address, _ = camera("h264")
    before = datetime.now(timezone.utc)
    with open_source(f"rtsp://{address}", reader=reader, timeout_s=PATIENCE_S) as source:
        dates = [frame.captured_at for frame in islice(source, 25)]
    after = datetime.now(timezone.utc)
    assert max(dates) <= after
    # GStreamer's is now, less the age by another clock: who stands still between the two readings makes a
    # picture older than it is, one of many.
    assert sum(date < before for date in dates) < 5
    assert sum(b < a - timedelta(milliseconds=5) for a, b in pairwise(dates)) < 5


def test_a_slow_reader_gets_the_newest_frame_and_a_count_of_the_others(camera: Camera) -> None:
    address, _ = camera("h264")
    with open_source(f"rtsp://{address}", reader="gstreamer", timeout_s=PATIENCE_S) as source:
        tally = source._reader._tally  # type: ignore[attr-defined]
        next(source)
        # If this machine stands still just before we read, the next one is newer than we asked for: again.
        for reads in range(1, 20):
            stopped_at, arrived = datetime.now(timezone.utc), tally._arrived
            give_up = time.monotonic() + PATIENCE_S
            while tally._arrived < arrived + 37 and time.monotonic() < give_up:  # 1.5 s
                time.sleep(0.01)
            asked_at = datetime.now(timezone.utc)
            newest = next(source)
            assert newest.index == reads
            if stopped_at + timedelta(seconds=0.5) < newest.captured_at < asked_at:
                break
        assert newest.captured_at < asked_at  # it was waiting: dated by its arrival, not by our reading
        assert newest.captured_at > stopped_at + timedelta(seconds=0.5)
        assert source.dropped > 5


def test_a_password_with_signs_in_it_opens_the_camera_and_is_never_shown(
    camera: Camera, reader: ReaderName
) -> None:
    address, _ = camera("h264", "admin", "p@ss/w#1")
    uri = f"rtsp://admin:p%40ss%2Fw%231@{address}"
    with open_source(uri, reader=reader, timeout_s=PATIENCE_S) as source:
        assert next(source).image.shape == (240, 322, 3)
    assert source.uri == f"rtsp://***@{address}"
    with pytest.raises(SourceOpenError) as refused:
        open_source(f"rtsp://admin:wr0ng@{address}", reader=reader, timeout_s=PATIENCE_S)
    assert "wr0ng" not in str(refused.value)
    assert f"cannot open rtsp://***@{address}: " in str(refused.value)
    if reader == "gstreamer":
        assert "Unauthorized" in str(refused.value)


@pytest.mark.parametrize("method", ["basic", "digest"])
@pytest.mark.parametrize("password", ["p@s/s?w#1:%41 ä€", "%41", "a:b:"])
def test_a_referenced_password_is_whatever_it_is_in_the_camera(
    camera: Camera, reader: ReaderName, password: str, method: str
) -> None:
    address, _ = camera("h264", "vi@wer", password, *(["--digest"] if method == "digest" else []))
    text = f"rtsp://${{env:USER}}:${{env:PASSWORD}}@{address}"
    uri, secrets = expand_address(text, "door", {"USER": "vi@wer", "PASSWORD": password})
    with open_source(uri, reader=reader, timeout_s=PATIENCE_S, secrets=secrets) as source:
        assert next(source).image.shape == (240, 322, 3)
    assert source.uri == f"rtsp://***@{address}"
    wrong, secrets = expand_address(text, "door", {"USER": "vi@wer", "PASSWORD": f"{password}zq"})
    with pytest.raises(SourceOpenError) as refused:
        open_source(wrong, reader=reader, timeout_s=PATIENCE_S, secrets=secrets)
    assert str(refused.value).startswith(f"cannot open rtsp://***@{address}: ")
    assert "zq" not in str(refused.value)


def test_a_stream_that_is_not_there_is_refused(camera: Camera, reader: ReaderName) -> None:
    address, _ = camera("h264")
    with pytest.raises(SourceOpenError, match=r"cannot open rtsp://.*/nothing: (Not found|no connection)"):
        open_source(f"rtsp://{address.partition('/')[0]}/nothing", reader=reader, timeout_s=PATIENCE_S)


def opened(uri: str, reader: ReaderName, *, timeout_s: float) -> Source:
    """Opens a camera with a time limit that is short because a test waits for it; once more where this
    machine stood still for as long while it did."""
    for _ in range(9):
        with suppress(SourceOpenError):
            return open_source(uri, reader=reader, timeout_s=timeout_s)
    return open_source(uri, reader=reader, timeout_s=timeout_s)


def read_on(source: Source, got: list[Frame], after_five: Callable[[], None]) -> None:
    for frame in source:
        got.append(frame)
        if len(got) == 5:
            after_five()


def test_a_camera_that_is_switched_off_is_an_error_with_the_frames_it_gave(
    camera: Camera, reader: ReaderName
) -> None:
    address, process = camera("h264")
    got: list[Frame] = []
    with open_source(f"rtsp://{address}", reader=reader, timeout_s=PATIENCE_S) as source:
        with pytest.raises(SourceReadError, match=r"frames: the (stream|connection) was closed") as broken:
            read_on(source, got, process.kill)
        assert list(source) == []
    assert f"rtsp://{address} broke off after {len(got)} frames" in str(broken.value)
    assert len(got) >= 5


def test_a_camera_that_goes_silent_is_an_error_after_the_time_limit(
    camera: Camera, reader: ReaderName
) -> None:
    def silenced() -> list[Frame]:
        address, process = camera("h264")
        got: list[Frame] = []

        def go_silent() -> None:
            process.send_signal(signal.SIGSTOP)  # the connection stays, and nothing comes

        with (
            opened(f"rtsp://{address}", reader, timeout_s=2) as source,
            pytest.raises(SourceReadError, match="frames: no frame came within 2 s"),
        ):
            read_on(source, got, go_silent)
        return got

    def is_prompt(got: list[Frame]) -> bool:
        # FFmpeg would go on with the old frames that its decoder holds, one after each time limit.
        gaps = [b.captured_at - a.captured_at for a, b in pairwise(got)]
        return len(got) >= 5 and max(gaps) < timedelta(seconds=2)

    # A machine that stands still for two seconds makes a camera silent before its time, or a gap: again.
    assert any(is_prompt(silenced()) for _ in range(10))


def test_another_thread_can_close_a_camera_that_is_being_read(camera: Camera, reader: ReaderName) -> None:
    address, process = camera("h264")
    source = opened(f"rtsp://{address}", reader, timeout_s=3)
    reading, closing = threading.Event(), threading.Event()

    def read() -> None:
        try:
            for _ in source:
                reading.set()
        except SourceReadError:  # the time limit was over before the camera was closed: we stood still
            assert not closing.is_set()
        reading.set()

    thread = threading.Thread(target=read)
    thread.start()
    assert reading.wait(60)
    process.send_signal(signal.SIGSTOP)
    closing.set()
    source.close()
    thread.join(60)
    assert not thread.is_alive()


def test_the_camera_can_be_opened_again_after_it_was_closed(camera: Camera, reader: ReaderName) -> None:
    address, _ = camera("h264")
    for _ in range(2):
        with open_source(f"rtsp://{address}", reader=reader, timeout_s=PATIENCE_S) as source:
            assert len(list(islice(source, 3))) == 3
    assert log_levels.getLogLevel() > 0  # opening was quiet, and no longer is


def run_without_gi(code: str) -> subprocess.CompletedProcess[str]:
    block = "import sys; sys.modules['gi'] = None\n"
    return subprocess.run([sys.executable, "-c", block + code], capture_output=True, text=True, check=False)


def test_without_gstreamer_the_error_holds_the_commands_that_install_it() -> None:
    done = run_without_gi(
        "from edge_fr.stream import open_source; open_source('rtsp://127.0.0.1:1/x', reader='gstreamer')"
    )
    assert "MissingDependencyError: GStreamer cannot be used from Python" in done.stderr
    assert "sudo apt install gstreamer1.0-plugins-base" in done.stderr
    assert "pip install '.[streams]'" in done.stderr


def test_without_gstreamer_auto_takes_opencv_for_a_network_camera(camera: Camera) -> None:
    address, _ = camera("h264")
    done = run_without_gi(
        "from edge_fr.stream import open_source\n"
        f"with open_source('rtsp://{address}', timeout_s=120) as s: next(s); print(s.reader)"
    )
    assert done.stdout.strip() == "opencv", done.stderr


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The certificate that a camera made itself, for another name than it has here."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl")
    return self_signed(tmp_path_factory.mktemp("tls"), "camera.example")


def test_a_camera_with_tls_is_opened_by_its_own_certificate_and_by_no_other(
    camera: Camera, own: Path, tmp_path: Path
) -> None:
    address, _ = camera("h264", "viewer", "p@ss w#rd", "--digest", "--tls", str(own))
    uri = f"rtsps://viewer:p%40ss%20w%23rd@{address}"
    with open_source(uri, timeout_s=PATIENCE_S, certificate=own.with_suffix(".crt")) as source:
        assert next(source).image.shape == (240, 322, 3)
    assert (source.reader, source.uri, source.live) == ("gstreamer", f"rtsps://***@{address}", True)
    other = self_signed(tmp_path, "other.example").with_suffix(".crt")
    for certificate in (None, other):
        with pytest.raises(
            SourceOpenError, match=r"cannot open rtsps://\*\*\*@.*: its certificate is not trusted"
        ) as refused:
            open_source(uri, timeout_s=PATIENCE_S, certificate=certificate)
        assert "openssl s_client" in str(refused.value)
    with pytest.raises(
        InputError, match=r"OpenCV checks no certificate; for rtsps://.* use reader='gstreamer'"
    ):
        open_source(uri, reader="opencv")
