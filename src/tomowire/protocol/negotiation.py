"""Association negotiation as pure functions (PS3.8 9.3.2, 9.3.3 and PS3.7 D.3): propose, answer, and what came of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from tomowire.errors import UsageError
from tomowire.uids import (
    APPLICATION_CONTEXT,
    IMPLEMENTATION_CLASS_UID,
    IMPLEMENTATION_VERSION_NAME,
    TRANSFER_SYNTAXES,
)
from tomowire.wire.items import ContextResult, PresentationContextAC, PresentationContextRQ
from tomowire.wire.pdu import AAssociateAC, AAssociateRJ, AAssociateRQ
from tomowire.wire.user_information import (
    AsynchronousOperationsWindow,
    ExtendedNegotiation,
    RoleSelection,
    UserInformation,
)
from tomowire.wire.value import value

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Mapping, Sequence

# PS3.8 9.3.2.2: context IDs are the odd numbers from 1 to 255.
MAXIMUM_CONTEXTS: Final = 128
_NO_WINDOW: Final = AsynchronousOperationsWindow(1, 1)

REJECT_APPLICATION_CONTEXT: Final = AAssociateRJ(result=1, source=1, reason=2)
REJECT_CALLING_AE_TITLE: Final = AAssociateRJ(result=1, source=1, reason=3)
REJECT_CALLED_AE_TITLE: Final = AAssociateRJ(result=1, source=1, reason=7)
REJECT_LOCAL_LIMIT: Final = AAssociateRJ(result=2, source=3, reason=2)


@value()
class ProposedContext:
    """What a requestor wants: one abstract syntax, and the transfer syntaxes that it can use for it, best first.

    `scu` and `scp` are the roles the requestor wants for itself; anything but SCU alone needs role selection (PS3.7 D.3.3.4).
    """

    abstract_syntax: str
    transfer_syntaxes: tuple[str, ...]
    scu: bool = True
    scp: bool = False


@value()
class AcceptedContext:
    """A presentation context that both sides agreed on, with the roles of the association's requestor."""

    context_id: int
    abstract_syntax: str
    transfer_syntax: str
    requestor_is_scu: bool = True
    requestor_is_scp: bool = False


@value()
class RefusedContext:
    """A proposed presentation context that was not accepted; `result` is the acceptor's (PS3.8 Table 9-18)."""

    context_id: int
    abstract_syntax: str
    transfer_syntaxes: tuple[str, ...]
    result: int


@value()
class Agreement:
    """What an A-ASSOCIATE-RQ and the A-ASSOCIATE-AC to it agree on."""

    request: AAssociateRQ
    response: AAssociateAC
    contexts: Mapping[int, AcceptedContext]
    refused: tuple[RefusedContext, ...]
    maximum_invoked: int
    """How many operations the requestor may have outstanding; 0 is unlimited (PS3.7 D.3.3.3)."""
    maximum_performed: int
    """How many operations the acceptor may have outstanding with the requestor; 0 is unlimited."""

    @classmethod
    def of(cls, request: AAssociateRQ, response: AAssociateAC) -> Agreement:
        """Read both PDUs. What the acceptor grants without having been asked does not count."""
        answers = {context.context_id: context for context in response.presentation_contexts}
        roles = _agreed_roles(request.user_information, response.user_information)
        accepted: dict[int, AcceptedContext] = {}
        refused: list[RefusedContext] = []
        for proposed in request.presentation_contexts:
            answer = answers.get(proposed.context_id)
            result = ContextResult.NO_REASON if answer is None else answer.result
            if answer is not None and not result and answer.transfer_syntax in proposed.transfer_syntaxes:
                scu, scp = roles.get(proposed.abstract_syntax, (True, False))
                accepted[proposed.context_id] = AcceptedContext(
                    proposed.context_id, proposed.abstract_syntax, answer.transfer_syntax, scu, scp
                )
            else:
                refused.append(
                    RefusedContext(
                        proposed.context_id,
                        proposed.abstract_syntax,
                        proposed.transfer_syntaxes,
                        result or ContextResult.TRANSFER_SYNTAXES_NOT_SUPPORTED,
                    )
                )
        asked = request.user_information.asynchronous_operations_window or _NO_WINDOW
        granted = response.user_information.asynchronous_operations_window or _NO_WINDOW
        return cls(
            request,
            response,
            accepted,
            tuple(refused),
            _smaller_limit(asked.maximum_invoked, granted.maximum_invoked),
            _smaller_limit(asked.maximum_performed, granted.maximum_performed),
        )


