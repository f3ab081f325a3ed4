"""A peer by its address, and what one can ask of it: associations are opened, planned and closed behind the scenes."""

from __future__ import annotations

import asyncio
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

from tomowire.aio.address import PeerAddress, check_ae_title
from tomowire.aio.connect import DEFAULT_AE_TITLE, associate
from tomowire.errors import AssociationError, OperationTimeout
from tomowire.services.dicom_file import DicomFile
from tomowire.services.discovery import Skipped, discover
from tomowire.services.find import (
    DEFAULT_CANCEL_GRACE,
    DEFAULT_FIND_TIMEOUT,
    CFindScu,
    associate_for_queries,
    default_model_of,
)
from tomowire.services.folder import Folder
from tomowire.services.get import COMPLETE_IN_FLIGHT
from tomowire.services.models import querying
from tomowire.services.move import CMoveScu, moving
from tomowire.services.query import Query
from tomowire.services.requests import Requests
from tomowire.services.retrieval import get_parts, plan_retrieval
from tomowire.services.retrieving import DEFAULT_RETRIEVE_TIMEOUT, names_entities
from tomowire.services.retrying import DEFAULT_RETRIES, retry_waits
from tomowire.services.sending import Sent, send_files
from tomowire.services.verification import CEchoScu, verification

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
    from os import PathLike
    from types import AsyncGeneratorType

    from pydicom import Dataset

    from tomowire.protocol.status import Status
    from tomowire.services.get import Cancellation
    from tomowire.services.models import Model
    from tomowire.services.retrieval import Retrieved
    from tomowire.services.retrieving import Progress
    from tomowire.services.storage_scp import StoreRequest

T = TypeVar("T")


