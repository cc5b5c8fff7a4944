"""Cameras, video files, pictures and a test pattern, all as iterators of frames.

`open_source` takes an address:

    picture.jpg  clip.mp4  folder/  file:///home/user/clip.mp4     files; a folder is read in natural order
    0  v4l2:///dev/video0?width=1280&height=720&fps=30             a USB camera
    csi://0?width=1920&height=1080&fps=30                          a Jetson's CSI camera (GStreamer only)
    rtsp://user:password@host/path                                 a network camera, over TCP
    rtspu://user:password@host/path                                the same, its pictures over UDP
    rtsps://user:password@host/path                                the same with TLS (GStreamer only)
    http://user:password@host/path  https://…                      MJPEG, or HLS where the path ends in .m3u8
    test://?width=640&height=480&fps=25&frames=100                 a drawn pattern, not paced

`open_camera` takes the same, and keeps connected to it; nothing that hangs holds it up.

`reader="auto"` is a rule, not a fallback: cameras (rtsp, v4l2, csi) through GStreamer where GStreamer
and its Python binding are installed and through OpenCV where they are not, video files through OpenCV.
`Source.reader` says which one is in use. Pictures, the pattern, MJPEG and
HLS need neither.
"""

from __future__ import annotations

import threading
from collections.abc import Collection
from pathlib import Path
from typing import Literal, get_args

from edge_fr.errors import InputError, SourceOpenError
from edge_fr.stream.camera import Camera
from edge_fr.stream.connection import CameraChange, CameraCounters
from edge_fr.stream.containers import why_cut_short, why_endless
from edge_fr.stream.content import refuse_no_video
from edge_fr.stream.freshness import is_current
from edge_fr.stream.geometry import Mounting
from edge_fr.stream.movie_header import read_movie_header
from edge_fr.stream.reconnect import ReconnectPolicy
from edge_fr.stream.source import Reader, Skipped, Source, modified_at
from edge_fr.stream.uri import Address, parse, redact

ReaderName = Literal["auto", "opencv", "gstreamer"]

__all__ = [
    "Camera",
    "CameraChange",
    "CameraCounters",
    "Mounting",
    "ReaderName",
    "ReconnectPolicy",
    "Skipped",
    "Source",
    "is_current",
    "is_live",
    "open_camera",
    "open_source",
    "redact",
]


def open_source(
    uri: str | int | Path,
    *,
    reader: ReaderName = "auto",
    camera: str | None = None,
    timeout_s: float = 10.0,
    stop: threading.Event | None = None,
    secrets: Collection[str] = (),
    certificate: str | Path | None = None,
    mounting: Mounting | None = None,
) -> Source:
    """Opens an address once; a camera that goes away is not connected to again (`open_camera` does that).

    A camera that sends nonsense can hold the reader's own libraries up beyond every time limit: for a
    program that must never hang, use `open_camera`.

    `camera` names it in frames and events (None: made from the address). Connecting, and waiting for
    each frame, may take `timeout_s`; setting `stop` ends both at once where GStreamer reads. `secrets` are
    parts of the address that no message may show, such as a token in its path; user and password never are.
    `certificate` is for rtsps:// and https:// cameras that made their own: a PEM file with it, or with that
    of who signed it. Nothing else is trusted then, and the name in it may be another. `mounting` is for a
    camera that hangs on its side or upside down, or does not tell the shape of its pixels.
    Raises
    InputError for an address that means nothing, ImageError for a single picture that is none,
    SourceOpenError for anything else that cannot be opened.
    """
    if reader not in get_args(ReaderName):
        raise InputError(f"reader is {reader!r}, expected one of {', '.join(get_args(ReaderName))}")
    if not 0 < timeout_s <= 3600:
        raise InputError(f"timeout_s is {timeout_s}, expected more than 0 and at most 3600 seconds")
    address = parse(uri, secrets)
    trusted = _trusted(address, certificate)
    if address.kind == "test":
        from datetime import datetime, timezone

        from edge_fr.stream.pattern import PatternReader

        start = datetime(2000, 1, 1, tzinfo=timezone.utc)  # fixed, so that two runs are the same
        pattern = PatternReader(**address.options)
        return Source(address, pattern, camera=camera, started_at=start, mounting=mounting)
    if address.kind in ("folder", "picture"):
        from edge_fr.stream.stills import PictureReader, open_folder

        path = Path(address.target)
        stills = open_folder(path) if address.kind == "folder" else PictureReader(path)
        return Source(address, stills, camera=camera, mounting=mounting)
    if address.live:
        live = _video_reader(address, reader, timeout_s, stop, trusted)
        return Source(address, live, camera=camera, mounting=mounting)
    if reader == "gstreamer" and address.target.lower().endswith(".gif"):
        raise InputError(f"GStreamer gives the pictures of {address.shown} no times; use reader='opencv'")
    path = Path(address.target)
    try:
        refuse_no_video(path, address.shown)
        endless = why_endless(path)
    except OSError as error:
        raise SourceOpenError(f"cannot open {address.shown}: {error.strerror}") from error
    if endless is not None:
        raise SourceOpenError(f"cannot open {address.shown}: {endless}; it is no video, or was overwritten")
    header = read_movie_header(path)
    video = _video_reader(address, reader, timeout_s, stop, upright=header.orientation == 1)
    return Source(
        address,
        video,
        camera=camera,
        started_at=header.made_at or modified_at(path),
        cut=why_cut_short(path),
        mounting=mounting,
        orientation=header.orientation,
    )