def propose(
    *,
    called_ae_title: str,
    calling_ae_title: str,
    contexts: Sequence[ProposedContext],
    maximum_length: int,
    window: AsynchronousOperationsWindow | None = None,
    extended_negotiations: Iterable[ExtendedNegotiation] = (),
) -> AAssociateRQ:
    """The A-ASSOCIATE-RQ for up to 128 presentation contexts.

    Raises `UsageError` for more, for none, and for one without a transfer syntax.
    """
    if not 0 < len(contexts) <= MAXIMUM_CONTEXTS:
        raise UsageError(f"an association has 1 to {MAXIMUM_CONTEXTS} presentation contexts, not {len(contexts)}")
    for context in contexts:
        if not context.transfer_syntaxes:  # PS3.8 9.3.2.2: "one or more"
            raise UsageError(f"no transfer syntax is proposed for {context.abstract_syntax}")
    return AAssociateRQ(
        called_ae_title=called_ae_title,
        calling_ae_title=calling_ae_title,
        presentation_contexts=tuple(
            PresentationContextRQ(2 * index + 1, context.abstract_syntax, context.transfer_syntaxes)
            for index, context in enumerate(contexts)
        ),
        user_information=UserInformation(
            maximum_length=maximum_length,
            implementation_class_uid=IMPLEMENTATION_CLASS_UID,
            implementation_version_name=IMPLEMENTATION_VERSION_NAME,
            asynchronous_operations_window=window,
            role_selections=_wanted_roles(contexts),
            extended_negotiations=tuple(extended_negotiations),
        ),
    )


def _wanted_roles(contexts: Iterable[ProposedContext]) -> tuple[RoleSelection, ...]:
    """PS3.7 D.3.3.4: one item for each SOP class, so contexts of the same abstract syntax share the roles that any of them wants.

    Where it is SCU alone, the default says so already.
    """
    roles: dict[str, RoleSelection] = {}
    for context in contexts:
        uid = context.abstract_syntax
        before = roles.get(uid, RoleSelection(uid, scu=False, scp=False))
        roles[uid] = RoleSelection(uid, scu=before.scu or context.scu, scp=before.scp or context.scp)
    return tuple(role for role in roles.values() if role.scp or not role.scu)


class SupportedSyntaxes(Protocol):
    """What an acceptor can do: asked for each proposed presentation context."""

    def transfer_syntaxes(self, abstract_syntax: str) -> Container[str] | None:
        """The transfer syntaxes supported for an abstract syntax; None when the abstract syntax itself is not supported."""

    def may_be_scp(self, abstract_syntax: str) -> bool:
        """Whether the requestor may take the SCP role for it (needed for C-GET and storage commitment)."""

    def extended_negotiation(self, abstract_syntax: str, proposed: bytes) -> bytes | None:
        """The answer to a SOP class extended negotiation item (PS3.7 D.3.3.5); None for no answer."""


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
    if request.application_context_name != APPLICATION_CONTEXT:
        return REJECT_APPLICATION_CONTEXT
    if policy.called_ae_titles is not None and request.called_ae_title not in policy.called_ae_titles:
        return REJECT_CALLED_AE_TITLE
    if policy.calling_ae_titles is not None and request.calling_ae_title not in policy.calling_ae_titles:
        return REJECT_CALLING_AE_TITLE
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
        return PresentationContextAC(context_id, ContextResult.ABSTRACT_SYNTAX_NOT_SUPPORTED, some_syntax)
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
            _smaller_limit(window.maximum_invoked, policy.maximum_performed),
            _smaller_limit(window.maximum_performed, policy.maximum_invoked),
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


def _agreed_roles(asked: UserInformation, given: UserInformation) -> dict[str, tuple[bool, bool]]:
    """PS3.7 D.3.3.4: a role counts where both say 1; without an answer the defaults hold."""
    answers = {role.sop_class_uid: role for role in given.role_selections}
    return {
        role.sop_class_uid: (role.scu and answer.scu, role.scp and answer.scp)
        for role in asked.role_selections
        if (answer := answers.get(role.sop_class_uid)) is not None
    }


def _smaller_limit(first: int, second: int) -> int:
    """The stricter of two limits of which 0 means none."""
    return min(first, second) if first and second else first or second
