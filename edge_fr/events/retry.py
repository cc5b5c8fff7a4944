"""How long a receiver is left alone after a failure."""

from __future__ import annotations

from dataclasses import dataclass

from edge_fr.errors import InputError

_LONGEST_ASKED_S = 3600.0  # a receiver that asks for more is asked again all the same


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When an event is sent again, and when it is set aside.

    The n-th failure in a row is followed by a pause of `first_delay_s` * 2**(n - 1), `max_delay_s` at
    the most, of which chance takes away up to the share `jitter`, so that boxes which failed together do
    not come back together. A receiver that names a longer pause (Retry-After) gets it, up to an hour.

    A receiver that is out of reach is tried for ever. One that answers, but not with a yes, for
    `give_up_s` on end keeps the other events waiting: then that one event is set aside as refused.
    """

    first_delay_s: float = 1.0
    max_delay_s: float = 60.0
    jitter: float = 0.5
    give_up_s: float = 86_400.0

    def __post_init__(self) -> None:
        if not 0 < self.first_delay_s <= self.max_delay_s <= 3600:
            raise InputError(
                f"first_delay_s is {self.first_delay_s} and max_delay_s is {self.max_delay_s}, expected "
                f"0 < first_delay_s <= max_delay_s <= 3600 seconds"
            )
        if not 0 <= self.jitter < 1:
            raise InputError(f"jitter is {self.jitter}, expected from 0 to below 1")
        if not self.give_up_s > 0:
            raise InputError(f"give_up_s is {self.give_up_s}, expected more than 0 seconds")

    def delay_s(self, failures: int, chance: float, asked_s: float | None = None) -> float:
        """The pause after so many failures in a row (from 1).

        `chance` is a number from 0 to below 1, `asked_s` the pause that the receiver asked for.
        """
        full_s = self.max_delay_s
        if failures < 64:  # 2.0**1100 would overflow after a year
            full_s = min(full_s, self.first_delay_s * 2.0 ** (failures - 1))
        return max(full_s * (1 - self.jitter * chance), min(asked_s or 0.0, _LONGEST_ASKED_S))
