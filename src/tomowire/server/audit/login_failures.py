"""Logins that fail, told to the audit: each of them while they are few, and then how many more there were.

The limit in `logins` begins anew with a login that is right. What is told must not: whoever has one password could fill the trail
with wrong ones. And whoever shares an address with somebody (a proxy has everybody's) is still found under the name that was tried.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from tomowire.server.audit.events import Login, Outcome

if TYPE_CHECKING:
    from tomowire.server.audit.audit import Audit

INTERVAL: Final = 60.0
"""Seconds in which an address has so many events, and at their end one more for each name."""
MOST: Final = 10
"""Failures of one address that are told each."""
MOST_NAMES: Final = 8
"""Names that are told apart of what comes beyond that."""

_MOST_ADDRESSES: Final = 1000
_OTHER_ADDRESSES: Final = "others"
_OTHER_NAMES: Final = "other names"


@dataclass(slots=True)
class _Counted:
    """What of an address has failed since the first in an interval."""

    timer: asyncio.TimerHandle
    told: int = 0
    more: dict[str, tuple[int, Login]] = field(default_factory=dict)
    """By name: how many were not told, and the last of them."""


class LoginFailures:
    """For the event loop's thread."""

    def __init__(self, audit: Audit, *, interval: float = INTERVAL, most_addresses: int = _MOST_ADDRESSES) -> None:
        self._audit = audit
        self._interval = interval
        self._most_addresses = most_addresses
        self._loop = asyncio.get_running_loop()
        self._counted: dict[str, _Counted] = {}

    def failed(self, event: Login, network: str) -> None:
        """A login has failed, from an address of `network`."""
        if network not in self._counted and len(self._counted) >= self._most_addresses:
            network = _OTHER_ADDRESSES
        counted = self._counted.get(network)
        if counted is None:
            counted = self._counted[network] = _Counted(self._loop.call_later(self._interval, self._tell, network))
        if counted.told < MOST:
            counted.told += 1
            self._audit.record(event)
            return
        name = event.user.name
        if name not in counted.more and len(counted.more) >= MOST_NAMES:
            name = _OTHER_NAMES
        count, _ = counted.more.get(name, (0, event))
        counted.more[name] = count + 1, event

    def close(self) -> None:
        """Tell of what was not told yet."""
        for network, counted in list(self._counted.items()):
            counted.timer.cancel()
            self._tell(network)

    def _tell(self, network: str) -> None:
        for name, (count, last) in self._counted.pop(network).more.items():
            reason = f"{count} more have failed within {self._interval:g} s; the last: {last.reason}"
            user = replace(last.user, name=name)
            self._audit.record(replace(last, user=user, outcome=Outcome.SERIOUS_FAILURE, reason=reason))
