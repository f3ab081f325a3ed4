"""A service that is imported when somebody first asks for it: who starts an archive need not wait for what few callers use."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable

    from tomowire.aio.serving import IncomingRequest, ServiceProvider


class Later:
    """Stands for the provider that `make` gives. It is made for an association that proposes one of `sop_classes`, or roles."""

    def __init__(self, sop_classes: Iterable[str], make: Callable[[], ServiceProvider]) -> None:
        self._sop_classes = frozenset(sop_classes)
        self._make = make

    @cached_property
    def _provider(self) -> ServiceProvider:
        return self._make()

    def transfer_syntaxes(self, abstract_syntax: str) -> Container[str] | None:
        return self._provider.transfer_syntaxes(abstract_syntax) if abstract_syntax in self._sop_classes else None

    def may_be_scp(self, abstract_syntax: str) -> bool:
        return self._provider.may_be_scp(abstract_syntax)

    def extended_negotiation(self, abstract_syntax: str, proposed: bytes) -> bytes | None:
        return self._provider.extended_negotiation(abstract_syntax, proposed)

    async def handle(self, request: IncomingRequest) -> None:
        await self._provider.handle(request)
