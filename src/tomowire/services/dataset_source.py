"""A pydicom `Dataset` as something to be sent."""

from __future__ import annotations

from asyncio import to_thread
from contextlib import asynccontextmanager
from io import BufferedIOBase
from typing import TYPE_CHECKING, Any

from tomowire.errors import DataSetError, UsageError
from tomowire.services.arguments import checked_uid, is_dataset
from tomowire.services.byte_readers import ChainedReader, check_open, reader_of
from tomowire.services.dataset_encoding import bytes_of, encode_parts, size_of, stated_transfer_syntax
from tomowire.services.reencoding import PIXEL_DATA, UNCOMPRESSED
from tomowire.services.stream_pieces import StreamPieces
from tomowire.uids import EXPLICIT_VR_LITTLE_ENDIAN, name_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from pydicom import Dataset

    from tomowire.services.dataset_encoding import Part


class DatasetSource:
    """A data set in memory. It is encoded in a thread each time it is sent, and not to be changed meanwhile.

    `transfer_syntax_uid` is that of its file meta information, or what it was read in; Explicit VR Little Endian if there is
    neither. Without compressed pixel data it can be written in any uncompressed transfer syntax (`is_open`).

    Raises `UsageError` for a data set without a SOP class or instance UID, or with encapsulated pixel data of which
    nobody knows the transfer syntax.
    """

    repeatable = True
    size: int | None = None

    def __init__(self, dataset: Dataset, transfer_syntax_uid: str | None = None) -> None:
        self.sop_class_uid = required_uid(dataset, "SOPClassUID")
        self.sop_instance_uid = required_uid(dataset, "SOPInstanceUID")
        self.name = f"data set {self.sop_instance_uid}"
        stated = stated_transfer_syntax(dataset) or EXPLICIT_VR_LITTLE_ENDIAN
        self.is_open = stated in UNCOMPRESSED
        self.transfer_syntax_uid = transfer_syntax_uid or stated
        self.dataset = dataset
        pixels = dataset.get_item(PIXEL_DATA).value if PIXEL_DATA in dataset else None
        self._buffer = pixels if isinstance(pixels, BufferedIOBase) else None
        self._start = self._buffer.tell() if self._buffer is not None else 0
        if self.transfer_syntax_uid != stated and not (self.is_open and self.transfer_syntax_uid in UNCOMPRESSED):
            raise UsageError(f"{self.name} is in {name_of(stated)}: to have it in another it must be transcoded")

    def written_in(self, transfer_syntax_uid: str) -> DatasetSource:
        """The same in another transfer syntax; both are uncompressed."""
        return DatasetSource(self.dataset, transfer_syntax_uid)

    @asynccontextmanager
    async def pieces(self, payload: int) -> AsyncIterator[StreamPieces]:
        """The encoded data set; see `Source`. Raises `DataSetError`, which names the element, for what cannot be encoded."""
        parts = await to_thread(self._encode)
        size = sum(map(size_of, parts))
        reader = ChainedReader(map(reader_of, parts))
        async with StreamPieces(reader, size, payload, self.name) as pieces:
            yield pieces

    async def encoded(self) -> bytes:
        """The whole, encoded. Raises `DataSetError`."""
        return await to_thread(lambda: b"".join(map(bytes_of, self._encode())))

    def _encode(self) -> list[Part]:
        if self._buffer is not None:
            check_open(self._buffer)
            self._buffer.seek(self._start)
        try:
            return encode_parts(self.dataset, self.transfer_syntax_uid)
        except DataSetError as error:
            raise DataSetError(f"{self.name}: {error}") from error.__cause__


def required_uid(dataset: Any, keyword: str) -> str:
    """The UID that `dataset` has for `keyword`. Raises `UsageError` if there is none, and for what is no data set."""
    if not is_dataset(dataset):
        raise UsageError(f"the attributes are a pydicom Dataset, not {type(dataset).__name__}")
    uid = dataset.get(keyword)
    if not uid:
        raise UsageError(f"the data set has no {keyword}, without which it cannot be sent")
    return checked_uid(uid, f"{keyword} of the data set")
