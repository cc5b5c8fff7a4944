"""Source addresses: what they mean, what is refused, and that no secret is shown."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_fr.errors import InputError, SourceOpenError
from edge_fr.stream import open_source
from edge_fr.stream.uri import Address, parse, redact


@pytest.mark.parametrize(
    ("text", "kind", "target", "camera", "options"),
    [
        ("0", "v4l2", "/dev/video0", "video0", {}),
        (2, "v4l2", "/dev/video2", "video2", {}),
        ("v4l2:///dev/video1", "v4l2", "/dev/video1", "video1", {}),
        (
            "v4l2:///dev/video0?width=1280&height=720&fps=30",
            "v4l2",
            "/dev/video0",
            "video0",
            {"width": 1280, "height": 720, "fps": 30},
        ),
        ("csi://0", "csi", "0", "csi0", {}),
        ("csi://1?width=1920&height=1080", "csi", "1", "csi1", {"width": 1920, "height": 1080}),
        ("test://", "test", "", "test", {}),
        ("test://?frames=7", "test", "", "test", {"frames": 7}),
        ("rtsp://10.0.0.5/live", "rtsp", "rtsp://10.0.0.5/live", "10.0.0.5/live", {}),
        ("RTSP://cam:8554/a/b/", "rtsp", "RTSP://cam:8554/a/b/", "cam:8554/a/b", {}),
    ],
)
def test_an_address_is_taken_apart(
    text: str | int, kind: str, target: str, camera: str, options: dict[str, int]
) -> None:
    address = parse(text)
    assert (address.kind, address.target, address.camera, address.options) == (kind, target, camera, options)
    assert address.live == (kind != "test")


def test_rtspu_means_the_same_camera_with_its_pictures_over_udp() -> None:
    address = parse("RTSPU://admin:secret@10.0.0.5:554/live?x=1")
    assert (address.kind, address.transport) == ("rtsp", "udp")
    assert address.target == "rtsp://admin:secret@10.0.0.5:554/live?x=1"
    assert (address.shown, address.camera) == ("RTSPU://***@10.0.0.5:554/live?x=1", "10.0.0.5:554/live")
    assert parse("rtsp://10.0.0.5/live").transport == "tcp"


def test_a_path_is_a_picture_a_video_or_a_folder_by_its_name(tmp_path: Path) -> None:
    for name in ("face.JPG", "clip.mp4", "wave.gif", "no suffix"):
        (tmp_path / name).touch()
    kinds = {name: parse(tmp_path / name).kind for name in ("face.JPG", "clip.mp4", "wave.gif", "no suffix")}
    assert kinds == {"face.JPG": "picture", "clip.mp4": "video", "wave.gif": "video", "no suffix": "video"}
    assert parse(tmp_path) == Address("folder", str(tmp_path), str(tmp_path), tmp_path.name)
    assert parse(tmp_path / "clip.mp4").camera == "clip"


def test_a_file_url_is_unquoted(tmp_path: Path) -> None:
    (tmp_path / "a clip.mp4").touch()
    address = parse(f"file://{tmp_path}/a%20clip.mp4")
    assert (address.kind, address.target) == ("video", str(tmp_path / "a clip.mp4"))
    assert parse(f"file://localhost{tmp_path}").kind == "folder"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "empty, expected a picture, a video"),
        ("ftp://cam/video.mjpg", "unknown scheme 'ftp'.*rtsp://user:password@host/path"),
        ("file://clip.mp4", "three slashes"),
        ("rtsp:///live", "names no host"),
        ("rtsp://cam:port/live", "no proper host and port"),
        ("csi://front", "is no csi address, expected for example csi://0"),
        ("v4l2://", "is no v4l2 address, expected for example v4l2:///dev/video0"),
        ("test://?speed=2", "unknown option 'speed', expected width, height, fps, frames"),
        ("test://?fps=0", "fps is '0', expected a whole number from 1"),
        ("test://?frames=", "frames is '', expected a whole number"),
        ("csi://0?width=1920", "width and height go together"),
    ],
)
def test_an_address_that_means_nothing_is_refused_with_what_is_expected(text: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        parse(text)


def test_a_path_that_leads_nowhere_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceOpenError, match=r"there is no file or folder '.*gone.mp4'"):
        parse(tmp_path / "gone.mp4")


def test_a_camera_that_is_not_there_is_refused_naming_those_that_are() -> None:
    with pytest.raises(SourceOpenError, match=r"there is no camera /dev/video987; cameras on this machine: "):
        open_source("v4l2:///dev/video987")


def test_an_unknown_reader_and_a_time_limit_that_is_none_are_refused() -> None:
    with pytest.raises(InputError, match="reader is 'ffmpeg', expected one of auto, opencv, gstreamer"):
        open_source("test://", reader="ffmpeg")  # type: ignore[arg-type]
    for timeout_s in (0, -1, float("nan"), float("inf")):
        with pytest.raises(InputError, match=f"timeout_s is {timeout_s}, expected more than 0"):
            open_source("test://", timeout_s=timeout_s)


def test_opencv_is_refused_for_a_csi_camera() -> None:
    with pytest.raises(InputError, match="OpenCV cannot read the CSI camera csi://0"):
        open_source("csi://0", reader="opencv")


def test_opencv_is_refused_for_pictures_over_udp() -> None:
    with pytest.raises(InputError, match=r"over UDP; for rtspu://\*\*\*@127.0.0.1/live use reader='gst"):
        open_source("rtspu://a:b@127.0.0.1/live", reader="opencv")


def test_credentials_are_hidden_and_the_rest_is_kept() -> None:
    assert redact("rtsp://admin:secret@10.0.0.5:554/h264?x=1") == "rtsp://***@10.0.0.5:554/h264?x=1"
    assert redact("cannot open rtsp://a:b@c/d: 401") == "cannot open rtsp://***@c/d: 401"
    assert redact("rtsp://c/user=admin&password=x1&channel=1") == "rtsp://c/user=admin&password=***&channel=1"
    assert redact("rtsp://c/live?token=abc&w=2") == "rtsp://c/live?token=***&w=2"
    assert redact("/home/me@work/clip.mp4") == "/home/me@work/clip.mp4"
    assert redact("rtsp://c/bypass=on") == "rtsp://c/bypass=on"


def test_a_secret_in_the_path_is_not_made_part_of_the_cameras_name() -> None:
    assert parse("rtsp://c/user=admin&password=x1&channel=1").camera == "c/user=admin&password=***&channel=1"


password_characters = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=4, max_size=12)


@given(password_characters)
def test_no_password_however_badly_written_is_shown(password: str) -> None:
    secret = "zq" + password + "qz"  # letters that the rest of the address and the messages do not have
    text = f"rtsp://admin:{secret}@camera.lan/live"
    try:
        address = parse(text)
    except InputError as error:
        shown = str(error)
    else:
        shown = repr(address) + address.shown + address.camera
    assert "zq" not in shown
    assert "qz" not in shown
