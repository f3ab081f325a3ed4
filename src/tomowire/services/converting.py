"""An object in a transfer syntax that the peer takes: written in it, if it is a data set in memory, or transcoded on request."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from tomowire.services.dicom_file import DicomFile
from tomowire.services.memory import transcoding_memory
from tomowire.services.reencoding import UNCOMPRESSED
from tomowire.uids import DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from tomowire.services.dataset_source import DatasetSource
    from tomowire.services.encoded import EncodedDataSet
    from tomowire.services.sources import Source

    Content = bytes | memoryview | None

_LARGE: Final = 64 << 20
"""A file of more bytes goes in pieces, if only its layout changes."""


@asynccontextmanager
async def in_agreed_syntax(
    source: Source, content: Content, agreed: Sequence[str], wanted: str | None, *, transcode: bool
) -> AsyncIterator[tuple[Source, Content]]:
    """`source` and its data set in one of the transfer syntaxes that were `agreed` on; in `wanted`, if that is given.

    As it is, where none of them is possible: it is for the caller to refuse that then. To be left when it has been sent, for others
    wait for its memory. Raises `TranscodingFailed`, and what reading the source raises.
    """
    from tomowire.services.dataset_source import DatasetSource
    from tomowire.services.encoded import EncodedDataSet

    targets = sorted((each for each in agreed if wanted in (None, each)), key=lambda each: each not in UNCOMPRESSED)
    if isinstance(source, DatasetSource) and source.is_open and targets and targets[0] in UNCOMPRESSED:
        yield source.written_in(targets[0]), None
        return
    target = await _possible(source, targets, wanted) if transcode or wanted is not None else None
    if target is None:
        yield source, content
        return
    if not isinstance(source, DicomFile | EncodedDataSet | DatasetSource):
        from tomowire.services.stream_transcoding import TranscodedSource

        yield TranscodedSource(source, target), None
        return
    if isinstance(source, DicomFile) and await asyncio.to_thread(_goes_in_pieces, source, target):
        from tomowire.services.stream_transcoding import TranscodedSource

        yield TranscodedSource(source, target), None
        return
    from tomowire.services.transcoding import transcode as transcoded
    from tomowire.services.transcoding import transcoded_size

    whole = await _whole(source)
    async with transcoding_memory(transcoded_size(whole)):
        made = await transcoded(whole, target)
        yield EncodedDataSet.of(source, target, made), made


async def _possible(source: Source, targets: Sequence[str], wanted: str | None) -> str | None:
    """The first of `targets` that can be made of it, not counting what it is in already."""
    from tomowire.services.image_codecs import is_missing
    from tomowire.services.transcoding import can_transcode

    for target in targets:
        if target == source.transfer_syntax_uid:
            return None
        if wanted is not None:
            return target  # if it cannot be done, transcoding says why
        if await asyncio.to_thread(can_transcode, source.transfer_syntax_uid, target):
            return target
    # For want of a codec that can be had nothing is possible: transcoding says so, and how to get it.
    return targets[0] if targets and is_missing(source.transfer_syntax_uid) and targets[0] in UNCOMPRESSED else None


def _goes_in_pieces(file: DicomFile, target: str) -> bool:
    """Whether a file is too large to be held, its attributes are not, and nothing in it can be found out to be wrong on the way."""
    from tomowire.services.completeness import pixel_bytes
    from tomowire.services.stream_transcoding import MOST_ATTRIBUTES

    plain = UNCOMPRESSED - {DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN}
    if file.size <= _LARGE or file.transfer_syntax_uid not in plain or target not in UNCOMPRESSED:
        return False
    pixels = pixel_bytes(file)
    return pixels is not None and file.size - pixels <= MOST_ATTRIBUTES


async def _whole(source: DicomFile | EncodedDataSet | DatasetSource) -> DicomFile | EncodedDataSet:
    from tomowire.services.encoded import EncodedDataSet

    if isinstance(source, DicomFile | EncodedDataSet):
        return source
    return EncodedDataSet.of(source, source.transfer_syntax_uid, await source.encoded())
