"""Why something cannot be sent on an association, or cannot be read, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tomowire.uids import name_of
from tomowire.wire.items import ContextResult

if TYPE_CHECKING:
    from tomowire.protocol.negotiation import Agreement

_RESULTS: Final[dict[int, str]] = {
    ContextResult.USER_REJECTION: "the peer's application refused it",
    ContextResult.NO_REASON: "the peer refused it without a reason",
    ContextResult.ABSTRACT_SYNTAX_NOT_SUPPORTED: "the peer does not support this SOP class",
    ContextResult.TRANSFER_SYNTAXES_NOT_SUPPORTED: "the peer supports this SOP class, but none of the transfer syntaxes proposed",
}

# What servers say when they do not understand, and what clients begin with (RFC 9112, RFC 8446 5.1, RFC 4253 4.2).
_OTHERS: Final = {b"HTTP": "HTTP", b"SSH-": "SSH", b"\x15\x03": "TLS", b"\x16\x03": "TLS"} | dict.fromkeys(
    (b"GET ", b"HEAD", b"POST", b"PUT ", b"OPTI"), "HTTP"
)


SPEAKS_TLS: Final = "the other side speaks TLS, and this connection is without"


def explain_beginning(first: bytes) -> str:
    """What a connection is whose `first` bytes are no PDU."""
    for beginning, name in _OTHERS.items():
        if first.startswith(beginning):
            return SPEAKS_TLS if name == "TLS" else f"that is no DICOM peer, it speaks {name}"
    begins = f", what it says begins with {first.decode('ascii')!r}" if first.isascii() and min(first) >= 0x20 else ""
    return f"that is no DICOM peer{begins}"


def explain_refusal(agreement: Agreement, abstract_syntax: str, transfer_syntax: str | None) -> str:
    """What was proposed for a SOP class, what came of it, and whose fault it is. A transfer syntax of None stands for any."""
    what = name_of(abstract_syntax)
    if transfer_syntax is not None:
        what = f"{what} in {name_of(transfer_syntax)}"
    return f"no presentation context for {what}: {_why(agreement, abstract_syntax, transfer_syntax)}"


def _why(agreement: Agreement, abstract_syntax: str, transfer_syntax: str | None) -> str:
    proposed = [each for each in agreement.request.presentation_contexts if each.abstract_syntax == abstract_syntax]
    if not proposed:
        return "this SOP class was not proposed on this association"
    fitting = {each.context_id for each in proposed if transfer_syntax in (None, *each.transfer_syntaxes)}
    if not fitting:
        return "this transfer syntax was not proposed for it on this association"
    for refused in agreement.refused:
        if refused.context_id in fitting:
            return _RESULTS.get(refused.result, f"the peer refused it with the unknown result {refused.result}")
    chosen = ", ".join(name_of(agreement.contexts[context_id].transfer_syntax) for context_id in sorted(fitting))
    return f"the peer chose {chosen}"
