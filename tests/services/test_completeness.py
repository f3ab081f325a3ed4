"""Whether a file is there to its end, of every layout of PS3.5 Annex A, cut off at every byte."""

from __future__ import annotations

from itertools import accumulate
from pathlib import Path
from zlib import MAX_WBITS, compressobj

import pytest

from support.data_sets import ENCODERS, EXPLICIT, Encoder, elements_of_an_image, pydicom_data_sets
from tomowire.services.completeness import is_whole, pixel_bytes
from tomowire.services.dicom_file import DicomFile

DEFLATED = "1.2.840.10008.1.2.1.99"
HEAD = b"what stands before the data set"


def verdict(path: Path, syntax: str, data_set: bytes) -> bool:
    path.write_bytes(HEAD + data_set)
    return is_whole(DicomFile(path, "1.2", "1.3", syntax, len(HEAD), len(data_set)))


@pytest.mark.parametrize("encoder", ENCODERS, ids=lambda encoder: encoder.transfer_syntax)
def test_a_file_that_is_cut_short_is_known_wherever_it_is_cut(encoder: Encoder, tmp_path: Path) -> None:
    """But for a cut between two elements, which nobody can know; a single null byte there may fill up."""
    elements = elements_of_an_image(encoder)
    data_set = b"".join(elements)
    between = {0, *accumulate(map(len, elements))}
    whole = {
        end for end in range(len(data_set) + 1) if verdict(tmp_path / "x", encoder.transfer_syntax, data_set[:end])
    }
    assert whole - between <= {end + 1 for end in between if data_set[end : end + 1] == b"\0"}
    assert between <= whole


@pytest.mark.parametrize("end", [b"\0", bytes(8), bytes(500)])
def test_what_fills_up_cuts_nothing_short(end: bytes, tmp_path: Path) -> None:
    assert verdict(tmp_path / "x", EXPLICIT.transfer_syntax, b"".join(elements_of_an_image(EXPLICIT)) + end)


@pytest.mark.parametrize("data_set", [b"no element at all", EXPLICIT.item_delimiter])
def test_of_what_makes_no_sense_nothing_is_said(data_set: bytes, tmp_path: Path) -> None:
    assert verdict(tmp_path / "x", EXPLICIT.transfer_syntax, data_set)


def test_a_deflated_data_set_ends_with_its_last_block(tmp_path: Path) -> None:
    deflating = compressobj(wbits=-MAX_WBITS)
    data_set = deflating.compress(b"".join(elements_of_an_image(EXPLICIT)) + bytes(1 << 20)) + deflating.flush()
    assert verdict(tmp_path / "x", DEFLATED, data_set)
    assert verdict(tmp_path / "x", DEFLATED, data_set + b"\0")
    assert verdict(tmp_path / "x", DEFLATED, b"\xff" + data_set), "no deflated stream"
    for end in range(0, len(data_set), 7):
        assert not verdict(tmp_path / "x", DEFLATED, data_set[:end])


def test_of_real_files_those_are_cut_short_that_say_so(tmp_path: Path) -> None:
    cut = [
        stored.path.name
        for stored in pydicom_data_sets()
        if not verdict(tmp_path / "x", stored.transfer_syntax, stored.data)
    ]
    assert sorted(cut) == ["MR_truncated.dcm", "rtplan_truncated.dcm"]


@pytest.mark.parametrize("encoder", ENCODERS, ids=lambda encoder: encoder.transfer_syntax)
def test_the_pixel_data_of_the_image_is_measured_and_not_that_of_an_icon(encoder: Encoder, tmp_path: Path) -> None:
    element = encoder.element
    icon = element(0x7FE00010, "OW", bytes(64))
    data_set = (
        encoder.sequence(0x00880200, encoder.item(icon, defined=False), defined=False)
        + element(0x7FE00010, "OW", bytes(1000))
        + element(0x7FE10010, "LO", b"x ")
    )
    file = DicomFile(tmp_path / "x", "1.2", "1.3", encoder.transfer_syntax, 0, len(data_set))
    file.path.write_bytes(data_set)
    assert pixel_bytes(file) == 1000
    file.path.write_bytes(data_set[:-1])
    assert pixel_bytes(file) is None
