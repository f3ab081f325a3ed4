"""When an SCU tries again: after an association that ended, and where the peer says that it is only a matter of time.

Without retries nothing is ever sent twice. With one or more, what is refused for want of resources and what loses its connection
is sent again after a growing wait, as often as there are retries; what was under way when the association was aborted, or was not
answered in time, once more, alone: so one bad object does not take with it those that are none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tomowire.errors import AssociationLost, AssociationRejected

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tomowire.services.storage import StoreResponse

DEFAULT_RETRIES: Final = 3
_FIRST_WAIT: Final = 1.0
_LONGEST_WAIT: Final = 60.0
_JITTER: Final = 0.25
_REJECTED_TRANSIENT: Final = 2


def retry_waits(retries: int = DEFAULT_RETRIES) -> tuple[float, ...]:
    """Seconds before each of so many retries: 1, 2, 4, ..., never more than 60."""
    return tuple(min(_FIRST_WAIT * 2.0**number, _LONGEST_WAIT) for number in range(retries))


def is_out_of_resources(response: StoreResponse) -> bool:
    """Whether an object was refused for a reason that passes (PS3.4 B.2.3: A7xx)."""
    return 0xA700 <= response.status <= 0xA7FF


def is_transient(error: Exception) -> bool:
    """Whether a peer has rejected an association for now only (PS3.8 Table 9-21)."""
    return isinstance(error, AssociationRejected) and error.result == _REJECTED_TRANSIENT


def jittered(seconds: float) -> float:
    """About so many seconds: of many that were sent away at the same moment not all come back at the same moment."""
    from random import uniform  # needed seldom, and not cheap to import

    return seconds * uniform(1 - _JITTER, 1 + _JITTER)


class Retries:
    """What one run has learnt of its peer: whether waiting is worth it, and for how long. `waits` are in seconds."""

    def __init__(self, waits: Sequence[float]) -> None:
        self._waits = tuple(waits)
        self._was_there = False
        self._has_given_up = False

    @property
    def are_allowed(self) -> bool:
        """Whether anything may be sent twice."""
        return bool(self._waits)

    def on_open(self) -> None:
        """An association has been opened."""
        self._was_there = True
        self._has_given_up = False

    def before_opening(self, error: Exception, failures: int) -> float | None:
        """Seconds before an association is tried again that was not opened `failures` times in a row; None: not at all.

        A peer that was never there is not waited for: a mistake in its address should be told at once.
        """
        is_worth_it = is_transient(error) or (self._was_there and not isinstance(error, AssociationRejected))
        if not is_worth_it or self._has_given_up:
            return None
        self._has_given_up = failures > len(self._waits)
        return self._wait(failures)

    def before_sending(self, response: StoreResponse, refusals: int, *, in_doubt: bool = False) -> float | None:
        """Seconds before an object is sent again that was refused `refusals` times; None: not at all.

        PS3.4 B.2.3: of all failures only A7xx, out of resources, is not of the object's own making; unless it is `in_doubt`.
        """
        return self._wait(refusals) if in_doubt or is_out_of_resources(response) else None

    def before_repeating(self, error: Exception, interruptions: int, *, in_doubt: bool = False) -> float | None:
        """Seconds before an object is sent again during which an association ended `interruptions` times, by `error` at last; None:
        not at all.

        A connection that was lost may come back. An abort or a time-out may have been the fault of another object that was under
        way: this one is tried once more, alone, and then it is known; not as long as it is `in_doubt` whether it was alone.
        """
        if in_doubt or isinstance(error, AssociationLost):
            return self._wait(interruptions)
        return 0.0 if interruptions == 1 and self.are_allowed else None

    def _wait(self, number: int) -> float | None:
        return jittered(self._waits[number - 1]) if number <= len(self._waits) else None
