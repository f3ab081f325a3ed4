"""How an object is sent: in a form that the peer takes, as it is stored or else transcoded."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

from tomowire.services.storage import storing_contexts
from tomowire.wire.value import value

if TYPE_CHECKING:
    from collections.abc import Callable

    from tomowire.aio.association import Association
    from tomowire.services.dicom_file import DicomFile
    from tomowire.services.storage import CStoreScu, MoveOriginator, StoreResponse


async def fitted(
    association: Association, file: DicomFile, content: bytes | memoryview | None
) -> tuple[DicomFile, bytes | memoryview | None]:
    """`file` and its data set for `CStoreScu.send`, in a transfer syntax that was agreed on for its SOP class.

    As it is, if that was accepted or nothing else can be made of it; what it is sent in is then for `send` to refuse.
    Raises `TranscodingFailed`, `OSError`.
    """
    agreed = [each.transfer_syntax for each in storing_contexts(association, file.sop_class_uid)]
    if not agreed or file.transfer_syntax_uid in agreed:
        return file, content
    from tomowire.services.transcoding import can_transcode, transcode

    for transfer_syntax in agreed:
        if await asyncio.to_thread(can_transcode, file.transfer_syntax_uid, transfer_syntax):
            made = await transcode(file, transfer_syntax)
            return replace(file, transfer_syntax_uid=transfer_syntax, size=len(made)), made
    return file, content


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
        if self.transcode:
            file, content = await fitted(association, file, content)
        return await scu.send(
            file, content=content, timeout=self.timeout, progress=self.progress, originator=self.originator
        )
