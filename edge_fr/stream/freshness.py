"""The rule that keeps old pictures from being announced as what happens now."""

from __future__ import annotations

from datetime import datetime, timedelta

MAX_AGE_S = 5.0  # whoever stood at the door then may be gone


def is_current(captured_at: datetime, now: datetime, max_age_s: float = MAX_AGE_S) -> bool:
    """Whether what was captured then may be announced as happening now: it is at most `max_age_s` old.

    Nothing comes from the future: a time after `now` is a clock that was set meanwhile, and is current.
    """
    return now - captured_at <= timedelta(seconds=max_age_s)