class Peer:
    """A DICOM application at `AET@host:port`. `aet` is one's own AE title; `options` go to `associate`.

    Each call opens the associations that it needs, and closes them. `async with Peer(...) as peer` sees to it that at the end of
    the block nothing is left, also of an iteration that was not finished.
    """

    def __init__(self, address: str | PeerAddress, *, aet: str = DEFAULT_AE_TITLE, **options: Any) -> None:
        self.address = PeerAddress.parse(address) if isinstance(address, str) else address
        self._options = {"aet": check_ae_title(aet), **options}
        self._iterations: set[AsyncGeneratorType[Any, None]] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        while self._iterations:
            await self._iterations.pop().aclose()

    async def echo(self) -> Status:
        """C-ECHO on an association of its own. Raises `AssociationError` or `OperationTimeout`."""
        async with associate(self.address, [verification()], **self._options) as association:
            return await CEchoScu(association).echo()

    def send(
        self, *paths: str | PathLike[str], associations: int = 1, retries: int = DEFAULT_RETRIES
    ) -> AsyncGenerator[Sent, None]:
        """Send files, and folders with all that is below them; yield what became of each as soon as it is known.

        A failure is a value (`Sent.status`, `Sent.error`, or both as `Sent.outcome`) and never stops the others. A path that is not
        there, a named file that is not DICOM and a damaged one are failures too; their `Sent.file` knows nothing but the path. In a
        folder what is not DICOM is passed over.

        Up to `retries` times an object that is refused with A7xx (out of resources) is sent again, and a peer that has gone away is
        tried again, after 1 s, 2 s, 4 s, and so on.
        """
        return self._kept(self._send(paths, associations, retries))

    def find(
        self,
        query: Query | Dataset,
        *,
        model: Model | None = None,
        timeout: float | None = DEFAULT_FIND_TIMEOUT,
        grace: float = DEFAULT_CANCEL_GRACE,
    ) -> AsyncGenerator[Dataset, None]:
        """C-FIND on an association of its own: yield the answers as they come. Several iterations may go on at once.

        Arguments and errors are those of `CFindScu.find`. To leave it early and go on at once with something else, leave it with
        `contextlib.aclosing`; at the latest the end of the `async with` block of this peer closes it.
        """
        return self._kept(self._find(query, model or default_model_of(query), timeout, grace))

    def get(
        self,
        query: Query | Dataset,
        into: Folder | str | PathLike[str] | Callable[[StoreRequest], Awaitable[int]],
        *,
        model: Model | None = None,
        timeout: float | None = DEFAULT_RETRIEVE_TIMEOUT,
        grace: float = DEFAULT_CANCEL_GRACE,
        cancellation: Cancellation = COMPLETE_IN_FLIGHT,
        confirm: bool = True,
    ) -> AsyncGenerator[Retrieved | Progress, None]:
        """Get all that `query` matches with C-GET, into a folder or to a handler as of `Storage`; yield what became of each.

        The peer is first asked with C-FIND what there is, so any key will do, and presentation contexts are proposed for just
        the SOP classes that come; where 128 are not enough there are several associations. `Progress` tells between the objects
        how far it is; the first one, before any object, how many there are if the peer says so.

        A peer that does not know a key answers with all that it has. What its answers do not `confirm` to match is not asked for
        then, and at the end there is a `NotConfirmed`; False takes what it answers.

        Arguments and errors are those of `CGetScu.get`, and `QueryFailed`. When there was more than one request, their failures
        come at the end in one `ExceptionGroup`.
        """
        return self._kept(
            self._get(
                query,
                into,
                model or default_model_of(query),
                confirm=confirm,
                timeout=timeout,
                grace=grace,
                cancellation=cancellation,
            )
        )

    def move(
        self,
        query: Query | Dataset,
        destination: str,
        *,
        model: Model | None = None,
        timeout: float | None = DEFAULT_RETRIEVE_TIMEOUT,
        grace: float = DEFAULT_CANCEL_GRACE,
        confirm: bool = True,
    ) -> AsyncGenerator[Progress, None]:
        """Have the peer send all that `query` matches to the AE title `destination` with C-MOVE; yield how far it is.

        A query with keys that a retrieval cannot have, such as a name, is first asked with C-FIND; an identifier of one's own is
        sent as it is. `confirm` is as with `get`. Arguments and errors are those of `CMoveScu.move`, and `QueryFailed`. When there
        was more than one request, their failures come at the end in one `ExceptionGroup`.
        """
        model = model or default_model_of(query)
        return self._kept(self._move(query, destination, model, confirm=confirm, timeout=timeout, grace=grace))

    def _kept(self, generator: AsyncGenerator[T, None]) -> AsyncGenerator[T, None]:
        """Remember an iteration that has begun, and forget those that are over."""
        iteration = cast("AsyncGeneratorType[T, None]", generator)
        self._iterations = {each for each in self._iterations if each.ag_frame is not None} | {iteration}
        return iteration

    async def _find(
        self, query: Query | Dataset, model: Model, timeout: float | None, grace: float
    ) -> AsyncGenerator[Dataset, None]:
        async with associate_for_queries(self.address, [querying(model)], **self._options) as association:
            answers = CFindScu(association).find(query, model=model, timeout=timeout, grace=grace)
            # Left early, the query is cancelled; then there is nothing that would forbid an orderly release.
            with suppress(GeneratorExit):
                async with aclosing(answers):
                    async for answer in answers:
                        yield answer

    async def _get(
        self,
        query: Query | Dataset,
        into: Folder | str | PathLike[str] | Callable[[StoreRequest], Awaitable[int]],
        model: Model,
        *,
        confirm: bool,
        **limits: Any,
    ) -> AsyncGenerator[Retrieved | Progress, None]:
        parts, limits["failures"] = await plan_retrieval(
            self.address, query, model, with_classes=True, confirm=confirm, options=self._options
        )
        own = None if isinstance(into, Folder) or callable(into) else await _folder_at(into)
        place = own or cast("Folder | Callable[[StoreRequest], Awaitable[int]]", into)
        try:
            news = get_parts(self.address, parts, place, model, options=self._options, **limits)
            async with aclosing(news):
                async for each in news:
                    yield each
        finally:
            if own is not None:
                own.close()

    async def _move(
        self, query: Query | Dataset, destination: str, model: Model, *, confirm: bool, **limits: Any
    ) -> AsyncGenerator[Progress, None]:
        requests: Requests | None = None
        if isinstance(query, Query) and not await asyncio.to_thread(names_entities, query, model):
            parts, failures = await plan_retrieval(
                self.address, query, model, with_classes=False, confirm=confirm, options=self._options
            )
            requests = Requests(parts, failures)
            yield requests.progress
            if not parts:
                requests.finish()
                return
        try:
            async with associate(self.address, [moving(model)], **self._options) as association:
                scu = CMoveScu(association)

                def move(what: Query | Dataset) -> AsyncGenerator[Progress, None]:
                    return scu.move(what, destination, model=model, **limits)

                progress = move(query) if requests is None else requests.run(move)
                with suppress(GeneratorExit):
                    async with aclosing(progress):
                        async for each in progress:
                            yield each
        except (AssociationError, OperationTimeout) as error:
            if requests is None or not requests.failures:
                raise
            requests.lost(error, ())
        if requests is not None:
            requests.finish()

    async def _send(
        self, paths: Iterable[str | PathLike[str]], associations: int, retries: int
    ) -> AsyncGenerator[Sent, None]:
        found = await asyncio.to_thread(lambda: list(discover(paths)))
        for each in found:
            if isinstance(each, Skipped) and each.is_error:
                yield Sent(DicomFile.unread(each.path), None, each.error)
        files = [each for each in found if isinstance(each, DicomFile)]
        options = {"associations": associations, "retry_waits": retry_waits(retries), **self._options}
        async with aclosing(send_files(self.address, files, **options)) as results:
            async for sent in results:
                yield sent


async def _folder_at(path: str | PathLike[str]) -> Folder:
    """A `Folder`, made in a thread; when this is cancelled meanwhile, nobody would close it but this."""
    making = asyncio.ensure_future(asyncio.to_thread(Folder, path))
    try:
        return await asyncio.shield(making)
    except asyncio.CancelledError:
        making.add_done_callback(_close_made)
        await asyncio.wait({making})
        raise


def _close_made(making: asyncio.Future[Folder]) -> None:
    if not making.cancelled() and making.exception() is None:
        making.result().close()
