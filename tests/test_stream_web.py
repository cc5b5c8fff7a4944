"""Cameras over HTTP: MJPEG and HLS, passwords, certificates, and how they break and come back."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from itertools import islice, pairwise, repeat
from pathlib import Path

import cv2
import numpy as np
import pytest
import waiting

from edge_fr.errors import InputError, SourceOpenError, SourceReadError
from edge_fr.references import expand_address
from edge_fr.stream import ReconnectPolicy, open_camera, open_source
from edge_fr.stream.hls import best_variant, parse_playlist
from tests.web_camera import WebCamera, content, mjpeg, self_signed

PATIENCE_S = 60.0
POLICY = ReconnectPolicy(
    open_timeout_s=30, read_timeout_s=30, stale_after_s=20, first_delay_s=0.1, max_delay_s=0.5
)
PASSWORD = "p@s/s?w#1:%41 ä€"


def jpeg(level: int = 90) -> bytes:
    return cv2.imencode(".jpg", np.full((48, 64, 3), level, np.uint8))[1].tobytes()


def endless() -> Iterator[bytes]:
    return repeat(jpeg())


@pytest.mark.parametrize(
    "form",
    [{}, {"length": False}, {"boundary": "my frame+1", "stated": '"my frame+1"'}, {"stated": "--frame"}],
)
def test_a_camera_that_sends_jpeg_after_jpeg_gives_its_pictures(form: dict[str, object]) -> None:
    levels = range(10, 200, 10)
    with (
        WebCamera({"/video": mjpeg(lambda: map(jpeg, levels), **form)}) as camera,  # type: ignore[arg-type]
        open_source(f"http://{camera.host}/video", timeout_s=PATIENCE_S) as source,
    ):
        frames = list(islice(source, len(levels) - 1))
        assert [round(float(f.image.mean())) for f in frames] == list(levels)[: len(frames)]
        with pytest.raises(SourceReadError, match="the stream was closed at the other end"):
            list(source)
    assert (source.reader, source.live, source.uri) == ("mjpeg", True, f"http://{camera.host}/video")
    assert frames[0].image.shape == (48, 64, 3)
    assert all(b.pts_ns > a.pts_ns for a, b in pairwise(frames))


def test_a_picture_that_is_damaged_is_counted_and_passed_over() -> None:
    pictures = [jpeg(), jpeg()[:200], b"no picture", jpeg(), jpeg()]
    with (
        WebCamera({"/": mjpeg(lambda: pictures)}) as camera,
        open_source(f"http://{camera.host}/", timeout_s=PATIENCE_S) as source,
    ):
        assert len(list(islice(source, 3))) == 3
        assert source.damaged == 2


@pytest.mark.parametrize("method", ["basic", "digest", "sha-256"])
def test_a_referenced_password_of_a_web_camera_is_whatever_it_is(method: str) -> None:
    with WebCamera({"/v": mjpeg(endless)}, user="vi@wer", password=PASSWORD, method=method) as camera:
        text = f"http://${{env:U}}:${{env:P}}@{camera.host}/v?channel=1"
        uri, secrets = expand_address(text, "door", {"U": "vi@wer", "P": PASSWORD})
        with open_source(uri, timeout_s=PATIENCE_S, secrets=secrets) as source:
            assert next(source).image.shape == (48, 64, 3)
        assert source.uri == f"http://***@{camera.host}/v?channel=1"
        uri, secrets = expand_address(text, "door", {"U": "vi@wer", "P": PASSWORD + "zq"})
        with pytest.raises(SourceOpenError, match=r"cannot open http://\*\*\*@.*: .*401") as refused:
            open_source(uri, timeout_s=PATIENCE_S, secrets=secrets)
        assert "zq" not in str(refused.value)


def test_what_is_no_stream_is_refused_with_what_is_expected() -> None:
    answers = {"/a.jpg": content("image/jpeg", jpeg()), "/": content("text/html", b"<html>")}
    with WebCamera(answers) as camera:
        with pytest.raises(
            InputError, match=r"one picture \(image/jpeg\), expected a stream.*curl -o picture.jpg"
        ):
            open_source(f"http://{camera.host}/a.jpg", timeout_s=PATIENCE_S)
        with pytest.raises(SourceOpenError, match=r"answers text/html, expected a stream.*HLS \(.m3u8\)"):
            open_source(f"http://{camera.host}/", timeout_s=PATIENCE_S)
        with pytest.raises(SourceOpenError, match="the camera answered 404 Not Found"):
            open_source(f"http://{camera.host}/nothing", timeout_s=PATIENCE_S)
    with pytest.raises(SourceOpenError, match=r"cannot open http://127\.0\.0\.1:\d+/: .*refused"):
        open_source(f"http://{camera.host}/", timeout_s=PATIENCE_S)


def test_a_web_camera_that_goes_away_and_comes_back_is_connected_again() -> None:
    with WebCamera({"/v": mjpeg(lambda: [jpeg()] * 5)}) as server:  # ends after each five
        port = int(server.host.rpartition(":")[2])
        camera = open_camera(f"http://{server.host}/v", policy=POLICY)
        with camera:
            waiting.wait_for(
                lambda: camera.take() is not None and camera.counters.connects >= 2, "connected again"
            )
            server.__exit__(None, None, None)
            waiting.wait_for(lambda: camera.state == "RECONNECTING" and "refused" in camera.reason, "away")
            with WebCamera({"/v": mjpeg(endless)}, port=port):
                waiting.wait_for(lambda: camera.state == "RUNNING", "back")
                camera.end()


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The certificate that a camera made itself, for another name than it has here."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl")
    return self_signed(tmp_path_factory.mktemp("tls"), "camera.example")


def test_a_web_cameras_own_certificate_is_refused_until_it_is_named(own: Path, tmp_path: Path) -> None:
    with WebCamera({"/v": mjpeg(endless)}, certificate=own) as camera:
        uri = f"https://{camera.host}/v"
        with pytest.raises(
            SourceOpenError, match=r"its certificate is not trusted \(self.signed.*openssl s_client"
        ):
            open_source(uri, timeout_s=PATIENCE_S)
        with open_source(uri, timeout_s=PATIENCE_S, certificate=own.with_suffix(".crt")) as source:
            assert next(source).image.shape == (48, 64, 3)
        other = self_signed(tmp_path, "other.example").with_suffix(".crt")
        with pytest.raises(SourceOpenError, match="its certificate is not trusted"):
            open_source(uri, timeout_s=PATIENCE_S, certificate=other)
        with pytest.raises(InputError, match=r"holds no certificate .*expected PEM"):
            open_source(uri, certificate=tmp_path / "key")
        with pytest.raises(InputError, match=r"gone.pem holds no certificate \(No such file"):
            open_camera(uri, certificate=tmp_path / "gone.pem")
    for plain in ("rtsp://cam/live", "test://"):
        with pytest.raises(InputError, match="a certificate is for rtsps:// and https://"):
            open_source(plain, certificate=own)


@pytest.fixture(scope="module")
def segments(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Six seconds of video as HLS has it: in MPEG-TS, and in fragments of MP4."""
    if shutil.which("ffmpeg") is None:
        pytest.skip("no ffmpeg")
    found = {}
    for form in ("mpegts", "fmp4"):
        folder = found[form] = tmp_path_factory.mktemp(form)
        picture = ["-f", "lavfi", "-i", "color=gray:size=64x48:rate=10:duration=6"]
        code = ["-c:v", "libx264", "-g", "10", "-pix_fmt", "yuv420p"]
        hls = ["-f", "hls", "-hls_time", "1", "-hls_list_size", "0", "-hls_segment_type", form]
        command = ["ffmpeg", "-loglevel", "error", *picture, *code, *hls, "stream.m3u8"]
        subprocess.run(command, check=True, cwd=folder)
    return found


