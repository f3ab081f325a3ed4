"""An association of a pool, and who has it for the time of one call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeAlias

from tomowire.errors import NoAcceptedContext, QueryFailed, RetrieveFailed, SubOperationFailed

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractAsyncContextManager

    from tomowire.aio.association import Association
    from tomowire.protocol.negotiation import ProposedContext

Asked: TypeAlias = frozenset[tuple[str, tuple[str, ...], bool, bool]]


def asked_by(contexts: Sequence[ProposedContext]) -> Asked:
    """What is proposed, whatever its numbers: abstract syntax, transfer syntaxes and roles."""
    return frozenset((each.abstract_syntax, each.transfer_syntaxes, each.scu, each.scp) for each in contexts)


def is_harmless(error: BaseException) -> bool:
    """Whether it says that the peer has answered with a refusal, which leaves the association as good as before."""
    if isinstance(error, BaseExceptionGroup):
        return all(map(is_harmless, error.exceptions))
    return isinstance(error, NoAcceptedContext | QueryFailed | RetrieveFailed | SubOperationFailed)


class Lease:
    """An association for the time of one call."""

    def __init__(self, association: Association, *, is_reused: bool) -> None:
        self.association: Final = association
        self.is_reused: Final = is_reused
        """Whether it was opened for another call, and kept."""
        self.is_worth_keeping = True
        """To be cleared when the peer is better off with fewer associations."""
        self._messages_before = association.messages_received

    @property
    def was_stale(self) -> bool:
        """Whether it had been kept, and ended before the peer answered anything: the peer may have ended it just as it was taken.

        Then a request that does no harm when the peer gets it twice can be made again.
        """
        association = self.association
        unanswered = association.messages_received == self._messages_before
        return self.is_reused and unanswered and not association.is_established


class Kept:
    """An open association, and the context manager that releases it."""

    def __init__(
        self,
        association: Association,
        manager: AbstractAsyncContextManager[Association],
        asked: Asked,
        special: dict[str, Any],
    ) -> None:
        self.association = association
        self.manager = manager
        self.asked = asked
        self.special = special
        self.unused_since = 0.0  # by the clock of the loop

    async def release(self) -> None:
        """Raises `AssociationError`, `OperationTimeout`."""
        await self.manager.__aexit__(None, None, None)

    async def abort(self, error: BaseException) -> None:
        """Leave its block with `error`."""
        await self.manager.__aexit__(type(error), error, error.__traceback__)
