"""The file that events are written to, one a line."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from types import TracebackType

from edge_fr.errors import EventError
from edge_fr.events.event import to_line
from edge_fr.structures import Event

_LINE_START = b'{"event_id"'


class JsonlSink:
    """Appends one event a line to a file, each on disk before `write` returns.

    A line cut short by a power failure is removed when the file is opened again; a file that ends in
    anything else is refused and left alone, as is one that another process is writing. When a write
    fails (a full disk), the file is cut back to its last whole line and the EventError holds the event
    that was not written.

    A new file is for its owner alone: it says who was seen where. One that is there keeps its rights.
    `candidates` writes all of each event's, see `to_json`.
    """

    def __init__(self, path: str | Path, *, candidates: bool = False) -> None:
        self.path = Path(path)
        self._candidates = candidates
        self.written = 0
        if self.path.exists() and not self.path.is_file():
            raise EventError(f"{self.path} is no regular file; name one, or use --json for a pipe")
        try:
            self._file = open(self.path, "ab+", buffering=0, opener=_for_the_owner)  # noqa: SIM115 - close()
        except OSError as error:
            raise EventError(
                f"cannot write events to {self.path}: {error.strerror}; name a file in a folder that "
                f"exists and that this user may write to"
            ) from error
        try:
            self._lock()
            self._mend_last_line()
        except BaseException:
            self._file.close()
            raise

    def write(self, event: Event) -> None:
        """Writes one event; EventError when it could not be written whole."""
        line = to_line(event, candidates=self._candidates).encode() + b"\n"
        end = self._file.seek(0, os.SEEK_END)
        try:
            try:
                rest = memoryview(line)
                while rest:  # a raw write may be short when the disk fills up
                    rest = rest[self._file.write(rest) or 0 :]
                os.fsync(self._file.fileno())
            except OSError:
                self._file.truncate(end)
                raise
        except OSError as error:
            raise EventError(
                f"cannot write to {self.path}: {error.strerror}; {self.written} events of this run are "
                f"safe in it; free some space and run again. Not written: {line.decode().strip()}"
            ) from error
        self.written += 1

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> JsonlSink:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise EventError(f"another process is writing {self.path}; name a file for each") from error

    def _mend_last_line(self) -> None:
        end = self._file.seek(0, os.SEEK_END)
        start = end
        tail = b""
        while start > 0 and b"\n" not in tail:
            start = max(0, start - 4096)
            self._file.seek(start)
            tail = self._file.read(end - start)
        last = tail.rpartition(b"\n")[2]
        if not last:
            return
        if not (last.startswith(_LINE_START) or _LINE_START.startswith(last)):
            raise EventError(
                f"{self.path} does not end in an event, so nothing is appended to it; name another file"
            )
        try:
            json.loads(last)
        except ValueError:  # cut short, perhaps within a character
            self._file.truncate(end - len(last))
        else:
            self._file.write(b"\n")  # whole: only its end of line is missing


def _for_the_owner(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
