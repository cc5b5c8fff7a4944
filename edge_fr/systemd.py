"""What a service tells systemd about itself: the notify protocol, one line a datagram (man sd_notify)."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Callable, Mapping

from edge_fr.errors import InputError

log = logging.getLogger(__name__)


class Service:
    """This process as a service of Type=notify; where systemd did not start it as one, nothing is told.

    Call `alive` again and again from what must not stand still, and only from there: the first call says
    that the service is ready, the others that it need not be restarted. They are sent three times in
    WatchdogSec, however often it is called. Nothing here ever waits. Raises InputError when NOTIFY_SOCKET
    or WATCHDOG_USEC mean nothing.
    """

    def __init__(
        self, environment: Mapping[str, str] = os.environ, *, now_ns: Callable[[], int] = time.monotonic_ns
    ) -> None:
        self.is_ready = False
        self._address = _address(environment.get("NOTIFY_SOCKET", ""))
        self._period_ns = _period_ns(environment)
        self._now_ns = now_ns
        self._due_ns = 0

    def alive(self) -> None:
        """It is up and works: READY=1 the first time, then WATCHDOG=1 as often as systemd asked for."""
        if not self.is_ready:
            self.is_ready = self._send("READY=1")
        now_ns = self._now_ns()
        if self._period_ns and now_ns >= self._due_ns and self._send("WATCHDOG=1"):
            self._due_ns = now_ns + self._period_ns

    def stopping(self) -> None:
        """It was asked to stop, and brings what it has begun to an end."""
        self._send("STOPPING=1")

    def _send(self, line: str) -> bool:
        """Whether it needs no other attempt; systemd's queue may be full for a moment."""
        if self._address is None:
            return True
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as out:
            out.setblocking(False)
            try:
                out.sendto(line.encode(), self._address)
            except BlockingIOError:
                return False
            except OSError as error:  # if it stays so, systemd's own time limits act on it
                log.warning("systemd could not be told %s: %s", line, error)
        return True


def _address(stated: str) -> str | None:
    if not stated:
        return None
    if stated[0] not in "/@":
        raise InputError(
            f"NOTIFY_SOCKET is {stated!r}, expected a path or an abstract socket that begins with @; "
            "start edge-fr as a service of Type=notify, or unset it"
        )
    return "\0" + stated[1:] if stated[0] == "@" else stated


def _period_ns(environment: Mapping[str, str]) -> int:
    """How often the watchdog wants to hear of us; 0: never, or of another process."""
    stated = environment.get("WATCHDOG_USEC", "")
    if not stated or environment.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return 0
    if not (stated.isascii() and stated.isdecimal()):
        raise InputError(f"WATCHDOG_USEC is {stated!r}, expected a whole number of microseconds")
    return int(stated) * 1000 // 3
