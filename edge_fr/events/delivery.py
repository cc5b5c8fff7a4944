"""What the outbox hands to a receiver's delivery, and what it expects of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Letter:
    """One stored event on its way out; `body` is its JSON, the same bytes at every attempt."""

    event_id: str
    dedupe_key: str
    camera: str
    body: bytes

    @classmethod
    def of(cls, body: str) -> Letter:
        """Raises ValueError when the text is not the JSON of an event."""
        values = json.loads(body)
        try:
            event_id, dedupe_key, camera = (values[n] for n in ("event_id", "dedupe_key", "camera"))
        except (KeyError, TypeError) as error:
            raise ValueError(f"it is not the JSON of an event: {error}") from error
        return cls(str(event_id), str(dedupe_key), str(camera), body.encode())


class Delivery(Protocol):
    """One receiver, used from one thread at a time.

    `name` is the receiver's name in the outbox and in the log: keep it, and it goes on where it stopped.
    """

    @property
    def name(self) -> str: ...

    def start(self, retry_now: Callable[[], None]) -> None:
        """Called once, before anything else; call `retry_now` when the receiver has just come back."""

    def deliver(self, letter: Letter) -> None:
        """Returns when the receiver has confirmed the event, within a bounded time.

        Raises DeliveryError when it has not and may later, RefusedError when it never will.
        """

    def close(self) -> None:
        """Called once, at the end."""
