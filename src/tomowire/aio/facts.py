"""What can be asked of an association: who its two ends are, what they agreed on, and how it stands."""

from __future__ import annotations

from functools import cached_property
from itertools import count
from typing import TYPE_CHECKING, Any

from tomowire.errors import AssociationReleased, NoAcceptedContext, UsageError
from tomowire.protocol.explain import explain_refusal
from tomowire.protocol.states import State

if TYPE_CHECKING:
    from tomowire.aio.connection import Connection
    from tomowire.aio.ending import AssociationEnd
    from tomowire.aio.tls_certificate import PeerCertificate
    from tomowire.errors import AssociationError, AssociationRejected
    from tomowire.protocol.negotiation import AcceptedContext, Agreement
    from tomowire.protocol.upper_layer import UpperLayer
    from tomowire.wire.user_identity import UserIdentity


_numbers = count(1)


class AssociationTitle(str):
    """How the log names an association. A log that keeps facts beside the text finds them in it (`association`)."""

    association: AssociationFacts


class AssociationFacts:
    """The part of `Association` that only tells and changes nothing."""

    connection: Connection

    def __init__(self, upper: UpperLayer, called_ae_title: str, calling_ae_title: str) -> None:
        self._upper = upper
        self._over: AssociationError | None = None
        self.number = next(_numbers)
        """By which it is known within this process: 1, 2, 3, ..."""
        self.called_ae_title = called_ae_title
        self.calling_ae_title = calling_ae_title
        self.identity: UserIdentity | None = None
        """Who the requestor says that its user is (PS3.7 D.3.3.7), or None. An acceptor must not believe it: see `user`."""
        self.user: Any = None
        """On the acceptor's side, who the user is: what the handler `identify` made of `identity`."""
        self.end: AssociationEnd | None = None
        """How the association ended; None before, and where there was none."""
        self.rejection: AssociationRejected | None = None
        """Why the acceptor has rejected it, if it did."""

    @property
    def is_requestor(self) -> bool:
        """Whether this side opened the association."""
        return self._upper.is_requestor

    @property
    def title(self) -> AssociationTitle:
        """Both AE titles and the peer's address, for the log."""
        arrow = f"{self.calling_ae_title or '?'} -> {self.called_ae_title or '?'}"
        title = AssociationTitle(f"{arrow} ({self.connection.peer_address or 'not connected'})")
        title.association = self
        return title

    @property
    def peer_address(self) -> str:
        """`host:port` of the other end of the connection."""
        return self.connection.peer_address

    @cached_property
    def peer_certificate(self) -> PeerCertificate | None:
        """The certificate that the peer has shown; None without TLS, and where it has shown none."""
        if self.connection.tls is None:
            return None
        from tomowire.aio.tls_certificate import certificate_of  # a program without TLS does not need it

        return certificate_of(self.connection.tls)

    @property
    def tls_version(self) -> str | None:
        """`TLSv1.3` and the like; None without TLS."""
        return self.connection.tls.version() if self.connection.tls is not None else None

    @property
    def peer_host(self) -> str:
        """The address of the peer without the port; empty where it has none (a Unix socket)."""
        return self.connection.peer_address.rpartition(":")[0].strip("[]")

    @property
    def identity_response(self) -> bytes | None:
        """What the acceptor answered to `identity`: empty for a user name, a ticket or a response for the others (PS3.7 D.3.3.7.2).

        None is no answer: none was asked for, or the acceptor does not look at identities.
        """
        given = self.agreement.response.user_information.user_identity_response
        asked = self.identity is not None and self.identity.positive_response_requested
        return given.server_response if asked and given is not None else None

    @property
    def agreement(self) -> Agreement:
        """What was negotiated. Raises `UsageError` before the association is established."""
        if self._upper.agreement is None:
            raise UsageError("the association is not established yet")
        return self._upper.agreement

    @property
    def is_established(self) -> bool:
        """Whether requests can be sent."""
        return self._upper.state is State.STA6_DATA_TRANSFER

    @property
    def is_unasked(self) -> bool:
        """Whether there is a connection, and nothing has been asked for on it yet (Sta2)."""
        return self._upper.state is State.STA2_AWAITING_ASSOCIATE_RQ

    @property
    def awaits_answer(self) -> bool:
        """Whether the peer has asked for the association, and has not been answered (Sta3)."""
        return self._upper.state is State.STA3_AWAITING_LOCAL_ASSOCIATE_RESPONSE

    @property
    def can_answer(self) -> bool:
        """Whether responses can be sent: also while the peer waits for its release, but not while we wait for ours (Sta7)."""
        return self._over is None and self._upper.is_established

    @property
    def has_begun(self) -> bool:
        """Whether there is an association, if only for its release; not one that is being asked for, or is over."""
        return self._upper.agreement is not None and self._over is None

    @property
    def error(self) -> AssociationError | None:
        """Why the association ended, if it was not released."""
        return None if isinstance(self._over, AssociationReleased) else self._over

    @property
    def payload_maximum(self) -> int:
        """The most bytes of a data set that fit in one PDU to this peer."""
        return self._upper.payload_maximum

    @property
    def window(self) -> int:
        """How many requests of ours may be outstanding at once; 0 is unlimited (PS3.7 D.3.3.3)."""
        return self.agreement.maximum_invoked if self.is_requestor else self.agreement.maximum_performed

    def extended(self, sop_class_uid: str) -> bytes | None:
        """The acceptor's answer to the SOP class extended negotiation of a SOP class (PS3.7 D.3.3.5); None if there was none."""
        return self.agreement.extended(sop_class_uid)

    def contexts(self, abstract_syntax: str) -> list[AcceptedContext]:
        """The accepted presentation contexts for an abstract syntax, in the order proposed."""
        return [each for each in self.agreement.contexts.values() if each.abstract_syntax == abstract_syntax]

    def context(self, abstract_syntax: str, transfer_syntax: str | None = None) -> AcceptedContext:
        """An accepted presentation context. Raises `NoAcceptedContext` that says what was refused and why."""
        for each in self.agreement.contexts.values():
            if each.abstract_syntax == abstract_syntax and transfer_syntax in (None, each.transfer_syntax):
                return each
        raise NoAcceptedContext(
            explain_refusal(self.agreement, abstract_syntax, transfer_syntax),
            abstract_syntax=abstract_syntax,
            transfer_syntax=transfer_syntax,
            agreement=self.agreement,
        )
