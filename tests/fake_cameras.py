"""Network cameras on loopback: a real one, and servers that answer what no camera should."""

from __future__ import annotations

import random
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType

SERVER = Path(__file__).with_name("stream_rtsp_server.py")
Answer = Callable[["socket.socket", threading.Event], None]


class NoRtspServer(Exception):
    """GStreamer's RTSP server is not installed."""


def start_server(*arguments: str) -> tuple[int, subprocess.Popen[str]]:
    """Starts the real one (arguments: stream_rtsp_server.py); its port and its process, to be killed."""
    command = [sys.executable, str(SERVER), *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    port = process.stdout.readline().strip()
    if not port:
        _, told = process.communicate()
        if "Namespace GstRtspServer not available" in told:
            raise NoRtspServer("gir1.2-gst-rtsp-server-1.0 is not installed")
        raise AssertionError(told)
    return int(port), process


class RawServer:
    """Answers every connection to a port of loopback (0: a free one) with a function, each in a thread.

    The function gets the connection and an event that is set when the server is closed.
    """

    def __init__(self, answer: Answer, port: int = 0) -> None:
        self.connections = 0
        self._answer = answer
        self._over = threading.Event()
        self._listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind(("127.0.0.1", port))
        self._listener.listen()
        self.port: int = self._listener.getsockname()[1]
        self._open: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def __enter__(self) -> RawServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._listener.shutdown(socket.SHUT_RDWR)  # wakes accept
        self._listener.close()
        self._threads[0].join()
        for connection in self._open:
            with suppress(OSError):  # the other end was faster
                connection.shutdown(socket.SHUT_RDWR)  # wakes recv and send
        for thread in self._threads[1:]:
            thread.join()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return  # closed
            self.connections += 1
            self._open.append(connection)
            thread = threading.Thread(target=self._serve, args=(connection,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):  # the other end had enough
            self._answer(connection, self._over)


def silent(connection: socket.socket, over: threading.Event) -> None:
    """Accepts, and never says a word."""
    over.wait()


def random_bytes(connection: socket.socket, over: threading.Event) -> None:
    """Noise, for as long as it is read."""
    noise = random.Random(1)
    while not over.is_set():
        connection.sendall(noise.randbytes(4096))


def endless_headers(connection: socket.socket, over: threading.Event) -> None:
    """An answer whose header never ends, at 1 MB a second."""
    connection.recv(4096)
    connection.sendall(b"RTSP/1.0 200 OK\r\nCSeq: 1\r\n")
    while not over.is_set():
        connection.sendall(b"".join(b"X-Line-%d: %s\r\n" % (i, b"a" * 80) for i in range(110)))
        time.sleep(0.01)


def _answering(describe: bytes) -> Answer:
    def answer(connection: socket.socket, over: threading.Event) -> None:
        while not over.is_set():
            asked = connection.recv(4096).decode(errors="replace")
            if not asked:
                return
            number = next(line.split()[1] for line in asked.splitlines() if line.startswith("CSeq"))
            head = f"RTSP/1.0 200 OK\r\nCSeq: {number}\r\n".encode()
            if asked.startswith("OPTIONS"):
                connection.sendall(head + b"Public: DESCRIBE, SETUP, PLAY\r\n\r\n")
            else:
                connection.sendall(head + describe)

    return answer


def jpeg_sender(packets: Callable[[], Iterator[bytes]]) -> Answer:
    """A camera that sends RTP/JPEG (RFC 2435): what `packets` gives, each a payload with its own header,
    all of one moment, and none marked as the last one of a picture."""

    def answer(connection: socket.socket, over: threading.Event) -> None:
        told = (
            b"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nt=0 0\r\nm=video 0 RTP/AVP 26\r\na=control:video\r\n"
        )
        replies = {
            "OPTIONS": b"Public: DESCRIBE, SETUP, PLAY\r\n\r\n",
            "DESCRIBE": SDP + b"Content-Length: %d\r\n\r\n%s" % (len(told), told),
            "SETUP": b"Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\nSession: 1\r\n\r\n",
            "PLAY": b"Session: 1\r\nRange: npt=0-\r\n\r\n",
        }
        verb = ""
        while verb != "PLAY":
            asked = connection.recv(4096).decode(errors="replace")
            if not asked:
                return
            verb = asked.split()[0]
            number = next(line.split()[1] for line in asked.splitlines() if line.startswith("CSeq"))
            connection.sendall(f"RTSP/1.0 200 OK\r\nCSeq: {number}\r\n".encode() + replies[verb])
        paused_at = sent = 0
        for number, payload in enumerate(packets()):
            if over.is_set():
                return
            # At 20 MB a second at the most: what comes while a reader's thread stands still is its memory.
            if sent - paused_at > 10_000:
                paused_at = sent
                time.sleep(0.0005)
            sent += len(payload)
            packet = struct.pack(">BBHII", 0x80, 26, number & 0xFFFF, 9000, 1) + payload
            connection.sendall(b"$\0" + struct.pack(">H", len(packet)) + packet)

    return answer


def endless_picture() -> Iterator[bytes]:
    """Part after part of one JPEG picture, whose offsets begin anew after 16 MiB."""
    content, offset = bytes([0x55]) * 11_200, 0
    while True:
        tables = struct.pack(">BBH", 0, 0, 128) + bytes(range(1, 129)) if offset == 0 else b""
        head = struct.pack(">BBHBBBB", 0, offset >> 16, offset & 0xFFFF, 1, 255, 40, 30)
        yield head + tables + content
        offset = (offset + len(content)) & 0xFFFFFF


def gigantic_picture() -> Iterator[bytes]:
    """The last part of a JPEG picture of 16 MiB, again and again, and tables said to have 64 KiB."""
    while True:
        for offset in (0, 0xFFFFF0):
            tables = struct.pack(">BBH", 0, 0, 0xFFFF) + bytes(128) if offset == 0 else b""
            yield (
                struct.pack(">BBHBBBB", 0, offset >> 16, offset & 0xFFFF, 1, 255, 255, 255)
                + tables
                + b"\x55" * 900
            )


SDP = b"Content-Type: application/sdp\r\n"
GARBAGE: dict[str, Answer] = {
    "random bytes": random_bytes,
    "endless headers": endless_headers,
    "a length of 4 GB": _answering(SDP + b"Content-Length: 4294967295\r\n\r\nv=0\r\n"),
    "a negative length": _answering(SDP + b"Content-Length: -1\r\n\r\nv=0\r\n"),
    "a length too short": _answering(SDP + b"Content-Length: 3\r\n\r\nv=0\r\nm=video 0 RTP/AVP 96\r\n"),
    "a description of nothing": _answering(SDP + b"Content-Length: 5\r\n\r\nv=0\r\n"),
    "a description of noise": _answering(SDP + b"Content-Length: 256\r\n\r\n" + bytes(range(256))),
    "binary data before its time": _answering(b"\r\n$\x00\xff\xff" + b"\x80\x60" * 100),
}
