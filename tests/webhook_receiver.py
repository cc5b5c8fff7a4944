"""A real HTTP server that takes webhooks, checks their signature and can be restarted at its port."""

from __future__ import annotations

import base64
import hashlib
import hmac
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from ports import free_port

PATIENCE_S = 60.0  # far more than anything here takes, on a machine with other work
KEY = b"a secret that nobody may see"
SECRET = f"whsec_{base64.b64encode(KEY).decode()}"


class Post(NamedTuple):
    path: str
    headers: dict[str, str]
    body: bytes
    signed: bool


class Answer(NamedTuple):
    status: int = 204
    headers: dict[str, str] = {}  # noqa: RUF012  # never changed
    body: bytes = b""


class Receiver:
    """Answers each POST with what `answer` makes of it, and remembers those that it answered with 2xx."""

    def __init__(self, answer: Callable[[Post], Answer] = lambda post: Answer()) -> None:
        self.answer = answer
        self.posts: list[Post] = []
        self.taken: list[Post] = []
        self.connections = 0
        self._heard = threading.Condition()
        self._open: set[socket.socket] = set()
        self._server: ThreadingHTTPServer | None = None
        self.port = free_port()
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/events"

    def start(self) -> None:
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                super().setup()
                with receiver._heard:
                    receiver.connections += 1
                    receiver._open.add(self.connection)

            def finish(self) -> None:
                with receiver._heard:
                    receiver._open.discard(self.connection)
                super().finish()

            def do_POST(self) -> None:
                length = int(self.headers["content-length"])
                body = self.rfile.read(length)
                if len(body) < length:  # the sender was killed in the middle of it
                    self.close_connection = True
                    return
                headers = {name.lower(): value for name, value in self.headers.items()}
                post = Post(self.path, headers, body, _is_signed(headers, body))
                answer = receiver.answer(post)
                with receiver._heard:
                    receiver.posts.append(post)
                    if 200 <= answer.status < 300:
                        receiver.taken.append(post)
                    receiver._heard.notify_all()
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                if answer.status != 204:
                    self.send_header("content-length", str(len(answer.body)))
                self.end_headers()
                self.wfile.write(answer.body)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: Any, client_address: Any) -> None:
                pass  # a client was killed, or this server was: that is what the tests are for

        self._server = Server(("127.0.0.1", self.port), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        """Ends it in the middle of what it does, with its open connections."""
        if self._server is None:
            return
        self._server.shutdown()
        self._server.server_close()
        self._server = None
        with self._heard:
            for connection in self._open:
                with suppress(OSError):  # the other end was killed, and its thread here has yet to see it
                    connection.shutdown(socket.SHUT_RDWR)
            self._open.clear()

    def wait_for(self, there: Callable[[Receiver], bool], timeout_s: float = PATIENCE_S) -> None:
        with self._heard:
            if not self._heard.wait_for(lambda: there(self), timeout_s):
                raise TimeoutError(f"{len(self.posts)} posts came, {len(self.taken)} were taken")

    def __enter__(self) -> Receiver:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def _is_signed(headers: dict[str, str], body: bytes) -> bool:
    signed = f"{headers.get('webhook-id')}.{headers.get('webhook-timestamp')}.".encode() + body
    expected = "v1," + base64.b64encode(hmac.new(KEY, signed, hashlib.sha256).digest()).decode()
    return headers.get("webhook-signature") == expected
