"""Objects that come to `retrieve`, by C-GET or by C-MOVE: kept in a folder, and counted while they come."""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from tomowire.cli.running import readable
from tomowire.errors import StoreFailed
from tomowire.protocol.status import SUCCESS
from tomowire.services.completeness import is_whole
from tomowire.services.dicom_file import DicomFile
from tomowire.services.discovery import discover

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from tomowire.aio.streams import DataStream
    from tomowire.cli.retrieval import RetrievalReport
    from tomowire.protocol.status import Status
    from tomowire.services.folder import Folder
    from tomowire.services.storage_scp import StoreRequest

logger: Final = logging.getLogger("tomowire.retrieve")

_BETWEEN_LOOKS: Final = 0.1
"""Seconds."""
_HIDDEN: Final = "."


class Collector:
    """`keep` is a handler of `Storage`; `total` is how many objects are expected, if that is known."""

    def __init__(self, folder: Folder, report: RetrievalReport) -> None:
        self._folder = folder
        self._report = report
        self._coming: set[DataStream] = set()
        self.arrived = 0
        self.total: int | None = None

    async def keep(self, request: StoreRequest) -> Status:
        """Write the object to a file. Raises `StoreFailed`."""
        uid, data = request.sop_instance_uid, request.data
        self._coming.add(data)
        try:
            kept = await self._folder.store(request)
        except StoreFailed as failure:
            self._report.object_failed(uid, failure.comment)
            raise
        finally:
            self._coming.discard(data)
        self.arrived += 1
        logger.info("%s: stored %s", request.association.title, uid)
        self._report.stored(
            uid,
            data.received,
            path=readable(kept.path),
            replaced=kept.replaced,
            sop_class_uid=request.sop_class_uid,
            transfer_syntax_uid=request.transfer_syntax_uid,
        )
        return SUCCESS

    @asynccontextmanager
    async def shown(self, show: Callable[[int, int | None, int], None] | None) -> AsyncIterator[None]:
        """While the block lasts, show how far it is: objects, how many are expected, and bytes, those of unfinished ones too."""
        if show is None:
            yield
            return

        def look() -> None:
            show(self.arrived, self.total, self._report.bytes + sum(data.received for data in self._coming))

        async def keep_looking() -> None:
            while True:
                look()
                await asyncio.sleep(_BETWEEN_LOOKS)

        looking = asyncio.get_running_loop().create_task(keep_looking())
        try:
            yield
        finally:
            looking.cancel()
            look()


def instances_in(folder: Path) -> dict[str, str]:
    """The paths of all DICOM files below a folder that are there to their end, by SOP Instance UID. Blocking.

    What is hidden does not count: it may be unfinished.
    """
    if not folder.is_dir():
        return {}
    found: dict[str, str] = {}
    for each in discover([entry for entry in folder.iterdir() if not entry.name.startswith(_HIDDEN)]):
        if not isinstance(each, DicomFile) or each.sop_instance_uid in found:
            continue
        if _is_whole(each):
            found[each.sop_instance_uid] = readable(each.path)
        else:
            logger.info("%s is cut short, and does not count", each.path)
    return found


def _is_whole(file: DicomFile) -> bool:
    try:
        return is_whole(file)
    except OSError:
        return False
