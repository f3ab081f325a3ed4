"""A request for an association, as an acceptor's handlers see it, and what they say of its user."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from tomowire.wire.value import value

if TYPE_CHECKING:
    from tomowire.aio.association import Association
    from tomowire.aio.tls_certificate import PeerCertificate
    from tomowire.wire.items import PresentationContextRQ
    from tomowire.wire.pdu import AAssociateRQ
    from tomowire.wire.user_identity import UserIdentity


class AssociationRequest:
    """A request for an association, as the handlers `on_request` and `identify` see it."""

    __slots__ = ("association", "pdu")

    def __init__(self, association: Association, pdu: AAssociateRQ) -> None:
        self.association: Final = association
        """What is to be the association; nothing can be sent on it yet."""
        self.pdu: Final = pdu
        """All that the requestor says."""

    @property
    def calling_ae_title(self) -> str:
        return self.pdu.calling_ae_title

    @property
    def called_ae_title(self) -> str:
        return self.pdu.called_ae_title

    @property
    def peer_address(self) -> str:
        """`host:port` of the peer."""
        return self.association.peer_address

    @property
    def peer_certificate(self) -> PeerCertificate | None:
        """The certificate that the peer has shown; None without TLS, and where it has shown none."""
        return self.association.peer_certificate

    @property
    def identity(self) -> UserIdentity | None:
        """Who the user is, as the requestor says (PS3.7 D.3.3.7); None if it says nothing."""
        return self.pdu.user_information.user_identity

    @property
    def contexts(self) -> tuple[PresentationContextRQ, ...]:
        """The proposed presentation contexts, each with its `abstract_syntax` and its `transfer_syntaxes`."""
        return self.pdu.presentation_contexts


@value()
class Identified:
    """What `identify` returns to have `response`, a Kerberos ticket or a SAML response, sent to a requestor that asked for it."""

    user: Any
    response: bytes = b""

    def __repr__(self) -> str:
        return f"Identified({self.user!r}, {len(self.response)} bytes)"
