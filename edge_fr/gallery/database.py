"""The gallery's file: one SQLite database, opened with care and explained when it fails.

Opening changes nothing in a file, whole or damaged, except that a write which a power cut left
unfinished is undone.

Journal: SQLite's rollback journal (DELETE), not its write-ahead log. Searches run in memory, so there
are no readers for a write-ahead log to spare; in exchange the gallery is one file, which can be copied
whole, opened on write-protected media and kept where processes cannot share memory.
`synchronous=EXTRA` syncs the folder too when the journal is deleted: FULL alone keeps the file whole
in a power cut but may take back the enrolment that was just confirmed.

Each row carries a CRC-32 of its values, because SQLite does not notice a bit that flips on an SD card
inside a value. What is removed is overwritten with zeros in the file (`secure_delete`); copies that
the file system, a journal's freed blocks or flash wear levelling keep are out of SQLite's reach.
"""

from __future__ import annotations

import os
import sqlite3
import stat
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from edge_fr.engine import ModelCard
from edge_fr.errors import CardError, GalleryFileError, GalleryModelError, upgrade_command

MEMORY = ":memory:"

SCHEMA_VERSION = 1
_APPLICATION_ID = 0x65667267  # "efrg"
_SCHEMA = (
    # The model that every template in the file came from: one row.
    "CREATE TABLE meta (card TEXT NOT NULL, crc32 INTEGER NOT NULL)",
    """CREATE TABLE people (
        id INTEGER PRIMARY KEY,
        identity TEXT NOT NULL UNIQUE,
        enrolled_at_us INTEGER NOT NULL,
        templates INTEGER NOT NULL,
        crc32 INTEGER NOT NULL
    )""",
    # embedding: float32, little-endian, of length 1
    """CREATE TABLE templates (
        id INTEGER PRIMARY KEY,
        person INTEGER NOT NULL REFERENCES people(id) ON DELETE CASCADE,
        embedding BLOB NOT NULL,
        quality REAL,
        source TEXT NOT NULL,
        added_at_us INTEGER NOT NULL,
        crc32 INTEGER NOT NULL
    )""",
    "CREATE INDEX templates_of_person ON templates(person)",
    # Who changed last, so that another process rereads only them. A person has one row, replaced by
    # one with a higher seq at each change; it outlives the person, as a number without a name.
    "CREATE TABLE changes (seq INTEGER PRIMARY KEY AUTOINCREMENT, person INTEGER NOT NULL UNIQUE)",
)

# SQLite's own check reads about 400 MB/s on a desktop: up to here it costs a fraction of a second. A
# larger file is still read whole at opening, every row against its checksum and its person's count.
_CHECK_BYTES = 64 << 20

_DAMAGED = (
    "it is damaged, and was left as it is. Restore it from a backup, or move it away and enroll again with "
    "`edge-fr enroll`"
)


def checksum(*values: object, blob: object = b"") -> int:
    """CRC-32 of a row's values; -1, which no CRC is, when the blob is no blob."""
    if not isinstance(blob, bytes):
        return -1
    return zlib.crc32(blob, zlib.crc32("\0".join(map(str, values)).encode()))


def damaged(path: str, what: str) -> GalleryFileError:
    """The error for content that cannot be what was written."""
    return GalleryFileError(f"gallery {path}: {what}; {_DAMAGED}")


@contextmanager
def transaction(db: sqlite3.Connection, kind: Literal["DEFERRED", "IMMEDIATE"]) -> Iterator[None]:
    """Commits at the end of the block; takes everything back when the block or the commit fails."""
    db.execute(f"BEGIN {kind}")
    try:
        yield
        db.execute("COMMIT")
    finally:
        if db.in_transaction:  # SQLite itself has already taken back what a full disk cut short
            db.execute("ROLLBACK")


@contextmanager
def explained(path: str, doing: str, busy_s: float) -> Iterator[None]:
    """Turns SQLite's errors into GalleryFileError: what failed, why, and what to do."""
    try:
        yield
    except sqlite3.ProgrammingError:
        raise  # a mistake in this package, not in the file
    except (sqlite3.Error, UnicodeDecodeError) as error:  # the latter: Python cannot read SQLite's message
        raise GalleryFileError(
            f"cannot {doing} gallery {path}: {_reason(str(error), path, busy_s)}"
        ) from error
    except OSError as error:  # a file system that went away
        raise GalleryFileError(
            f"cannot {doing} gallery {path}: {error.strerror or error}; check `ls -ld {path}`"
        ) from error


def _reason(message: str, path: str, busy_s: float) -> str:
    # By SQLite's message: Python 3.10 does not give the error code.
    if "locked" in message:
        return (
            f"another process holds it ({message}) and did not let go within {busy_s:g} s; nothing was "
            f"changed. `fuser {path}` names the process; try again when it is done"
        )
    if "readonly" in message or "unable to open" in message:
        unfinished = os.path.exists(f"{path}-journal")
        why = "an unfinished write has to be undone, but " if unfinished else ""
        return (
            f"{why}the file or its folder is write-protected ({message}); nothing was changed. Both must be "
            f"writable: `ls -ld {path} {os.path.dirname(os.path.abspath(path))}`"
        )
    if "disk is full" in message:
        return f"the disk is full; nothing was changed. Free some space: `df {path}`"
    if "disk I/O" in message:
        return f"the disk failed ({message}); nothing was changed. `dmesg` shows what the disk reported"
    if "not a database" in message:
        return f"it is no gallery, or its beginning is damaged ({message}); it was left as it is"
    return f"{message}; {_DAMAGED}"


