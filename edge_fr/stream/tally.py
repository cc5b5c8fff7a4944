"""Counts the frames that a pipeline took in and never gave out."""

from __future__ import annotations

import threading

from edge_fr.stream.source import Losses


class Tally:
    """Counts the frames that went into the decoder or the sink's queue and never came out."""

    def __init__(self, losses: Losses) -> None:
        self._losses = losses
        self._lock = threading.Lock()
        self._under_way: set[int] = set()
        self._arrived = 0
        self._delivered = 0

    def encoded(self, pts_ns: int) -> None:
        with self._lock:
            self._under_way.add(pts_ns)

    def decoded(self, pts_ns: int) -> None:
        # Decoders give frames in the order of their times: what is older than this one will not come.
        # Before the first frame that is what a trimmed file leaves out, and no damage.
        with self._lock:
            lost = {p for p in self._under_way if p < pts_ns}
            self._under_way -= lost | {pts_ns}
            self._losses.damaged += len(lost) if self._arrived else 0
            self._arrived += 1

    def delivered(self) -> None:
        with self._lock:
            self._delivered += 1
            self._losses.dropped = max(0, self._arrived - self._delivered - 1)  # one may be waiting
