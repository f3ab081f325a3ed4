"""Whose objects `retrieve --method move` takes: those that its own C-MOVE is the cause of, and nobody else's."""

from __future__ import annotations

import asyncio
import random
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
_MESSAGE_IDS: Final = 0xFFFF


class OfOurMove:
    """`keep` is a handler of `Storage` that hands on to `handler` what comes of a C-MOVE that `title` asked `peer` for.

    Each request takes its Message ID from `new_message_id`. Move Originator Application Entity Title (0000,1030) and Message ID
    (0000,1031) say whose and which request is the cause of an object (PS3.7 9.1.1.1). Old peers leave them out, and some
    (pynetdicom's `qrscp`) give their own title: that is taken from the peer's host only. A Message ID that is there has to be one
    of ours.

    Everything else is refused, and told with `tell`, the first few times: a folder that is named for one retrieval is no place for
    others' objects, and whoever sends them learns that nobody has kept them.
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
        self._message_ids: set[int] = set()
        self.came = 0
        """How many objects came, refused ones included."""

    def new_message_id(self) -> int:
        """For one more C-MOVE of ours (1 to 65535).

        By chance: of an earlier run, of which the peer may still be sending objects, all would begin with the same number.
        """
        message_id = random.randint(1, _MESSAGE_IDS)
        while message_id in self._message_ids and len(self._message_ids) < _MESSAGE_IDS:
            message_id = message_id % _MESSAGE_IDS + 1
        self._message_ids.add(message_id)
        return message_id

    async def keep(self, request: StoreRequest) -> Status:
        """Raises `StoreFailed`: 0124H, "not authorized", or as the handler does."""
        self.came += 1
        cause = await self._other_cause(request)
        if cause is not None:
            self._complain(request, cause)
            raise StoreFailed(NOT_AUTHORIZED, f"not of this C-MOVE of {self._title}")
        return await self._handler(request)

    async def _other_cause(self, request: StoreRequest) -> str | None:
        """What an object names as its cause, if that is no C-MOVE of ours."""
        association, message = request.association, request.message
        originator = (message.move_originator_application_entity_title or "").strip()
        if originator != self._title:
            is_silent = originator in ("", association.calling_ae_title)
            if not is_silent or host_of(association.peer_address) not in await self._peers_hosts():
                return f"a C-MOVE of {originator!r}" if originator else "no C-MOVE"
        message_id = message.move_originator_message_id
        if (
            not message_id or message_id in self._message_ids
        ):  # none of ours is 0: who has nothing to say may write that, too
            return None
        return f"another C-MOVE, Message ID {message_id},"

    async def _peers_hosts(self) -> frozenset[str]:
        if not self._hosts:
            self._hosts = await asyncio.to_thread(addresses_of, self._peer.host)
        return self._hosts

    def _complain(self, request: StoreRequest, cause: str) -> None:
        caller, association = request.association.calling_ae_title, request.association.title
        if (caller, cause) not in self._told and len(self._told) < _MOST_TOLD:
            self._told.add((caller, cause))
            self._tell(
                f"refused what {association} sends: it names {cause} as the cause, and not this one of {self._title}"
            )
