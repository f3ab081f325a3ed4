"""What the handler of the Storage SCP gets: one C-STORE request, with its data set as a stream, or whole."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from tomowire.aio.streams import Chunk
from tomowire.errors import DataSetError, MemoryShort, StoreFailed, UsageError
from tomowire.protocol.status import CANNOT_UNDERSTAND, OUT_OF_RESOURCES
from tomowire.services.data_sets import decoded
from tomowire.services.head import Head
from tomowire.services.object_file import write_whole_object
from tomowire.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from tomowire.wire.part10 import FileMeta, encode_file_meta

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from pydicom import Dataset

    from tomowire.aio.association import Association
    from tomowire.aio.held import HeldData, HeldMemory
    from tomowire.aio.streams import DataStream
    from tomowire.wire.messages import CStoreRQ

DEFAULT_METADATA_LIMIT: Final = 16 << 20
"""Bytes of attributes before the pixel data: an enhanced image of 10,000 frames has about so many."""


class StoredObject:
    """What is known of an object before its data set has come: from the command set, the context, and the association."""

    __slots__ = ("association", "message", "sop_class_uid", "sop_instance_uid", "transfer_syntax_uid")

    def __init__(self, association: Association, message: CStoreRQ, transfer_syntax_uid: str) -> None:
        self.association: Final = association
        """Who calls, and all else that was agreed on."""
        self.message: Final = message
        """The C-STORE-RQ: priority, Message ID, move originator (PS3.7 9.3.1.1)."""
        self.sop_class_uid: Final = message.affected_sop_class_uid
        self.sop_instance_uid: Final = message.affected_sop_instance_uid
        self.transfer_syntax_uid: Final = transfer_syntax_uid
        """The encoding of the data set."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.sop_instance_uid}, {self.association.title}>"

    @property
    def calling_ae_title(self) -> str:
        """The AE title of who opened the association."""
        return self.association.calling_ae_title

    @property
    def called_ae_title(self) -> str:
        """The AE title by which this side was called; as the requestor, that of the peer."""
        return self.association.called_ae_title

    @property
    def peer_address(self) -> str:
        """`host:port` of the peer."""
        return self.association.peer_address

    def file_header(self) -> bytes:
        """Preamble and file meta information (PS3.10 7.1): with the data set behind it, it is a DICOM file."""
        return encode_file_meta(
            FileMeta(
                self.sop_class_uid,
                self.sop_instance_uid,
                self.transfer_syntax_uid,
                source_application_entity_title=self.calling_ae_title or None,
            )
        )


class StoreRequest(StoredObject):
    """One incoming C-STORE whose data set is read as it comes: `async for chunk in request.data`."""

    __slots__ = ("_held", "_metadata", "data", "encoded_metadata", "memory")

    def __init__(
        self,
        association: Association,
        message: CStoreRQ,
        transfer_syntax_uid: str,
        data: DataStream,
        memory: HeldMemory,
    ) -> None:
        super().__init__(association, message, transfer_syntax_uid)
        self.data: Final = data
        """The data set, or what is left of it after `metadata`."""
        self.encoded_metadata = b""
        """The bytes that `metadata` has read: with those of `data` behind them they are the data set that came."""
        self.memory: Final = memory
        """Where data sets are held that come on this association."""
        self._held: HeldData | None = None
        self._metadata: Dataset | None = None

    async def metadata(self, *, limit: int = DEFAULT_METADATA_LIMIT) -> Dataset:
        """Read the attributes that stand before the pixel data; to be called before anything of `data` is read.

        They end before the first element of the groups 7FE0 to 7FFF at the top of the data set (Pixel Data and its kind, private
        pixels); in a data set without any they are all there are. What follows, pixel data included, comes from `data` then. Of a
        deflated data set the attributes are inflated, while `encoded_metadata` and `data` stay the bytes that came.

        Raises `StoreFailed`: A700H when there are more than `limit` bytes of them, or no memory for them; C000H when they cannot be
        read. Raises `UsageError` when some of `data` has been read before.
        """
        if self._metadata is None:
            if not self.data.is_untouched or self._held is not None:  # the latter while another task reads them
                raise UsageError("the metadata of an object are read before its data, and once")
            self._held = self.memory.hold(lambda: self.association.connection.last_heard)
            head = Head(self.transfer_syntax_uid, self._held, limit)
            try:
                dataset = await head.read(self.data)
            except BaseException as error:
                self.close()
                raise_as_failure(error)
                raise
            self.encoded_metadata = head.encoded
            self._metadata = with_file_meta(self, dataset)
        return self._metadata

    def file_start(self) -> bytes:
        """What stands in a DICOM file before the bytes of `data`. Raises `UsageError` when some of these have been read."""
        if not (self.data.is_untouched or self.data.is_put_back):
            raise UsageError("of an object that has been read in part no file can be made")
        return self.file_header() + self.encoded_metadata

    async def write_to(self, path: str | os.PathLike[str]) -> None:
        """Write a DICOM file (PS3.10): whole, or not at all; one of that name is replaced. The data set is written as it came.

        The folder must be there. Nothing is synced to the disk. Raises `StoreFailed` (A700H) when it cannot be written.
        """
        await write_whole_object(os.fspath(path), self.file_start(), self.data)

    def close(self) -> None:
        """The request has been served: give back the memory."""
        if self._held is not None:
            self._held.__exit__()
            self._held = None


