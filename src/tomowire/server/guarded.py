"""A service that takes a right: who has it not gets no presentation context for it, and is refused if it asks all the same."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final, Protocol

from tomowire.protocol.status import NOT_AUTHORIZED

if TYPE_CHECKING:
    from collections.abc import Callable, Container

    from tomowire.aio.serving import IncomingRequest, ServiceProvider
    from tomowire.server.rights import Right

logger: Final = logging.getLogger("tomowire.archive")


class Judged(Protocol):
    """Somebody of whom is known what it may do."""

    def may(self, right: Right) -> bool:
        """Whether it may do this now."""


class Guarded:
    """`provider`, for those who have the `right`; as it is made, for nobody. `to` makes it for one caller.

    `on_refused` is told of the first request of each association that is refused, and of the right that it takes.
    """

    def __init__(
        self,
        right: Right,
        provider: ServiceProvider,
        caller: Judged | None = None,
        *,
        on_refused: Callable[[IncomingRequest, str], object] = lambda request, right: None,
    ) -> None:
        self._on_refused = on_refused
        self._right = right
        self._provider = provider
        self._caller = caller
        self._log_level = logging.WARNING

    def to(self, caller: Judged) -> Guarded:
        """The same for `caller`, for as long as its association lasts."""
        return Guarded(self._right, self._provider, caller, on_refused=self._on_refused)

    def transfer_syntaxes(self, abstract_syntax: str) -> Container[str] | None:
        return self._provider.transfer_syntaxes(abstract_syntax) if self._is_allowed else None

    def may_be_scp(self, abstract_syntax: str) -> bool:
        return self._is_allowed and self._provider.may_be_scp(abstract_syntax)

    def extended_negotiation(self, abstract_syntax: str, proposed: bytes) -> bytes | None:
        return self._provider.extended_negotiation(abstract_syntax, proposed)

    def refuses(self, abstract_syntax: str) -> bool:
        return not self._is_allowed and self._provider.transfer_syntaxes(abstract_syntax) is not None

    async def handle(self, request: IncomingRequest) -> None:
        """Serve it, or answer 0124H (PS3.7 C.5.21: not authorized): rules may have changed since the association was accepted."""
        if self._is_allowed:
            await self._provider.handle(request)
            return
        name = type(request.message).__name__
        logger.log(
            self._log_level,
            "%s: %s refused: by the rules for callers it may not %s",
            request.association.title,
            name,
            self._right,
        )
        if self._log_level != logging.DEBUG:
            self._on_refused(request, self._right)
        self._log_level = logging.DEBUG  # once: a peer must not be able to fill the log
        await request.refuse(NOT_AUTHORIZED, f"not authorized to {self._right}")

    @property
    def _is_allowed(self) -> bool:
        return self._caller is not None and self._caller.may(self._right)
