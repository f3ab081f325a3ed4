"""How an acceptor answers an A-ASSOCIATE-RQ, as a pure function (PS3.8 9.3.3, 9.3.4 and PS3.7 D.3)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final, Protocol

from tomowire.protocol.negotiation import smaller_limit
from tomowire.uids import (
    APPLICATION_CONTEXT,
    IMPLEMENTATION_CLASS_UID,
    IMPLEMENTATION_VERSION_NAME,
    TRANSFER_SYNTAXES,
)
from tomowire.wire.items import ContextResult, PresentationContextAC
from tomowire.wire.pdu import AAssociateAC, AAssociateRJ
from tomowire.wire.user_identity import IdentityType, UserIdentityAC
from tomowire.wire.user_information import (
    AsynchronousOperationsWindow,
    ExtendedNegotiation,
    RoleSelection,
    UserInformation,
)
from tomowire.wire.value import value

if TYPE_CHECKING:
    from collections.abc import Container

    from tomowire.wire.items import PresentationContextRQ
    from tomowire.wire.pdu import AAssociateRQ

REJECT_APPLICATION_CONTEXT: Final = AAssociateRJ(result=1, source=1, reason=2)
REJECT_CALLING_AE_TITLE: Final = AAssociateRJ(result=1, source=1, reason=3)
REJECT_CALLED_AE_TITLE: Final = AAssociateRJ(result=1, source=1, reason=7)
REJECT_LOCAL_LIMIT: Final = AAssociateRJ(result=2, source=3, reason=2)
REJECT_CONGESTION: Final = AAssociateRJ(result=2, source=3, reason=1)
REJECT_USER_IDENTITY: Final = AAssociateRJ(result=1, source=2, reason=1)
"""PS3.7 D.3.3.7.3: for good, and by the ACSE; for its reason there is no code."""

# PS3.7 Table D.3-15: to these there is nothing to say but that the item is there.
_ANSWERED_WITH_NOTHING: Final = (IdentityType.USER_NAME, IdentityType.USER_NAME_AND_PASSCODE)


class SupportedSyntaxes(Protocol):
    """What an acceptor can do: asked for each proposed presentation context."""

    def transfer_syntaxes(self, abstract_syntax: str) -> Container[str] | None:
        """The transfer syntaxes supported for an abstract syntax; None when the abstract syntax itself is not supported."""

    def may_be_scp(self, abstract_syntax: str) -> bool:
        """Whether the requestor may take the SCP role for it (needed for C-GET and storage commitment)."""

    def extended_negotiation(self, abstract_syntax: str, proposed: bytes) -> bytes | None:
        """The answer to a SOP class extended negotiation item (PS3.7 D.3.3.5); None for no answer."""

    def refuses(self, abstract_syntax: str) -> bool:
        """Whether an abstract syntax that `transfer_syntaxes` does not support is known, and kept from this requestor."""


@value()
class AcceptorPolicy:
    """How an acceptor answers. AE titles of None accept any.

    `maximum_performed` is the largest window granted, `maximum_invoked` how many requests of its own it would have outstanding;
    0 is no limit.
    """

    supported: SupportedSyntaxes
    called_ae_titles: frozenset[str] | None = None
    calling_ae_titles: frozenset[str] | None = None
    maximum_length: int = 0
    maximum_performed: int = 1
    maximum_invoked: int = 1


def answer(request: AAssociateRQ, policy: AcceptorPolicy) -> AAssociateAC | AAssociateRJ:
    """The acceptor's answer. Without an acceptable context it is still an acceptance, if a useless one (PS3.8 7.1.1.14)."""
    return rejection(request, policy) or acceptance(request, policy)


def rejection(request: AAssociateRQ, policy: AcceptorPolicy) -> AAssociateRJ | None:
    """What `policy` rejects a request with; None if it does not. `policy.supported` is not asked."""
    if request.application_context_name != APPLICATION_CONTEXT:
        return REJECT_APPLICATION_CONTEXT
    if policy.called_ae_titles is not None and request.called_ae_title not in policy.called_ae_titles:
        return REJECT_CALLED_AE_TITLE
    if policy.calling_ae_titles is not None and request.calling_ae_title not in policy.calling_ae_titles:
        return REJECT_CALLING_AE_TITLE
    return None


