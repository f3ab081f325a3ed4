"""What a list of service providers supports on one association, and which of them serves what."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tomowire.aio.serving import AcceptsRelated, Refuses
from tomowire.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Sequence
    from typing import Any

    from tomowire.aio.serving import ServiceProvider
    from tomowire.wire.user_information import CommonExtendedNegotiation


def checked(services: Any) -> tuple[ServiceProvider, ...]:
    """`services` as they were given, if each is one. Raises `UsageError` for a handler or a class in the place of a service."""
    if not hasattr(services, "__iter__"):
        raise UsageError(f"services are given as a list, services=[...], and not as a {type(services).__name__}")
    given = tuple(services)
    for each in given:
        if isinstance(each, type):
            raise UsageError(f"{each.__name__} is a class and no service: make one of it, {each.__name__}(...)")
        if not hasattr(each, "transfer_syntaxes"):
            shown = getattr(each, "__qualname__", None) or f"a {type(each).__name__}"
            raise UsageError(f"{shown} is no service: a handler goes into one, as in Storage(handler)")
    return given


class Providers:
    """Asked by the negotiation what is supported, and for each request who serves it. The first provider that can do it does it.

    `said` is what the requestor says about its SOP classes (PS3.7 D.3.3.6). It counts only for what no provider knows by itself.
    """

    def __init__(self, services: Sequence[ServiceProvider], said: Iterable[CommonExtendedNegotiation] = ()) -> None:
        self._services = services
        self._said = {each.sop_class_uid: each for each in said}
        self._found: dict[str, tuple[ServiceProvider, Container[str]] | None] = {}

    def serving(self, abstract_syntax: str) -> ServiceProvider | None:
        """Who serves an abstract syntax; if nobody does, who refuses it."""
        found = self._find(abstract_syntax)
        return found[0] if found is not None else self._refusing(abstract_syntax)

    def transfer_syntaxes(self, abstract_syntax: str) -> Container[str] | None:
        found = self._find(abstract_syntax)
        return found[1] if found is not None else None

    def may_be_scp(self, abstract_syntax: str) -> bool:
        """Any provider may want to send: storage is served by one, and sent by the one that serves C-GET."""
        return any(each.may_be_scp(abstract_syntax) for each in self._services)

    def extended_negotiation(self, abstract_syntax: str, proposed: bytes) -> bytes | None:
        found = self._find(abstract_syntax)
        return found[0].extended_negotiation(abstract_syntax, proposed) if found is not None else None

    def refuses(self, abstract_syntax: str) -> bool:
        """Whether one of them serves it for others, and not on this association."""
        return self._refusing(abstract_syntax) is not None

    def _refusing(self, abstract_syntax: str) -> ServiceProvider | None:
        refusing = (each for each in self._services if isinstance(each, Refuses) and each.refuses(abstract_syntax))
        return next(refusing, None)

    def _find(self, abstract_syntax: str) -> tuple[ServiceProvider, Container[str]] | None:
        if abstract_syntax not in self._found:
            self._found[abstract_syntax] = self._known(abstract_syntax) or self._related(abstract_syntax)
        return self._found[abstract_syntax]

    def _known(self, abstract_syntax: str) -> tuple[ServiceProvider, Container[str]] | None:
        for each in self._services:
            supported = each.transfer_syntaxes(abstract_syntax)
            if supported is not None:
                return each, supported
        return None

    def _related(self, abstract_syntax: str) -> tuple[ServiceProvider, Container[str]] | None:
        said = self._said.get(abstract_syntax)
        if said is not None:
            for each in self._services:
                if isinstance(each, AcceptsRelated):
                    supported = each.related_transfer_syntaxes(said)
                    if supported is not None:
                        return each, supported
        return None
