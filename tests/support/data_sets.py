"""Data sets written by hand in any of the three layouts of PS3.5 Annex A, and those of files, cut off their file meta."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydicom.data import get_testdata_files
from pydicom.filereader import _read_file_meta_info, read_preamble

LONG_VRS = frozenset(["OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"])
UNDEFINED = 0xFFFFFFFF


@dataclass(frozen=True)
class Encoder:
    """Writes elements as bytes, whatever their length; lengths and VRs can be lied about."""

    transfer_syntax: str
    implicit: bool
    mark: str  # of struct: < or >

    def tag(self, tag: int) -> bytes:
        return struct.pack(self.mark + "HH", tag >> 16, tag & 0xFFFF)

    def element(self, tag: int, vr: str, value: bytes, length: int | None = None) -> bytes:
        length = len(value) if length is None else length
        if self.implicit:
            return self.tag(tag) + struct.pack(self.mark + "I", length) + value
        if vr in LONG_VRS:
            return self.tag(tag) + vr.encode() + b"\0\0" + struct.pack(self.mark + "I", length) + value
        return self.tag(tag) + vr.encode() + struct.pack(self.mark + "H", length) + value

    def item(self, content: bytes, *, defined: bool = True) -> bytes:
        head = self.tag(0xFFFEE000)
        if defined:
            return head + struct.pack(self.mark + "I", len(content)) + content
        return head + struct.pack(self.mark + "I", UNDEFINED) + content + self.item_delimiter

    def sequence(self, tag: int, *items: bytes, defined: bool = True, vr: str = "SQ") -> bytes:
        content = b"".join(items)
        if defined:
            return self.element(tag, vr, content)
        return self.element(tag, vr, content + self.sequence_delimiter, UNDEFINED)

    @property
    def item_delimiter(self) -> bytes:
        return self.tag(0xFFFEE00D) + bytes(4)

    @property
    def sequence_delimiter(self) -> bytes:
        return self.tag(0xFFFEE0DD) + bytes(4)

    def number(self, value: int) -> bytes:
        return struct.pack(self.mark + "H", value)


IMPLICIT = Encoder("1.2.840.10008.1.2", True, "<")
EXPLICIT = Encoder("1.2.840.10008.1.2.1", False, "<")
BIG = Encoder("1.2.840.10008.1.2.2", False, ">")
ENCODERS = (IMPLICIT, EXPLICIT, BIG)


def elements_of_an_image(encoder: Encoder) -> list[bytes]:
    """The elements, one by one, of a data set with everything that can be open: sequences of all kinds, and fragments."""
    e = encoder
    inner = e.sequence(0x00400008, e.item(e.element(0x00080100, "SH", b"INNER ")), defined=False)
    request = [e.element(0x00400007, "LO", b"Thorax"), inner, e.element(0x00400009, "SH", b"SPS1")]
    code = [e.element(0x00080100, "SH", b"P5-0"), e.element(0x00080104, "LO", b"CT thorax ")]
    pixels = e.sequence(0x7FE00010, e.item(b""), e.item(b"\xff\xd8abcd"), e.item(b"ef"), defined=False, vr="OB")
    return [
        e.element(0x00080005, "CS", b"ISO_IR 100"),
        e.element(0x00080016, "UI", b"1.2.840.10008.5.1.4.1.1.2\0"),
        e.element(0x00080018, "UI", b"1.2.3.4\0"),
        e.element(0x00080020, "DA", b"20240229"),
        e.element(0x00080060, "CS", b"CT"),
        e.sequence(0x00081032, e.item(b"".join(code))),
        e.sequence(0x00081110, e.item(e.element(0x00081155, "UI", b"1.2.9\0"), defined=False)),
        e.element(0x00090010, "LO", b"ACME"),
        e.element(0x00091001, "UN", b"\xfe\xff\x0d\xe0\0\0\0\0"),
        e.element(0x00100010, "PN", b"M\xfcller^J\xf6rg "),
        e.element(0x00100020, "LO", b"4711"),
        e.element(0x00104000, "LT", b"x" * 300),
        e.element(0x0020000D, "UI", b"1.2.5\0"),
        e.element(0x0020000E, "UI", b"1.2.6\0"),
        e.element(0x00200013, "IS", b"33"),
        e.element(0x00280010, "US", e.number(512)),
        e.sequence(0x00400275, e.item(b"".join(request), defined=False), e.item(b""), defined=False),
        e.element(0x00400555, "SQ", b""),
        pixels,
        e.element(0xFFFCFFFC, "OB", bytes(6)),
    ]


@dataclass(frozen=True)
class StoredDataSet:
    """A file's data set, as it would come over the network."""

    path: Path
    transfer_syntax: str
    data: bytes

    @classmethod
    def of(cls, path: Path) -> StoredDataSet | None:
        """None if the file has no file meta information that pydicom can read."""
        file = io.BytesIO(path.read_bytes())
        try:
            read_preamble(file, True)
            transfer_syntax = _read_file_meta_info(file).get("TransferSyntaxUID", "")
        except Exception:
            return None  # pydicom raises whatever it stumbles over
        return cls(path, str(transfer_syntax), file.read()) if transfer_syntax else None


def stored_data_sets(*folders: Path) -> Iterator[StoredDataSet]:
    """Of all DICOM files in these folders."""
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if path.is_file() and (found := StoredDataSet.of(path)) is not None:
                yield found


def pydicom_data_sets() -> Iterator[StoredDataSet]:
    """Of the DICOM files that come with pydicom."""
    for name in sorted(get_testdata_files()):
        path = Path(name)
        if path.is_file() and (found := StoredDataSet.of(path)) is not None:
            yield found
