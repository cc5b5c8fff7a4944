"""What is kept about a person beside the embeddings, and the form it must have."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

import numpy as np
from numpy.typing import NDArray

from edge_fr.errors import InputError
from edge_fr.printable import is_hidden, printable

MAX_NAME_CHARACTERS = 200


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody enrolled: `templates` counts the embeddings kept, `enrolled_at` is UTC."""

    identity: str
    templates: int
    enrolled_at: datetime


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where one template came from: quality 0..1 if it was given, source, UTC time of enrolment."""

    quality: float | None
    source: str
    added_at: datetime


def normalized_identity(identity: str) -> str:
    """The form a name is kept in: Unicode NFC, no space around it.

    InputError for an empty name, one longer than 200 characters, or one with characters that cannot be seen
    or told from a space: two names could look the same, or one garble lists, logs and events.
    """
    name = known_identity(identity)
    bad = next((c for c in name if is_hidden(c)), None)
    if bad is not None:
        what = unicodedata.name(bad, "a character without a name")
        raise InputError(
            f"identity '{printable(name)}' holds {what} (U+{ord(bad):04X}), which cannot be seen or told "
            f"from a space; write the name without it"
        )
    return name


def known_identity(identity: str) -> str:
    """The form a name is looked up in: earlier versions kept names with hidden characters, too."""
    name = unicodedata.normalize("NFC", identity).strip()
    if not name or len(name) > MAX_NAME_CHARACTERS:
        raise InputError(
            f"identity {name[:40]!r} has {len(name)} characters, expected 1 to {MAX_NAME_CHARACTERS}"
        )
    # Cc control, Cs half of a surrogate pair, Zl and Zp line breaks: no version kept them.
    bad = next((c for c in name if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp")), None)
    if bad is not None:
        raise InputError(f"identity {name!r} holds the control character {bad!r}, expected printable text")
    return name


def utc(us: int) -> datetime:
    """The time so many microseconds after 1970."""
    return datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(microseconds=us)


def checked_qualities(
    qualities: Sequence[float] | NDArray[np.float32] | None, count: int
) -> list[float | None]:
    """One quality, 0..1 or None, for each of `count` embeddings; InputError."""
    if qualities is None:
        return [None] * count
    values = np.asarray(qualities, np.float64)
    if values.shape != (count,) or not ((values >= 0.0) & (values <= 1.0)).all():
        raise InputError(
            f"qualities need {count} numbers from 0 to 1, one for each embedding, got {qualities!r}"
        )
    return [float(value) for value in values + 0.0]  # -0.0 would come back from SQLite as 0.0


def checked_sources(sources: Sequence[str] | None, count: int) -> list[str]:
    """One text for each of `count` embeddings, empty where none was given; InputError."""
    if sources is None:
        return [""] * count
    if isinstance(sources, str) or len(sources) != count:
        raise InputError(f"sources need {count} texts, one for each embedding, got {sources!r}")
    # A file name that is not UTF-8 holds surrogates, which SQLite cannot keep: they are written out.
    return [source.encode("utf-8", "backslashreplace").decode() for source in sources]
