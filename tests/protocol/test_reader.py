"""Bytes -> PDUs and fragments: any segmentation, nothing copied or kept that need not be, and lengths that lie (PS3.8 9.3, E)."""

from __future__ import annotations

import tracemalloc
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.upper_layers import ABORT, AC, P_DATA, RELEASE_RP, RELEASE_RQ, RJ, RQ, raw_p_data, raw_pdu, raw_pdv
from support.wire_values import pdus
from tomowire.errors import PduError
from tomowire.protocol.reader import ASSOCIATE_CAP, Fragment, PduReader, RawPdu
from tomowire.wire.pdu import PduType, encode_pdu

ASSOCIATE = raw_pdu(RQ, bytes(68))


def read(reader: PduReader, data: bytes) -> list[RawPdu | Fragment]:
    return list(reader.feed(memoryview(data)))


def refusal(*segments: bytes, maximum_length: int = 0) -> PduError:
    """The error that the last of the segments brings about."""
    reader = PduReader(maximum_length)
    for segment in segments[:-1]:
        read(reader, segment)
    with pytest.raises(PduError) as caught:
        read(reader, segments[-1])
    return caught.value


def joined(items: list[RawPdu | Fragment]) -> list[RawPdu | tuple[int, bool, bytes, bool]]:
    """Fragments with the pieces of each PDV put together again; the last piece of each is the only one that may end."""
    whole: list[RawPdu | tuple[int, bool, bytes, bool]] = []
    unfinished = b""
    for item, following in pairwise([*items, None]):
        if isinstance(item, Fragment):
            unfinished += bytes(item.data)
            if item.ends or not isinstance(following, Fragment) or item[:2] != following[:2]:
                whole.append((item.context_id, item.is_command, unfinished, item.ends))
                unfinished = b""
        elif item is not None:
            whole.append(item)
    return whole


def test_a_pdu_comes_whole() -> None:
    assert read(PduReader(), raw_pdu(ABORT, b"\0\0\2\1")) == [RawPdu(PduType.A_ABORT, b"\0\0\2\1")]


def test_pdvs_come_as_they_are_announced() -> None:
    data = raw_p_data(raw_pdv(1, 1, b"ab"), raw_pdv(1, 3, b"cd"), raw_pdv(1, 0, b"ef"), raw_pdv(255, 2, b""))
    assert [(*item[:2], bytes(item[2]), item[3]) for item in read(PduReader(), data)] == [
        (1, True, b"ab", False),
        (1, True, b"cd", True),
        (1, False, b"ef", False),
        (255, False, b"", True),
    ]


def test_the_upper_six_bits_of_the_control_header_are_never_checked() -> None:
    """PS3.8 E.2."""
    (fragment,) = read(PduReader(), raw_p_data(raw_pdv(1, 0xFF, b"ab")))
    assert isinstance(fragment, Fragment)
    assert (fragment.is_command, fragment.ends) == (True, True)


def test_a_fragment_does_not_wait_for_the_end_of_its_pdv() -> None:
    reader = PduReader()
    assert read(reader, raw_pdu(P_DATA, length=1006)[:6] + raw_pdv(1, 2, b"begun", length=1002)) == [
        Fragment(1, False, memoryview(b"begun"), ends=False)
    ]
    assert read(reader, bytes(995)) == [Fragment(1, False, memoryview(bytes(995)), ends=True)]


def test_fragments_are_slices_of_what_came() -> None:
    buffer = bytearray(raw_p_data(raw_pdv(1, 2, b"before")))
    (fragment,) = PduReader().feed(memoryview(buffer))
    assert isinstance(fragment, Fragment)
    buffer[12:] = b"after!"
    assert fragment.data == b"after!"


pdv_lists = st.lists(
    st.builds(raw_pdv, st.integers(0, 255), st.integers(0, 255), st.binary(max_size=20)), min_size=1, max_size=4
)
streams = st.lists(pdus.map(encode_pdu) | pdv_lists.map(lambda pdvs: raw_p_data(*pdvs)), max_size=4).map(b"".join)


@given(streams, st.data())
def test_segments_do_not_matter(stream: bytes, data: st.DataObject) -> None:
    """PS3.8 9.3.1: PDUs have no relation to the segments of the transport."""
    cuts = data.draw(st.just(range(len(stream))) | st.lists(st.integers(0, len(stream)), max_size=8).map(sorted))
    reader = PduReader()
    in_pieces: list[RawPdu | Fragment] = []
    for start, end in pairwise([0, *cuts, len(stream)]):
        in_pieces += read(reader, stream[start:end])
    assert joined(in_pieces) == joined(read(PduReader(), stream))


