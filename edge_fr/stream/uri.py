"""What a source address means, and how to show it without its secrets."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from edge_fr.errors import InputError, SourceOpenError
from edge_fr.stream.content import is_picture

Kind = Literal["folder", "picture", "video", "rtsp", "mjpeg", "hls", "v4l2", "csi", "test"]
Transport = Literal["tcp", "udp"]

EXPECTED = (
    "a picture, a video or a folder/ of pictures, file:///path, 0 or v4l2:///dev/video0, csi://0, "
    "rtsp://user:password@host/path (rtspu:// for pictures over UDP, rtsps:// with TLS), http:// or https:// "
    "for MJPEG and HLS (.m3u8), or test://"
)
_OPTIONS = {
    "v4l2": ("width", "height", "fps"),
    "csi": ("width", "height", "fps"),
    "test": ("width", "height", "fps", "frames"),
}
_LEAST_SECRET = 3  # characters; hiding shorter ones would only spoil the text
_SECRET_WORDS = "passwd|password|pass|passphrase|pwd|pw|secret|token|apikey|api_key|auth|authtoken"
_CREDENTIALS = re.compile(r"(?<=://)[^/?#\s]*@")
_CREDENTIALS_OF_ADDRESS = re.compile(r"(?<=://)[^/?#]*@")  # a space in them as well
_SECRET_VALUES = re.compile(rf"((?<![a-z0-9])(?:{_SECRET_WORDS})=)[^&\s\"']*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Address:
    """A source address taken apart.

    `target` is what a reader opens: a path, a device, a sensor number, or the URL with its
    credentials; it is not for printing. `shown` is the address without secrets, `camera` a short name
    made from it, `options` the whole numbers after the question mark. `transport` is how a network
    camera's pictures come. `secrets` are what `hide` takes out of what others say of the address.
    """

    kind: Kind
    target: str = field(repr=False)
    shown: str
    camera: str
    options: dict[str, int] = field(default_factory=dict)
    transport: Transport = "tcp"
    secrets: tuple[str, ...] = field(default=(), repr=False)

    def hide(self, text: str) -> str:
        """What a library says, without the secrets of this address, and of any other."""
        return redact(text, self.secrets)

    @property
    def live(self) -> bool:
        return self.kind in ("rtsp", "mjpeg", "hls", "v4l2", "csi")


def redact(text: str, secrets: Collection[str] = ()) -> str:
    """The text with the credentials of every URL in it, every password=..., and the `secrets`, as they are or
    percent-encoded, as ***."""
    for secret in sorted({form for s in secrets for form in (s, quote(s), quote(s, safe=""))}, key=len)[::-1]:
        if len(secret) >= _LEAST_SECRET:
            text = text.replace(secret, "***")
    return _SECRET_VALUES.sub(r"\1***", _CREDENTIALS.sub("***@", text))


def parse(uri: str | int | Path, secrets: Collection[str] = ()) -> Address:
    """Takes an address apart; a file or folder has to be there. `secrets` are parts of it that are never to
    be shown, beside its user and password.

    Raises InputError for an address that means nothing, SourceOpenError for a path that leads nowhere.
    """
    text = str(uri)
    if text.isascii() and text.isdecimal():
        return Address("v4l2", f"/dev/video{int(text)}", text, f"video{int(text)}")
    if "://" not in text:
        if not text:
            raise InputError(f"the source address is empty, expected {EXPECTED}")
        return _path(Path(text), text)
    scheme = text.partition("://")[0].lower()
    if scheme == "file":
        return _file(text)
    if scheme in ("rtsp", "rtspu", "rtsps", "http", "https"):
        return _network(text, scheme, secrets)
    if scheme in _OPTIONS:
        return _device(scheme, text)
    raise InputError(
        f"unknown scheme {scheme!r} in the source address {_shown(text, secrets)!r}, expected {EXPECTED}"
    )


def _path(path: Path, shown: str) -> Address:
    try:
        is_folder = path.is_dir()
    except OSError as error:  # a folder on the way that this user may not enter, or a name without end
        raise SourceOpenError(f"cannot open {shown!r}: {error.strerror}") from error
    if is_folder:
        return Address("folder", str(path.absolute()), shown, path.resolve().name)
    if not path.exists():
        raise SourceOpenError(f"there is no file or folder {shown!r}, expected {EXPECTED}")
    if not path.is_file():  # a pipe nobody writes into would be waited for until the end of days
        raise SourceOpenError(f"{shown!r} is a pipe or a device and no file, expected {EXPECTED}")
    kind: Kind = "picture" if is_picture(path) else "video"
    return Address(kind, str(path.absolute()), shown, path.stem)


def _file(text: str) -> Address:
    host, slash, path = text[len("file://") :].partition("/")
    if host not in ("", "localhost") or not slash:
        raise InputError(f"{text!r} has no absolute path, expected three slashes: file:///home/user/clip.mp4")
    return _path(Path("/" + unquote(path)), text)


def _shown(text: str, secrets: Collection[str]) -> str:
    """An address without its secrets."""
    return redact(_CREDENTIALS_OF_ADDRESS.sub("***@", text), secrets)


def _network(text: str, scheme: str, secrets: Collection[str]) -> Address:
    # A password may hold any character. One that ends the host part early (/ ? #) would be taken for
    # the host and printed, so an address with a stray @ or # is refused, and all before the @ hidden.
    authority, _, rest = text.partition("://")[2].partition("/")
    if "@" in rest or "#" in text or "?" in authority:
        shown = re.sub(r"://.*@", "://***@", text, flags=re.DOTALL).partition("#")[0]
        raise InputError(
            f"cannot tell the password from the host in {redact(shown, secrets)!r}; in an address write "
            "%40 for @, %23 for #, %2F for /, %3F for ? and %25 for %"
        )
    shown = _shown(text, secrets)
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError as error:  # a port that is no number, a lone [ or ]
        raise InputError(
            f"{shown!r} has no proper host and port, expected {scheme}://user:password@host:port/path; "
            "in a password write %5B for [ and %5D for ]"
        ) from error
    if not host:
        raise InputError(f"{shown!r} names no host, expected {scheme}://user:password@host/path")
    camera = host + (f":{port}" if port else "") + parts.path.rstrip("/")
    udp = scheme == "rtspu"
    kind: Kind = "rtsp"
    if scheme.startswith("http"):
        kind = "hls" if parts.path.lower().endswith(".m3u8") else "mjpeg"
    target = "rtsp" + text[len("rtspu") :] if udp else text
    own = [form for form in (parts.password, unquote(parts.password or "")) if form]
    return Address(
        kind,
        target,
        shown,
        redact(camera, secrets),
        transport="udp" if udp else "tcp",
        secrets=(*secrets, *own),
    )


def _device(scheme: str, text: str) -> Address:
    parts = urlsplit(text)
    options: dict[str, int] = {}
    for key, value in parse_qsl(parts.query, keep_blank_values=True):
        if key not in _OPTIONS[scheme]:
            raise InputError(f"{text!r}: unknown option {key!r}, expected {', '.join(_OPTIONS[scheme])}")
        if not (value.isascii() and value.isdecimal() and 0 < int(value) <= 1_000_000):
            raise InputError(f"{text!r}: {key} is {value!r}, expected a whole number from 1 to 1000000")
        options[key] = int(value)
    if ("width" in options) != ("height" in options) and scheme != "test":
        raise InputError(f"{text!r}: width and height go together, for example ?width=1280&height=720")
    if scheme == "v4l2" and parts.netloc == "" and len(parts.path) > 1:
        return Address("v4l2", parts.path, text, Path(parts.path).name, options)
    if scheme == "csi" and parts.netloc.isdecimal() and parts.path in ("", "/"):
        return Address("csi", parts.netloc, text, f"csi{parts.netloc}", options)
    if scheme == "test" and not parts.netloc and parts.path in ("", "/"):
        return Address("test", "", text, "test", options)
    example = {"v4l2": "v4l2:///dev/video0", "csi": "csi://0", "test": "test://?width=640&frames=100"}
    raise InputError(f"{text!r} is no {scheme} address, expected for example {example[scheme]}")
