"""C-FIND in the archive (PS3.4 C.4.1): from a query to a statement, and from the rows of the index to answers."""

from __future__ import annotations

import asyncio
import logging
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Final
from weakref import WeakKeyDictionary

from tomowire.errors import IndexUnavailable, QueryFailed
from tomowire.protocol.status import OUT_OF_RESOURCES
from tomowire.services.find_scp import FindAnswers
from tomowire.services.models import Model
from tomowire.uids import IMPLICIT_VR_LITTLE_ENDIAN
from tomowire.wire.value import value

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from tomowire.aio.association import Association
    from tomowire.server.answers import AnswerEncoder
    from tomowire.server.index.reader import Dialect, Statement
    from tomowire.server.index.readers import IndexReaders
    from tomowire.services.find_scp import FindRequest

logger: Final = logging.getLogger(__name__)

_MOST_AT_ONCE: Final = 64
_MOST_OF_ONE: Final = 4
"""Queries that are answered at the same time, on one association."""
_PATIENCE: Final = 20.0
"""Seconds that a query waits for its turn."""

# Studies of patients whose name begins with A, in Implicit VR.
_EXAMPLE: Final = b"\x08\0\x52\0\x06\0\0\0STUDY " + b"\x10\0\x10\0\x02\0\0\0A*"


def load_queries(dialect: Dialect) -> None:
    """Import what answering takes, pydicom and SQLAlchemy: 0.14 s, in which an event loop would stand still."""
    _plan(_EXAMPLE, IMPLICIT_VR_LITTLE_ENDIAN, Model.STUDY_ROOT, "", dialect)


class ArchiveFind:
    """`answer` is what `tomowire.services.find_scp.Find` asks. `ae_title` is that from which the objects can be retrieved."""

    def __init__(self, index: IndexReaders, ae_title: str) -> None:
        self._index = index
        self._ae_title = ae_title
        self._places = asyncio.Semaphore(_MOST_AT_ONCE)
        self._places_of: WeakKeyDictionary[Association, asyncio.Semaphore] = WeakKeyDictionary()

    async def answer(self, request: FindRequest) -> AsyncIterator[FindAnswers]:
        """The answers as they are found, so few at a time that memory stays flat. Raises `QueryFailed`, `DataSetError`."""
        async with self._place(request.association), aclosing(self._answers(request)) as found:
            async for answers in found:
                yield answers

    @asynccontextmanager
    async def _place(self, association: Association) -> AsyncIterator[None]:
        """Each query that is being answered has a connection to the index, and its peer may be slow to take the answers."""
        own = self._places_of.setdefault(association, asyncio.Semaphore(_MOST_OF_ONE))
        async with AsyncExitStack() as stack:
            try:
                async with asyncio.timeout(_PATIENCE):
                    for places in (own, self._places):
                        await stack.enter_async_context(places)
            except TimeoutError:
                raise QueryFailed(OUT_OF_RESOURCES, "too many queries at once") from None
            yield

    async def _answers(self, request: FindRequest) -> AsyncGenerator[FindAnswers, None]:
        try:
            plan = await asyncio.to_thread(
                _plan,
                request.identifier,
                request.transfer_syntax_uid,
                request.model,
                self._ae_title,
                self._index.dialect,
                relational=request.relational,
            )
            found = self._index.stream(plan.statement, plan.encoder.encode_all)
            async with aclosing(found) as batches:
                async for identifiers in batches:
                    yield FindAnswers(identifiers, plan.optional_keys_supported)
        except TimeoutError as error:
            raise QueryFailed(OUT_OF_RESOURCES, "answering took too long") from error
        except IndexUnavailable as error:
            logger.error("a query was not answered: the index cannot be used: %s", error)
            raise QueryFailed(OUT_OF_RESOURCES, "the index cannot be used now") from error


@value()
class _Plan:
    """What a query takes to be answered."""

    statement: Statement
    encoder: AnswerEncoder
    optional_keys_supported: bool


def _plan(
    identifier: bytes,
    transfer_syntax_uid: str,
    model: Model,
    ae_title: str,
    dialect: Dialect,
    *,
    relational: bool = False,
) -> _Plan:
    """Raises `QueryFailed`, `DataSetError`."""
    from tomowire.server.answers import AnswerEncoder
    from tomowire.server.index.keys import parse_keys
    from tomowire.server.index.select import select_for

    keys = parse_keys(identifier, transfer_syntax_uid, model, relational=relational)
    selected = select_for(keys, dialect, relational=relational)
    encoder = AnswerEncoder(keys, selected, retrieve_ae_title=ae_title, transfer_syntax_uid=transfer_syntax_uid)
    return _Plan(selected.statement, encoder, not selected.unsupported)
