"""Reads a source in its own thread, so that decoding and recognition overlap."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterable

from edge_fr.structures import Frame

_END = object()
_GLANCE_S = 0.1  # how often a waiting thread looks whether it is to stop


class FrameBuffer:
    """A few frames read ahead: the newest win on a live source, none is lost on a file.

    Iterate over it once. `dropped` counts the frames that were too old by the time they could be
    handled. What the source raises is raised here, after the frames that came before it. Setting
    `stop`, from a signal handler too, ends the iteration before its next frame.
    """

    def __init__(
        self, source: Iterable[Frame], *, live: bool, size: int = 2, stop: threading.Event | None = None
    ) -> None:
        self.dropped = 0
        self._asked = stop or threading.Event()
        self._source = source
        self._live = live
        self._queue: queue.Queue[object] = queue.Queue(size)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._read, name="edge-fr-reader", daemon=True)

    def __iter__(self) -> Generator[Frame, None, None]:
        self._thread.start()
        try:
            while not self._asked.is_set():
                try:
                    item = self._queue.get(timeout=_GLANCE_S)
                except queue.Empty:
                    continue
                if item is _END:
                    return
                if isinstance(item, BaseException):
                    raise item
                assert isinstance(item, Frame)
                yield item
        finally:
            self._stop.set()
            self._drain()
            self._thread.join(timeout=5)

    def _read(self) -> None:
        try:
            for frame in self._source:
                if self._stop.is_set():
                    return
                if self._live and self._queue.full():
                    self.dropped += self._drain()
                self._put(frame)
            self._put(_END)
        except BaseException as error:
            self._put(error)

    def _put(self, item: object) -> None:
        while not self._stop.is_set():
            try:
                self._queue.put(item, timeout=_GLANCE_S)
                return
            except queue.Full:
                continue

    def _drain(self) -> int:
        count = 0
        while True:
            try:
                self._queue.get_nowait()
                count += 1
            except queue.Empty:
                return count