def open_camera(
    uri: str | int | Path,
    *,
    reader: ReaderName = "auto",
    camera: str | None = None,
    policy: ReconnectPolicy | None = None,
    wake: threading.Event | None = None,
    secrets: Collection[str] = (),
    certificate: str | Path | None = None,
    mounting: Mounting | None = None,
) -> Camera:
    """A camera that connects to the address when it is started, and again whenever that is needed.

    A video is taken as well, and read once. Raises InputError for an address that means nothing or for
    pictures, SourceOpenError for a file that is not there; what a connection meets later shows in
    `Camera.state` and `Camera.reason`.
    """
    address = parse(uri, secrets)
    trusted = _trusted(address, certificate)
    if address.kind in ("folder", "picture"):
        raise InputError(f"{address.shown} holds pictures, and no camera does; use open_source")
    name = address.camera if camera is None else camera
    policy = policy or ReconnectPolicy()
    timeout_s = max(policy.open_timeout_s, policy.read_timeout_s)  # the camera itself holds to the shorter

    def connect(stop: threading.Event) -> Source:
        return open_source(
            uri,
            reader=reader,
            camera=name,
            timeout_s=timeout_s,
            stop=stop,
            secrets=secrets,
            certificate=trusted,
            mounting=mounting,
        )

    return Camera(connect, name=name, live=address.live, uri=address.shown, policy=policy, wake=wake)


def is_live(uri: str | int | Path) -> bool:
    """Whether the address is a camera's, which has no end. Raises what `open_source` does."""
    return parse(uri).live


def _trusted(address: Address, certificate: str | Path | None) -> Path | None:
    if certificate is None:
        return None
    if not address.target.lower().startswith(("rtsps:", "https:")):
        raise InputError(f"a certificate is for rtsps:// and https://, got {address.shown}; leave it out")
    from edge_fr.stream.web import trusting

    trusting(Path(certificate))
    return Path(certificate)


def _video_reader(
    address: Address,
    reader: ReaderName,
    timeout_s: float,
    stop: threading.Event | None,
    certificate: Path | None = None,
    *,
    upright: bool = True,
) -> Reader:
    if address.kind == "mjpeg":
        from edge_fr.stream.mjpeg import MjpegReader

        return MjpegReader(address, certificate=certificate, timeout_s=timeout_s, stop=stop)
    if address.kind == "hls":
        from edge_fr.stream.hls import HlsReader

        return HlsReader(address, certificate=certificate, timeout_s=timeout_s, stop=stop)
    if address.kind == "v4l2" and not Path(address.target).exists():
        there = ", ".join(sorted(str(p) for p in Path("/dev").glob("video*"))) or "none"
        raise SourceOpenError(f"there is no camera {address.target}; cameras on this machine: {there}")
    if reader == "opencv" and address.kind == "csi":
        raise InputError(f"OpenCV cannot read the CSI camera {address.shown}; use reader='gstreamer'")
    if reader == "opencv" and address.transport == "udp":
        raise InputError(f"OpenCV reads no pictures over UDP; for {address.shown} use reader='gstreamer'")
    secure = address.target.lower().startswith("rtsps:")
    if reader == "opencv" and secure:
        raise InputError(f"OpenCV checks no certificate; for {address.shown} use reader='gstreamer'")
    if reader != "opencv" and (address.live or reader == "gstreamer"):
        from edge_fr.stream import gstreamer

        only_gstreamer = (
            reader == "gstreamer" or address.kind == "csi" or address.transport == "udp" or secure
        )
        if only_gstreamer or gstreamer.is_installed():
            return gstreamer.GStreamerReader(
                address, timeout_s=timeout_s, stop=stop, certificate=certificate, upright=upright
            )
    from edge_fr.stream.opencv import OpenCvReader

    return OpenCvReader(address, timeout_s=timeout_s, upright=upright)
