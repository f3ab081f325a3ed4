"""A peer by its address, and what one can ask of it: associations are opened, planned and closed behind the scenes."""

from __future__ import annotations

import asyncio
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast

from tomowire.aio.address import PeerAddress, check_ae_title
from tomowire.aio.connect import DEFAULT_AE_TITLE, associate
from tomowire.services.dicom_file import DicomFile
from tomowire.services.discovery import Skipped, discover
from tomowire.services.find import DEFAULT_CANCEL_GRACE, DEFAULT_FIND_TIMEOUT, CFindScu, default_model_of
from tomowire.services.models import querying
from tomowire.services.retrying import DEFAULT_RETRIES, retry_waits
from tomowire.services.sending import Sent, send_files
from tomowire.services.verification import CEchoScu, verification

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable
    from os import PathLike
    from types import AsyncGeneratorType

    from pydicom import Dataset

    from tomowire.protocol.status import Status
    from tomowire.services.models import Model
    from tomowire.services.query import Query

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

    def _kept(self, generator: AsyncGenerator[T, None]) -> AsyncGenerator[T, None]:
        """Remember an iteration that has begun, and forget those that are over."""
        iteration = cast("AsyncGeneratorType[T, None]", generator)
        self._iterations = {each for each in self._iterations if each.ag_frame is not None} | {iteration}
        return iteration

    async def _find(
        self, query: Query | Dataset, model: Model, timeout: float | None, grace: float
    ) -> AsyncGenerator[Dataset, None]:
        async with associate(self.address, [querying(model)], **self._options) as association:
            answers = CFindScu(association).find(query, model=model, timeout=timeout, grace=grace)
            # Left early, the query is cancelled; then there is nothing that would forbid an orderly release.
            with suppress(GeneratorExit):
                async with aclosing(answers):
                    async for answer in answers:
                        yield answer

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
