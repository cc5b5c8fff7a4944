"""Videos and cameras through GStreamer; the one module that imports gi."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

import numpy as np
from numpy.typing import NDArray

from edge_fr.errors import (
    EdgeFrError,
    MissingDependencyError,
    SourceOpenError,
    SourceReadError,
    install_command,
)
from edge_fr.stream.pipelines import APT_COMMAND, MAY_BE_INSTALLED, decode_pipeline, input_pipeline
from edge_fr.stream.sender import SenderClock, from_ntp
from edge_fr.stream.source import Losses, Reading
from edge_fr.stream.tally import Tally
from edge_fr.stream.uri import Address
from edge_fr.stream.web import trusting, untrusted

INSTALL = (
    f"`{APT_COMMAND} gir1.2-gstreamer-1.0 libgirepository1.0-dev libcairo2-dev pkg-config gcc python3-dev`, "
    f"then {install_command('streams')}"
)
_SLICE_NS = 100_000_000  # how long one wait inside GStreamer lasts before errors are looked at
# A picture that never ends is gathered in memory; ten seconds of 50 Mbit/s without a whole one are less.
_MOST_UNDECODED_BYTES = 96 << 20
_PACKET_BYTES = 512  # what GStreamer keeps beside the content of each


def load() -> Any:
    """GStreamer's Python binding, ready for use. Raises MissingDependencyError."""
    try:
        import gi

        gi.require_version("Gst", "1.0")
        from gi.repository import Gst
    except (ImportError, ValueError) as error:  # ValueError: gi without GStreamer's part
        raise MissingDependencyError(f"GStreamer cannot be used from Python ({error}): {INSTALL}") from error
    Gst.init(None)
    return Gst


def is_installed() -> bool:
    """Whether GStreamer and its Python binding are here."""
    try:
        load()
    except MissingDependencyError:
        return False
    return True


