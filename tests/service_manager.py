"""What systemd does for a service of Type=notify: it listens."""

from __future__ import annotations

import socket
from types import TracebackType


class ServiceManager:
    """Listens at an address as NOTIFY_SOCKET has it: a path, or an abstract socket that begins with @."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(address.replace("@", "\0", 1))
        self._socket.setblocking(False)

    def heard(self) -> list[str]:
        """What came since the last call; the kernel keeps some ten lines, so call it often."""
        lines = []
        try:
            while True:
                lines.append(self._socket.recv(4096).decode())
        except BlockingIOError:
            return lines

    def __enter__(self) -> ServiceManager:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()
