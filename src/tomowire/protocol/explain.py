"""What two sides agreed on, in words: what was proposed, accepted and refused, why, and what to change."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tomowire.errors import NoAcceptedContext
from tomowire.uids import name_of
from tomowire.wire.items import ContextResult

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tomowire.protocol.negotiation import AcceptedContext, Agreement, RefusedContext
    from tomowire.wire.pdu import AAssociateRQ
    from tomowire.wire.user_identity import UserIdentity
    from tomowire.wire.user_information import UserInformation

_RESULTS: Final[dict[int, str]] = {
    ContextResult.USER_REJECTION: "the peer's application refused it: its operator decides who may use it",
    ContextResult.NO_REASON: "the peer refused it without a reason: its log may say more",
    ContextResult.ABSTRACT_SYNTAX_NOT_SUPPORTED: "the peer does not support this SOP class: it has to be enabled there",
    ContextResult.TRANSFER_SYNTAXES_NOT_SUPPORTED: (
        "the peer supports this SOP class, but none of the transfer syntaxes proposed: it needs another"
    ),
}

# What servers say when they do not understand, and what clients begin with (RFC 9112, RFC 8446 5.1, RFC 4253 4.2).
_OTHERS: Final = {b"HTTP": "HTTP", b"SSH-": "SSH", b"\x15\x03": "TLS", b"\x16\x03": "TLS"} | dict.fromkeys(
    (b"GET ", b"HEAD", b"POST", b"PUT ", b"OPTI"), "HTTP"
)


SPEAKS_TLS: Final = "the other side speaks TLS, and this connection is without"


def foreign_protocol(first: bytes) -> str | None:
    """The protocol of a connection whose `first` bytes are no PDU: "HTTP", "SSH" or "TLS"; None for any other."""
    return next((name for beginning, name in _OTHERS.items() if first.startswith(beginning)), None)


def explain_beginning(first: bytes) -> str:
    """What a connection is whose `first` bytes are no PDU."""
    name = foreign_protocol(first)
    if name is not None:
        return SPEAKS_TLS if name == "TLS" else f"that is no DICOM peer, it speaks {name}"
    begins = f", what it says begins with {first.decode('ascii')!r}" if first.isascii() and min(first) >= 0x20 else ""
    return f"that is no DICOM peer{begins}"


def explain_result(result: int) -> str:
    """Why a presentation context was refused, and what to change (PS3.8 Table 9-18)."""
    return _RESULTS.get(result, f"the peer refused it with the unknown result {result}")


def explain_refusal(agreement: Agreement, abstract_syntax: str, transfer_syntax: str | None) -> str:
    """What was proposed for a SOP class, what came of it, and whose fault it is. A transfer syntax of None stands for any."""
    what = name_of(abstract_syntax)
    if transfer_syntax is not None:
        what = f"{what} in {name_of(transfer_syntax)}"
    return f"no presentation context for {what}: {_why(agreement, abstract_syntax, transfer_syntax)}"


def result_of(error: NoAcceptedContext) -> int | None:
    """Why the peer refused what `error` is about (PS3.8 Table 9-18); None if it did not, or nobody knows."""
    for refused in error.agreement.refused if error.agreement is not None else ():
        if refused.abstract_syntax == error.abstract_syntax and error.transfer_syntax in (
            None,
            *refused.transfer_syntaxes,
        ):
            return refused.result
    return None


def is_not_permitted(error: Exception) -> bool:
    """Whether the peer has the service and does not let us use it (user rejection): nothing else that could be proposed helps."""
    return isinstance(error, NoAcceptedContext) and result_of(error) == ContextResult.USER_REJECTION


def _why(agreement: Agreement, abstract_syntax: str, transfer_syntax: str | None) -> str:
    proposed = [each for each in agreement.request.presentation_contexts if each.abstract_syntax == abstract_syntax]
    if not proposed:
        return "this SOP class was not proposed on this association"
    fitting = {each.context_id for each in proposed if transfer_syntax in (None, *each.transfer_syntaxes)}
    if not fitting:
        names = _names(syntax for each in proposed for syntax in each.transfer_syntaxes)
        return f"this transfer syntax was not proposed for it on this association, but {names}"
    for refused in agreement.refused:
        if refused.context_id in fitting:
            if (chosen := _not_proposed(agreement, refused)) is not None:
                return chosen
            is_about_syntaxes = refused.result == ContextResult.TRANSFER_SYNTAXES_NOT_SUPPORTED
            unnamed = is_about_syntaxes and transfer_syntax is None
            was = f" (proposed: {_names(refused.transfer_syntaxes)})" if unnamed else ""
            return f"{explain_result(refused.result)}{was}"
    return f"the peer chose {_names(agreement.contexts[number].transfer_syntax for number in sorted(fitting))}"


def _not_proposed(agreement: Agreement, refused: RefusedContext) -> str | None:
    """What is wrong with a context that the peer accepted, and which cannot be used all the same (PS3.8 9.3.3.2)."""
    for answered in agreement.response.presentation_contexts:
        if answered.context_id == refused.context_id and answered.result == ContextResult.ACCEPTANCE:
            chosen = name_of(answered.transfer_syntax) or "none"
            return (
                f"the peer accepted it in a transfer syntax that was not proposed, {chosen}: that breaks the standard"
            )
    return None


def describe_proposal(request: AAssociateRQ) -> Iterator[tuple[str, str]]:
    """What a requestor asked for, as pairs of a name and what is to be said about it."""
    yield "called", f"{request.called_ae_title!r} by {request.calling_ae_title!r}"
    for context in request.presentation_contexts:
        yield "proposed", f"{name_of(context.abstract_syntax)} in {_names(context.transfer_syntaxes)}"


def describe_agreement(agreement: Agreement) -> Iterator[tuple[str, str]]:
    """All that was negotiated, as pairs of a name and what is to be said about it, as the requestor sees it."""
    asked, given = agreement.request.user_information, agreement.response.user_information
    for context in agreement.contexts.values():
        yield "accepted", _accepted(context, agreement)
    for refused in agreement.refused:
        yield "refused", _refused(agreement, refused)
    yield "maximum length", f"{_length(given.maximum_length)} to the peer, {_length(asked.maximum_length)} to this side"
    yield "window", _window(agreement)
    yield from _extended(asked, given)
    if asked.user_identity is not None:
        yield "user identity", _identity(asked.user_identity, given)
    name = f" {given.implementation_version_name!r}" if given.implementation_version_name else ""
    yield "implementation", f"{given.implementation_class_uid or 'not told'}{name}"


def _accepted(context: AcceptedContext, agreement: Agreement) -> str:
    proposed = next(
        each for each in agreement.request.presentation_contexts if each.context_id == context.context_id
    ).transfer_syntaxes
    of = f" (of {_names(proposed)})" if len(proposed) > 1 else ""
    roles = [name for name, has in (("SCU", context.requestor_is_scu), ("SCP", context.requestor_is_scp)) if has]
    role = " and ".join(roles) or "neither SCU nor SCP"
    return f"{name_of(context.abstract_syntax)} in {name_of(context.transfer_syntax)}{of}; this side is {role}"


def _refused(agreement: Agreement, context: RefusedContext) -> str:
    why = _not_proposed(agreement, context) or explain_result(context.result)
    return f"{name_of(context.abstract_syntax)} in {_names(context.transfer_syntaxes)}: {why}"


def _identity(identity: UserIdentity, given: UserInformation) -> str:
    if given.user_identity_response is not None:
        answered = "answered"
    elif identity.positive_response_requested:
        answered = "not answered: the peer may not look at it"
    else:
        answered = "no answer was asked for"
    return f"{identity}, {answered}"


def _window(agreement: Agreement) -> str:
    asked = agreement.request.user_information.asynchronous_operations_window
    proposed = f" ({_operations(asked.maximum_invoked)} proposed)" if asked is not None else ""
    return f"{_operations(agreement.maximum_invoked)} at once{proposed}"


def _extended(asked: UserInformation, given: UserInformation) -> Iterator[tuple[str, str]]:
    answers = {each.sop_class_uid: each.application_information for each in given.extended_negotiations}
    for each in asked.extended_negotiations:
        answer = answers.get(each.sop_class_uid)
        said = "not answered: not agreed to" if answer is None else f"answered {answer.hex(' ')}"
        yield "extended", f"{name_of(each.sop_class_uid)}: {each.application_information.hex(' ')} proposed, {said}"


def _operations(count: int) -> str:
    return {0: "any number of operations", 1: "1 operation"}.get(count, f"{count} operations")


def _length(maximum: int) -> str:
    return f"{maximum} bytes" if maximum else "any number of bytes"


def _names(uids: Iterable[str]) -> str:
    """The names of UIDs, each once."""
    return ", ".join(map(name_of, dict.fromkeys(uids)))
