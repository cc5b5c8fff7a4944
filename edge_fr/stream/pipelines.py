"""The GStreamer pipelines, as text: which elements, for which source, on which machine.

No address is part of the text: locations and passwords are set as properties, so that nothing has to be
quoted and no secret is printed.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from edge_fr.errors import MissingDependencyError

APT_COMMAND = (
    "sudo apt install gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-plugins-bad "
    "gstreamer1.0-libav"
)

# The first that is installed decodes: on a Jetson, on a desktop card, on the CPU.
DECODERS = {
    "H264": ("nvv4l2decoder", "nvh264dec", "avdec_h264"),
    "H265": ("nvv4l2decoder", "nvh265dec", "avdec_h265"),
}
MAY_BE_INSTALLED = frozenset({"nvvidconv", *DECODERS["H264"], *DECODERS["H265"]})
RTSP_LATENCY_MS = 200  # how long the jitter buffer waits for late packets


def input_pipeline(
    kind: str, options: Mapping[str, int], elements: Collection[str], *, transport: str = "tcp"
) -> str:
    """The pipeline of a source, up to where its encoded streams come out, or whole for a camera here."""
    if kind == "video":
        return "filesrc name=source ! parsebin name=streams"
    if kind == "rtsp":
        return (
            f"rtspsrc name=streams protocols={transport} latency={RTSP_LATENCY_MS} drop-on-latency=true "
            "do-rtsp-keep-alive=true udp-reconnect=false"  # connecting again is not its business
        )
    size = [f"{key}={options[key]}" for key in ("width", "height") if key in options]
    rate = [f"framerate={options['fps']}/1"] if "fps" in options else []
    if kind == "v4l2":
        wanted = ",".join(["", *size, *rate])
        return (
            f"v4l2src name=source ! video/x-raw{wanted};image/jpeg{wanted} ! decodebin ! "
            f"{_to_bgr(elements)} ! {_sink(live=True)}"
        )
    wanted = ",".join(["video/x-raw(memory:NVMM)", "format=NV12", *size, *rate])
    return f"nvarguscamerasrc name=source ! {wanted} ! {_to_bgr(elements)} ! {_sink(live=True)}"


def decode_pipeline(codec: str, *, rtp: bool, elements: Collection[str], upright: bool = True) -> str:
    """From one encoded stream to pictures; `codec` is H264, H265 or another stream's type.

    H.264 and H.265 go through the decoder named here; for the rest GStreamer chooses.
    """
    entry = "identity name=entry"
    tail = f"{_to_bgr(elements, upright=upright and not rtp)} ! {_sink(live=rtp)}"
    if codec not in DECODERS:
        return f"{entry} ! decodebin ! {tail}"
    decoder = choose_decoder(codec, elements)
    if decoder is None:
        raise MissingDependencyError(
            f"GStreamer has no decoder for {codec}, expected one of {', '.join(DECODERS[codec])}: "
            f"`{APT_COMMAND}`"
        )
    unpack = f"rtp{codec.lower()}depay ! " if rtp else ""
    return f"{entry} ! {unpack}{codec.lower()}parse ! {decoder} name=decoder ! {tail}"


def choose_decoder(codec: str, elements: Collection[str]) -> str | None:
    """The element that decodes H264 or H265 where `elements` are installed; None: there is none."""
    usable = set(elements)
    if "nvvidconv" not in usable:  # it leaves pictures in device memory, and nothing here could fetch them
        usable.discard("nvv4l2decoder")
    return next((name for name in DECODERS[codec] if name in usable), None)


def _to_bgr(elements: Collection[str], *, upright: bool = False) -> str:
    # A Jetson's decoders and CSI camera leave pictures in device memory; nvvidconv brings them out.
    out = "nvvidconv ! video/x-raw,format=BGRx ! " if "nvvidconv" in elements else ""
    # Phones write videos lying on their side, with a note of which way is up.
    turn = "videoflip video-direction=auto ! " if upright else ""
    return f"{out}{turn}videoconvert ! video/x-raw,format=BGR"


def _sink(*, live: bool) -> str:
    # Of a camera only the newest picture waits; of a file every picture, and reading it waits for us.
    waiting = "max-buffers=1 drop=true" if live else "max-buffers=4 drop=false"
    return f"appsink name=sink sync=false {waiting}"
