"""What the handler of the Storage SCP may answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeAlias

from tomowire.aio.arguments import name_of
from tomowire.errors import DataSetError, StoreFailed, UsageError
from tomowire.protocol.status import CANNOT_UNDERSTAND, PROCESSING_FAILURE, SUCCESS, Status

if TYPE_CHECKING:
    from collections.abc import Callable

Outcome: TypeAlias = "int | tuple[int, str | None]"
"""What a handler returns: a status, or a status and an error comment."""

_LARGEST_STATUS: Final = 0xFFFF
_PLAIN: Final = (Status, int)


def status_and_comment(outcome: Any, handler: Callable[..., Any]) -> tuple[int, str | None]:
    """What a handler has returned, checked.

    Raises `UsageError`, which names it, for what is no final status of a C-STORE: nothing of that kind may tell the sender that its
    object is safe, least of all the commonest mistake there is, a forgotten `return`.
    """
    if outcome == SUCCESS and type(outcome) in _PLAIN:  # nearly always
        return outcome, None
    status, comment = outcome if isinstance(outcome, tuple) and len(outcome) == 2 else (outcome, None)
    if not _is_final(status):
        raise _nonsense("returned", status, "a status", handler)
    if not (comment is None or isinstance(comment, str)):
        raise _nonsense("returned", comment, "an error comment", handler)
    return status, comment


def status_of_failure(error: Exception, handler: Any) -> tuple[int, str, Exception | None]:
    """Status and error comment for what a handler has raised; and what was wrong with the handler, if it was that."""
    if isinstance(error, DataSetError):
        return CANNOT_UNDERSTAND, str(error), None
    if isinstance(error, StoreFailed):
        if _is_final(error.status) and Status(error.status).is_failure:
            return error.status, error.comment, None
        error = _nonsense("raised StoreFailed with", error.status, "the status of a failure", handler)
    return PROCESSING_FAILURE, "internal error", error


def _is_final(status: Any) -> bool:
    """PS3.7 9.1.1.1.9: a C-STORE has one response, and cannot be cancelled."""
    if not isinstance(status, int) or isinstance(status, bool) or not 0 <= status <= _LARGEST_STATUS:
        return False
    return not (Status(status).is_pending or Status(status).is_cancel)


def _nonsense(how: str, what: Any, wanted: str, handler: Callable[..., Any]) -> UsageError:
    # Of a text only that it is one: it may be anything, patient data too.
    shown = repr(what) if what is None or isinstance(what, bool | float) else f"a {type(what).__name__}"
    if isinstance(what, int) and not isinstance(what, bool):
        shown = f"{what:04X}H" if 0 <= what <= _LARGEST_STATUS else "a number of more than 16 bits"
    return UsageError(f"the storage handler {how} {shown} and not {wanted}: {name_of(handler)}")
