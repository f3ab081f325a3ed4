"""A peer by its address, and what one can ask of it: associations are opened, planned and closed behind the scenes."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

from tomowire.aio.address import PeerAddress, check_ae_title
from tomowire.aio.connect import DEFAULT_AE_TITLE
from tomowire.services import peer_calls
from tomowire.services.dicom_file import DicomFile
from tomowire.services.discovery import Skipped, discover
from tomowire.services.find import default_model_of
from tomowire.services.get import COMPLETE_IN_FLIGHT
from tomowire.services.pool import DEFAULT_IDLE, DEFAULT_KEPT, Pool
from tomowire.services.retrying import DEFAULT_RETRIES, retry_waits
from tomowire.services.sending import Sent, send_files
from tomowire.services.timeouts import UNSET, Seconds, Timeouts, chosen
from tomowire.services.verification import CEchoScu, verification

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
    from os import PathLike
    from types import AsyncGeneratorType

    from pydicom import Dataset

    from tomowire.aio.association import Association
    from tomowire.protocol.status import Status
    from tomowire.services.folder import Folder
    from tomowire.services.get import Cancellation
    from tomowire.services.models import Model
    from tomowire.services.query import Query
    from tomowire.services.retrieval import Retrieved
    from tomowire.services.retrieving import Progress
    from tomowire.services.storage_scp import StoreRequest

T = TypeVar("T")


class Peer:
    """A DICOM application at `AET@host:port`. `aet` is one's own AE title, `timeouts` how long the peer may take for what, and all
    other `options` go to `associate`.

    Within `async with Peer(...) as peer` up to `kept` associations are kept between calls, each for up to `idle` seconds; at the
    end of the block they are released, and nothing is left of an iteration that was not finished. Without such a block each
    call opens the associations that it needs, and closes them. Several calls may go on at once: no two share an association.
    """

    def __init__(
        self,
        address: str | PeerAddress,
        *,
        aet: str = DEFAULT_AE_TITLE,
        timeouts: Timeouts | None = None,
        kept: int = DEFAULT_KEPT,
        idle: float = DEFAULT_IDLE,
        **options: Any,
    ) -> None:
        self.address = PeerAddress.parse(address) if isinstance(address, str) else address
        self.timeouts = timeouts or Timeouts()
        options = {"aet": check_ae_title(aet), **self.timeouts.for_association, **options}
        self._pool = Pool(self.address, options, most=kept, idle=idle)
        self._iterations: set[AsyncGeneratorType[Any, None]] = set()

    async def __aenter__(self) -> Self:
        self._pool.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        try:
            while self._iterations:
                await self._iterations.pop().aclose()
        finally:
            await self._pool.close()

    async def echo(self, *, timeout: Seconds = UNSET, timeouts: Timeouts | None = None) -> Status:
        """C-ECHO. `timeout` is how long its answer may take, `timeouts` are those of this call (so in all calls).

        Raises `AssociationError`, `OperationTimeout`, `NoAcceptedContext`.
        """
        limits, options = self._limits(timeouts)

        async def echo(association: Association) -> Status:
            return await CEchoScu(association).echo(timeout=cast("float", chosen(timeout, limits.echo)))

        return await self._pool.use([verification()], echo, options=options)

    def send(
        self,
        *paths: str | PathLike[str],
        associations: int = 1,
        retries: int = DEFAULT_RETRIES,
        timeout: Seconds = UNSET,
        timeouts: Timeouts | None = None,
    ) -> AsyncGenerator[Sent, None]:
        """Send files, and folders with all that is below them; yield what became of each as soon as it is known.

        A failure is a value (`Sent.status`, `Sent.error`, or both as `Sent.outcome`) and never stops the others. A path that is not
        there, a named file that is not DICOM and a damaged one are failures too; their `Sent.file` knows nothing but the path. In a
        folder what is not DICOM is passed over.

        Up to `retries` times an object that is refused with A7xx (out of resources) is sent again, and a peer that has gone away is
        tried again, after 1 s, 2 s, 4 s, and so on. `timeout` is the time without progress after which an object is given up.
        """
        limits, options = self._limits(timeouts)
        options |= {"timeout": chosen(timeout, limits.store)}
        return self._kept(self._send(paths, associations, retries, options))

    def find(
        self,
        query: Query | Dataset,
        *,
        model: Model | None = None,
        timeout: Seconds = UNSET,
        grace: Seconds = UNSET,
        timeouts: Timeouts | None = None,
    ) -> AsyncGenerator[Dataset, None]:
        """C-FIND: yield the answers as they come. Several iterations may go on at once, each on an association of its own.

        Arguments and errors are those of `CFindScu.find`. To leave it early and go on at once with something else, leave it with
        `contextlib.aclosing`; at the latest the end of the `async with` block of this peer closes it.
        """
        limits, options = self._limits(timeouts)
        return self._kept(
            peer_calls.find(
                self._pool,
                query,
                model or default_model_of(query),
                timeout=chosen(timeout, limits.find),
                grace=chosen(grace, limits.grace),
                options=options,
            )
        )

    def get(
        self,
        query: Query | Dataset,
        into: Folder | str | PathLike[str] | Callable[[StoreRequest], Awaitable[int]],
        *,
        model: Model | None = None,
        timeout: Seconds = UNSET,
        grace: Seconds = UNSET,
        timeouts: Timeouts | None = None,
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
        limits, options = self._limits(timeouts)
        return self._kept(
            peer_calls.get(
                self._pool,
                query,
                into,
                model or default_model_of(query),
                confirm=confirm,
                cancellation=cancellation,
                timeout=chosen(timeout, limits.retrieve),
                grace=chosen(grace, limits.grace),
                find_timeout=limits.find,
                options=options,
            )
        )

    def move(
        self,
        query: Query | Dataset,
        destination: str,
        *,
        model: Model | None = None,
        timeout: Seconds = UNSET,
        grace: Seconds = UNSET,
        timeouts: Timeouts | None = None,
        confirm: bool = True,
    ) -> AsyncGenerator[Progress, None]:
        """Have the peer send all that `query` matches to the AE title `destination` with C-MOVE; yield how far it is.

        A query with keys that a retrieval cannot have, such as a name, is first asked with C-FIND; an identifier of one's own is
        sent as it is. `confirm` is as with `get`. Arguments and errors are those of `CMoveScu.move`, and `QueryFailed`. When there
        was more than one request, their failures come at the end in one `ExceptionGroup`.
        """
        limits, options = self._limits(timeouts)
        return self._kept(
            peer_calls.move(
                self._pool,
                query,
                destination,
                model or default_model_of(query),
                confirm=confirm,
                timeout=chosen(timeout, limits.retrieve),
                grace=chosen(grace, limits.grace),
                find_timeout=limits.find,
                options=options,
            )
        )

    def _limits(self, of_call: Timeouts | None) -> tuple[Timeouts, dict[str, Any]]:
        """The time-outs of a call, and what `associate` is told of them."""
        return of_call or self.timeouts, dict(of_call.for_association) if of_call is not None else {}

    def _kept(self, generator: AsyncGenerator[T, None]) -> AsyncGenerator[T, None]:
        """Remember an iteration that has begun, and forget those that are over."""
        iteration = cast("AsyncGeneratorType[T, None]", generator)
        self._iterations = {each for each in self._iterations if each.ag_frame is not None} | {iteration}
        return iteration

    async def _send(
        self, paths: Iterable[str | PathLike[str]], associations: int, retries: int, options: dict[str, Any]
    ) -> AsyncGenerator[Sent, None]:
        found = await asyncio.to_thread(lambda: list(discover(paths)))
        for each in found:
            if isinstance(each, Skipped) and each.is_error:
                yield Sent(DicomFile.unread(each.path), None, each.error)
        files = [each for each in found if isinstance(each, DicomFile)]
        options = {"associations": associations, "retry_waits": retry_waits(retries), **options}
        async with aclosing(send_files(self._pool, files, **options)) as results:
            async for sent in results:
                yield sent
