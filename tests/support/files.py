"""DICOM files for those who send them. What is behind the file meta information is nobody's business here: any bytes do."""

from __future__ import annotations

from pathlib import Path

from support.raw_peer import CT
from tomowire.services.dicom_file import DicomFile
from tomowire.uids import EXPLICIT_VR_LITTLE_ENDIAN
from tomowire.wire.part10 import FileMeta, encode_file_meta


def write_file(
    folder: Path,
    number: int = 1,
    data: bytes | None = None,
    *,
    sop_class: str = CT,
    transfer_syntax: str = EXPLICIT_VR_LITTLE_ENDIAN,
) -> DicomFile:
    """Object `1.2.<number>` in a file, with `data` for a data set."""
    content = data_of(number) if data is None else data
    head = encode_file_meta(FileMeta(sop_class, f"1.2.{number}", transfer_syntax))
    path = folder / f"{number}.dcm"
    path.write_bytes(head + content)
    return DicomFile(path, sop_class, f"1.2.{number}", transfer_syntax, len(head), len(content))


def data_of(number: int) -> bytes:
    """Bytes that tell one object from another (and begin with no element of group 0008H)."""
    return b"\x10\x00" + f"objects {number:06d}".encode()


def sparse_file(folder: Path, number: int, size: int) -> DicomFile:
    """A large object that takes no room on the disk: zeros behind its file meta information."""
    file = write_file(folder, number, b"\x10\x00")
    with file.path.open("r+b") as opened:
        opened.truncate(file.offset + size)
    return DicomFile(file.path, file.sop_class_uid, file.sop_instance_uid, file.transfer_syntax_uid, file.offset, size)
