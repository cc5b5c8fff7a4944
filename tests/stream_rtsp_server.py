"""A camera on loopback for the stream tests: `python stream_rtsp_server.py CODEC [USER PASSWORD]`.

Prints the port on its first line, then serves rtsp://127.0.0.1:PORT/live until it is killed.
"""

import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402

CHAINS = {
    "h264": "x264enc tune=zerolatency key-int-max=10 bitrate=3000 ! rtph264pay name=pay0",
    "h265": "x265enc tune=zerolatency key-int-max=10 bitrate=3000 ! rtph265pay name=pay0",
    "jpeg": "jpegenc ! rtpjpegpay name=pay0",
    "vp8": "vp8enc deadline=1 ! rtpvp8pay name=pay0",
}


def serve(codec: str, user: str | None = None, password: str | None = None, frames: str = "-1") -> None:
    Gst.init(None)
    server = GstRtspServer.RTSPServer.new()
    server.set_service("0")  # any free port
    server.set_address("127.0.0.1")
    factory = GstRtspServer.RTSPMediaFactory.new()
    factory.set_launch(
        f"( videotestsrc is-live=true pattern=smpte num-buffers={frames} ! "
        "video/x-raw,width=322,height=240,framerate=25/1 ! "
        f"videoconvert ! video/x-raw,format=I420 ! {CHAINS[codec]} pt=96 "
        "audiotestsrc is-live=true ! alawenc ! rtppcmapay name=pay1 pt=97 )"
    )
    if user is not None:
        token = GstRtspServer.RTSPToken()
        token.set_string("media.factory.role", "user")
        auth = GstRtspServer.RTSPAuth.new()
        auth.add_basic(GstRtspServer.RTSPAuth.make_basic(user, password), token)
        server.set_auth(auth)
        permissions = GstRtspServer.RTSPPermissions.new()
        permissions.add_permission_for_role("user", "media.factory.access", True)
        permissions.add_permission_for_role("user", "media.factory.construct", True)
        factory.set_permissions(permissions)
    server.get_mount_points().add_factory("/live", factory)
    server.attach(None)
    print(server.get_bound_port(), flush=True)
    GLib.MainLoop().run()


if __name__ == "__main__":
    serve(*sys.argv[1:])
