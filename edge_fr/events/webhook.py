"""Events to an HTTP server, each a signed POST in the manner of Standard Webhooks."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import http.client
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from email.utils import parsedate_to_datetime
from typing import NamedTuple
from urllib.parse import urlsplit

from edge_fr.errors import DeliveryError, InputError, RefusedError
from edge_fr.events.delivery import Letter

# About this one event: sent again, it would be refused again. Any other answer is about the moment or
# about the address (404 while a server is redeployed, 401 until a secret is corrected).
_REFUSED = {400, 410, 413, 415, 422}
_ANSWER_BYTES = 1 << 16  # more of an answer is not read


class _Answer(NamedTuple):
    status: int
    retry_after: str | None
    text: str


def sign(key: bytes, event_id: str, timestamp_s: int, body: bytes) -> str:
    """The `webhook-signature`: HMAC-SHA256 over id, time and body, joined by full stops."""
    signed = b".".join((event_id.encode(), str(timestamp_s).encode(), body))
    return "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()


class WebhookDelivery:
    """Sends each event as a POST with its JSON as the body, signed with the secret.

    The headers are those of Standard Webhooks: `webhook-id` (the event id, the same at every attempt),
    `webhook-timestamp` (seconds, of the attempt) and `webhook-signature`; its libraries check them. The
    secret is "whsec_" and 24 to 64 bytes in base64: `echo whsec_$(openssl rand -base64 32)`.

    2xx is a delivery. 400, 410, 413, 415 and 422 refuse the event for good; it is set aside. After
    everything else, no answer within `timeout_s` and 429 or 503 with Retry-After among them, it is sent
    again; redirects are not followed. The server's certificate is checked against the machine's
    authorities, or those that the environment variable SSL_CERT_FILE names.

    Messages name the scheme, host and port: the path may hold a token. Raises InputError.
    """

    def __init__(self, url: str, *, secret: str, name: str = "webhook", timeout_s: float = 10.0) -> None:
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise InputError("the webhook's address is no URL; expected https://host/path") from None
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InputError(
                f"a webhook's address starts with https:// or http://, got {parts.scheme or 'none'}://"
            )
        if parts.username is not None or parts.password is not None:
            raise InputError(
                f"the address of the webhook at {parts.hostname} holds a user or a password; leave them out, "
                f"the signature says who sends"
            )
        if not (url.isascii() and url.isprintable() and " " not in url):
            raise InputError(
                f"the address of the webhook at {parts.hostname} holds a character that has to be "
                f"percent-encoded"
            )
        if not 0 < timeout_s <= 300:
            raise InputError(f"timeout_s is {timeout_s}, expected more than 0 and at most 300 seconds")
        self.name = name
        self._key = _key(secret)
        self._secure = parts.scheme == "https"
        self._host, self._port = parts.hostname, port or (443 if self._secure else 80)
        self._target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._where = f"{parts.scheme}://{parts.hostname}:{self._port}"
        self._timeout_s = timeout_s
        self._tls = ssl.create_default_context() if self._secure else None
        self._connection: http.client.HTTPConnection | None = None

    def __repr__(self) -> str:
        return f"WebhookDelivery({self.name!r}, {self._where})"

    def start(self, retry_now: Callable[[], None]) -> None:
        """Nothing to do: a connection is made when there is an event."""

    def deliver(self, letter: Letter) -> None:
        now_s = int(time.time())
        headers = {
            "content-type": "application/json",
            "user-agent": "edge-fr",
            "webhook-id": letter.event_id,
            "webhook-timestamp": str(now_s),
            "webhook-signature": sign(self._key, letter.event_id, now_s, letter.body),
        }
        answer = self._post(letter.body, headers)
        if 200 <= answer.status < 300:
            return
        phrase = http.client.responses.get(answer.status, "")
        said = f": {answer.text}" if answer.text else ""
        what = f"{self._where} answered {answer.status} {phrase}".rstrip() + said
        if answer.status in _REFUSED:
            raise RefusedError(what)
        if 300 <= answer.status < 400:
            what += " (redirects are not followed: name the new address)"
        elif answer.status in (401, 403):
            what += " (does it know the secret?)"
        raise DeliveryError(what, retry_after_s=_seconds(answer.retry_after), answered=True)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _post(self, body: bytes, headers: dict[str, str]) -> _Answer:
        reused = self._connection is not None
        try:
            try:
                return self._exchange(body, headers)
            except (ConnectionError, ssl.SSLError):
                if not reused:
                    raise
                # The server closed a connection that had been idle; that says nothing about the event.
                return self._exchange(body, headers)
        except (OSError, http.client.HTTPException) as error:
            why = str(error) or type(error).__name__
            raise DeliveryError(f"{self._where} cannot be reached: {why}") from error

    def _exchange(self, body: bytes, headers: dict[str, str]) -> _Answer:
        try:
            if self._connection is None:
                self._connection = self._connect()
            connection = self._connection
            with self._deadline(connection.sock):
                connection.request("POST", self._target, body, headers)
                response = connection.getresponse()
                text = response.read(_ANSWER_BYTES)
            # More than we care to read, or a server that closes by itself.
            if not response.isclosed() or connection.sock is None:
                self.close()
        except BaseException:
            self.close()
            raise
        said = "".join(c if c.isprintable() else " " for c in text[:200].decode("utf-8", "replace"))
        return _Answer(response.status, response.getheader("retry-after"), said.strip())

    def _connect(self) -> http.client.HTTPConnection:
        connection: http.client.HTTPConnection
        if self._tls is None:
            connection = http.client.HTTPConnection(self._host, self._port, timeout=self._timeout_s)
        else:
            connection = http.client.HTTPSConnection(
                self._host, self._port, timeout=self._timeout_s, context=self._tls
            )
        try:
            connection.connect()
        except BaseException:
            connection.close()
            raise
        return connection

    @contextmanager
    def _deadline(self, sock: socket.socket) -> Iterator[None]:
        """Ends the exchange after `timeout_s`: the socket's own time-out begins anew with every byte."""
        late = threading.Event()

        def end() -> None:
            late.set()
            with suppress(OSError):  # it is closed already
                # Not SSLSocket.shutdown, which takes the encryption away under the reading thread.
                socket.socket.shutdown(sock, socket.SHUT_RDWR)

        timer = threading.Timer(self._timeout_s, end)
        timer.daemon = True
        timer.start()
        try:
            yield
        except (OSError, http.client.HTTPException):
            if not late.is_set():
                raise
        finally:
            timer.cancel()
        if late.is_set():  # what was read until then may look like an answer
            raise TimeoutError(f"no whole answer within {self._timeout_s:g} s")


def _key(secret: str) -> bytes:
    help = "make one with `echo whsec_$(openssl rand -base64 32)` and give it to the receiver, too"
    prefix, _, text = secret.partition("_")
    try:
        key = base64.b64decode(text, validate=True) if prefix == "whsec" else b""
    except (binascii.Error, ValueError):
        key = b""
    if not 24 <= len(key) <= 64:
        raise InputError(f'a webhook\'s secret is "whsec_" and 24 to 64 bytes in base64; {help}')
    return key


def _seconds(retry_after: str | None) -> float | None:
    """The pause that the header asks for, a number of seconds or a date; None when it says neither."""
    if retry_after is None:
        return None
    if retry_after.strip().isdecimal():
        return float(retry_after)
    try:
        return max(0.0, parsedate_to_datetime(retry_after).timestamp() - time.time())
    except (TypeError, ValueError, OverflowError):
        return None
