"""PS3.8 9.3.1, 9.3.2.2, 9.3.3.2."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.wire_values import raw_item
from tomowire.errors import PduError, UsageError
from tomowire.wire.items import (
    MOST_ITEMS,
    MOST_OF_A_CONTEXT,
    ContextResult,
    Item,
    PresentationContextAC,
    PresentationContextRQ,
    UnknownItem,
    decode_presentation_context_ac,
    decode_presentation_context_rq,
    decode_text,
    encode_item,
    encode_presentation_context_ac,
    encode_presentation_context_rq,
    encode_text,
    encode_unknown,
    split_items,
)

CT = "1.2.840.10008.5.1.4.1.1.2"
IMPLICIT = "1.2.840.10008.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"


def only_item(data: bytes) -> Item:
    (item,) = split_items(memoryview(data), 74)
    return item


def proposal(context_id: int, *sub_items: bytes, reserved: int = 0) -> Item:
    head = bytes((context_id, reserved, reserved, reserved))
    return only_item(raw_item(0x20, head + b"".join(sub_items), reserved=reserved))


def answer(context_id: int, result: int, *sub_items: bytes) -> Item:
    return only_item(raw_item(0x21, bytes((context_id, 0, result, 0)) + b"".join(sub_items)))


def test_a_proposal_in_bytes() -> None:
    # PS3.8 Table 9-13, 9-14, 9-15; UIDs of odd length are not padded (annex F).
    context = PresentationContextRQ(1, "1.2.3", ("1.2", "1.2.840.10008.1.2.1"))
    expected = bytes.fromhex("20 00 002c 01 00 00 00 30 00 0005") + b"1.2.3" + bytes.fromhex("40 00 0003") + b"1.2"
    expected += bytes.fromhex("40 00 0013") + b"1.2.840.10008.1.2.1"
    expected = expected.replace(bytes.fromhex("002c"), (len(expected) - 4).to_bytes(2, "big"), 1)
    assert encode_presentation_context_rq(context) == expected
    assert decode_presentation_context_rq(only_item(expected)) == context


def test_an_answer_in_bytes() -> None:
    # PS3.8 Table 9-18, 9-19.
    context = PresentationContextAC(255, ContextResult.TRANSFER_SYNTAXES_NOT_SUPPORTED, "1.2")
    expected = bytes.fromhex("21 00 000b ff 00 04 00 40 00 0003") + b"1.2"
    assert encode_presentation_context_ac(context) == expected
    assert decode_presentation_context_ac(only_item(expected)) == context


def test_results_are_those_of_table_9_18() -> None:
    assert [int(result) for result in ContextResult] == [0, 1, 2, 3, 4]


def test_reserved_bytes_are_not_tested() -> None:
    item = proposal(1, raw_item(0x30, CT.encode(), reserved=0xFF), raw_item(0x40, b"1.2", reserved=9), reserved=0xFF)
    assert decode_presentation_context_rq(item) == PresentationContextRQ(1, CT, ("1.2",))


@pytest.mark.parametrize("padding", [b"\0", b" ", b"\0\0", b" \0"])
def test_padded_uids_are_tolerated(padding: bytes) -> None:
    item = proposal(1, raw_item(0x30, CT.encode() + padding), raw_item(0x40, b" " + IMPLICIT.encode() + padding))
    assert decode_presentation_context_rq(item) == PresentationContextRQ(1, CT, (IMPLICIT,))


def test_a_uid_with_foreign_characters_costs_no_association() -> None:
    pasted = "1.2.\N{ZERO WIDTH SPACE}3".encode()
    context = decode_presentation_context_rq(proposal(1, raw_item(0x30, pasted), raw_item(0x40, b"1.2")))
    assert context.abstract_syntax.encode("latin-1") == pasted  # no UID that anyone supports


@pytest.mark.parametrize("context_id", [0, 2, 254])
def test_a_context_id_that_is_not_odd_means_abort_reason_6(context_id: int) -> None:
    for item, decode in (
        (proposal(context_id, raw_item(0x30, b"1.2"), raw_item(0x40, b"1.2")), decode_presentation_context_rq),
        (answer(context_id, 0, raw_item(0x40, b"1.2")), decode_presentation_context_ac),
    ):
        with pytest.raises(PduError) as caught:
            decode(item)
        assert (caught.value.reason, caught.value.offset) == (6, 78)


@pytest.mark.parametrize("context_id", [-1, 0, 2, 256, 257])
def test_such_a_context_id_is_not_written(context_id: int) -> None:
    with pytest.raises(UsageError):
        encode_presentation_context_rq(PresentationContextRQ(context_id, CT, (IMPLICIT,)))
    with pytest.raises(UsageError):
        encode_presentation_context_ac(PresentationContextAC(context_id, 0, IMPLICIT))


def test_a_result_that_is_no_byte_is_not_written() -> None:
    with pytest.raises(UsageError):
        encode_presentation_context_ac(PresentationContextAC(1, 256, IMPLICIT))


@pytest.mark.parametrize(("abstract_syntaxes", "reason"), [((), 6), ((b"1.2", b"1.3"), 5)])
def test_a_proposal_needs_exactly_one_abstract_syntax(abstract_syntaxes: tuple[bytes, ...], reason: int) -> None:
    item = proposal(1, *(raw_item(0x30, uid) for uid in abstract_syntaxes), raw_item(0x40, b"1.2"))
    with pytest.raises(PduError) as caught:
        decode_presentation_context_rq(item)
    assert caught.value.reason == reason


def test_a_proposal_without_transfer_syntax_can_be_answered_with_result_4() -> None:
    assert decode_presentation_context_rq(proposal(1, raw_item(0x30, b"1.2"))).transfer_syntaxes == ()


@pytest.mark.parametrize(("transfer_syntaxes", "reason"), [((), 6), ((b"1.2", b"1.3"), 5)])
def test_an_accepted_context_needs_exactly_one_transfer_syntax(
    transfer_syntaxes: tuple[bytes, ...], reason: int
) -> None:
    item = answer(1, 0, *(raw_item(0x40, uid) for uid in transfer_syntaxes))
    with pytest.raises(PduError) as caught:
        decode_presentation_context_ac(item)
    assert caught.value.reason == reason


@pytest.mark.parametrize("result", [1, 2, 3, 4, 255])
@pytest.mark.parametrize(
    ("sub_items", "transfer_syntax"),
    [((), ""), ((raw_item(0x40, b""),), ""), ((raw_item(0x40, b"x"), raw_item(0x40, b"y")), "x")],
)
def test_the_transfer_syntax_of_a_rejected_context_is_not_tested(
    result: int, sub_items: tuple[bytes, ...], transfer_syntax: str
) -> None:
    assert decode_presentation_context_ac(answer(1, result, *sub_items)) == PresentationContextAC(
        1, result, transfer_syntax
    )


def test_unknown_sub_items_are_skipped_by_length_and_kept() -> None:
    unknown = raw_item(0x77, b"\x40\x00\xff\xff")  # its content looks like an item with a lying length
    item = proposal(1, unknown, raw_item(0x30, b"1.2"), raw_item(0x40, b"1.3"))
    context = decode_presentation_context_rq(item)
    assert context == PresentationContextRQ(1, "1.2", ("1.3",), (UnknownItem(0x77, b"\x40\x00\xff\xff"),))
    assert decode_presentation_context_rq(only_item(encode_presentation_context_rq(context))) == context


@pytest.mark.parametrize(
    ("data", "offset"),
    [
        (b"\x30", 74),  # no whole header
        (b"\x30\x00\x00", 74),
        (b"\x30\x00\x00\x01", 76),  # one byte past the parent
        (b"\x30\x00\xff\xff1.2", 76),
        (b"\x30\x00\x00\x00\x40\x00\x00\x02a", 80),
    ],
)
def test_an_item_never_reaches_past_its_parent(data: bytes, offset: int) -> None:
    with pytest.raises(PduError) as caught:
        list(split_items(memoryview(data), 74))
    assert (caught.value.reason, caught.value.offset) == (6, offset)


def test_a_sub_item_past_its_context_is_refused_though_the_pdu_goes_on() -> None:
    data = raw_item(0x20, b"\x01\0\0\0" + b"\x30\x00\x00\x09" + b"1.2") + raw_item(0x50, b"")
    item = next(split_items(memoryview(data), 74))
    with pytest.raises(PduError) as caught:
        decode_presentation_context_rq(item)
    assert caught.value.offset == 74 + 4 + 4 + 2


def test_a_context_without_its_fixed_fields_is_refused() -> None:
    with pytest.raises(PduError):
        decode_presentation_context_rq(only_item(raw_item(0x20, b"\x01\0\0")))


@given(st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=30)), max_size=5))
def test_items_come_out_as_they_went_in(items: list[tuple[int, bytes]]) -> None:
    data = b"".join(encode_item(item_type, body) for item_type, body in items)
    assert [(item.item_type, bytes(item.body)) for item in split_items(memoryview(data), 0)] == items
    assert encode_unknown(item.unknown() for item in split_items(memoryview(data), 0)) == data


def test_what_does_not_fit_is_the_callers_fault() -> None:
    assert len(encode_item(0x50, bytes(0xFFFF))) == 4 + 0xFFFF
    with pytest.raises(UsageError):
        encode_item(0x50, bytes(0x10000))
    with pytest.raises(UsageError):
        encode_text("\N{GREEK SMALL LETTER ALPHA}")


@given(st.binary(max_size=20))
def test_text_can_be_read_whatever_the_bytes(data: bytes) -> None:
    assert encode_text(decode_text(data)) == data.strip(b"\0 ")


def test_a_flood_of_items_is_refused() -> None:
    """The largest honest request has some hundreds."""
    empty = b"\x99\0\0\0"
    assert len(list(split_items(memoryview(empty * MOST_ITEMS), 0))) == MOST_ITEMS
    with pytest.raises(PduError, match="more than"):
        list(split_items(memoryview(empty * (MOST_ITEMS + 1)), 0))


def test_one_context_cannot_be_such_a_flood_either() -> None:
    """128 of them, each with as many empty items as fit in it, would keep the reader busy for a fifth of a second."""
    most = PresentationContextRQ(1, CT, (IMPLICIT,) * (MOST_OF_A_CONTEXT - 1))
    assert decode_presentation_context_rq(only_item(encode_presentation_context_rq(most))) == most
    more = PresentationContextRQ(1, CT, (IMPLICIT,) * MOST_OF_A_CONTEXT)
    with pytest.raises(PduError, match=f"more than {MOST_OF_A_CONTEXT} items"):
        decode_presentation_context_rq(only_item(encode_presentation_context_rq(more)))
