"""Callers that get nothing, told to the audit: the first of each address at once, and then how many more there were.

Anybody who reaches the port can be refused as often as it likes, and must not be able to fill the trail.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tomowire.server.audit.events import AssociationRefused, Outcome, Party

if TYPE_CHECKING:
    from tomowire.server.audit.audit import Audit

INTERVAL: Final = 10.0
"""Seconds in which one address has one event, and one more at the end."""
_MOST_ADDRESSES: Final = 1000


@dataclass(slots=True)
class _Counted:
    """What an address was refused since the event about it."""

    timer: asyncio.TimerHandle
    more: int = 0
    last: AssociationRefused | None = None


class Refusals:
    """For the event loop's thread."""

    def __init__(self, audit: Audit, *, interval: float = INTERVAL, most_addresses: int = _MOST_ADDRESSES) -> None:
        self._audit = audit
        self._interval = interval
        self._most = most_addresses
        self._loop = asyncio.get_running_loop()
        self._counted: dict[str, _Counted] = {}

    def refused(self, caller: Party, called_ae_title: str, reason: str, *, host: str) -> None:
        """`caller`, at the address `host`, was refused."""
        if host not in self._counted and len(self._counted) >= self._most:
            host = "others"
        event = AssociationRefused(caller=caller, called_ae_title=called_ae_title, reason=reason)
        counted = self._counted.get(host)
        if counted is None:
            self._audit.record(event)
            self._counted[host] = _Counted(self._loop.call_later(self._interval, self._tell, host))
        else:
            counted.more += 1
            counted.last = event

    def close(self) -> None:
        """Tell of what was not told yet."""
        for host, counted in list(self._counted.items()):
            counted.timer.cancel()
            self._tell(host)

    def _tell(self, host: str) -> None:
        counted = self._counted.pop(host)
        last = counted.last
        if last is not None:
            reason = f"{counted.more} more from there within {self._interval:g} s; the last: {last.reason}"
            outcome = Outcome.SERIOUS_FAILURE if counted.more >= self._interval else Outcome.MINOR_FAILURE
            self._audit.record(
                AssociationRefused(
                    caller=last.caller, called_ae_title=last.called_ae_title, reason=reason, outcome=outcome
                )
            )