def served(folder: Path, *, live: bool) -> WebCamera:
    """The files of a folder; a live playlist names one more of them each time that it is asked for."""
    files = {
        f"/{p.name}": content("video/mp2t", p.read_bytes()) for p in folder.iterdir() if p.suffix != ".m3u8"
    }
    lines = (
        (folder / "stream.m3u8").read_text().replace("#EXT-X-ENDLIST\n", "" if live else "#EXT-X-ENDLIST\n")
    )
    head, *parts = lines.split("#EXTINF")
    asked = 0

    def playlist(request: BaseHTTPRequestHandler) -> None:
        nonlocal asked
        asked += 1
        named = parts[:asked] if live else parts
        content("application/vnd.apple.mpegurl", "#EXTINF".join([head, *named]).encode())(request)

    tag = "#EXT-X-STREAM-INF:BANDWIDTH"
    master = f'#EXTM3U\n{tag}=1\nsmall.m3u8\n{tag}=9,CODECS="a,b"\nstream.m3u8\n'.encode()
    answers = {
        **files,
        "/stream.m3u8": playlist,
        "/master.m3u8": content("application/vnd.apple.mpegurl", master),
    }
    return WebCamera(answers, user="viewer", password=PASSWORD, method="digest")


@pytest.mark.parametrize("form", ["mpegts", "fmp4"])
@pytest.mark.parametrize("entry", ["stream", "master"])
def test_a_playlist_of_short_files_is_one_video_at_its_pace(
    segments: dict[str, Path], form: str, entry: str
) -> None:
    with served(segments[form], live=False) as camera:
        uri, secrets = expand_address(
            f"http://viewer:${{env:P}}@{camera.host}/{entry}.m3u8", "x", {"P": PASSWORD}
        )
        with open_source(uri, timeout_s=PATIENCE_S, secrets=secrets) as source:
            frames = list(islice(source, 25))
            assert (source.reader, source.live) == ("hls", True)
    assert {f.image.shape for f in frames} == {(48, 64, 3)}
    steps = [b.pts_ns - a.pts_ns for a, b in pairwise(frames)]
    assert min(steps) > 0
    # 24 steps of 100 ms; where one file ends the step is the nominal 40 ms.
    assert 2.0e9 < frames[-1].pts_ns < 2.5e9
    waited = frames[-1].captured_at - frames[0].captured_at
    assert waited.total_seconds() > 2.0  # each is given when it is due, and never before
    assert "/small.m3u8" not in camera.asked


