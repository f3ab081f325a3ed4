"""What can be sent: anything that knows which object it is, and gives the bytes of its data set in pieces.

A `Source` is opened for each attempt to send it. The four kinds that come with tomowire: a DICOM file (`DicomFile`), a stream
(`StreamSource`, `BareDataSet`), a pydicom `Dataset` (`DatasetSource`), and attributes with pixels from elsewhere (`WithPixels`).
"""

from __future__ import annotations

from asyncio import to_thread
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast, runtime_checkable

from tomowire.errors import FileFormatError, UsageError
from tomowire.services.arguments import is_dataset
from tomowire.services.dicom_file import NO_DATA_SET, inspect

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AbstractAsyncContextManager


@runtime_checkable
class Source(Protocol):
    """One object to be sent: its identity (UIDs as text), and its data set.

    `CStoreScu.send` asks for `pieces` once for each attempt; where `repeatable` is false, once at all.
    """

    @property
    def sop_class_uid(self) -> str: ...

    @property
    def sop_instance_uid(self) -> str: ...

    @property
    def transfer_syntax_uid(self) -> str:
        """That of the bytes that `pieces` gives."""

    @property
    def size(self) -> int | None:
        """Bytes of the data set; None if nobody knows before it has been read."""

    @property
    def name(self) -> str:
        """What messages call it: a path, or the object's UID. Never anything about a patient."""

    @property
    def repeatable(self) -> bool:
        """Whether `pieces` can be asked for again."""

    def pieces(self, payload: int) -> AbstractAsyncContextManager[AsyncIterator[tuple[memoryview, bool]]]:
        """The data set, piece by piece: `async with source.pieces(n) as pieces: async for piece, is_last in pieces`.

        A piece is valid until the next is asked for. Each has an even length, all but the last a multiple of `payload` bytes where
        that costs nothing; exactly one is the last, and it may be empty. What can fail early fails when it is entered: nothing has
        been sent then. Raises `OSError`, `TomowireError`, and what the origin of the bytes raises.
        """


async def as_source(thing: Any) -> Source:
    """The source that `thing` is or stands for.

    A path of a DICOM file; bytes of one, or a binary stream of one (with `read`, blocking or not, or an asynchronous iterator of
    bytes); a pydicom `Dataset`. A `Source` is given back as it is, and so is a `BareDataSet`, a `WithPixels`, a `DicomFile`.

    Of a file or stream only the beginning is read, of a `Dataset` nothing is encoded yet. Raises `FileFormatError` for what is not
    DICOM, `OSError` for what cannot be read, `UsageError` for what cannot be a source.
    """
    if isinstance(thing, str | PathLike):
        path = Path(cast("str | PathLike[str]", thing))
        if "\0" in str(path):
            raise UsageError(f"a path has no null character: {str(path)!r}")
        found = await to_thread(inspect, path)
        if not found.size:
            raise FileFormatError(NO_DATA_SET)
        return found
    # Who sends files, as most do, needs none of the rest.
    if is_dataset(thing):
        from tomowire.services.dataset_source import DatasetSource

        return DatasetSource(thing)
    if isinstance(thing, Source):
        return thing
    from tomowire.services.stream_source import is_stream, part10_stream

    if is_stream(thing):
        return await part10_stream(thing)
    raise UsageError(f"{type(thing).__name__} cannot be sent: not a path, a binary stream, a data set or a source")
