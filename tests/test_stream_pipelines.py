"""The GStreamer pipelines as text, for machines that are not here."""

from __future__ import annotations

import pytest

from edge_fr.errors import MissingDependencyError
from edge_fr.stream import gstreamer, open_source
from edge_fr.stream.pipelines import choose_decoder, decode_pipeline, input_pipeline

# PyGObject before 3.44, JetPack's among them, imports its modules in a way that Python warns of.
pytestmark = pytest.mark.filterwarnings("ignore:DynamicImporter:ImportWarning")

CPU = {"avdec_h264", "avdec_h265"}
CARD = CPU | {"nvh264dec", "nvh265dec"}
JETSON = CPU | {"nvv4l2decoder", "nvvidconv"}

NEWEST = "appsink name=sink sync=false max-buffers=1 drop=true"
EVERY = "appsink name=sink sync=false max-buffers=4 drop=false"
OUT_OF_DEVICE_MEMORY = "nvvidconv ! video/x-raw,format=BGRx"


def test_a_csi_camera_comes_out_of_device_memory_newest_frame_first() -> None:
    assert input_pipeline("csi", {"width": 1920, "height": 1080, "fps": 30}, JETSON) == (
        "nvarguscamerasrc name=source ! "
        "video/x-raw(memory:NVMM),format=NV12,width=1920,height=1080,framerate=30/1 ! "
        f"{OUT_OF_DEVICE_MEMORY} ! videoconvert ! video/x-raw,format=BGR ! {NEWEST}"
    )


def test_a_usb_camera_may_give_raw_pictures_or_jpeg() -> None:
    assert input_pipeline("v4l2", {"width": 1280, "height": 720}, CPU) == (
        "v4l2src name=source ! "
        "video/x-raw,width=1280,height=720;image/jpeg,width=1280,height=720 ! decodebin ! "
        f"videoconvert ! video/x-raw,format=BGR ! {NEWEST}"
    )


def test_files_and_network_cameras_are_decoded_when_their_codec_is_known() -> None:
    assert input_pipeline("video", {}, CPU) == "filesrc name=source ! parsebin name=streams"
    assert input_pipeline("rtsp", {}, CPU) == (
        "rtspsrc name=streams protocols=tcp latency=200 drop-on-latency=true do-rtsp-keep-alive=true "
        "udp-reconnect=false"
    )


def test_pictures_over_udp_differ_only_in_their_transport() -> None:
    tcp, udp = input_pipeline("rtsp", {}, JETSON), input_pipeline("rtsp", {}, JETSON, transport="udp")
    assert udp == tcp.replace("protocols=tcp", "protocols=udp")
    assert udp != tcp


def test_a_decoder_whose_pictures_nothing_here_can_fetch_is_passed_over() -> None:
    assert choose_decoder("H264", JETSON) == "nvv4l2decoder"
    assert choose_decoder("H264", JETSON - {"nvvidconv"}) == "avdec_h264"
    assert choose_decoder("H265", {"nvv4l2decoder"}) is None


@pytest.mark.parametrize(
    ("codec", "elements", "decoder"),
    [
        ("H264", CPU, "avdec_h264"),
        ("H264", CARD, "nvh264dec"),
        ("H264", JETSON, "nvv4l2decoder"),
        ("H265", CPU, "avdec_h265"),
        ("H265", CARD, "nvh265dec"),
        ("H265", JETSON, "nvv4l2decoder"),
    ],
)
def test_the_machines_own_decoder_is_chosen_before_the_cpu(
    codec: str, elements: set[str], decoder: str
) -> None:
    chain = decode_pipeline(codec, rtp=True, elements=elements)
    out = f"{OUT_OF_DEVICE_MEMORY} ! " if elements is JETSON else ""
    name = codec.lower()
    assert chain == (
        f"identity name=entry ! rtp{name}depay ! {name}parse ! {decoder} name=decoder ! "
        f"{out}videoconvert ! video/x-raw,format=BGR ! {NEWEST}"
    )


def test_a_file_loses_no_frame_and_is_turned_upright_outside_device_memory() -> None:
    assert decode_pipeline("H264", rtp=False, elements=JETSON) == (
        "identity name=entry ! h264parse ! nvv4l2decoder name=decoder ! "
        f"{OUT_OF_DEVICE_MEMORY} ! videoflip video-direction=auto ! videoconvert ! "
        f"video/x-raw,format=BGR ! {EVERY}"
    )


def test_other_codecs_are_left_to_gstreamer() -> None:
    assert decode_pipeline("JPEG", rtp=True, elements=CPU) == (
        f"identity name=entry ! decodebin ! videoconvert ! video/x-raw,format=BGR ! {NEWEST}"
    )


def test_a_missing_decoder_is_an_error_with_the_command_that_installs_it() -> None:
    with pytest.raises(MissingDependencyError, match=r"no decoder for H265.*avdec_h265.*apt install"):
        decode_pipeline("H265", rtp=True, elements={"avdec_h264"})


def test_gstreamer_takes_the_text_of_every_source_that_can_be_here() -> None:
    if not gstreamer.is_installed():
        pytest.skip("GStreamer or PyGObject is not installed")
    gst = gstreamer.load()
    texts = [input_pipeline(kind, {}, CPU) for kind in ("video", "rtsp", "v4l2")]
    texts.append(input_pipeline("v4l2", {"width": 1280, "height": 720, "fps": 30}, CPU))
    texts += [
        decode_pipeline(c, rtp=rtp, elements=CPU) for c in ("H264", "H265", "x") for rtp in (True, False)
    ]
    for text in texts:
        made = gst.parse_bin_from_description(text, False)
        assert any(made.get_by_name(name) for name in ("source", "streams", "entry")), text


def test_a_csi_camera_away_from_a_jetson_is_an_error_that_says_what_is_missing() -> None:
    if not gstreamer.is_installed():
        pytest.skip("GStreamer or PyGObject is not installed")
    if gstreamer.load().ElementFactory.find("nvarguscamerasrc"):
        pytest.skip("this is a Jetson")
    with pytest.raises(MissingDependencyError, match=r"csi://0: GStreamer has no nvarguscamerasrc.*JetPack"):
        open_source("csi://0")
