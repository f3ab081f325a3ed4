"""Why something cannot be sent on an association, in words."""

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


def explain_refusal(agreement: Agreement, abstract_syntax: str, transfer_syntax: str | None) -> str:
    """What was proposed for a SOP class, what came of it, and whose fault it is."""
    what = name_of(abstract_syntax)
    if transfer_syntax is not None:
        what = f"{what} in {name_of(transfer_syntax)}"
    accepted = [each for each in agreement.contexts.values() if each.abstract_syntax == abstract_syntax]
    for refused in agreement.refused:
        if refused.abstract_syntax == abstract_syntax and transfer_syntax in (None, *refused.transfer_syntaxes):
            result = _RESULTS.get(refused.result)
            return (
                f"no presentation context for {what}: {result or f'refused with the unknown result {refused.result}'}"
            )
    if accepted:
        taken = ", ".join(name_of(each.transfer_syntax) for each in accepted)
        return f"no presentation context for {what}: the peer chose {taken}"
    return f"no presentation context for {what}: it was not proposed on this association"
