"""How an object is sent: in a form that the peer takes, as it is stored or else transcoded."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Final
from weakref import WeakKeyDictionary

from tomowire.services.storage import storing_contexts
from tomowire.wire.value import value

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from tomowire.aio.association import Association
    from tomowire.services.dicom_file import DicomFile
    from tomowire.services.storage import CStoreScu, MoveOriginator, StoreResponse


_MOST_HELD: Final = 512 << 20
"""Bytes of transcoded data sets that the sending ones of an event loop hold in memory, together; one alone may have more."""

_budgets: Final[WeakKeyDictionary[asyncio.AbstractEventLoop, _Budget]] = WeakKeyDictionary()


class _Budget:
    """Memory for a number of borrowers, who wait for one another, first come, first served."""

    def __init__(self, size: int) -> None:
        self._size = self._free = size
        self._turn = asyncio.Lock()
        self._given_back = asyncio.Event()

    @asynccontextmanager
    async def borrowed(self, size: int) -> AsyncIterator[None]:
        size = min(size, self._size)
        async with self._turn:
            while self._free < size:
                self._given_back.clear()
                await self._given_back.wait()
            self._free -= size
        try:
            yield
        finally:
            self._free += size
            self._given_back.set()


@asynccontextmanager
async def fitted(
    association: Association, file: DicomFile, content: bytes | memoryview | None
) -> AsyncIterator[tuple[DicomFile, bytes | memoryview | None]]:
    """`file` and its data set for `CStoreScu.send`, in a transfer syntax that was agreed on for its SOP class; to be left when
    it has been sent, for others wait for its memory.

    As it is, if that was accepted or nothing else can be made of it; what it is sent in is then for `send` to refuse.
    Raises `TranscodingFailed`, `OSError`.
    """
    agreed = [each.transfer_syntax for each in storing_contexts(association, file.sop_class_uid)]
    if not agreed or file.transfer_syntax_uid in agreed:
        yield file, content
        return
    from tomowire.services.transcoding import can_transcode, transcode, transcoded_size

    for transfer_syntax in agreed:
        if await asyncio.to_thread(can_transcode, file.transfer_syntax_uid, transfer_syntax):
            budget = _budgets.setdefault(asyncio.get_running_loop(), _Budget(_MOST_HELD))
            async with budget.borrowed(transcoded_size(file)):
                made = await transcode(file, transfer_syntax)
                yield replace(file, transfer_syntax_uid=transfer_syntax, size=len(made)), made
            return
    yield file, content


@value()
class Way:
    """How each file is sent."""

    timeout: float
    progress: Callable[[int], None] | None = None
    originator: MoveOriginator | None = None
    transcode: bool = False

    async def send(
        self, scu: CStoreScu, association: Association, file: DicomFile, content: bytes | memoryview | None
    ) -> StoreResponse:
        """Send one file of which the data set is `content`, if it has been read. Raises as `CStoreScu.send` and `fitted` do."""
        async with AsyncExitStack() as stack:
            if self.transcode:
                file, content = await stack.enter_async_context(fitted(association, file, content))
            return await scu.send(
                file, content=content, timeout=self.timeout, progress=self.progress, originator=self.originator
            )
