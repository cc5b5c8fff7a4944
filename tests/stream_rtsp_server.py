"""A camera on loopback for the stream tests: `python stream_rtsp_server.py CODEC [USER PASSWORD]`.

Prints the port on its first line, then serves rtsp://127.0.0.1:PORT/live until it is killed.
"""

import argparse
import signal

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import Gio, GLib, Gst, GstRtsp, GstRtspServer  # noqa: E402

CHAINS = {
    "h264": "x264enc tune=zerolatency key-int-max=10 bitrate=3000 ! rtph264pay name=pay0 config-interval=-1",
    "h265": "x265enc tune=zerolatency key-int-max=10 bitrate=3000 ! rtph265pay name=pay0",
    "jpeg": "jpegenc ! rtpjpegpay name=pay0",
    "vp8": "vp8enc deadline=1 ! rtpvp8pay name=pay0",
}


def caps(size: str, fps: int) -> str:
    width, _, height = size.partition("x")
    return f"video/x-raw,width={width},height={height},framerate={fps}/1"


def serve(options: argparse.Namespace) -> None:
    Gst.init(None)
    server = GstRtspServer.RTSPServer.new()
    server.set_service(options.port)
    server.set_address("127.0.0.1")
    factory = GstRtspServer.RTSPMediaFactory.new()
    served = (
        "( videotestsrc is-live=true pattern=smpte ! "
        f"capsfilter name=size caps={caps(options.size, options.fps)} ! "
        f"videoconvert ! video/x-raw,format=I420 ! {CHAINS[options.codec]} pt=96 "
        + ("" if options.silent else "audiotestsrc is-live=true ! alawenc ! rtppcmapay name=pay1 pt=97 ")
        + ")"
    )
    if options.file:
        payload = "h264parse ! rtph264pay name=pay0 pt=96 config-interval=-1"
        served = f"( filesrc location={options.file} ! qtdemux ! {payload} )"
    factory.set_launch(served)
    if options.then:

        def change(element: Gst.Element) -> bool:
            filter_ = element.get_by_name("size")
            filter_.set_property("caps", Gst.Caps.from_string(caps(options.then, options.fps)))
            return True

        def on_media(_: object, media: GstRtspServer.RTSPMedia) -> None:
            GLib.unix_signal_add(GLib.PRIORITY_DEFAULT, signal.SIGUSR1, change, media.get_element())

        factory.connect("media-configure", on_media)
    if options.tls is not None and options.user is None:
        auth = GstRtspServer.RTSPAuth.new()
        auth.set_tls_certificate(Gio.TlsCertificate.new_from_file(options.tls))
        everybody = GstRtspServer.RTSPToken()
        everybody.set_string("media.factory.role", "anonymous")
        auth.set_default_token(everybody)
        server.set_auth(auth)
        permissions = GstRtspServer.RTSPPermissions.new()
        permissions.add_permission_for_role("anonymous", "media.factory.access", True)
        permissions.add_permission_for_role("anonymous", "media.factory.construct", True)
        factory.set_permissions(permissions)
    if options.user is not None:
        token = GstRtspServer.RTSPToken()
        token.set_string("media.factory.role", "user")
        auth = GstRtspServer.RTSPAuth.new()
        if options.digest:
            auth.set_supported_methods(GstRtsp.RTSPAuthMethod.DIGEST)
            auth.add_digest(options.user, options.password, token)
        else:
            auth.add_basic(GstRtspServer.RTSPAuth.make_basic(options.user, options.password), token)
        if options.tls is not None:
            auth.set_tls_certificate(Gio.TlsCertificate.new_from_file(options.tls))
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
    parser = argparse.ArgumentParser()
    parser.add_argument("codec", choices=CHAINS)
    parser.add_argument("user", nargs="?")
    parser.add_argument("password", nargs="?")
    parser.add_argument("--port", default="0", help="any free one (%(default)s)")
    parser.add_argument("--size", default="322x240")
    parser.add_argument("--fps", type=int, default=25)
    parser.add_argument("--file", help="serve this MP4 instead, at its own pace")
    parser.add_argument("--digest", action="store_true", help="the password goes over the line as a digest")
    parser.add_argument("--tls", metavar="PEM", help="the certificate and its key, for rtsps://")
    parser.add_argument("--silent", action="store_true", help="no sound beside the picture")
    parser.add_argument("--then", metavar="WxH", help="the size from a SIGUSR1 on")
    serve(parser.parse_args())
