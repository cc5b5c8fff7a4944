"""Gallery: the people who are enrolled, durable in one file and searched in memory."""

from __future__ import annotations

import difflib
import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from edge_fr.engine import ModelCard, require_task
from edge_fr.errors import GalleryFileError, InputError, UnknownIdentityError
from edge_fr.gallery.cohort import Cohort
from edge_fr.gallery.database import (
    MEMORY,
    checksum,
    connect,
    damaged,
    enrolled_card,
    explained,
    require_same_model,
    transaction,
)
from edge_fr.gallery.follow import Follower
from edge_fr.gallery.index import unit_rows
from edge_fr.gallery.mirror import (
    PERSON,
    TEMPLATE,
    PersonRow,
    TemplateRow,
    checked_embeddings,
    checked_people,
)
from edge_fr.gallery.opened import OpenFile
from edge_fr.gallery.people import (
    Person,
    Provenance,
    checked_qualities,
    checked_sources,
    known_identity,
    normalized_identity,
    utc,
)
from edge_fr.printable import printable
from edge_fr.structures import Matches

_MOST_NAMES_COMPARED = 10_000  # a fifth of a second
_READING_S = 10.0  # to read a gallery of 200,000 templates takes a few


class Gallery:
    """People and their templates in one SQLite file, with an exact search in memory.

    `Gallery.open` makes one; it is a context manager. `len(gallery)` counts people, as of the last
    refresh. What `add` and `remove` return from is on the disk. Several processes may have the file
    open, each sees the others' changes. One gallery may be used from several threads, which wait for
    each other, but not across a fork.

    One that was opened with `read_only` never waits for its file in a search, and no search fails by it:
    a thread keeps it in step. A file that takes the place of the one that was opened is taken over when it
    is sound and was enrolled with the same model. While there is none, or it is locked, damaged or away,
    searches go on with what was read last, people removed meanwhile included, and `trouble` says why.
    """

    def __init__(
        self,
        db: sqlite3.Connection,
        path: str,
        card: ModelCard | None,
        *,
        read_only: bool,
        refresh_s: float,
        busy_s: float,
    ) -> None:
        self._card = enrolled_card(db, path) if card is None else card
        assert self._card.embedding_size is not None  # no embedder's card goes without
        self._size = self._card.embedding_size
        self._path = path
        self._read_only = read_only
        self._refresh_s = refresh_s
        self._busy_s = busy_s
        self._lock = threading.RLock()  # of the file; searches of a reader do without
        self._file = OpenFile(db, path, self._card, busy_s=busy_s)
        self._refreshed_at = time.monotonic()
        self._follower: Follower | None = None
        if read_only:
            self._follower = Follower(self.refresh, path, every_s=refresh_s, patience_s=busy_s + _READING_S)

    @classmethod
    def open(
        cls,
        path: str | Path,
        card: ModelCard | None,
        *,
        create: bool = False,
        read_only: bool = False,
        refresh_s: float = 1.0,
        busy_s: float = 5.0,
    ) -> Gallery:
        """Opens the gallery at `path`, made with the embedder of `card`; reads all of it into memory.

        `path` ":memory:" is a new gallery that ends with the process. `card` None takes the gallery's own,
        for listing and removing without a model. `create` makes the file where none is, for its owner
        alone. Other processes' changes are looked for every `refresh_s` seconds at most. Every call, but not
        a search of one that is `read_only`, waits up to `busy_s` seconds for a process that is writing.

        Raises GalleryFileError (missing, damaged, no gallery, locked, too new; the file is left as it is),
        GalleryModelError (enrolled with another model; its precision may differ), CardError.
        """
        path = os.fspath(path)
        if card is not None:
            require_task(card, "embed", card.name)
        elif create or path == MEMORY:
            raise InputError("a new gallery needs the card of the embedder it is for, got None")
        if read_only and (create or path == MEMORY):
            raise InputError("a new gallery cannot be read_only: nobody could be enrolled in it")
        db = connect(path, card, create=create, busy_s=busy_s)
        with ExitStack() as undo, explained(path, "read", busy_s):
            undo.callback(db.close)
            gallery = cls(db, path, card, read_only=read_only, refresh_s=refresh_s, busy_s=busy_s)
            undo.pop_all()
        return gallery

    @property
    def card(self) -> ModelCard:
        """The card that the gallery was opened with; its own where that was None."""
        return self._card

    @property
    def template_count(self) -> int:
        """How many templates the people have, together."""
        return self._file.mirror.template_count

    @property
    def cohort(self) -> Cohort:
        """What the people, compared with each other, tell of the scores of strangers; see `NameThreshold`."""
        return self._file.mirror.cohort

    @property
    def trouble(self) -> str | None:
        """Why the file cannot be read now, of one that is `read_only`; None while it can."""
        return None if self._follower is None else self._follower.trouble

    @property
    def age_s(self) -> float:
        """Seconds since memory was last in step with the file of one that is `read_only`; 0 of others."""
        return 0.0 if self._follower is None else self._follower.age_s

    def require_model(self, card: ModelCard) -> None:
        """GalleryModelError unless the people were enrolled with that recognizer, in whatever precision."""
        require_same_model(self._path, self._card, card)

    def __len__(self) -> int:
        return len(self._file.mirror.names)

    def __enter__(self) -> Gallery:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file; closing twice is fine."""
        if self._follower is not None and not self._follower.close():
            self._file.leave()
            return
        with self._lock:
            self._file.close()

    def add(
        self,
        identity: str,
        embeddings: NDArray[np.float32],
        *,
        qualities: Sequence[float] | NDArray[np.float32] | None = None,
        sources: Sequence[str] | None = None,
    ) -> int:
        """Enrolls (N, D) embeddings of unit length, N >= 1, as templates of `identity`, all or none.

        A known identity gets them beside those it has; equal ones are kept twice. `qualities` (0..1) and
        `sources` (say, file names) have one value for each. Returns how many templates the identity now
        has. Raises InputError, GalleryFileError.
        """
        name = normalized_identity(identity)
        rows = unit_rows(embeddings, self._size, "embeddings")
        if len(rows) == 0:
            raise InputError(f"nothing to enroll for {name!r}: got 0 embeddings, expected at least 1")
        graded = checked_qualities(qualities, len(rows))
        named = checked_sources(sources, len(rows))
        now_us = time.time_ns() // 1000
        with self._writing("add to") as db:
            person = self._person(db, name)
            key, enrolled_us, before = (
                (None, now_us, 0) if person is None else (person[0], person[2], person[3])
            )
            total = before + len(rows)
            crc = checksum(name, enrolled_us, total)
            if key is None:
                key = db.execute(
                    "INSERT INTO people (identity, enrolled_at_us, templates, crc32) VALUES (?, ?, ?, ?)",
                    (name, enrolled_us, total, crc),
                ).lastrowid
            else:
                db.execute("UPDATE people SET templates = ?, crc32 = ? WHERE id = ?", (total, crc, key))
            db.executemany(
                "INSERT INTO templates (person, embedding, quality, source, added_at_us, crc32)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                (
                    (key, blob, quality, source, now_us, checksum(key, quality, source, now_us, blob=blob))
                    for blob, quality, source in zip(
                        (row.astype("<f4").tobytes() for row in rows), graded, named, strict=True
                    )
                ),
            )
            db.execute("INSERT OR REPLACE INTO changes (person) VALUES (?)", (key,))
        return total

    def remove(self, identity: str) -> int:
        """Erases an identity, returns how many templates went; UnknownIdentityError, GalleryFileError.

        A name with hidden characters, from an earlier version, is known by what the list shows as well.
        """
        name = known_identity(identity)
        with self._writing("remove from") as db:
            person = self._enrolled(db, name)
            db.execute("DELETE FROM people WHERE id = ?", (person[0],))
            db.execute("INSERT OR REPLACE INTO changes (person) VALUES (?)", (person[0],))
        return person[3]

    def identities(self) -> tuple[Person, ...]:
        """Everybody enrolled, by name."""
        with self._reading() as db:
            people = checked_people(db.execute(f"{PERSON} ORDER BY identity"), self._path)
        return tuple(Person(name, count, utc(us)) for _, name, us, count, _ in people)

    def templates(self, identity: str) -> NDArray[np.float32]:
        """The embeddings of an identity, (T, D) of length 1, oldest first. Raises UnknownIdentityError."""
        return checked_embeddings(self._template_rows(identity), self._size, self._path)

    def provenance(self, identity: str) -> tuple[Provenance, ...]:
        """Where each template came from, in the order of `templates`. Raises UnknownIdentityError."""
        rows = self._template_rows(identity)
        checked_embeddings(rows, self._size, self._path)
        return tuple(Provenance(quality, source, utc(us)) for _, _, quality, source, us, _ in rows)

    def search(self, probes: NDArray[np.float32], k: int = 5) -> Matches:
        """The k best identities for each of (P, D) probes of unit length, best first, exactly.

        An identity's score is the cosine with its templates fused into one; equal scores are ordered by name.
        A candidate's margin is its lead over the next identity, listed or not, and None for the last of all.
        An empty gallery gives empty tuples.
        Raises InputError for probes with NaN or of another length, GalleryFileError.
        """
        if k < 1:
            raise InputError(f"k is {k}, expected 1 or more")
        rows = unit_rows(probes, self._size, "probes")
        if self._follower is not None:
            self._file.require_open()
            self._follower.ask()
            return self._file.mirror.search(rows, k)
        with self._lock:
            self._file.require_open()
            if time.monotonic() - self._refreshed_at >= self._refresh_s:
                self.refresh()
            return self._file.mirror.search(rows, k)

    def lookalikes(self, least: float) -> tuple[tuple[str, str, float], ...]:
        """The pairs of people whose score with each other is `least` or more, the highest first."""
        return self._file.mirror.lookalikes(least)

    def refresh(self) -> bool:
        """Takes over what other processes changed since the last look; says whether anything had.

        Raises GalleryFileError, GalleryModelError, and leaves memory as it is then.
        """
        with self._lock, explained(self._path, "read", self._busy_s):
            self._file.require_open()
            changed = self._file.keep_up() if self._read_only else self._file.refresh()
            self._refreshed_at = time.monotonic()
        return changed

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._lock, explained(self._path, "read", self._busy_s):
            db = self._file.db
            with transaction(db, "DEFERRED"):
                yield db

    @contextmanager
    def _writing(self, doing: str) -> Iterator[sqlite3.Connection]:
        with self._lock, explained(self._path, doing, self._busy_s):
            db = self._file.db
            if self._read_only:
                raise GalleryFileError(
                    f"cannot {doing} gallery {self._path}: it was opened with read_only=True; open it without"
                )
            self._file.require_same()
            with transaction(db, "IMMEDIATE"):
                self._file.mirror.require_model()
                yield db
                self._file.mirror.invalidate()
            self._file.mirror.refresh()

    def _person(self, db: sqlite3.Connection, name: str) -> PersonRow | None:
        people = checked_people(db.execute(f"{PERSON} WHERE identity = ?", (name,)), self._path)
        return people[0] if people else None

    def _enrolled(self, db: sqlite3.Connection, name: str) -> PersonRow:
        person = self._person(db, name)
        if person is None and "\\" in name:
            kept = (row[0] for row in db.execute("SELECT identity FROM people"))
            person = next((self._person(db, one) for one in kept if printable(one) == name), None)
        if person is None:
            names = db.execute("SELECT identity FROM people LIMIT ?", (_MOST_NAMES_COMPARED,))
            close = difflib.get_close_matches(name, [row[0] for row in names])
            hint = f"; close: {', '.join(map(repr, close))}" if close else ""
            raise UnknownIdentityError(
                f"nobody called {name!r} is enrolled in {self._path}{hint}; `edge-fr gallery list` shows all"
            )
        return person

    def _template_rows(self, identity: str) -> list[TemplateRow]:
        name = known_identity(identity)
        with self._reading() as db:
            person = self._enrolled(db, name)
            rows = db.execute(f"{TEMPLATE} WHERE person = ? ORDER BY id", (person[0],)).fetchall()
        if len(rows) != person[3]:
            raise damaged(self._path, f"{name!r} has {len(rows)} templates, expected {person[3]}")
        return rows
