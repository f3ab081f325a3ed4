"""Whose objects `retrieve --method move` takes: those that its own C-MOVE is the cause of, and nobody else's."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from tomowire.errors import StoreFailed
from tomowire.protocol.status import NOT_AUTHORIZED
from tomowire.services.hosts import addresses_of, host_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tomowire.aio.address import PeerAddress
    from tomowire.protocol.status import Status
    from tomowire.services.storage_scp import StoreRequest

_MOST_TOLD: Final = 3


class OfOurMove:
    """`keep` is a handler of `Storage` that hands on to `handler` what comes of a C-MOVE that `title` asked `peer` for.

    Move Originator Application Entity Title (0000,1030) says who asked (PS3.7 9.1.1.1). Old peers leave it empty, and some
    (pynetdicom's `qrscp`) give their own title: that is taken from the peer's host only. Everything else is refused, and told
    with `tell`, the first few times.
    """

    def __init__(
        self,
        title: str,
        peer: PeerAddress,
        handler: Callable[[StoreRequest], Awaitable[Status]],
        tell: Callable[[str], None],
    ) -> None:
        self._title = title
        self._peer = peer
        self._handler = handler
        self._tell = tell
        self._told: set[tuple[str, str]] = set()
        self._hosts: frozenset[str] = frozenset()
        self.came = 0
        """How many objects came, refused ones included."""

    async def keep(self, request: StoreRequest) -> Status:
        """Raises `StoreFailed`: 0124H, "not authorized", or as the handler does."""
        self.came += 1
        association = request.association
        originator = (request.message.move_originator_application_entity_title or "").strip()
        if originator != self._title:
            is_silent = originator in ("", association.calling_ae_title)
            if not is_silent or host_of(association.peer_address) not in await self._peers_hosts():
                self._complain(association.calling_ae_title, originator, association.title)
                raise StoreFailed(NOT_AUTHORIZED, f"not of a C-MOVE of {self._title}")
        return await self._handler(request)

    async def _peers_hosts(self) -> frozenset[str]:
        if not self._hosts:
            self._hosts = await asyncio.to_thread(addresses_of, self._peer.host)
        return self._hosts

    def _complain(self, caller: str, originator: str, association: str) -> None:
        if (caller, originator) not in self._told and len(self._told) < _MOST_TOLD:
            self._told.add((caller, originator))
            named = f"a C-MOVE of {originator!r}" if originator else "no C-MOVE"
            self._tell(f"refused what {association} sends: it names {named} as the cause, and not one of {self._title}")
