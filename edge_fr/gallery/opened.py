"""A gallery's file while it is open: its connection, its mirror in memory, and whether it is still there."""

from __future__ import annotations

import os
import sqlite3
from contextlib import ExitStack
from typing import NamedTuple

from edge_fr.engine import ModelCard
from edge_fr.errors import GalleryError, GalleryFileError
from edge_fr.gallery.database import MEMORY, connect
from edge_fr.gallery.mirror import Mirror


class _Seen(NamedTuple):
    """What tells a file from one that later took its name, and its content from what it held before."""

    number: tuple[int, int]
    changed_ns: int
    size: int


class OpenFile:
    """The file at `path`, open on `db`, mirrored for the model of `card`.

    For one thread at a time, but `mirror` may be searched from any.
    """

    def __init__(self, db: sqlite3.Connection, path: str, card: ModelCard, *, busy_s: float) -> None:
        self._path = path
        self._card = card
        self._busy_s = busy_s
        self._seen = self._look()
        self._db: sqlite3.Connection | None = db
        self._sound = True  # as far as the last look tells
        self.mirror = Mirror(db, path, card)

    def require_open(self) -> None:
        """GalleryError when it was closed."""
        _ = self.db

    @property
    def db(self) -> sqlite3.Connection:
        """The connection; GalleryError when it was closed."""
        if self._db is None:
            raise GalleryError(f"gallery {self._path} is closed; Gallery.open opens it again")
        return self._db

    def close(self) -> None:
        """Closes the connection; twice is fine."""
        if self._db is not None:
            self._db.close()
            self._db = None

    def leave(self) -> None:
        """Closed, but for a connection that hangs: that goes when its thread is through."""
        self._db = None

    def require_same(self) -> None:
        """GalleryFileError when another file has the name now, or none has."""
        now = self._look()
        if (now and now.number) != (self._seen and self._seen.number):
            raise GalleryFileError(
                f"gallery {self._path} was deleted or replaced while it was open; open it again"
            )

    def refresh(self) -> bool:
        """Takes over what was committed; says whether anything was. GalleryFileError for another file."""
        self.require_same()
        return self.mirror.refresh()

    def keep_up(self) -> bool:
        """Takes over what was committed, or all of a file that took the place of the one that is open; says
        whether anything changed. Memory and connection stay as they are when that fails."""
        sound, self._sound = self._sound, False
        began_at, changed = self.mirror.version, False
        while True:
            version, seen = self.mirror.version, self._look()
            if seen is None:
                raise GalleryFileError(
                    f"gallery {self._path} is not there any more: deleted, moved, or its file system is "
                    f"away; put it back, or make another with `edge-fr enroll`"
                )
            same = sound and self._seen is not None and seen.number == self._seen.number
            changed = (same and self.mirror.refresh()) or changed
            if (
                not same or self.mirror.version == version
            ):  # else looked at in the middle of a commit, it may be
                break
        # Written to, and not by a commit: a copy of another gallery that has had as many of them.
        overwritten = seen != self._seen and self.mirror.version == began_at
        if not same or overwritten:
            self._open_again()
            changed = True
        self._seen, self._sound = seen, True
        return changed

    def _open_again(self) -> None:
        with ExitStack() as undo:
            db = connect(self._path, None, create=False, busy_s=self._busy_s)
            undo.callback(db.close)
            mirror = Mirror(db, self._path, self._card)
            undo.pop_all()
        self.db.close()
        self._db, self.mirror = db, mirror

    def _look(self) -> _Seen | None:
        """None where there is no file."""
        if self._path == MEMORY:
            return None
        try:
            status = os.stat(self._path)
        except FileNotFoundError:
            return None
        return _Seen((status.st_dev, status.st_ino), status.st_mtime_ns, status.st_size)
