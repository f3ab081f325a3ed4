"""Who is told what happens on a connection."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tomowire.aio.blocks import Block
    from tomowire.protocol.events import ProtocolEvent


class Owner(Protocol):
    """Who is told what happens on a connection."""

    def on_connected(self) -> None:
        """The connection is open and known to the automaton."""

    def on_events(self, events: Iterable[ProtocolEvent], block: Block | None) -> None:
        """The automaton has news; `DataReceived` slices lie in `block`."""

    def on_no_room(self) -> None:
        """All receive blocks are lent out: whoever gathers should let go."""

    def on_closed(self) -> None:
        """The connection is closed, and nothing more will come."""
