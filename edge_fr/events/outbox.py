"""The outbox: events are stored here first and sent from here, so that no outage loses one.

What it promises:

- When `write` returns, the event is on disk. It survives kill -9 and a power cut.
- Each sink gets each event at least once. It may get one again after a crash, a power cut or a confirmation
  that did not arrive: then with the same event id and the same dedupe key, byte for byte the same.
- Each sink gets the events in the order in which they were written; an event that is repeated is repeated
  before the next new one. One that waits for its receiver keeps those behind it waiting.
- Sinks do not wait for each other, and nothing waits for a sink: neither `write` nor the pipeline.
- An event that was written with a dedupe key among the last 10,000 is the same event and stored once.
- The file, its log included, stays below `max_bytes`. An event that no longer fits takes the place of what
  a sink refused, then of the oldest that wait; each of these is counted as lost for each sink that had
  still to deliver it. The counts are in the file: `status()`, or while nothing runs
  `sqlite3 events.db 'SELECT name, delivered, refused, lost FROM sinks'`.
- What a receiver will never take is counted as refused and set aside: `refused()`.
- A full disk is an error of `write`. What is stored is safe, and is sent when there is room to note that
  it was.

What it does not promise: that a receiver acts on an event only once. Let it compare dedupe keys.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from edge_fr.errors import EventError, InputError
from edge_fr.events.courier import Courier
from edge_fr.events.delivery import Delivery
from edge_fr.events.event import to_line
from edge_fr.events.ledger import Ledger, Refused
from edge_fr.events.retry import RetryPolicy
from edge_fr.structures import Event

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SinkStatus:
    """How a sink stands; the counts go back to when the file was made.

    `lost` events were removed undelivered because the file was full. `trouble` is why the last attempt
    failed, None when it did not.
    """

    waiting: int
    delivered: int
    refused: int
    lost: int
    trouble: str | None


class Outbox:
    """Stores events in a file and sends each to every receiver, at least once and in order.

    A sink for `run`: its `write` may be called from any thread. One process at a time uses a file. A
    receiver is known by its name: a new one gets what is written from then on, and one that is no longer
    named is given up with what it had still to get, which is counted as lost and logged. `candidates`
    tells all of each event's, see `to_json`.

    Raises EventError when the file cannot be used, InputError for names that are not different.
    """

    def __init__(
        self,
        path: str | Path,
        deliveries: Sequence[Delivery],
        *,
        max_bytes: int = 256 << 20,
        retry: RetryPolicy | None = None,
        drain_s: float = 5.0,
        candidates: bool = False,
    ) -> None:
        names = [delivery.name for delivery in deliveries]
        if not names or len(set(names)) < len(names):
            raise InputError(f"an outbox needs receivers with different names, got {names}")
        self.path = Path(path)
        self.repeated = 0  # events of this run that were known already
        self._drain_s = drain_s
        self._candidates = candidates
        self._closed = False
        with ExitStack() as undo:
            self._ledger = Ledger(self.path, names, max_bytes)
            undo.callback(self._ledger.close)
            for name, count in self._ledger.retired.items():
                log.warning("outbox %s: sink %s is not used any more; %d events were lost", path, name, count)
            self._couriers = {d.name: Courier(d, self._ledger, retry or RetryPolicy()) for d in deliveries}
            for courier in self._couriers.values():
                undo.callback(courier.join)
                undo.callback(courier.stop)
                courier.start()
            self._undo = undo.pop_all()

    def write(self, event: Event) -> None:
        """Stores one event; on return it is on disk.

        Raises EventError when it could not be stored, with its JSON. What was stored before is safe.
        """
        body = to_line(event, candidates=self._candidates)
        if self._closed:
            raise EventError(f"outbox {self.path} is closed. Not stored: {body}")
        # Not the key itself: it names a person, and stays behind when the event is gone.
        key = hashlib.sha256(event.dedupe_key.encode("utf-8", "surrogatepass")).digest()[:16]
        try:
            new = self._ledger.append(key, body)
        except EventError as error:
            raise EventError(f"{error}. Not stored: {body}") from error
        if not new:
            self.repeated += 1
            return
        for courier in self._couriers.values():
            courier.notify()

    def status(self) -> dict[str, SinkStatus]:
        """How each receiver stands, by its name."""
        counts = self._ledger.counts()
        return {
            name: SinkStatus(
                counts[name].waiting or 0,
                counts[name].delivered,
                counts[name].refused,
                counts[name].lost,
                courier.trouble,
            )
            for name, courier in self._couriers.items()
        }

    def refused(self, sink: str) -> list[Refused]:
        """What the sink set aside and the file still holds, oldest first."""
        return self._ledger.refused(sink)

    def close(self) -> None:
        """Goes on delivering for `drain_s`, or until a receiver fails; the rest waits for the next run.

        An attempt that is under way then is awaited.
        """
        if self._closed:
            return
        self._closed = True
        until_s = time.monotonic() + self._drain_s
        for courier in self._couriers.values():
            courier.drain(until_s - time.monotonic())
        for courier in self._couriers.values():
            courier.stop()  # all before the first is awaited
        self._undo.close()

    def __enter__(self) -> Outbox:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
