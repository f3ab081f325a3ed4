"""Who is told what becomes of an acceptor's associations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from tomowire.aio.association import Association
    from tomowire.wire.pdu import AAssociateRQ


class Host(Protocol):
    """Who answers for an acceptor's associations."""

    def on_open(self, association: Association) -> None:
        """There is a connection."""

    def on_request(self, association: Association, request: AAssociateRQ) -> None:
        """An association is asked for: to be answered with `accept` or `reject`, now or later."""

    def on_established(self, association: Association) -> None:
        """The request was accepted."""

    def on_ended(self, association: Association) -> None:
        """The association is over, or was not to be, and no request is being served any more."""

    def on_gone(self, association: Association) -> None:
        """And the connection is closed."""
