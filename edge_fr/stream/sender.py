"""When a network camera says it took a picture, and whether its clock can be believed."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

NTP_EPOCH = datetime(1900, 1, 1, tzinfo=timezone.utc)
_LONGEST_WAY = timedelta(seconds=10)  # at first; what is further behind is a clock that was never set
_LEAD = timedelta(seconds=0.5)  # no picture arrives before it was taken, but clocks are never quite equal
_STEP_BACK = timedelta(seconds=1)  # sender reports correct each other by less


def from_ntp(ntp_ns: int) -> datetime:
    """The wall clock that is `ntp_ns` nanoseconds after the year 1900 began."""
    return NTP_EPOCH + timedelta(microseconds=ntp_ns // 1000)


class SenderClock:
    """One connection's judgement of the camera's clock, which is often wrong by hours or years.

    The clock is believed when its first picture lies at most ten seconds behind its arrival here, and
    for as long as none lies ahead; then a picture that is really late is seen to be late. When the
    camera sets its clock back, it is judged afresh.
    """

    def __init__(self) -> None:
        self._believed = False
        self._last: datetime | None = None

    def captured_at(self, sent_at: datetime, arrived_at: datetime) -> datetime | None:
        """When the picture was taken, never later than it arrived; None: the clock cannot be believed."""
        if self._last is None or self._last - sent_at > _STEP_BACK:
            self._believed = arrived_at - sent_at <= _LONGEST_WAY
        if sent_at - arrived_at > _LEAD:
            self._believed = False
        self._last = sent_at
        return min(sent_at, arrived_at) if self._believed else None
