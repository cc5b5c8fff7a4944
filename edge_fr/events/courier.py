"""The thread that takes one sink's events from the ledger to its receiver, in their order."""

from __future__ import annotations

import logging
import random
import threading
import time
from typing import NamedTuple

from edge_fr.errors import DeliveryError, EventError, RefusedError
from edge_fr.events.delivery import Delivery, Letter
from edge_fr.events.ledger import Entry, Ledger
from edge_fr.events.retry import RetryPolicy

log = logging.getLogger(__name__)


class _Outcome(NamedTuple):
    """What became of an event; `refused` is the reason, None for a delivered one."""

    entry: Entry
    refused: str | None


class Courier:
    """Delivers one sink's events until it is told to stop."""

    def __init__(self, delivery: Delivery, ledger: Ledger, retry: RetryPolicy) -> None:
        self.trouble: str | None = None  # why the last attempt failed; None when it did not
        self._delivery = delivery
        self._ledger = ledger
        self._retry = retry
        self._change = threading.Condition()
        self._stopping = False
        self._news = True
        self._retry_now = False
        self._idle = False
        self._failures = 0
        self._unsettled: _Outcome | None = None
        self._answered: tuple[int, float] | None = None  # the event that gets a no, and since when
        self._thread = threading.Thread(target=self._work, name=f"outbox {delivery.name}", daemon=True)

    def start(self) -> None:
        self._delivery.start(self.retry_now)
        self._thread.start()

    def notify(self) -> None:
        """There is a new event."""
        with self._change:
            self._news = True
            self._change.notify_all()

    def retry_now(self) -> None:
        """The receiver is back: the pause after a failure is over."""
        with self._change:
            self._retry_now = True
            self._change.notify_all()

    def drain(self, timeout_s: float) -> None:
        """Returns when nothing waits, when the receiver fails, or after that time."""
        with self._change:
            self._change.wait_for(
                lambda: (self._idle and not self._news) or self._failures > 0, max(0.0, timeout_s)
            )

    def stop(self) -> None:
        """Asks the thread to end after the attempt that is under way."""
        with self._change:
            self._stopping = True
            self._change.notify_all()

    def join(self) -> None:
        if self._thread.ident is not None:
            self._thread.join()
        self._delivery.close()

    def _work(self) -> None:
        while not self._stopping:
            with self._change:
                self._news = self._retry_now = False
            try:
                worked = self._step()
            except DeliveryError as error:
                self._pause(str(error), error.retry_after_s)
            except EventError as error:  # the ledger
                self._pause(str(error))
            except Exception as error:
                # A receiver's code may be anyone's. Its mistake must be seen, but not end all delivery.
                log.exception("sink %s: delivering failed in an unexpected way", self._delivery.name)
                self._pause(f"{type(error).__name__}: {error}")
            else:
                if not worked:
                    self._wait_for_news()
                elif self._failures:
                    self._recovered()

    def _step(self) -> bool:
        """Takes one event as far as it goes; False when none waits."""
        # An outcome that a full disk kept from being noted is noted before anything is sent again.
        if self._unsettled is None:
            entry = self._ledger.next(self._delivery.name)
            if entry is None:
                return False
            self._unsettled = _Outcome(entry, self._attempt(entry))
        self._ledger.settle(self._delivery.name, *self._unsettled)
        if (reason := self._unsettled.refused) is not None:
            log.warning("sink %s: an event was refused and set aside: %s", self._delivery.name, reason)
        self._unsettled = None
        return True

    def _attempt(self, entry: Entry) -> str | None:
        """Returns None when the event was delivered, or why it is set aside; raises when neither."""
        try:
            letter = Letter.of(entry.body)
        except ValueError as error:
            return f"damaged in the outbox: {error}"
        try:
            self._delivery.deliver(letter)
        except RefusedError as error:
            return str(error)
        except DeliveryError as error:
            if not error.answered:
                self._answered = None
            elif self._gave_up(entry):
                return f"not taken for {self._retry.give_up_s:g} s: {error}"
            raise
        except Exception as error:
            if self._gave_up(entry):
                return f"not taken for {self._retry.give_up_s:g} s: {type(error).__name__}: {error}"
            raise
        self._answered = None
        return None

    def _gave_up(self, entry: Entry) -> bool:
        now_s = time.monotonic()
        if self._answered is None or self._answered[0] != entry.seq:
            self._answered = (entry.seq, now_s)
        return now_s - self._answered[1] >= self._retry.give_up_s

    def _pause(self, trouble: str, asked_s: float | None = None) -> None:
        if self._failures == 0:  # once: a year without a network is not a year of log lines
            log.warning("sink %s: %s. Events are kept and sent again", self._delivery.name, trouble)
        with self._change:
            self._failures += 1
            self.trouble = trouble
            self._change.notify_all()
            delay_s = self._retry.delay_s(self._failures, random.random(), asked_s)
            self._change.wait_for(lambda: self._stopping or self._retry_now, delay_s)

    def _recovered(self) -> None:
        log.warning("sink %s: delivers again after %d failures", self._delivery.name, self._failures)
        with self._change:
            self._failures = 0
            self.trouble = None

    def _wait_for_news(self) -> None:
        with self._change:
            self._idle = True
            self._change.notify_all()
            self._change.wait_for(lambda: self._stopping or self._news)
            self._idle = False
