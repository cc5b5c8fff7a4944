"""The outbox's file: one SQLite database, opened with care and explained when it fails.

Journal: SQLite's write-ahead log, so that storing an event costs one sync: in a connection with
`synchronous=FULL` a commit is on disk when it returns; with NORMAL it is not yet, but is never torn.

What is removed is overwritten with zeros in the file (`secure_delete`): it says who was seen where. Copies
that the log keeps until it is started anew, and those of the file system, are out of SQLite's reach.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from edge_fr.errors import EventError, upgrade_command

SCHEMA_VERSION = 1
LOG_BYTES = 2 << 20  # room for the log: twice _LOG_PAGES, because it grows until it is written back
_LOG_PAGES = 256  # of 4 KiB; at this size the log is written back into the file and started anew
_BUSY_S = 10.0
_APPLICATION_ID = 0x65666F62  # "efob"
_SCHEMA = (
    # key: of the dedupe key. body: JSON, NULL once every sink is done with it.
    "CREATE TABLE events (seq INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, body TEXT)",
    # position: done with every seq up to it. NULL: no longer used.
    """CREATE TABLE sinks (
        name TEXT PRIMARY KEY,
        position INTEGER,
        delivered INTEGER NOT NULL DEFAULT 0,
        refused INTEGER NOT NULL DEFAULT 0,
        lost INTEGER NOT NULL DEFAULT 0
    )""",
    # What a sink set aside, and why.
    """CREATE TABLE refused (
        id INTEGER PRIMARY KEY,
        sink TEXT NOT NULL,
        refused_at_us INTEGER NOT NULL,
        reason TEXT NOT NULL,
        body TEXT NOT NULL
    )""",
)


@contextmanager
def claimed(path: Path) -> Iterator[None]:
    """Holds the file for this process.

    By a file beside it: closing a second handle of the database itself would drop SQLite's own locks.
    """
    try:
        if path.exists() and not stat.S_ISREG(path.stat().st_mode):
            raise EventError(f"outbox {path} is no regular file; name a file such as events.db")
        handle = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise EventError(
            f"cannot open outbox {path}: {error.strerror}; name a file in a folder that exists and that "
            f"this user may write to"
        ) from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise EventError(f"another process uses outbox {path}; name a file for each") from error
        yield
    finally:
        os.close(handle)


def connect(path: Path, synchronous: Literal["FULL", "NORMAL"]) -> sqlite3.Connection:
    if not path.exists():
        # For its owner alone: it says who was seen where. SQLite gives its log the same rights.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)  # SQLite does that for its log only
        finally:
            os.close(folder)
    uri = f"file:{quote(os.fsencode(os.path.abspath(path)))}?mode=rw"
    db = sqlite3.connect(uri, uri=True, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
    try:
        db.execute(f"PRAGMA synchronous = {synchronous}")
        db.execute("PRAGMA secure_delete = ON")
        db.execute(f"PRAGMA wal_autocheckpoint = {_LOG_PAGES}")
        db.execute(f"PRAGMA journal_size_limit = {LOG_BYTES}")
    except BaseException:
        db.close()
        raise
    return db


def prepare(db: sqlite3.Connection, path: Path) -> None:
    """Makes the tables in an empty file; refuses a file that is not an outbox."""
    application_id = db.execute("PRAGMA application_id").fetchone()[0]
    tables = db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if tables and application_id != _APPLICATION_ID:
        raise EventError(
            f"cannot open outbox {path}: it is an SQLite database of another program (application id "
            f"{application_id:#x}, expected {_APPLICATION_ID:#x}); it was left as it is"
        )
    if version > SCHEMA_VERSION:
        raise EventError(
            f"outbox {path} was made by a newer edge-fr (schema {version}, this one reads up to "
            f"{SCHEMA_VERSION}): {upgrade_command()}"
        )
    if tables:
        finding = db.execute("PRAGMA quick_check(1)").fetchone()[0]
        if finding != "ok":
            raise sqlite3.DatabaseError(" ".join(str(finding).split()))
    mode = db.execute("PRAGMA journal_mode = WAL").fetchone()[0]
    if mode != "wal":
        raise EventError(
            f"cannot open outbox {path}: its file system cannot keep SQLite's write-ahead log (got {mode}); "
            f"name a file on a local disk"
        )
    if not tables:
        with transaction(db):
            for statement in _SCHEMA:
                db.execute(statement)
            db.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
            db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


@contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    db.execute("BEGIN IMMEDIATE")
    try:
        yield db
        db.execute("COMMIT")
    finally:
        if db.in_transaction:  # SQLite itself has already taken back what a full disk cut short
            db.execute("ROLLBACK")


@contextmanager
def explained(path: Path, doing: str) -> Iterator[None]:
    """Turns SQLite's errors into EventError: what failed, why, and what to do."""
    try:
        yield
    except sqlite3.ProgrammingError:
        raise  # a mistake in this package, not in the file
    except (sqlite3.Error, OSError) as error:
        raise EventError(f"cannot {doing} outbox {path}: {_reason(str(error), path)}") from error


def _reason(message: str, path: Path) -> str:
    # By SQLite's message: Python 3.10 does not give the error code.
    if "disk is full" in message:
        return f"the disk is full; the events in it are safe. Free some space: `df {path.parent}`"
    if "disk I/O" in message:
        return (
            f"the disk failed or is full ({message}); the events in it are safe. `df {path.parent}` shows "
            f"its space, `dmesg` what it reported"
        )
    if "locked" in message:
        return (
            f"another program holds it ({message}) and did not let go within {_BUSY_S:g} s; `fuser {path}` "
            f"names it"
        )
    if "readonly" in message or "unable to open" in message:
        return (
            f"the file or its folder is write-protected ({message}); both must be writable: "
            f"`ls -ld {path} {path.parent}`"
        )
    return (
        f"it is damaged or no outbox ({message}), and was left as it is. Move it away (`mv {path} "
        f"{path}.damaged`) and start again: events that wait in it are then not delivered"
    )