class BufferedStoreRequest(StoredObject):
    """One incoming C-STORE whose data set is there whole."""

    __slots__ = ("_dataset", "_held", "content")

    def __init__(self, request: StoreRequest, content: bytes, held: HeldData) -> None:
        super().__init__(request.association, request.message, request.transfer_syntax_uid)
        self.content: Final = content
        """The data set as it came: without file meta information, encoded in `transfer_syntax_uid`."""
        self._held = held
        self._dataset: Dataset | None = None

    async def dataset(self) -> Dataset:
        """The data set, with its file meta information; decoded in a worker thread, and only if it is asked for.

        It takes as much memory again as `content`, for which there must be room. Raises `StoreFailed`: A700H when there is none,
        C000H when the data set cannot be read.
        """
        if self._dataset is None:
            try:
                dataset = await decoded(self.content, self.transfer_syntax_uid, self._held)
            except (MemoryShort, DataSetError) as error:
                raise_as_failure(error)
                raise
            self._dataset = with_file_meta(self, dataset)
        return self._dataset

    async def write_to(self, path: str | os.PathLike[str]) -> None:
        """Write a DICOM file (PS3.10): whole, or not at all; one of that name is replaced. The data set is written as it came.

        The folder must be there. Nothing is synced to the disk. Raises `StoreFailed` (A700H) when it cannot be written.
        """

        async def chunks() -> AsyncGenerator[Chunk, None]:
            yield Chunk((memoryview(self.content),), True, len(self.content))

        await write_whole_object(os.fspath(path), self.file_header(), chunks())


def raise_as_failure(error: BaseException) -> None:
    """Raise `StoreFailed` for want of memory (PS3.4 B.2.3: the sender may try again), and for what cannot be read."""
    if isinstance(error, MemoryShort):
        raise StoreFailed(OUT_OF_RESOURCES, str(error)) from None
    if isinstance(error, DataSetError):
        raise StoreFailed(CANNOT_UNDERSTAND, str(error)) from error


def with_file_meta(of: StoredObject, dataset: Dataset) -> Dataset:
    """`dataset` with the file meta information of the object, which pydicom asks for to decode pixels and to write files."""
    import pydicom  # noqa: F401 - whole, before its parts
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import UID

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UID(of.sop_class_uid)
    meta.MediaStorageSOPInstanceUID = UID(of.sop_instance_uid)
    meta.TransferSyntaxUID = UID(of.transfer_syntax_uid)
    meta.ImplementationClassUID = UID(IMPLEMENTATION_CLASS_UID)
    meta.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME
    dataset.file_meta = meta
    return dataset
