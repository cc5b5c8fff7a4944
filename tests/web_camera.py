"""A camera's web server on loopback: real MJPEG, files, passwords, and TLS with a certificate of its own."""

from __future__ import annotations

import base64
import hashlib
import re
import ssl
import subprocess
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType

Answer = Callable[[BaseHTTPRequestHandler], None]


class WebCamera:
    """Answers each path with a function; a password is asked for by `method` where `user` is given."""

    def __init__(
        self,
        answers: dict[str, Answer],
        *,
        user: str | None = None,
        password: str = "",
        method: str = "basic",
        certificate: Path | None = None,
        port: int = 0,
    ) -> None:
        self.asked: list[str] = []
        self.over = threading.Event()
        camera = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.0"

            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                camera.asked.append(self.path)
                said = self.headers.get("Authorization", "")
                if user is not None and not _allowed(said, user, password, self.path):
                    self.send_response(401)
                    self.send_header("WWW-Authenticate", _CHALLENGES[method])
                    self.end_headers()
                elif path in answers:
                    answers[path](self)
                else:
                    self.send_error(404)

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: object) -> None:  # whoever watched had enough
                pass

        self._server = Server(("127.0.0.1", port), Handler)
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.host = f"127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    def __enter__(self) -> WebCamera:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.over.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


_CHALLENGES = {
    "basic": 'Basic realm="camera"',
    "digest": 'Digest realm="camera", qop="auth", nonce="7f3a"',
    "sha-256": 'Digest realm="camera", qop="auth", nonce="7f3a", algorithm=SHA-256',
}


def _allowed(said: str, user: str, password: str, uri: str) -> bool:
    if said.startswith("Basic "):
        return base64.b64decode(said[6:]).decode() == f"{user}:{password}"
    given = {
        m[1]: m[2] if m[2] is not None else m[3] for m in re.finditer(r'(\w+)=(?:"([^"]*)"|([^\s,]+))', said)
    }
    if not given:
        return False

    def digest(text: str) -> str:
        return hashlib.new(
            "sha256" if given.get("algorithm") == "SHA-256" else "md5", text.encode()
        ).hexdigest()

    middle = ":".join([given["nonce"], given["nc"], given["cnonce"], given["qop"]])
    expected = digest(f"{digest(f'{user}:camera:{password}')}:{middle}:{digest(f'GET:{uri}')}")
    return given["response"] == expected


def mjpeg(
    pictures: Callable[[], object],
    *,
    boundary: str = "frame",
    stated: str | None = None,
    length: bool = True,
    period_s: float = 0.02,
) -> Answer:
    """A stream of what `pictures` gives, JPEG as bytes; `stated` is the boundary that the header says."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Type", f"multipart/x-mixed-replace; boundary={stated or boundary}")
        request.end_headers()
        for content in pictures():  # type: ignore[attr-defined]
            head = f"--{boundary}\r\nContent-Type: image/jpeg\r\n"
            head += f"Content-Length: {len(content)}\r\n" if length else ""
            request.wfile.write(head.encode() + b"\r\n" + content + b"\r\n")
            time.sleep(period_s)

    return answer


def content(kind: str, body: bytes) -> Answer:
    """One body of that type."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Type", kind)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)

    return answer


def self_signed(folder: Path, name: str) -> Path:
    """A PEM file with a key and the certificate that it made itself, for a host of that name."""
    path = folder / f"{name}.pem"
    key, certificate = folder / "key", folder / "certificate"
    subprocess.run(
        [
            *(
                "openssl",
                "req",
                "-x509",
                "-newkey",
                "rsa:2048",
                "-nodes",
                "-days",
                "2",
                "-subj",
                f"/CN={name}",
            ),
            *("-addext", f"subjectAltName=DNS:{name}", "-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
    )
    path.write_bytes(key.read_bytes() + certificate.read_bytes())
    (folder / f"{name}.crt").write_bytes(certificate.read_bytes())
    return path
