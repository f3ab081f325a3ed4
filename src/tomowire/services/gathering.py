"""From what a caller gives (paths, folders, data sets, streams, iterables of those) to what can be sent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Iterable
from contextlib import aclosing
from copy import copy
from os import PathLike
from typing import TYPE_CHECKING, Any

from tomowire.errors import OperationTimeout
from tomowire.services.answering import closing
from tomowire.services.arguments import is_dataset
from tomowire.services.dicom_file import DicomFile
from tomowire.services.discovery import Skipped, discover
from tomowire.services.given import Given
from tomowire.services.sources import Source, as_source

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from tomowire.services.sent import Sendable

_COLLECTIONS = (list, tuple, set, frozenset)


def is_all_there(things: Iterable[Any]) -> bool:
    """Whether all of them can be looked at before the first is sent: there is no iterator among them that gives one by one."""
    return all(is_all_there(each) if isinstance(each, _COLLECTIONS) else not _gives_several(each) for each in things)


async def gathered(things: Iterable[Any], timeout: float) -> AsyncGenerator[list[Sendable], None]:
    """What can be sent, in the order in which it was given, a few at a time; what cannot be sent comes with its `problem`.

    Of a stream the beginning is read; it may take `timeout` seconds. Iterators are asked when what they gave before has been
    taken; what they raise is raised here. Synchronous ones run in the event loop, and should not take long.
    """
    for thing in things:
        if isinstance(thing, str | PathLike):
            yield await _found(thing)
        elif not _gives_several(thing):
            yield [await _given(thing, timeout)]
        elif isinstance(thing, AsyncIterable):
            iterator = aiter(thing)
            async with closing(iterator):
                async for each in iterator:
                    async with aclosing(gathered([each], timeout)) as found:
                        async for some in found:
                            yield some
        else:
            async with aclosing(gathered(thing, timeout)) as found:
                async for some in found:
                    yield some


def _gives_several(thing: Any) -> bool:
    """Whether it is an iterable of things to be sent; much that is one thing can be iterated over, such as a data set."""
    if (
        isinstance(thing, str | PathLike | bytes | bytearray | memoryview)
        or is_dataset(thing)
        or isinstance(thing, Source)
    ):
        return False
    return isinstance(thing, Iterable | AsyncIterable) and not hasattr(thing, "read")


async def _found(path: str | PathLike[str]) -> list[Sendable]:
    found = await asyncio.to_thread(lambda: list(discover([path])))
    return [
        Given(each.path, problem=each.error) if isinstance(each, Skipped) else each
        for each in found
        if not isinstance(each, Skipped) or each.is_error
    ]


async def _given(thing: Any, timeout: float) -> Sendable:
    limit = asyncio.timeout(timeout)
    try:
        async with limit:
            source = await as_source(thing)
    except TimeoutError as error:
        if not limit.expired():
            return Given(thing, problem=error)
        text = f"the stream gave nothing for {timeout:g} s; nothing of it was sent"
        return Given(thing, problem=OperationTimeout(text))
    except Exception as error:  # whatever a foreign stream raises
        return Given(thing, problem=error)
    # One that is given twice is sent twice: what becomes of each is told.
    return copy(source) if isinstance(source, DicomFile) else Given(thing, source)
