"""Something that is to be sent and is no file: a data set, a stream, a source of one's own."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tomowire.services.sources import Source


class Given:
    """What a caller gave, `thing`, and the `source` that it stands for; None, and the `problem`, if it cannot be sent."""

    def __init__(self, thing: Any, source: Source | None = None, *, problem: Exception | None = None) -> None:
        self.thing: Final = thing
        self.problem: Final = problem
        # What can be sent again is handed on as it is: a data set may be asked for in another transfer syntax.
        self.source: Final = source if source is None or source.repeatable else _Once(source)
        self.sop_class_uid = source.sop_class_uid if source is not None else ""
        self.sop_instance_uid = source.sop_instance_uid if source is not None else ""
        self.transfer_syntax_uid = source.transfer_syntax_uid if source is not None else ""
        self.size = source.size if source is not None else None

    @property
    def repeatable(self) -> bool:
        """Whether it can be sent (again): a stream cannot, once it has been begun."""
        return self.source is not None and (not isinstance(self.source, _Once) or not self.source.is_begun)


def goes_once(sendable: object) -> bool:
    """Whether it can be sent once only, as a stream that cannot be wound back."""
    return isinstance(sendable, Given) and isinstance(sendable.source, _Once)


def is_open(sendable: object) -> bool:
    """Whether it can be written in any uncompressed transfer syntax, as a data set can."""
    return isinstance(sendable, Given) and bool(getattr(sendable.source, "is_open", False))


class _Once:
    """A source that can be sent once, and knows whether that has begun."""

    repeatable = False

    def __init__(self, source: Source) -> None:
        self.sop_class_uid = source.sop_class_uid
        self.sop_instance_uid = source.sop_instance_uid
        self.transfer_syntax_uid = source.transfer_syntax_uid
        self.size = source.size
        self.name = source.name
        self.is_begun = False
        self._source = source

    @asynccontextmanager
    async def pieces(self, payload: int) -> AsyncIterator[AsyncIterator[tuple[memoryview, bool]]]:
        self.is_begun = True
        async with self._source.pieces(payload) as pieces:
            yield pieces
