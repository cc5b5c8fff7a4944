"""What the outbox has stored: the events that wait, and how far each sink has come with them.

Storing an event is durable: it survives a power cut. How far a sink has come survives the process, but a
power cut may take the last of it back. That costs a repeated delivery at the most, and saves flash a
sync for every delivered event.

seq has no gaps: rows are only removed from the old end, and the newest never is.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from edge_fr.errors import InputError
from edge_fr.events.database import LOG_BYTES, claimed, connect, explained, prepare, transaction

MIN_BYTES = 8 << 20
REMEMBERED = 10_000  # so many delivered events are known again when they are written once more
_BATCH = 500  # rows in one transaction: the log holds all of a transaction's pages


class Entry(NamedTuple):
    """A stored event that a sink is not done with."""

    seq: int
    body: str


class Count(NamedTuple):
    """What became of a sink's events since the file was made; `waiting` is None for one no longer used."""

    waiting: int | None
    delivered: int
    refused: int
    lost: int


class Refused(NamedTuple):
    """An event that was set aside: its JSON and why."""

    body: str
    reason: str
    refused_at_us: int


class Ledger:
    """The file, for one process at a time; any of its threads may call."""

    def __init__(self, path: Path, sinks: Sequence[str], max_bytes: int) -> None:
        if max_bytes < MIN_BYTES:
            raise InputError(
                f"max_bytes is {max_bytes}, expected {MIN_BYTES} ({MIN_BYTES >> 20} MiB) or more"
            )
        self.path = path
        self._room_bytes = max_bytes - LOG_BYTES
        self._lock = threading.Lock()
        with ExitStack() as undo:
            undo.enter_context(claimed(path))
            with explained(path, "open"):
                self._durable = connect(path, "FULL")
                undo.callback(self._durable.close)
                prepare(self._durable, path)
                self._repeatable = connect(path, "NORMAL")
                undo.callback(self._repeatable.close)
                self.retired = self._enlist(sinks)
            self._undo = undo.pop_all()

    def close(self) -> None:
        with self._lock:
            self._undo.close()

    def append(self, key: bytes, body: str) -> bool:
        """Stores an event; on return it is on disk. False when the key is known: then nothing changes."""
        with self._turn("write to"), transaction(self._durable) as db:
            done = db.execute(
                "INSERT INTO events (key, body) VALUES (?, ?) ON CONFLICT (key) DO NOTHING", (key, body)
            )
            if done.rowcount == 0:
                return False
            self._make_room(db, keep=int(done.lastrowid or 0))
            return True

    def next(self, sink: str) -> Entry | None:
        """The oldest event that the sink is not done with."""
        with self._turn("read"):
            row = self._repeatable.execute(
                "SELECT seq, body FROM events WHERE seq > (SELECT position FROM sinks WHERE name = ?) "
                "ORDER BY seq LIMIT 1",
                (sink,),
            ).fetchone()
        return None if row is None else Entry(*row)

    def settle(self, sink: str, entry: Entry, refused: str | None) -> None:
        """The sink has delivered the event, or has refused it for the given reason."""
        with self._turn("write to"), transaction(self._repeatable) as db:
            before = _floor(db)
            # An event that was given up as lost while it was under way was not lost after all.
            db.execute(
                "UPDATE sinks SET lost = lost - (position >= :seq), position = max(position, :seq), "
                "delivered = delivered + :delivered, refused = refused + :refused WHERE name = :sink",
                {
                    "seq": entry.seq,
                    "sink": sink,
                    "delivered": int(refused is None),
                    "refused": int(refused is not None),
                },
            )
            if refused is not None:
                db.execute(
                    "INSERT INTO refused (sink, refused_at_us, reason, body) VALUES (?, ?, ?, ?)",
                    (sink, time.time_ns() // 1000, refused, entry.body),
                )
            _forget(db, before, _floor(db))

    def counts(self) -> dict[str, Count]:
        with self._turn("read"):
            newest = _newest(self._repeatable)
            rows = self._repeatable.execute("SELECT name, position, delivered, refused, lost FROM sinks")
            return {
                name: Count(None if position is None else newest - position, *rest)
                for name, position, *rest in rows.fetchall()
            }

    def refused(self, sink: str) -> list[Refused]:
        """What the sink set aside and the file still holds, oldest first."""
        with self._turn("read"):
            rows = self._repeatable.execute(
                "SELECT body, reason, refused_at_us FROM refused WHERE sink = ? ORDER BY id", (sink,)
            )
            return [Refused(*row) for row in rows.fetchall()]

    @contextmanager
    def _turn(self, doing: str) -> Iterator[None]:
        with self._lock, explained(self.path, doing):
            yield

    def _make_room(self, db: sqlite3.Connection, keep: int) -> None:
        """Removes the oldest until the file fits: first what was refused, then what waits."""
        while _used_bytes(db) > self._room_bytes:
            if db.execute("DELETE FROM refused WHERE id = (SELECT min(id) FROM refused)").rowcount:
                continue
            before = _floor(db)
            if before + 1 >= keep:
                return
            _lose(db, before + 1)
            _forget(db, before, before + 1)

    def _enlist(self, sinks: Sequence[str]) -> dict[str, int]:
        """Makes the named sinks those that events wait for; returns what others will now not get."""
        db = self._durable
        retired = {}
        with transaction(db):
            before, newest = _floor(db), _newest(db)
            for name, position in db.execute("SELECT name, position FROM sinks").fetchall():
                if name not in sinks and position is not None:
                    if newest > position:
                        retired[name] = newest - position
                    db.execute(
                        "UPDATE sinks SET position = NULL, lost = lost + ? WHERE name = ?",
                        (newest - position, name),
                    )
            for name in sinks:
                db.execute(
                    "INSERT INTO sinks (name, position) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE "
                    "SET position = coalesce(position, ?2)",
                    (name, newest),
                )
        after = _floor(db)
        for low in range(before, after, _BATCH):
            with transaction(db):
                _forget(db, low, min(low + _BATCH, after))
        room = False
        while not room:  # a max_bytes that has become smaller
            with transaction(db):
                for _ in range(_BATCH):
                    oldest = _floor(db) + 1
                    room = _used_bytes(db) <= self._room_bytes or oldest > newest
                    if room:
                        break
                    _lose(db, oldest)
                    _forget(db, oldest - 1, oldest)
        return retired


def _newest(db: sqlite3.Connection) -> int:
    return int(db.execute("SELECT coalesce(max(seq), 0) FROM events").fetchone()[0])


def _floor(db: sqlite3.Connection) -> int:
    """Every sink is done with the events up to this one."""
    position = db.execute("SELECT min(position) FROM sinks").fetchone()[0]
    return _newest(db) if position is None else int(position)


def _lose(db: sqlite3.Connection, seq: int) -> None:
    db.execute("UPDATE sinks SET lost = lost + 1, position = ?1 WHERE position < ?1", (seq,))


def _forget(db: sqlite3.Connection, before: int, after: int) -> None:
    """Removes events that have just become those that no sink waits for: `before` < seq <= `after`."""
    if after > before:
        db.execute("UPDATE events SET body = NULL WHERE seq > ? AND seq <= ?", (before, after))
        db.execute("DELETE FROM events WHERE seq <= ?", (after - REMEMBERED,))


def _used_bytes(db: sqlite3.Connection) -> int:
    pages, free, size = (
        db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
    )
    return int((pages - free) * size)