class GStreamerReader:
    """One pipeline that ends in an appsink; opening and each read may take `timeout_s`.

    Setting `stop`, from any thread, ends both within a tenth of a second. `upright` has the pictures of a
    file turned as it says, which knows no mirror image.
    """

    name = "gstreamer"

    def __init__(
        self,
        address: Address,
        *,
        timeout_s: float,
        stop: threading.Event | None = None,
        certificate: Path | None = None,
        upright: bool = True,
    ) -> None:
        self._certificate = certificate
        self._upright = upright
        self._gst = load()
        self.losses = Losses()
        self.frame_count: int | None = None
        self.period_ns = 40_000_000
        self._address = address
        self._timeout_s = timeout_s
        self._tally = Tally(self.losses)
        self._sink: Any = None
        self._entry: Any = None
        self._fault: EdgeFrError | None = None  # what went wrong in a callback
        self._closed = False
        self._stop = stop or threading.Event()
        self._sender = SenderClock()
        self._others: list[str] = []  # the types of the streams that are no video
        self._handlers: list[tuple[Any, int]] = []
        self._elements = {name for name in MAY_BE_INSTALLED if self._gst.ElementFactory.find(name)}
        self._pipeline = self._build()
        self._bus = self._pipeline.get_bus()
        self._pipeline.set_state(self._gst.State.PLAYING)  # a failure is told on the bus
        try:
            self._first = self._pull()
        except SourceReadError as error:
            self.close()
            raise SourceOpenError(f"cannot open {address.shown}: {error}") from error
        except BaseException:
            self.close()
            raise
        if self._first is None:
            self.close()
            why = "told to stop" if self._stop.is_set() else "not a single frame could be decoded"
            raise SourceOpenError(f"cannot open {address.shown}: {why}")
        self._describe(self._first)

    def read(self) -> Reading | None:
        sample, self._first = self._first, None
        if sample is None:
            sample = self._pull()
        if sample is None:
            return None
        gst, buffer = self._gst, sample.get_buffer()
        structure = sample.get_caps().get_structure(0)
        width, height = structure.get_value("width"), structure.get_value("height")
        mapped, view = buffer.map(gst.MapFlags.READ)
        if not mapped:
            raise SourceReadError("GStreamer gave a frame whose memory cannot be read")
        try:
            image = copy_rows(view.data, width, height)
        finally:
            buffer.unmap(view)
        if self._address.live:
            self._tally.delivered()
        has_aspect, across, down = structure.get_fraction("pixel-aspect-ratio")
        aspect = across / down if has_aspect and across > 0 and down > 0 else 1.0
        pts_ns: int | None = None
        if buffer.pts != gst.CLOCK_TIME_NONE:
            pts_ns = sample.get_segment().to_running_time(gst.Format.TIME, buffer.pts)
        if not self._address.live:
            return Reading(image, pts_ns, pixel_aspect=aspect)
        arrived_at = self._arrival(pts_ns)
        captured_at = self._captured_at(buffer, arrived_at)
        by_sender = captured_at is not None
        return Reading(image, pts_ns, captured_at or arrived_at, by_sender=by_sender, pixel_aspect=aspect)

    def close(self) -> None:
        self._closed = True
        self._first = None
        self._pipeline.set_state(self._gst.State.NULL)
        while self._handlers:  # or they would hold this reader, and this the pipeline, for ever
            element, handler = self._handlers.pop()
            element.disconnect(handler)

    def _build(self) -> Any:
        if self._address.kind == "csi" and not self._gst.ElementFactory.find("nvarguscamerasrc"):
            raise MissingDependencyError(
                f"cannot open {self._address.shown}: GStreamer has no nvarguscamerasrc, which "
                "JetPack brings to a Jetson: `sudo apt install nvidia-l4t-gstreamer nvidia-l4t-camera`"
            )
        text = input_pipeline(
            self._address.kind, self._address.options, self._elements, transport=self._address.transport
        )
        self._bin = self._parse(text)
        pipeline = self._gst.Pipeline.new(None)
        pipeline.add(self._bin)
        self._sink = pipeline.get_by_name("sink")
        if self._sink is not None:
            _note_times(self._gst, self._sink, self._tally.decoded)
        source, streams = pipeline.get_by_name("source"), pipeline.get_by_name("streams")
        if self._address.kind == "rtsp":
            _address_rtsp(streams, self._address.target, self._timeout_s)
            if self._certificate is not None:
                _trust(streams, self._certificate)
            self._handlers.append((streams, streams.connect("accept-certificate", self._on_doubt)))
            streams.connect("select-stream", lambda _, __, caps: _media(caps) == "video")
        elif self._address.kind == "csi":
            source.set_property("sensor-id", int(self._address.target))
        else:
            source.set_property(
                "device" if self._address.kind == "v4l2" else "location", self._address.target
            )
        if streams is not None:
            self._handlers.append((streams, streams.connect("pad-added", self._on_stream)))
        return pipeline

    def _parse(self, text: str) -> Any:
        from gi.repository import GLib

        try:
            return self._gst.parse_bin_from_description(text, False)
        except GLib.Error as error:
            raise MissingDependencyError(
                f"GStreamer cannot make the pipeline {text!r} ({error.message}): {INSTALL}"
            ) from error

    def _on_stream(self, _: Any, pad: Any) -> None:
        # In a thread of GStreamer's: what is wrong is kept for the reading thread.
        structure = (pad.get_current_caps() or pad.query_caps(None)).get_structure(0)
        kind = structure.get_name()
        rtp = kind == "application/x-rtp"
        if not (kind.startswith(("video/", "image/")) or rtp):
            self._others.append(kind)
            return
        if self._sink is not None:  # the first video is the one
            return
        codec = {"video/x-h264": "H264", "video/x-h265": "H265"}.get(kind, kind)
        if rtp:
            codec = structure.get_string("encoding-name")
        try:
            chain = decode_pipeline(codec, rtp=rtp, elements=self._elements, upright=self._upright)
            decode = self._parse(chain)
        except MissingDependencyError as error:
            self._fault = error
            return
        entry = decode.get_by_name("entry")
        decode.add_pad(self._gst.GhostPad.new("sink", entry.get_static_pad("sink")))
        decoder, sink = decode.get_by_name("decoder"), decode.get_by_name("sink")
        if decoder is not None:
            _note_times(self._gst, decoder, self._tally.encoded)
        _note_times(self._gst, sink, self._tally.decoded)
        self._bin.add(decode)
        decode.sync_state_with_parent()
        if pad.link(decode.get_static_pad("sink")) != self._gst.PadLinkReturn.OK:
            self._fault = SourceReadError(f"its stream of type {codec} cannot be decoded")
        self._entry, self._sink = entry, sink

    def _on_doubt(self, _: Any, __: Any, ___: Any, flags: Any) -> bool:
        self._fault = SourceReadError(untrusted(" ".join(flags.value_nicks)))
        return False

    def _pull(self) -> Any:
        """The next sample, or None at the end. What was decoded before an error comes before the error."""
        give_up = time.monotonic() + self._timeout_s
        error: str | None = None
        before: int | None = None
        while not (self._closed or self._stop.is_set()):
            if self._sink is None:
                time.sleep(0.01)
            else:
                sample = self._sink.emit("try-pull-sample", _SLICE_NS)
                if sample is not None:
                    self._drop_news()
                    return sample
                taken = self._taken_bytes()
                before = taken if before is None else before
                if taken - before > _MOST_UNDECODED_BYTES:
                    raise SourceReadError(
                        f"{taken - before >> 20} MiB came, and no picture in them had an end"
                    )
            if self._fault is not None:  # says more than what GStreamer makes of it
                raise self._fault
            if error is not None:
                raise SourceReadError(error)
            error = self._error()
            if error is None and self._sink is not None and self._sink.get_property("eos"):
                return None
            if time.monotonic() > give_up:
                raise SourceReadError(f"no frame came within {self._timeout_s:g} s")
        return None

    def _taken_bytes(self) -> int:
        """What the decoder and all before it were given so far, as far as this GStreamer counts (1.20)."""
        if self._entry is None or self._entry.find_property("stats") is None:
            return 0
        stats = self._entry.get_property("stats")
        return int(stats.get_value("num-bytes") + stats.get_value("num-buffers") * _PACKET_BYTES)

    def _drop_news(self) -> None:
        """Takes the messages before the first error off the bus, where they would pile up for months."""
        while (message := self._bus.peek()) is not None and message.type != self._gst.MessageType.ERROR:
            self._bus.pop()

    def _error(self) -> str | None:
        message = self._bus.pop_filtered(self._gst.MessageType.ERROR)
        if message is None:
            return None
        if self._sink is None and self._others:
            return f"it holds no video stream, only {', '.join(self._others)}"
        error, detail = message.parse_error()
        return self._address.hide(
            f"{error.message} ({(detail or '').splitlines()[-1]})" if detail else error.message
        )

    def _arrival(self, pts_ns: int | None) -> datetime:
        """The wall clock when a live picture arrived: now, less the time it has been under way here."""
        now, clock = datetime.now(timezone.utc), self._pipeline.get_clock()
        if clock is None or pts_ns is None:
            return now
        age_ns = clock.get_time() - self._pipeline.get_base_time() - pts_ns
        return now - timedelta(microseconds=max(0, age_ns) // 1000)

    def _captured_at(self, buffer: Any, arrived_at: datetime) -> datetime | None:
        """The camera's own time of a picture, from its RTCP sender reports; None: none yet, or not to be
        believed."""
        meta = buffer.get_reference_timestamp_meta(None)
        if meta is None or meta.reference.get_structure(0).get_name() != "timestamp/x-ntp":
            return None
        return self._sender.captured_at(from_ntp(meta.timestamp), arrived_at)

    def _describe(self, sample: Any) -> None:
        has_rate, above, below = sample.get_caps().get_structure(0).get_fraction("framerate")
        if has_rate and above > 0 and below > 0:
            self.period_ns = round(1e9 * below / above)
        if self._address.live:
            return
        known, duration_ns = self._pipeline.query_duration(self._gst.Format.TIME)
        if known and duration_ns > 0:
            self.frame_count = max(1, round(duration_ns / self.period_ns))


def _note_times(gst: Any, element: Any, note: Callable[[int], None]) -> None:
    def on_buffer(_: Any, info: Any) -> Any:
        note(info.get_buffer().pts)
        return gst.PadProbeReturn.OK

    element.get_static_pad("sink").add_probe(gst.PadProbeType.BUFFER, on_buffer)


def copy_rows(data: Any, width: int, height: int) -> NDArray[np.uint8]:
    """A picture of its own from GStreamer's BGR memory, whose rows are padded to a multiple of 4 bytes."""
    stride = (width * 3 + 3) // 4 * 4
    if len(data) < stride * height:
        raise SourceReadError(f"a frame of {width}x{height} has {len(data)} bytes, needs {stride * height}")
    rows = np.ndarray((height, width, 3), np.uint8, data, strides=(stride, 3, 1))
    return rows.copy()


def _media(caps: Any) -> str | None:
    media: str | None = caps.get_structure(0).get_string("media")
    return media


def _address_rtsp(element: Any, url: str, timeout_s: float) -> None:
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    element.set_property("location", urlunsplit(parts._replace(netloc=host)))
    element.set_property("tcp-timeout", round(timeout_s * 1e6))
    element.set_property("timeout", round(timeout_s * 1e6))  # without a packet, over UDP
    if element.find_property("add-reference-timestamp-meta") is not None:  # GStreamer 1.22
        element.set_property("add-reference-timestamp-meta", True)
    if parts.username is not None:
        element.set_property("user-id", unquote(parts.username))
        element.set_property("user-pw", unquote(parts.password or ""))


def _trust(element: Any, certificate: Path) -> None:
    """As `edge_fr.stream.web.trusting` has it: nobody but the certificate, whatever name is in it."""
    from gi.repository import Gio

    trusting(certificate)  # says what is wrong with the file
    element.set_property("tls-database", Gio.TlsFileDatabase.new(str(certificate.absolute())))
    checks = Gio.TlsCertificateFlags
    element.set_property("tls-validation-flags", checks.VALIDATE_ALL & ~checks.BAD_IDENTITY)
