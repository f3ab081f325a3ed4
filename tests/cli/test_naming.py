"""Names of received files: what they are made of is looked up in the event loop, so that it must not take long."""

from __future__ import annotations

import time
import zlib
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tomowire.aio.streams import Chunk
from tomowire.cli.naming import name_from_template
from tomowire.uids import DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN

DEFLATED, EXPLICIT = DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN
MODALITY = b"\x08\x00\x60\x00CS\x02\x00CT"
PATIENT_ID = b"\x10\x00\x20\x00LO\x04\x00P1  "
ROWS = b"\x28\x00\x10\x00US\x02\x00\x01\x02"
EMPTY = b"\x09\x00\x10\x10LO\x00\x00"  # the smallest element there is


def deflated(data: bytes) -> bytes:
    stream = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return stream.compress(data) + stream.flush()


def bomb(before: bytes, chunk: int, behind: bytes = b"") -> bytes:
    """A deflate stream of at least `chunk` bytes: `before`, elements by the million, `behind`."""
    stream = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    output = stream.compress(before)
    million = EMPTY * (1 << 17)
    while len(output) < chunk:
        output += stream.compress(million)
    return output + stream.compress(behind) + stream.flush()


def name(template: str, transfer_syntax: str, data: bytes) -> tuple[str, float]:
    """The name, and the seconds it took."""
    request = SimpleNamespace(
        sop_instance_uid="1.2.3",
        sop_class_uid="1.2",
        transfer_syntax_uid=transfer_syntax,
        association=SimpleNamespace(calling_ae_title="A", called_ae_title="B"),
    )
    make = name_from_template(template + "-{sop_instance_uid}")
    began = time.process_time()
    given = make(cast("Any", request), Chunk((memoryview(data),), True, len(data)))
    return given, time.process_time() - began


@pytest.mark.parametrize(
    ("template", "expected"), [("{modality}", "CT"), ("{modality}_{patient_id}", "CT_P1"), ("{series_number}", "_")]
)
@pytest.mark.parametrize("transfer_syntax", [EXPLICIT, DEFLATED])
@pytest.mark.parametrize("cut", [0, 3])
def test_values_are_found_however_the_data_set_ends(
    template: str, expected: str, transfer_syntax: str, cut: int
) -> None:
    data = MODALITY + PATIENT_ID + ROWS
    data = data[: len(data) - cut]
    given, _ = name(template, transfer_syntax, deflated(data) if transfer_syntax == DEFLATED else data)
    assert given == f"{expected}-1.2.3"


@pytest.mark.parametrize(
    ("template", "before", "expected"),
    [
        ("{modality}", MODALITY, "CT"),
        ("{modality}", b"", "_"),
        ("{patient_id}", MODALITY, "_"),
        ("{accession_number}", ROWS, "_"),
    ],
)
def test_a_small_chunk_that_inflates_to_a_lot_holds_nothing_up(template: str, before: bytes, expected: str) -> None:
    """The whole would take several seconds."""
    given, seconds = name(template, DEFLATED, bomb(before, 200_000, PATIENT_ID))
    assert given == f"{expected}-1.2.3"
    assert seconds < 0.5


def test_what_stands_far_behind_a_long_value_is_found() -> None:
    """Private elements may be long, and stand before what is looked for."""
    long = b"\x09\x00\x10\x10OB\x00\x00" + (600_000).to_bytes(4, "little") + bytes(600_000)
    assert name("{patient_id}", EXPLICIT, MODALITY + long + PATIENT_ID)[0] == "P1-1.2.3"
    assert name("{patient_id}", DEFLATED, deflated(MODALITY + long + PATIENT_ID))[0] == "P1-1.2.3"
