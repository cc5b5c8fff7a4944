"""A few pages about a running site, for Prometheus and for whoever asks whether it is well."""

from __future__ import annotations

import errno
import json
import logging
import socket
import socketserver
import threading
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from edge_fr.errors import InputError
from edge_fr.health import Health

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment  # from Python 3.11 on

log = logging.getLogger(__name__)
_PLAIN = [("Content-Type", "text/plain; charset=utf-8")]
_STALLED_S = 5.0  # whoever sends nothing for that long is hung up on


class Monitor:
    """Serves `pages`, WSGI applications by their paths, in threads of its own until `close`.

    It answers as soon as it is made; port 0 takes a free one (`url` says which). Only to be read, by
    anybody who can reach the address. Raises InputError when it cannot have the address or port.
    """

    def __init__(self, address: str, port: int, pages: Mapping[str, WSGIApplication]) -> None:
        try:
            family = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)[0][0]
            self._server = _Server(family, address, port)
        except OSError as error:
            raise InputError(_why_not(address, port, error)) from error
        self._server.set_app(_by_path(pages))
        host = f"[{address}]" if family == socket.AF_INET6 else address
        self.url = f"http://{host}:{self._server.server_port}"
        self._thread = threading.Thread(
            target=self._server.serve_forever,
            kwargs={"poll_interval": 0.1},
            name="edge-fr-monitor",
            daemon=True,
        )
        self._thread.start()

    def close(self) -> None:
        """Stops answering; an answer under way ends by itself."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def __enter__(self) -> Monitor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def health_page(report: Callable[[], Health]) -> WSGIApplication:
    """`report` as JSON: 200 when it is a good one, 503 with the reasons when not."""

    def page(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            start_response("405 Method Not Allowed", [*_PLAIN, ("Allow", "GET, HEAD")])
            return [b"this page is only read\n"]
        health = report()
        body = {"ok": health.ok, "reasons": health.reasons, **health.details}
        headers = [("Content-Type", "application/json"), ("Cache-Control", "no-store")]
        start_response("200 OK" if health.ok else "503 Service Unavailable", headers)
        return [json.dumps(body, ensure_ascii=True, indent=1).encode() + b"\n"]

    return page


def _by_path(pages: Mapping[str, WSGIApplication]) -> WSGIApplication:
    def route(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        page = pages.get(environ.get("PATH_INFO", ""))
        if page is None:
            start_response("404 Not Found", _PLAIN)
            return [f"here are {' and '.join(pages)}\n".encode()]
        return page(environ, start_response)

    return route


def _why_not(address: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"port {port} on {address} is taken by another program; `ss -ltnp` says which. Stop it, or "
            "write another port into the site's file, metrics.port"
        )
    return (
        f"metrics cannot be served on {address}, port {port}: {error.strerror or error}; give an address of "
        "this machine in the site's file, metrics.address (127.0.0.1: only for this machine)"
    )


class _Handler(WSGIRequestHandler):
    timeout = _STALLED_S

    def log_message(self, format: str, *args: Any) -> None:
        log.debug(format, *args)


class _Server(socketserver.ThreadingMixIn, WSGIServer):
    daemon_threads = True  # a reader that stalls holds up neither the others nor our end

    def __init__(self, family: socket.AddressFamily, address: str, port: int) -> None:
        self.address_family = family
        super().__init__((address, port), _Handler)

    def server_bind(self) -> None:
        # The parent would ask the network's name service for this machine's full name, and wait for it.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]
        self.setup_environ()

    def handle_error(self, request: Any, client_address: Any) -> None:
        log.debug("the reader %s went away or stalled", client_address, exc_info=True)
