"""A peer by its address, and what one can ask of it: associations are opened, planned and closed behind the scenes."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Self, cast

from tomowire.aio.address import PeerAddress, check_ae_title
from tomowire.aio.connect import DEFAULT_AE_TITLE, associate
from tomowire.services.dicom_file import DicomFile
from tomowire.services.discovery import Skipped, discover
from tomowire.services.retrying import DEFAULT_RETRIES, retry_waits
from tomowire.services.sending import Sent, send_files
from tomowire.services.verification import CEchoScu, verification

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable
    from os import PathLike
    from types import AsyncGeneratorType

    from tomowire.protocol.status import Status


class Peer:
    """A DICOM application at `AET@host:port`. `aet` is one's own AE title; `options` go to `associate`.

    Each call opens the associations that it needs, and closes them. `async with Peer(...) as peer` sees to it that at the end of
    the block nothing is left, also of an iteration that was not finished.
    """

    def __init__(self, address: str | PeerAddress, *, aet: str = DEFAULT_AE_TITLE, **options: Any) -> None:
        self.address = PeerAddress.parse(address) if isinstance(address, str) else address
        self._options = {"aet": check_ae_title(aet), **options}
        self._iterations: set[AsyncGeneratorType[Sent, None]] = set()

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
        iteration = cast("AsyncGeneratorType[Sent, None]", self._send(paths, associations, retries))
        self._iterations = {each for each in self._iterations if each.ag_frame is not None} | {iteration}
        return iteration

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
