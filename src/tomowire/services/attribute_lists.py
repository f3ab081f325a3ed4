"""The data sets of DIMSE-N: attribute, modification and other lists as pydicom data sets, to bytes and back."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from tomowire.errors import DataSetError, UsageError
from tomowire.services import identifiers
from tomowire.services.arguments import is_dataset

if TYPE_CHECKING:
    from pydicom import Dataset

    from tomowire.aio.copied import Copied
    from tomowire.aio.held import HeldData
    from tomowire.aio.streams import DataStream

LARGEST_LIST: Final = 64 << 20
"""Bytes of a data set that are taken by default: an image for a film box has some tens of megabytes."""


async def encode_elsewhere(dataset: Dataset | bytes | None, transfer_syntax_uid: str) -> bytes | None:
    """As `encode_list`, in a thread if it may take long. Raises `UsageError` for what is no data set."""
    if not (dataset is None or isinstance(dataset, bytes) or is_dataset(dataset)):
        raise UsageError(f"a data set is given as a pydicom Dataset or as bytes, and not as {type(dataset).__name__}")
    if dataset is None or isinstance(dataset, bytes):
        return encode_list(dataset, transfer_syntax_uid)
    return await asyncio.to_thread(encode_list, dataset, transfer_syntax_uid)


def encode_list(dataset: Dataset | bytes | None, transfer_syntax_uid: str) -> bytes | None:
    """What is sent for a data set, as `identifiers.encode`. Bytes are taken as they are; None, and no attributes, is no data set.

    Raises `DataSetError` for what cannot be encoded.
    """
    if dataset is None or isinstance(dataset, bytes):
        return dataset + b"\0" * (len(dataset) % 2) if dataset else None  # PS3.8 E.1: fragments are even in length
    try:
        return identifiers.encode(dataset, transfer_syntax_uid) if len(dataset) else None
    except DataSetError as error:
        raise _renamed(error) from error


def decode_list(data: bytes | None, transfer_syntax_uid: str) -> Dataset:
    """The data set that came; without attributes if none came. Raises `DataSetError` for what breaks its transfer syntax."""
    if not data:
        from pydicom import Dataset as NewDataset

        return NewDataset()
    try:
        return identifiers.decode(data, transfer_syntax_uid)
    except DataSetError as error:
        raise _renamed(error) from error


async def gather(stream: DataStream | Copied | None, most: int, held: HeldData | None = None) -> bytes | None:
    """All of a data set that arrives, as a copy, in the memory of `held`; None if there is none.

    Raises `DataSetError` for more than `most` bytes, `MemoryShort`, and the `AssociationError` that kept it from becoming whole.
    """
    if stream is None:
        return None
    data = bytearray()
    size = 0
    async for chunk in stream:
        size += chunk.nbytes
        if size > most:
            stream.close()
            raise DataSetError(f"a data set of more than {most} bytes")
        if held is not None:
            await held.write(chunk.buffers, chunk.nbytes)
            continue
        for buffer in chunk.buffers:
            data += buffer
    return bytes(data) if held is None else held.whole()


def _renamed(error: DataSetError) -> DataSetError:
    """What does the work was made for queries, and calls each data set an identifier."""
    return DataSetError(str(error).replace("the identifier", "the data set").replace("an identifier", "a data set"))
