"""Small data sets made from scratch, and the chunks and announcements that an association would make of them."""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field

from tomowire.aio.streams import Chunk
from tomowire.server.files import DataDirectory
from tomowire.server.incoming import Incoming, NewObject
from tomowire.server.index.attributes import InstanceRecord
from tomowire.server.index.extraction import instance_record
from tomowire.server.index.scanner import scan
from tomowire.server.part import PartFile
from tomowire.uids import EXPLICIT_VR_LITTLE_ENDIAN
from tomowire.wire.part10 import FileMeta, encode_file_meta

SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
ROOT = "1.2.826.0.1.3680043.10.1234"

_LONG_VRS = {"OB", "OW", "UN"}


def element(tag: int, vr: str, value: bytes | str) -> bytes:
    """One element in Explicit VR Little Endian, padded to even length (PS3.5 7.1.2, 6.2)."""
    raw = value.encode("utf-8") if isinstance(value, str) else value
    if len(raw) % 2:
        raw += b"\0" if vr in {"UI", *_LONG_VRS} else b" "
    head = struct.pack("<HH2s", tag >> 16, tag & 0xFFFF, vr.encode("ascii"))
    return head + (struct.pack("<HI", 0, len(raw)) if vr in _LONG_VRS else struct.pack("<H", len(raw))) + raw


@dataclass(frozen=True)
class Sample:
    """An object: its UIDs are made of the numbers. Two samples with the same UID differ in content if `content` differs."""

    number: int = 1
    series: int = 1
    study: int = 1
    patient_id: str = "P1"
    content: str = "first"
    size: int = 64
    """Bytes of pixel data."""
    transfer_syntax_uid: str = EXPLICIT_VR_LITTLE_ENDIAN
    overrides: dict[int, tuple[str, str]] = field(default_factory=dict)

    @property
    def study_uid(self) -> str:
        return f"{ROOT}.1.{self.study}"

    @property
    def series_uid(self) -> str:
        return f"{ROOT}.2.{self.study}.{self.series}"

    @property
    def uid(self) -> str:
        return f"{ROOT}.3.{self.number}"

    @property
    def data_set(self) -> bytes:
        elements = {
            0x00080016: ("UI", SECONDARY_CAPTURE),
            0x00080018: ("UI", self.uid),
            0x00080020: ("DA", "20240229"),
            0x00080030: ("TM", "101500"),
            0x00080050: ("SH", f"A{self.study}"),
            0x00080060: ("CS", "OT"),
            0x00100010: ("PN", "Doe^Jane"),
            0x00100020: ("LO", self.patient_id),
            0x0020000D: ("UI", self.study_uid),
            0x0020000E: ("UI", self.series_uid),
            0x00200013: ("IS", str(self.number)),
        } | self.overrides
        pixels = self.content.encode().ljust(self.size, b"\0")
        head = b"".join(element(tag, vr, value) for tag, (vr, value) in sorted(elements.items()))
        return head + element(0x7FE00010, "OB", pixels)

    @property
    def record(self) -> InstanceRecord:
        return instance_record(scan(self.transfer_syntax_uid, [self.data_set]))

    @property
    def header(self) -> bytes:
        return encode_file_meta(FileMeta(SECONDARY_CAPTURE, self.uid, self.transfer_syntax_uid))

    def new_object(self) -> NewObject:
        """Received whole, in memory."""
        data, header = self.data_set, self.header
        return NewObject(self.record, "MODALITY", len(header), len(data), header=header, data_set=(memoryview(data),))

    def new_part(self, directory: DataDirectory) -> NewObject:
        """Received whole, in a part file."""
        part = PartFile(directory, self.header, self.transfer_syntax_uid)
        try:
            part.write((memoryview(self.data_set),), last=True)
        except OSError:
            part.discard()
            raise
        return NewObject(self.record, "MODALITY", len(self.header), part.size, part=part.path, checksum=part.checksum)

    def incoming(self, **changes: str) -> Incoming:
        """What the command set and the association say of the object."""
        announced = {
            "sop_class_uid": SECONDARY_CAPTURE,
            "sop_instance_uid": self.uid,
            "transfer_syntax_uid": self.transfer_syntax_uid,
            "calling_ae_title": "MODALITY",
            "called_ae_title": "ARCHIVE",
            "peer_address": "127.0.0.1",
        }
        return Incoming(**(announced | changes))


def chunks_of(data: bytes, size: int | None = None) -> list[Chunk]:
    """`data` in chunks of `size` bytes, as `DataStream` gives them: exactly one of them the last."""
    size = size or max(1, len(data))
    starts = range(0, max(1, len(data)), size)
    pieces = [memoryview(data)[start : start + size] for start in starts]
    return [Chunk((piece,), number == len(pieces) - 1, len(piece)) for number, piece in enumerate(pieces)]


async def stream(chunks: Iterable[Chunk] | Sequence[Chunk]) -> AsyncIterator[Chunk]:
    """The chunks, one after the other."""
    for chunk in chunks:
        yield chunk
