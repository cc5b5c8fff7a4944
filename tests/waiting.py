"""For what becomes true a while later, on a machine that may stand still meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable


def wait_for(condition: Callable[[], object], what: str = "", *, patience_s: float = 60.0) -> None:
    """Asks until the condition holds; AssertionError after `patience_s`, with `what` was waited for."""
    give_up = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < give_up, f"waited {patience_s:g} s: {what}"
        time.sleep(0.005)
