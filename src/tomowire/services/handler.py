"""What the handler of the Storage SCP may answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeAlias

from tomowire.errors import DataSetError, UsageError
from tomowire.protocol.status import CANNOT_UNDERSTAND, SUCCESS, Status
from tomowire.services.calling import name_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from tomowire.errors import StoreFailed

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


def check_failure(raised: StoreFailed | DataSetError, handler: Callable[..., Any]) -> tuple[int, str]:
    """Status and error comment of what a handler has raised. Raises `UsageError` if the status is not that of a failure."""
    if isinstance(raised, DataSetError):
        return CANNOT_UNDERSTAND, str(raised)
    if not (_is_final(raised.status) and Status(raised.status).is_failure):
        raise _nonsense("raised StoreFailed with", raised.status, "the status of a failure", handler)
    return raised.status, raised.comment


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
