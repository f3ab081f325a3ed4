"""Ends associations on which nothing moves any more: the peer is silent though it is its turn, or takes nothing of what is sent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tomowire.aio.timing import Alarm

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

    from tomowire.aio.association import Association


_PROGRESS: Final = 16 * 1024


class IdleWatch:
    """Aborts `association` when for `limit` seconds nothing has come, and that is not because a request is being served here."""

    def __init__(self, loop: AbstractEventLoop, association: Association, limit: float) -> None:
        self._association = association
        self._limit = limit
        self._unsent_before = 0
        self._peers_turn_since = 0.0
        self._mark: tuple[float, int, int] | None = None  # time, bytes and messages when progress was last seen
        self._alarm = Alarm(loop, self._check)

    def start(self, now: float) -> None:
        """There is an association. (Before that ARTIM limits the time.)"""
        self._alarm.look_at(now + self._limit)

    def on_peers_turn(self, now: float) -> None:
        """All requests have been answered. That the peer was silent until now is not held against it."""
        self._peers_turn_since = now
        self._mark = None

    def stop(self) -> None:
        self._alarm.stop()

    def _check(self, now: float) -> float | None:
        connection = self._association.connection
        unsent, before = connection.unsent, self._unsent_before
        self._unsent_before = unsent
        at = connection.last_received + self._limit
        if at > now:
            return self._check_progress(now, at)
        if self._peers_turn_since + self._limit > now:
            return self._peers_turn_since + self._limit
        if unsent and unsent == before:
            reason = f"the peer has not read what was sent for {self._limit:g} s"
        elif not unsent and self._association.is_peers_turn and not connection.is_reading_held:
            reason = f"nothing came from the peer for {self._limit:g} s"
        else:
            return now + self._limit
        self._association.abort(because=reason)
        return None

    def _check_progress(self, now: float, next_look: float) -> float:
        """Something came. A peer that sends a byte now and then, and never a whole message, is as good as silent."""
        association = self._association
        bytes_received, messages = association.connection.bytes_received, association.messages_received
        if self._mark is None or messages != self._mark[2] or bytes_received - self._mark[1] >= _PROGRESS:
            self._mark = (now, bytes_received, messages)
        elif now - self._mark[0] >= self._limit and not association.connection.is_reading_held:
            association.abort(
                because=f"the peer sent less than {_PROGRESS} bytes and no whole message in {self._limit:g} s"
            )
        return min(next_look, now + self._limit)