def acceptance(request: AAssociateRQ, policy: AcceptorPolicy) -> AAssociateAC:
    """The answer to a request that is not rejected."""
    as_scp = {role.sop_class_uid for role in request.user_information.role_selections if role.scp}
    contexts = tuple(_answer_context(context, policy.supported, as_scp) for context in request.presentation_contexts)
    answered = {
        proposed.abstract_syntax
        for proposed, given in zip(request.presentation_contexts, contexts, strict=True)
        if given.result == ContextResult.ACCEPTANCE
    }
    return AAssociateAC(
        called_ae_title=request.called_ae_title,
        calling_ae_title=request.calling_ae_title,
        presentation_contexts=contexts,
        user_information=_answer_user_information(request.user_information, answered, policy),
        titles_as_sent=request.titles_as_sent,
    )


def _answer_context(
    proposed: PresentationContextRQ, supported: SupportedSyntaxes, as_scp: Container[str]
) -> PresentationContextAC:
    """PS3.8 9.3.3.2: exactly one transfer syntax when accepted. The requestor's order decides: it knows what it has.

    What is not served here is accepted too, when the requestor would be SCP of it, and be sent something.
    """
    context_id = proposed.context_id
    usable = supported.transfer_syntaxes(proposed.abstract_syntax)
    if usable is None and proposed.abstract_syntax in as_scp and supported.may_be_scp(proposed.abstract_syntax):
        usable = TRANSFER_SYNTAXES
    # A refused context must still carry a transfer syntax, which nobody reads.
    some_syntax = proposed.transfer_syntaxes[0] if proposed.transfer_syntaxes else ""
    if usable is None:
        is_kept = supported.refuses(proposed.abstract_syntax)
        result = ContextResult.USER_REJECTION if is_kept else ContextResult.ABSTRACT_SYNTAX_NOT_SUPPORTED
        return PresentationContextAC(context_id, result, some_syntax)
    for transfer_syntax in proposed.transfer_syntaxes:
        if transfer_syntax in usable:
            return PresentationContextAC(context_id, ContextResult.ACCEPTANCE, transfer_syntax)
    return PresentationContextAC(context_id, ContextResult.TRANSFER_SYNTAXES_NOT_SUPPORTED, some_syntax)


def _answer_user_information(
    asked: UserInformation, accepted: Container[str], policy: AcceptorPolicy
) -> UserInformation:
    window = asked.asynchronous_operations_window
    if window is not None:  # PS3.7 D.3.3.3: answered only if proposed, and never with more
        window = AsynchronousOperationsWindow(
            smaller_limit(window.maximum_invoked, policy.maximum_performed),
            smaller_limit(window.maximum_performed, policy.maximum_invoked),
        )
    roles = {
        role.sop_class_uid: RoleSelection(
            role.sop_class_uid,
            scu=role.scu and policy.supported.transfer_syntaxes(role.sop_class_uid) is not None,
            scp=role.scp and policy.supported.may_be_scp(role.sop_class_uid),
        )
        for role in asked.role_selections
        if role.sop_class_uid in accepted
    }
    extended: dict[str, ExtendedNegotiation] = {}
    for item in asked.extended_negotiations:
        if item.sop_class_uid in accepted:
            information = policy.supported.extended_negotiation(item.sop_class_uid, item.application_information)
            if information is not None:
                extended[item.sop_class_uid] = ExtendedNegotiation(item.sop_class_uid, information)
    return UserInformation(
        maximum_length=policy.maximum_length,
        implementation_class_uid=IMPLEMENTATION_CLASS_UID,
        implementation_version_name=IMPLEMENTATION_VERSION_NAME,
        asynchronous_operations_window=window,
        role_selections=tuple(roles.values()),
        extended_negotiations=tuple(extended.values()),
    )


def confirm_identity(request: AAssociateRQ, response: AAssociateAC, server_response: bytes) -> AAssociateAC:
    """`response` with what PS3.7 D.3.3.7 asks for when the user has been identified: an item exactly when one was requested."""
    identity = request.user_information.user_identity
    if identity is None or not identity.positive_response_requested:
        return response
    said = b"" if identity.identity_type in _ANSWERED_WITH_NOTHING else server_response
    information = replace(response.user_information, user_identity_response=UserIdentityAC(said))
    return replace(response, user_information=information)
