"""Decoding received data sets with pydicom, in worker threads: whole ones, and the beginnings of those that still come.

pydicom passes over what is cut short, and takes it for the truth. Here the lengths must add up.
"""

from __future__ import annotations

import asyncio
import zlib
from io import BytesIO
from typing import TYPE_CHECKING, Any, Final

from tomowire.errors import DataSetError
from tomowire.uids import DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_BIG_ENDIAN
from tomowire.uids import IMPLICIT_VR_LITTLE_ENDIAN as IMPLICIT
from tomowire.wire.vrs import LONG_VRS, SHORT_VRS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pydicom import Dataset

    from tomowire.aio.held import HeldData

_INPUT_STEP: Final = 64 * 1024
_STEP: Final = 1 << 20
_HEADER: Final = 8
_UNDEFINED_LENGTH: Final = 0xFFFFFFFF
_VRS: Final = frozenset(vr.encode("ascii") for vr in (*SHORT_VRS, *LONG_VRS))
_DEFLATED: Final = frozenset({
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    "1.2.840.10008.1.2.4.95",  # JPIP Referenced Deflate
    "1.2.840.10008.1.2.4.205",  # JPIP HTJ2K Referenced Deflate
})  # fmt: skip


def is_deflated(transfer_syntax_uid: str) -> bool:
    """Whether the whole data set is one deflate stream (PS3.5 A.5)."""
    return transfer_syntax_uid in _DEFLATED


async def decoded(content: bytes, transfer_syntax_uid: str, held: HeldData) -> Dataset:
    """The data set of which `content` is all there is. Raises `DataSetError`, and `MemoryShort` when `held` gets none for it."""
    if is_deflated(transfer_syntax_uid):
        content = await _inflated(content, held)
    await held.reserve(len(content))
    return await asyncio.to_thread(read_data_set, DataSetFile(content), transfer_syntax_uid)


async def _inflated(content: bytes, held: HeldData) -> bytes:
    inflater, inflated = Inflater(), BytesIO()
    for start in range(0, len(content), _INPUT_STEP):
        inflater.feed(content[start : start + _INPUT_STEP])
        while piece := await asyncio.to_thread(inflater.step):
            await held.reserve(len(piece))
            inflated.write(piece)
    if not inflater.is_over:
        raise DataSetError("the deflated data set is cut short")
    return inflated.getvalue()


class Inflater:
    """One deflate stream without zlib header, in steps of bounded size: a kilobyte may inflate to a megabyte."""

    def __init__(self) -> None:
        self._stream = zlib.decompressobj(-zlib.MAX_WBITS)
        self._input = b""

    @property
    def is_over(self) -> bool:
        """Whether the end of the stream has come; what follows it is passed over."""
        return self._stream.eof

    def feed(self, data: bytes) -> None:
        """The next bytes of the stream."""
        self._input += data

    def step(self) -> bytes:
        """At most 1 MiB of output; none when there has to be more input, or the stream is over. Raises `DataSetError`."""
        if self._stream.eof:
            return b""
        try:
            piece = self._stream.decompress(self._input, _STEP)
        except zlib.error:
            raise DataSetError("the deflated data set is damaged") from None
        self._input = self._stream.unconsumed_tail
        return piece


class NotYet(OSError):
    """More has to come before it can be read."""


class DataSetFile(BytesIO):
    """The bytes of a data set for pydicom to read; those of its beginning, if it is not whole: reading further raises `NotYet`."""

    def __init__(self, data: bytes, *, is_whole: bool = True) -> None:
        super().__init__(data)
        self._is_whole = is_whole
        self.headers_cut_short = 0

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        if size is not None and len(data) < size:
            if not self._is_whole:
                raise NotYet
            # Where a value ends is looked for in larger pieces.
            self.headers_cut_short += size <= _HEADER
        return data


def read_data_set(
    file: DataSetFile, transfer_syntax_uid: str, stop_when: Callable[[Any, str | None, int], bool] | None = None
) -> Dataset:
    """The elements of `file`, to its end, or to that of which `stop_when(tag, vr, length)` is true; it is left there.

    Values are converted when they are asked for, as always with pydicom. Raises `DataSetError` when the lengths do not add up or
    the elements cannot be read, and `NotYet`.
    """
    from pydicom import Dataset as NewDataset
    from pydicom.charset import convert_encodings

    is_little = transfer_syntax_uid != EXPLICIT_VR_BIG_ENDIAN
    is_implicit = is_little and _is_implicit(file, transfer_syntax_uid)
    file.headers_cut_short = 0
    try:
        dataset = NewDataset({each.tag: each for each in _elements(file, is_implicit, is_little, stop_when)})
        named = dataset.get("SpecificCharacterSet")
        dataset.set_original_encoding(is_implicit, is_little, convert_encodings(named))
    except (DataSetError, NotYet):
        raise
    except Exception as error:  # whatever pydicom meets; its texts are neither short nor stable, and may quote values
        raise DataSetError("the data set cannot be decoded") from error
    if file.headers_cut_short > 1:  # once where it ends
        raise DataSetError("the data set ends inside a sequence")
    return dataset


def _is_implicit(file: DataSetFile, transfer_syntax_uid: str) -> bool:
    """By what the first element looks like: some writers name the one encoding and use the other."""
    start = file.tell()
    vr = file.read(6)[4:]
    file.seek(start)
    if vr in _VRS:
        return False
    return transfer_syntax_uid == IMPLICIT or not (vr.isalpha() and vr.isupper())


def _elements(
    file: DataSetFile, is_implicit: bool, is_little: bool, stop_when: Callable[[Any, str | None, int], bool] | None
) -> Iterator[Any]:
    import pydicom  # noqa: F401 - whole, before its parts
    from pydicom.filereader import data_element_generator

    for element in data_element_generator(file, is_implicit, is_little, stop_when):
        length = getattr(element, "length", _UNDEFINED_LENGTH)
        value: Any = element.value
        if length not in (0, _UNDEFINED_LENGTH) and len(value) != length:
            raise DataSetError(f"the data set ends inside {element.tag}")
        yield element