def test_a_stream_that_has_ended_says_so(segments: dict[str, Path]) -> None:
    with served(segments["mpegts"], live=False) as camera:
        uri, _ = expand_address(f"http://viewer:${{env:P}}@{camera.host}/stream.m3u8", "x", {"P": PASSWORD})
        with open_source(uri, timeout_s=PATIENCE_S) as source:
            assert len(list(islice(source, 60))) == 60
            with pytest.raises(SourceReadError, match="the playlist says that the stream has ended"):
                next(source)


def test_a_live_playlist_is_asked_again_and_gone_on_with(segments: dict[str, Path]) -> None:
    with served(segments["mpegts"], live=True) as camera:
        uri, _ = expand_address(f"http://viewer:${{env:P}}@{camera.host}/stream.m3u8", "x", {"P": PASSWORD})
        with open_source(uri, timeout_s=PATIENCE_S) as source:
            assert len(list(islice(source, 35))) == 35  # four files
    assert len({path for path in camera.asked if path.endswith(".ts")}) == 4


PLAYLIST = "#EXTM3U\n#EXT-X-TARGETDURATION:4\n{}#EXTINF:4,\na.ts\n#EXTINF:4,\nhttp://other/b.ts\n"


def test_a_playlist_is_read() -> None:
    playlist = parse_playlist(PLAYLIST.format('#EXT-X-MAP:URI="init.mp4"\n'), "https://cam/live/x.m3u8")
    assert playlist.files == ["https://cam/live/a.ts", "http://other/b.ts"]
    assert (playlist.header, playlist.target_s, playlist.ended) == ("https://cam/live/init.mp4", 4.0, False)
    assert best_variant(PLAYLIST.format(""), "http://cam/") is None


@pytest.mark.parametrize(
    ("text", "error", "reason"),
    [
        ("<html>", SourceReadError, "no playlist: it begins with '<html>'"),
        (PLAYLIST.format('#EXT-X-KEY:METHOD=AES-128,URI="k"\n'), InputError, "encrypted"),
        (PLAYLIST.format("#EXT-X-BYTERANGE:5@0\n"), InputError, "in parts of files"),
    ],
)
def test_a_playlist_that_cannot_be_read_says_why(text: str, error: type[Exception], reason: str) -> None:
    with pytest.raises(error, match=reason):
        parse_playlist(text, "http://cam/")