def connect(path: str, card: ModelCard | None, *, create: bool, busy_s: float) -> sqlite3.Connection:
    """Opens the file, or makes it for `card` where `create` is set and nothing is there.

    The connection commits by itself unless a transaction was begun, and may move between threads.
    """
    if path == MEMORY:
        uri, create = "file::memory:", True
    else:
        _require_file(path, create)
        # "rw" never makes a file, and falls back to reading one that may not be written. A gallery that
        # is only read is opened so, too: after a power cut a reader has to undo the unfinished write.
        uri = f"file:{quote(os.fsencode(os.path.abspath(path)))}?mode=rw"
    with ExitStack() as undo, explained(path, "open", busy_s):
        db = sqlite3.connect(uri, uri=True, timeout=busy_s, isolation_level=None, check_same_thread=False)
        undo.callback(db.close)
        # Larger than the default of 4096 because a 512-d template would fill half of such a page.
        db.execute("PRAGMA page_size = 8192")
        db.execute("PRAGMA synchronous = EXTRA")
        db.execute("PRAGMA secure_delete = ON")
        db.execute("PRAGMA foreign_keys = ON")
        # A write that outgrows its cache would otherwise lock readers out before it commits.
        db.execute("PRAGMA cache_spill = OFF")
        # SQLite takes a file of one byte for an empty one, too; that byte is not ours to write over.
        if create and card is not None and (path == MEMORY or os.path.getsize(path) == 0):
            _create(db, card)
        _require_gallery(db, path)
        if path != MEMORY and os.path.getsize(path) <= _CHECK_BYTES:
            finding = db.execute("PRAGMA integrity_check(1)").fetchone()[0]
            if finding != "ok":
                raise damaged(path, " ".join(str(finding).split()))
        undo.pop_all()
    return db


def enrolled_card(db: sqlite3.Connection, path: str) -> ModelCard:
    """The card of the model that the gallery was made with."""
    rows = db.execute("SELECT card, crc32 FROM meta").fetchall()
    if len(rows) != 1 or rows[0][1] != checksum(rows[0][0]):
        raise damaged(path, "its model card does not have the checksum it was written with")
    try:
        return ModelCard.from_json(rows[0][0], where=f"model card in gallery {path}")
    except CardError as error:
        raise GalleryFileError(
            f"{error}; a newer edge-fr may have written it: {upgrade_command()}"
        ) from error


def require_same_model(path: str, enrolled: ModelCard, loaded: ModelCard) -> None:
    """GalleryModelError unless both are one model, in whatever precision."""
    differences = [
        f"{field} {getattr(enrolled, field)} there, {getattr(loaded, field)} here"
        for field in ("weights_digest", "embedding_size", "template")
        if getattr(enrolled, field) != getattr(loaded, field)
    ]
    if differences:
        raise GalleryModelError(
            f"gallery {path} was enrolled with {enrolled.name!r}, but {loaded.name!r} is loaded "
            f"({'; '.join(differences)}); their embeddings cannot be compared. Load {enrolled.name!r} "
            f"(`edge-fr models list` shows what is here), or enroll into a new gallery with `edge-fr enroll`"
        )


def _require_file(path: str, create: bool) -> None:
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        if not create:
            raise GalleryFileError(
                f"no gallery at {path}; `edge-fr enroll` makes one, and Gallery.open(..., create=True) does"
            ) from None
        _make_file(path)
        return
    except OSError as error:
        raise GalleryFileError(
            f"cannot open gallery {path}: {error.strerror}; check `ls -ld {path}`"
        ) from error
    if stat.S_ISDIR(mode):
        raise GalleryFileError(
            f"cannot open gallery {path}: it is a folder, expected a file such as {Path(path) / 'people.db'}"
        )
    if not stat.S_ISREG(mode):
        raise GalleryFileError(f"cannot open gallery {path}: it is a device or pipe, expected a file")


def _make_file(path: str) -> None:
    try:
        # For its owner alone: these are biometric data. SQLite gives its journal the same rights.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    except OSError as error:
        raise GalleryFileError(
            f"cannot make gallery {path}: {error.strerror}; the folder must exist and be writable: "
            f"`ls -ld {os.path.dirname(os.path.abspath(path))}`"
        ) from error


def _is_empty(db: sqlite3.Connection) -> bool:
    application_id = db.execute("PRAGMA application_id").fetchone()[0]
    tables = db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    return (application_id, tables) == (0, 0)


def _create(db: sqlite3.Connection, card: ModelCard) -> None:
    with transaction(db, "IMMEDIATE"):
        if not _is_empty(db):  # another process was first
            return
        for statement in _SCHEMA:
            db.execute(statement)
        text = card.to_json()
        db.execute("INSERT INTO meta (card, crc32) VALUES (?, ?)", (text, checksum(text)))
        db.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
        db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def _require_gallery(db: sqlite3.Connection, path: str) -> None:
    if _is_empty(db):
        raise GalleryFileError(
            f"gallery {path} holds nothing, not even a gallery without people: its making was cut off, or a "
            f"disk failure emptied it. Restore it from a backup; if nobody was enrolled yet, delete it and "
            f"enroll with `edge-fr enroll`"
        )
    application_id = db.execute("PRAGMA application_id").fetchone()[0]
    if application_id != _APPLICATION_ID:
        raise GalleryFileError(
            f"cannot open gallery {path}: it is an SQLite database of another program (application id "
            f"{application_id:#x}, expected {_APPLICATION_ID:#x}); it was left as it is"
        )
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if version > SCHEMA_VERSION:
        raise GalleryFileError(
            f"gallery {path} was made by a newer edge-fr (schema {version}, this one reads up to "
            f"{SCHEMA_VERSION}): {upgrade_command()}"
        )
    if version != SCHEMA_VERSION:
        raise damaged(path, f"its schema version is {version}, expected {SCHEMA_VERSION}")