@pytest.mark.parametrize(
    ("data", "reason", "offset"),
    [
        pytest.param(raw_pdu(0), 1, 0, id="type 0"),
        pytest.param(raw_pdu(8), 1, 0, id="type 8"),
        pytest.param(b"GET / HTTP/1.1\r\n", 1, 0, id="HTTP"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01", 1, 0, id="TLS"),
        pytest.param(raw_pdu(RQ, b"", length=67), 6, 2, id="request shorter than its fixed fields"),
        pytest.param(raw_pdu(AC, b"", length=67), 6, 2, id="answer shorter than its fixed fields"),
        pytest.param(raw_pdu(AC, b"", length=ASSOCIATE_CAP + 1), 6, 2, id="answer beyond the cap"),
        pytest.param(raw_pdu(RQ, b"", length=ASSOCIATE_CAP + 1), 6, 2, id="request beyond the cap"),
        pytest.param(raw_pdu(RQ, b"", length=0xFFFFFFFF), 6, 2, id="request of 4 GiB"),
        pytest.param(raw_pdu(RJ, b"", length=5), 6, 2, id="rejection of 5 bytes"),
        pytest.param(raw_pdu(RELEASE_RQ, b"", length=0), 6, 2, id="release without content"),
        pytest.param(raw_pdu(P_DATA, b"", length=0), 6, 2, id="no PDV at all"),
        pytest.param(raw_pdu(P_DATA, b"", length=5), 6, 2, id="less than a PDV"),
        pytest.param(raw_p_data(raw_pdv(1, 2, b"ab", length=1)), 6, 6, id="PDV length 1"),
        pytest.param(raw_p_data(raw_pdv(1, 2, b"ab", length=0)), 6, 6, id="PDV length 0"),
        pytest.param(raw_p_data(raw_pdv(1, 2, b"ab", length=5)), 6, 6, id="PDV past its PDU"),
        pytest.param(raw_p_data(raw_pdv(1, 2, b"ab", length=0xFFFFFFFF)), 6, 6, id="PDV of 4 GiB"),
        pytest.param(raw_p_data(raw_pdv(1, 2, b"ab") + b"s"), 6, 6, id="stray byte"),
        pytest.param(raw_p_data(raw_pdv(1, 2, b"ab") + b"stray"), 6, 6, id="stray bytes"),
    ],
)
def test_what_contradicts_itself_is_refused(data: bytes, reason: int, offset: int) -> None:
    """The error has the reason of Table 9-26, and the byte, counted from the start of the connection, however it came."""
    alone = refusal(data)
    assert (alone.reason, alone.offset) == (reason, offset)
    after = refusal(ASSOCIATE, ASSOCIATE[:10], ASSOCIATE[10:] + data)
    assert (after.reason, after.offset) == (reason, 2 * len(ASSOCIATE) + offset)
    in_two = refusal(data[:3], data[3:])
    assert (in_two.reason, in_two.offset) == (reason, offset)


def test_only_the_first_bytes_say_that_this_is_no_dicom_peer() -> None:
    answer = b"HTTP/1.1 400 Bad Request\r\n"
    for segments in ((answer,), (answer[:3], answer[3:])):
        assert str(refusal(*segments)) == (
            "PDU type 48H is not defined: that is no DICOM peer, it speaks HTTP (at byte 0)"
        )
    assert str(refusal(ASSOCIATE, answer)) == f"PDU type 48H is not defined (at byte {len(ASSOCIATE)})"


@pytest.mark.parametrize("pdu_type", [RJ, RELEASE_RQ, RELEASE_RP, ABORT])
def test_the_short_pdus_are_four_bytes_long(pdu_type: int) -> None:
    """PS3.8 9.3.4, 9.3.6, 9.3.7, 9.3.8."""
    assert read(PduReader(), raw_pdu(pdu_type)) == [RawPdu(pdu_type, bytes(4))]
    for length in (3, 5):
        assert refusal(raw_pdu(pdu_type, bytes(length))).reason == 6


@pytest.mark.parametrize("pdu_type", [RQ, AC])
@pytest.mark.parametrize("length", [68, ASSOCIATE_CAP])
def test_requests_and_answers_up_to_the_cap_are_read(pdu_type: int, length: int) -> None:
    assert read(PduReader(), raw_pdu(pdu_type, bytes(length))) == [RawPdu(pdu_type, bytes(length))]


@pytest.mark.parametrize(("length", "is_allowed"), [(16384, True), (16385, False), (0xFFFFFFFF, False)])
def test_the_maximum_that_was_announced_is_held_against_the_pdu_length(length: int, is_allowed: bool) -> None:
    """PS3.8 D.1: "This maximum length value shall never be exceeded by the PDU length values"."""
    header = raw_pdu(P_DATA, b"", length=length)
    if is_allowed:
        assert read(PduReader(16384), header) == []
    else:
        error = refusal(header, maximum_length=16384)
        assert (error.reason, error.offset) == (6, 2)


def test_without_a_maximum_any_length_is_streamed() -> None:
    """PS3.8 D.1: 0 is no limit; nothing is kept, so none is needed."""
    reader = PduReader(0)
    begun = raw_pdu(P_DATA, b"", length=0xFFFFFFFF) + raw_pdv(1, 0, b"", length=0xFFFFFFFB)
    assert read(reader, begun) == []
    (fragment,) = read(reader, bytes(1000))
    assert isinstance(fragment, Fragment)
    assert not fragment.ends


def test_after_an_error_nothing_is_read_any_more() -> None:
    reader = PduReader()
    with pytest.raises(PduError):
        read(reader, raw_pdu(0x42))
    assert read(reader, ASSOCIATE) == []


def test_after_stop_nothing_is_read_any_more() -> None:
    reader = PduReader()
    reader.stop()
    assert read(reader, raw_pdu(0x42)) == []


def test_what_a_length_promises_is_not_allocated() -> None:
    block = memoryview(bytes(1 << 16))
    tracemalloc.start()
    try:
        request = PduReader()
        read(request, raw_pdu(RQ, b"", length=ASSOCIATE_CAP))
        stream = PduReader()
        read(stream, raw_pdu(P_DATA, b"", length=0xFFFFFFFF) + raw_pdv(1, 0, b"", length=0xFFFFFFFB))
        for _ in range(256):  # 16 MiB
            for _fragment in stream.feed(block):
                pass
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1 << 16
