"""Synthetic DICOM files, the same every time. One template is encoded by pydicom; each file is that template with other numbers."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any, Final

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filewriter import dcmwrite
from pydicom.uid import ExplicitVRLittleEndian

CT_IMAGE: Final = "1.2.840.10008.5.1.4.1.1.2"
MULTI_FRAME_WORD_SECONDARY_CAPTURE: Final = "1.2.840.10008.5.1.4.1.1.7.3"

_NOISE: Final = random.Random(2).randbytes(1 << 20)
# Modalities write private elements too; with this much of them a file is 1.8 kB larger than its pixels.
_PRIVATE_BYTES: Final = 460
# What an index keeps of an image, and what else a CT has.
_ATTRIBUTES: Final[Mapping[str, Any]] = {
    "SpecificCharacterSet": "ISO_IR 100",
    "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
    **dict.fromkeys(("StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate"), "20240229"),
    **dict.fromkeys(("StudyTime", "SeriesTime", "AcquisitionTime", "ContentTime"), "121314.567000"),
    "AccessionNumber": "A0000001",
    "Modality": "CT",
    "Manufacturer": "tomowire",
    "InstitutionName": "Benchmark General Hospital",
    "ReferringPhysicianName": "Referrer^Rita",
    "StationName": "CT01",
    "StudyDescription": "CT Thorax and Abdomen",
    "SeriesDescription": "Thorax 1.0 mm, soft kernel",
    "ManufacturerModelName": "Generator",
    "PatientName": "Benchmark^Bertha",
    "PatientBirthDate": "19700101",
    "PatientSex": "O",
    "PatientAge": "054Y",
    "BodyPartExamined": "CHEST",
    "SliceThickness": "1.0",
    "KVP": "120",
    "ProtocolName": "ThorAbd",
    "PatientPosition": "HFS",
    "StudyID": "1",
    "SeriesNumber": "2",
    "ImagePositionPatient": ["-180.0", "-180.0", "12.5"],
    "ImageOrientationPatient": ["1.0", "0.0", "0.0", "0.0", "1.0", "0.0"],
    "FrameOfReferenceUID": "2.25.4",
    "SamplesPerPixel": 1,
    "PhotometricInterpretation": "MONOCHROME2",
    "PixelSpacing": ["0.7", "0.7"],
    "BitsAllocated": 16,
    "BitsStored": 16,
    "HighBit": 15,
    "PixelRepresentation": 0,
    "RescaleIntercept": "-1024",
    "RescaleSlope": "1",
}
# What differs from file to file, always in the same number of characters.
_NUMBERED: Final[Mapping[str, Callable[[int], str]]] = {
    "StudyInstanceUID": "2.25.1{:034}".format,
    "SeriesInstanceUID": "2.25.2{:034}".format,
    "SOPInstanceUID": "2.25.3{:034}".format,
    "PatientID": "PAT{:09}".format,
    "InstanceNumber": "+{:09}".format,
}
_MARKER: Final = 987654321


class Template:
    """All images of one size: `rows` times `columns` pixels of 16 bits, `frames` of them."""

    def __init__(self, rows: int, columns: int, frames: int) -> None:
        self.pixel_bytes: Final = rows * columns * frames * 2
        self._header = _header(_data_set(rows, columns, frames), self.pixel_bytes)

    def write(self, path: Path, *, study: int, series: int, instance: int) -> None:
        """Write the file of this number. The patient has the number of the study."""
        header = self._header
        for attribute, number in (
            ("StudyInstanceUID", study),
            ("SeriesInstanceUID", series),
            ("SOPInstanceUID", instance),
            ("PatientID", study),
            ("InstanceNumber", instance),
        ):
            text = _NUMBERED[attribute]
            header = header.replace(text(_MARKER).encode(), text(number).encode())
        with path.open("wb") as file:
            file.write(header)
            left = self.pixel_bytes
            while left > 0:
                left -= file.write(_NOISE[:left])


def _data_set(rows: int, columns: int, frames: int) -> Dataset:
    data_set = Dataset()
    data_set.SOPClassUID = CT_IMAGE if frames == 1 else MULTI_FRAME_WORD_SECONDARY_CAPTURE
    for keyword, value in _ATTRIBUTES.items():
        setattr(data_set, keyword, value)
    for keyword, text in _NUMBERED.items():
        setattr(data_set, keyword, text(_MARKER))
    data_set.Rows, data_set.Columns = rows, columns
    if frames > 1:
        data_set.NumberOfFrames = frames
    private = data_set.private_block(0x0029, "TOMOWIRE BENCH", create=True)
    private.add_new(0x10, "OB", _NOISE[:_PRIVATE_BYTES])
    return data_set


def _header(data_set: Dataset, pixel_bytes: int) -> bytes:
    """All of the file but the value of its pixel data."""
    data_set.add_new("PixelData", "OW", b"")
    data_set.file_meta = FileMetaDataset()
    data_set.file_meta.MediaStorageSOPClassUID = data_set.SOPClassUID
    data_set.file_meta.MediaStorageSOPInstanceUID = data_set.SOPInstanceUID
    data_set.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    buffer = BytesIO()
    dcmwrite(buffer, data_set, enforce_file_format=True)
    # The file ends with the length of the pixel data, which was 0 when pydicom wrote it.
    return buffer.getvalue().removesuffix(bytes(4)) + pixel_bytes.to_bytes(4, "little")
