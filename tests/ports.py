"""A port for a server that is away for a while and comes back at the same one."""

from __future__ import annotations

import random
import socket
from pathlib import Path

_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_FROM = 10_000


def free_port() -> int:
    """A port that nobody listens at and that the system gives to nobody: those it chooses itself, for a
    server that takes any and for each connection that begins here, are of a range of their own. One of that
    range could be gone when the server comes back, or be that of the connection that looks for the server.
    """
    chosen_by_the_system_from = int(_RANGE.read_text().split()[0]) if _RANGE.exists() else 32_768
    ports = range(_FROM, max(_FROM + 1, chosen_by_the_system_from))
    for port in [*random.SystemRandom().sample(ports, min(200, len(ports))), 0]:  # 0: any, rather than none
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue  # taken
            return int(probe.getsockname()[1])
    raise AssertionError("this machine has no free port")
