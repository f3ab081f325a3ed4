"""How an object is sent: in a form that the peer takes, as it is stored or else transcoded."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, cast

from tomowire.services.converting import in_agreed_syntax
from tomowire.services.given import Given
from tomowire.services.pacing import PacedAssociation
from tomowire.services.storage import CStoreScu, storing_contexts
from tomowire.wire.value import value

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine

    from tomowire.aio.association import Association
    from tomowire.services.dicom_file import DicomFile
    from tomowire.services.pacing import Pacer
    from tomowire.services.sent import Sendable
    from tomowire.services.sources import Source
    from tomowire.services.storage import MoveOriginator, StoreResponse


@asynccontextmanager
async def fitted(
    association: Association, file: DicomFile, content: bytes | memoryview | None
) -> AsyncIterator[tuple[Source, bytes | memoryview | None]]:
    """`file` and its data set for `CStoreScu.send`, in a transfer syntax that was agreed on for its SOP class; to be left when
    it has been sent, for others wait for its memory.

    As it is, if that was accepted or nothing else can be made of it; what it is sent in is then for `send` to refuse.
    Raises `TranscodingFailed`, `OSError`.
    """
    agreed = [each.transfer_syntax for each in storing_contexts(association, file.sop_class_uid)]
    if not agreed or file.transfer_syntax_uid in agreed:
        yield file, content
        return
    async with in_agreed_syntax(file, content, agreed, None, transcode=True) as made:
        yield made


@value()
class Way:
    """How each file is sent."""

    timeout: float
    progress: Callable[[int], None] | None = None
    originator: MoveOriginator | None = None
    transcode: bool = False
    pacer: Pacer | None = None

    async def send(self, association: Association, file: Sendable, content: bytes | memoryview | None) -> StoreResponse:
        """Send one object of which the data set is `content`, if it has been read. Raises as `CStoreScu.send` and `fitted` do."""
        if self.pacer is not None:
            association = cast("Association", PacedAssociation(association, self.pacer))
        if isinstance(file, Given):
            return await self._send(association, file.source, content, transcode=self.transcode)
        if not self.transcode:
            return await self._send(association, file, content)
        async with fitted(association, file, content) as (source, content):
            return await self._send(association, source, content)

    def _send(
        self,
        association: Association,
        source: Source | None,
        content: bytes | memoryview | None,
        *,
        transcode: bool = False,
    ) -> Coroutine[Any, Any, StoreResponse]:
        return CStoreScu(association).send(
            source,
            content=content,
            transcode=transcode,
            timeout=self.timeout,
            retries=0,  # the lanes see to that
            originator=self.originator,
            on_bytes=self.progress,
        )
