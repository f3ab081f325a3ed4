"""Objects for a peer that does not take them in the transfer syntax they are stored in.

What comes out is uncompressed, which every peer can take (PS3.5 10.1), or compressed without loss.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from io import FileIO
from typing import TYPE_CHECKING, Final

from tomowire.errors import TranscodingFailed
from tomowire.services.compressing import LOSSLESS, can_compress, compressed
from tomowire.services.decoding import decoded, decoders_of
from tomowire.services.encoded import EncodedDataSet
from tomowire.services.reencoding import LARGEST, UNCOMPRESSED, reencode
from tomowire.uids import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    name_of,
)

if TYPE_CHECKING:
    from tomowire.services.dicom_file import DicomFile

_LARGE: Final = 64 << 20
# So many times as large as its file a data set is taken to be, in these transfer syntaxes and in all others. (Deflate can do 1032.)
_EXPANSION: Final = {
    IMPLICIT_VR_LITTLE_ENDIAN: 1,
    EXPLICIT_VR_LITTLE_ENDIAN: 1,
    EXPLICIT_VR_BIG_ENDIAN: 1,
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN: 1032,
}
_EXPANSION_OF_IMAGES: Final = 8
_NO_CODEC: Final = 'no codec is installed for it; try `pip install "tomowire[images]"`'
# A large data set is held in memory two or three times over: these wait for one another, in all event loops of the process.
_large_ones: Final = ThreadPoolExecutor(1, thread_name_prefix="tomowire-transcoding")


def can_transcode(from_ts: str, to_ts: str) -> bool:
    """Whether `transcode` makes data sets of transfer syntax `to_ts` from those of `from_ts`: both are UIDs.

    `to_ts` has to be one of the uncompressed ones (Implicit and Explicit VR Little Endian, Big Endian, Deflated), or RLE Lossless,
    JPEG-LS Lossless or JPEG 2000 Lossless. Codecs come with `pip install "tomowire[images]"`; what decodes RLE is always there.
    """
    return why_not(from_ts, to_ts) is None


def why_not(from_ts: str, to_ts: str) -> str | None:
    """What keeps `can_transcode` from being true, in words."""
    if to_ts not in UNCOMPRESSED | LOSSLESS:
        return "that is not written here"
    if (to_ts in LOSSLESS and not can_compress(to_ts)) or (from_ts not in UNCOMPRESSED and not decoders_of(from_ts)):
        return _NO_CODEC
    return None


async def transcode(file: DicomFile | EncodedDataSet, to_ts: str) -> bytes:
    """The data set of `file` in the transfer syntax with the UID `to_ts`, padded to even length.

    It works in a thread, and has the whole data set in memory: large ones (64 MB uncompressed) are done one at a time in the whole
    process. Values stay as they are; lossy compression is never introduced, and what it has lost before stays lost.
    A cancelled one goes on in its thread until it is done, but keeps nobody waiting.

    Raises `TranscodingFailed`, whose text says why: there is no codec, the object is damaged, the file cannot be read.
    """
    executor = _large_ones if transcoded_size(file) > _LARGE else None
    return await asyncio.get_running_loop().run_in_executor(executor, _transcode, file, to_ts)


def transcoded_size(file: DicomFile | EncodedDataSet) -> int:
    """About how many bytes the data set of `file` has when it is uncompressed."""
    return min(file.size * _EXPANSION.get(file.transfer_syntax_uid, _EXPANSION_OF_IMAGES), LARGEST)


def _transcode(file: DicomFile | EncodedDataSet, to_ts: str) -> bytes:
    from_ts = file.transfer_syntax_uid
    described = f"{file.sop_instance_uid} from {name_of(from_ts)} to {name_of(to_ts)}"
    if problem := why_not(from_ts, to_ts):
        raise TranscodingFailed(f"cannot transcode {described}: {problem}")
    decode = partial(decoded, decoders=decoders_of(from_ts)) if from_ts not in UNCOMPRESSED else None
    try:
        if to_ts in UNCOMPRESSED:
            return reencode(_read(file), from_ts, to_ts, decode)
        return compressed(reencode(_read(file), from_ts, EXPLICIT_VR_LITTLE_ENDIAN, decode), to_ts)
    except Exception as error:  # pydicom and the codecs raise whatever they stumble over
        raise TranscodingFailed(f"cannot transcode {described}: {' '.join(str(error).split())}") from error


def _read(file: DicomFile | EncodedDataSet) -> bytes:
    if isinstance(file, EncodedDataSet):
        return file.data
    with FileIO(file.path) as source:
        source.seek(file.offset)
        return source.read(file.size)
