"""A gallery that is only read, kept in step with its file by a thread of its own.

Files are replaced, locked, cut short, and go away with their file system. None of it may hold up or end a
search: that goes on with what was read last, and the trouble is told.
"""

from __future__ import annotations

import logging
import threading
import time
import weakref
from collections.abc import Callable

from edge_fr.errors import GalleryError

log = logging.getLogger(__name__)
_ANSWERS_WITHIN_S = 0.05  # what a search waits for the look that it asked for: of a sound file it takes 1 ms
_FIRST_PAUSE_S = 0.1  # at least, between two looks that nobody asked for
_LONGEST_PAUSE_S = 5.0  # between two attempts at a file that is in trouble


class Follower:
    """Calls `look` in a thread: every `every_s` seconds, and when a search asks and the last is as old.

    `look` is a bound method, held weakly: the thread ends with its object. What it raises is the trouble
    until it succeeds; it is tried again after a pause that doubles, up to 5 s. One that takes longer than
    `patience_s` hangs, which is trouble, too. The log has a line when trouble begins and when it is over.
    """

    def __init__(self, look: Callable[[], object], path: str, *, every_s: float, patience_s: float) -> None:
        self._look = weakref.WeakMethod(look)
        self._path = path
        self._every_s = every_s
        self._patience_s = patience_s
        self._turn = threading.Condition()  # of all that follows; never held during a look
        self._looked_at = time.monotonic()
        self._began_at: float | None = None  # of the look under way
        self._asked = False
        self._over = False
        self._failures = 0
        self._trouble: str | None = None
        self._thread = threading.Thread(target=self._run, name="edge-fr-gallery", daemon=True)
        self._thread.start()

    @property
    def trouble(self) -> str | None:
        """Why the file cannot be read; None while it can."""
        with self._turn:
            self._notice_hanging()
            return self._trouble

    @property
    def age_s(self) -> float:
        """Seconds since the last look that succeeded."""
        return time.monotonic() - self._looked_at

    def ask(self) -> None:
        """Has the file looked at where the last look is too old, and waits a moment for it."""
        with self._turn:
            self._notice_hanging()
            if self._trouble is None and self._began_at is None and self.age_s >= self._every_s:
                self._asked = True
                self._turn.notify_all()
                self._turn.wait_for(lambda: not self._asked and self._began_at is None, _ANSWERS_WITHIN_S)

    def close(self) -> bool:
        """Ends the thread; says whether it did, or hangs in a look."""
        with self._turn:
            self._over = True
            self._turn.notify_all()
        self._thread.join(1.0)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while self._next():
            look = self._look()
            if look is None:
                return
            try:
                look()
            except Exception as error:
                unexpected = not isinstance(error, GalleryError)
                self._ended(f"{type(error).__name__}: {error}" if unexpected else str(error))
                if unexpected:
                    log.exception("looking at gallery %s failed", self._path)
            else:
                self._ended(None)
            del look

    def _next(self) -> bool:
        """Waits until the next look is due; says whether there is to be one."""
        with self._turn:
            pause_s = max(self._every_s, _FIRST_PAUSE_S)
            if self._failures:
                pause_s = min(pause_s * 2 ** (self._failures - 1), _LONGEST_PAUSE_S)
            self._turn.wait_for(lambda: self._asked or self._over, pause_s)
            self._asked, self._began_at = False, time.monotonic()
            return not self._over

    def _ended(self, trouble: str | None) -> None:
        with self._turn:
            self._began_at = None
            if trouble is None:
                self._failures = 0
                if self._trouble is not None:
                    log.warning("gallery %s is read again, after %.0f s", self._path, self.age_s)
                self._looked_at = time.monotonic()
                self._trouble = None
            elif not self._over:  # the end of its gallery is no trouble
                self._failures = min(self._failures + 1, 10)
                self._begin(trouble)
            self._turn.notify_all()

    def _notice_hanging(self) -> None:
        if self._began_at is not None and time.monotonic() - self._began_at > self._patience_s:
            self._begin(
                f"gallery {self._path} does not answer: its disk or its file system hangs; `dmesg` may tell"
            )

    def _begin(self, trouble: str) -> None:
        if self._trouble is None:
            log.warning(
                "%s. Searches go on with what was read %.0f s ago; it is tried again", trouble, self.age_s
            )
        self._trouble = trouble
