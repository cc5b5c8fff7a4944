"""What the gallery's file holds, mirrored in memory for searching and kept in step with it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from edge_fr.gallery.database import checksum, damaged, transaction
from edge_fr.gallery.index import Index

PERSON = "SELECT id, identity, enrolled_at_us, templates, crc32 FROM people"
TEMPLATE = "SELECT person, embedding, quality, source, added_at_us, crc32 FROM templates"
_CHANGED = "SELECT person FROM changes WHERE seq > ?"
_ROWS_AT_ONCE = 4096

PersonRow = tuple[int, str, int, int, int]
TemplateRow = tuple[int, bytes, float | None, str, int, int]


class Mirror:
    """Names and templates of a gallery file, as of the last `refresh`."""

    def __init__(self, db: sqlite3.Connection, path: str, size: int) -> None:
        self.names: dict[int, str] = {}
        self.index = Index(size)
        self._db = db
        self._path = path
        self._size = size
        self._seq = 0  # the last row of `changes` that is mirrored
        self._version: int | None = None  # SQLite's data_version then; None: look in any case
        self.refresh()

    def invalidate(self) -> None:
        """Makes the next refresh look: SQLite's version tells only of other connections' commits."""
        self._version = None

    def refresh(self) -> bool:
        """Takes over what was committed since the last time; says whether anybody changed.

        Nothing is taken over when anything of it is damaged.
        """
        if self._db.execute("PRAGMA data_version").fetchone()[0] == self._version:
            return False
        with transaction(self._db, "DEFERRED"):
            seq = self._db.execute("SELECT coalesce(max(seq), 0) FROM changes").fetchone()[0]
            version = self._db.execute("PRAGMA data_version").fetchone()[0]
            # A sequence that went back means that an older copy was written over the file.
            since = self._seq if seq >= self._seq else 0
            changed = [row[0] for row in self._db.execute(_CHANGED, (since,))]
            names, index = self._read(since)
        if since == 0:
            self.names, self.index = names, index
        else:
            outdated = [person for person in changed if self.names.pop(person, None) is not None]
            if outdated:
                self.index.remove(np.array(outdated, np.int64))
            self.index.extend(index)
            self.names.update(names)
        self._seq, self._version = seq, version
        return len(changed) > 0

    def _read(self, since: int) -> tuple[dict[int, str], Index]:
        """Everybody who changed after `since` and is still there; 0 reads everybody."""
        only_people = f" WHERE id IN ({_CHANGED})" if since else ""
        only_templates = f" WHERE person IN ({_CHANGED})" if since else ""
        bound = (since,) if since else ()
        people = checked_people(self._db.execute(PERSON + only_people, bound), self._path)
        names = {row[0]: row[1] for row in people}
        expected = {row[0]: row[3] for row in people}
        index = Index(self._size)
        index.reserve(sum(expected.values()))
        cursor = self._db.execute(TEMPLATE + only_templates, bound)
        while rows := cursor.fetchmany(_ROWS_AT_ONCE):
            embeddings = checked_embeddings(rows, self._size, self._path)
            index.append(np.array([row[0] for row in rows], np.int64), embeddings)
        if index.owner_counts() != expected:
            raise damaged(self._path, "people and templates do not add up, some are missing")
        return names, index


def checked_people(rows: Iterable[PersonRow], path: str) -> list[PersonRow]:
    """The rows, each found to be what was written."""
    people = list(rows)
    for _, identity, enrolled_at_us, templates, crc in people:
        if crc != checksum(identity, enrolled_at_us, templates):
            raise damaged(path, f"the entry of {identity!r} does not have the checksum it was written with")
    return people


def checked_embeddings(rows: Sequence[TemplateRow], size: int, path: str) -> NDArray[np.float32]:
    """The embeddings (N, size) of template rows, each row found to be what was written."""
    for person, blob, quality, source, added_at_us, crc in rows:
        if crc != checksum(person, quality, source, added_at_us, blob=blob):
            raise damaged(path, "a template does not have the checksum it was written with")
    flat = np.frombuffer(b"".join(row[1] for row in rows), "<f4")
    return flat.astype(np.float32).reshape(len(rows), size)
