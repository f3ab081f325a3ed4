"""PS3.8 9.3.5.1 and annex E."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.wire_values import pdvs
from tomowire.errors import PduError, UsageError
from tomowire.wire.pdv import PDATA_HEADER, PDV_HEADER, Pdv, decode_pdvs, encode_pdvs


def test_bytes_of_one_fragment() -> None:
    # Table 9-23: length 5 = context ID + control header + 3; bit 0 command, bit 1 last.
    assert (
        encode_pdvs([Pdv(3, is_command=True, is_last=False, data=b"abc")]) == bytes.fromhex("00000005 03 01") + b"abc"
    )
    assert encode_pdvs([Pdv(255, is_command=False, is_last=True, data=b"")]) == bytes.fromhex("00000002 ff 02")


def test_header_layouts() -> None:
    assert PDV_HEADER.pack(5, 3, 1) == bytes.fromhex("000000050301")
    assert PDATA_HEADER.pack(4, 11, 7, 1, 2) == bytes.fromhex("04 00 0000000b 00000007 01 02")


@given(st.lists(pdvs, min_size=1, max_size=5))
def test_round_trip(fragments: list[Pdv]) -> None:
    assert decode_pdvs(memoryview(encode_pdvs(fragments)), 6) == tuple(fragments)


def test_data_are_slices_of_the_buffer() -> None:
    buffer = bytearray(encode_pdvs([Pdv(1, is_command=False, is_last=True, data=b"abcd")]))
    (fragment,) = decode_pdvs(memoryview(buffer), 6)
    buffer[-1:] = b"X"
    assert fragment.data == b"abcX"


def test_reserved_bits_of_the_control_header_are_not_tested() -> None:
    assert decode_pdvs(memoryview(bytes.fromhex("00000003 01 ff 00")), 6) == (
        Pdv(1, is_command=True, is_last=True, data=b"\0"),
    )


@pytest.mark.parametrize(
    ("payload", "offset"),
    [
        ("", 6),  # no PDV at all (9.3.5: one or more)
        ("00000002 01", 6),  # header cut short
        ("00000001 01 00", 6),  # no room for the control header
        ("00000000 01 00", 6),
        ("00000003 01 00", 6),  # one byte past the PDU
        ("ffffffff 01 00", 6),
        ("00000002 01 03 00000004 01 02 ff", 12),  # the second one
    ],
)
def test_contradicting_lengths_are_refused_with_reason_6(payload: str, offset: int) -> None:
    with pytest.raises(PduError) as caught:
        decode_pdvs(memoryview(bytes.fromhex(payload)), 6)
    assert (caught.value.reason, caught.value.offset) == (6, offset)


@pytest.mark.parametrize("context_id", [-1, 256])
def test_context_id_that_does_not_fit_is_the_callers_fault(context_id: int) -> None:
    with pytest.raises(UsageError):
        encode_pdvs([Pdv(context_id, is_command=True, is_last=True, data=b"")])
