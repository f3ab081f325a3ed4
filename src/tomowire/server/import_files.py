"""Which files are to be imported, and what an association would say and send of them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Iterable, Iterator
from contextlib import suppress
from functools import partial
from io import FileIO
from pathlib import Path
from typing import IO, Final

from tomowire.aio.address import check_ae_title
from tomowire.aio.streams import Chunk
from tomowire.errors import UsageError, WireError
from tomowire.server import orthanc
from tomowire.server.incoming import Incoming
from tomowire.server.orthanc import Attachment
from tomowire.server.trees import Passed, files_below
from tomowire.services.dicom_file import DicomFile
from tomowire.wire.part10 import decode_file_meta

SENDER: Final = "IMPORT"
"""The AE title that objects come from whose files do not name one."""

_PIXELS: Final = (0x7FE00008, 0x7FE00009, 0x7FE00010)
_BLOCK: Final = 1 << 20
_HEAD: Final = 4096


def candidates(paths: Iterable[Path], *, moves: bool) -> Iterator[Attachment | Passed]:
    for path in paths:
        if not path.is_dir() or not orthanc.is_storage(path):
            yield from (Attachment(found) if isinstance(found, Path) else found for found in files_below(path))
            continue
        if moves:
            raise UsageError(f"{path} belongs to an Orthanc, which would miss what is moved away: leave out --move")
        if orthanc.has_index(path):
            yield from orthanc.indexed_objects(path)
        else:
            yield from (Attachment(found) if isinstance(found, Path) else found for found in files_below(path))


def again(put_off: IO[bytes]) -> Iterator[Attachment | Passed]:
    """What may be headers, when all others have come: one that has no object by now is an object itself, such as a report."""
    rest = b""
    while block := put_off.read(_BLOCK):
        *names, rest = (rest + block).split(b"\0")
        yield from (Attachment(Path(os.fsdecode(name))) for name in names)


def has_no_pixels(path: Path) -> bool:
    """Whether a data set ends where its pixels would begin; False for one that cannot be read, as others will find out."""
    import pydicom

    try:
        found = pydicom.dcmread(path, force=True, defer_size="1 KB", specific_tags=list(_PIXELS))
    except Exception:  # a foreign parser on a foreign file
        return False
    return not any(tag in found for tag in _PIXELS)


def announced(file: DicomFile) -> Incoming:
    """What an association would say of the object. Raises `OSError`."""
    title = ""
    with file.path.open("rb") as opened, suppress(WireError):
        title = decode_file_meta(opened.read(max(_HEAD, file.offset)))[0].source_application_entity_title or ""
    try:
        title = check_ae_title(title)
    except UsageError:
        title = SENDER
    return Incoming(
        file.sop_class_uid, file.sop_instance_uid, file.transfer_syntax_uid, title, SENDER, "", is_file=True
    )


async def chunks_of(file: DicomFile) -> AsyncGenerator[Chunk, None]:
    """The data set in blocks, read in a thread. Raises `OSError`."""
    opened = await asyncio.to_thread(partial(FileIO, file.path))
    try:
        await asyncio.to_thread(opened.seek, file.offset)
        left = file.size
        while True:
            block = await asyncio.to_thread(opened.read, min(left, _BLOCK))
            left -= len(block)
            is_last = not left or not block  # a file that got shorter meanwhile is found to be cut short
            yield Chunk((memoryview(block),), is_last, len(block))
            if is_last:
                return
    finally:
        opened.close()
