"""Ends associations on which nothing moves any more: the peer is silent though it is its turn, or takes nothing of what is sent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tomowire.aio.timing import Alarm

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

    from tomowire.aio.association import Association


class IdleWatch:
    """Aborts `association` when for `limit` seconds nothing has come, and that is not because a request is being served here."""

    def __init__(self, loop: AbstractEventLoop, association: Association, limit: float) -> None:
        self._association = association
        self._limit = limit
        self._unsent_before = 0
        self._alarm = Alarm(loop, self._check)

    def start(self, now: float) -> None:
        """There is an association. (Before that ARTIM limits the time.)"""
        self._alarm.look_at(now + self._limit)

    def stop(self) -> None:
        self._alarm.stop()

    def _check(self, now: float) -> float | None:
        connection = self._association.connection
        unsent, before = connection.unsent, self._unsent_before
        self._unsent_before = unsent
        at = connection.last_received + self._limit
        if at > now:
            return at
        if unsent and unsent == before:
            reason = f"the peer has not read what was sent for {self._limit:g} s"
        elif not unsent and self._association.is_peers_turn and not connection.is_reading_held:
            reason = f"nothing came from the peer for {self._limit:g} s"
        else:
            return now + self._limit
        self._association.abort(because=reason)
        return None
