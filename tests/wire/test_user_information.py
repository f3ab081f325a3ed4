"""PS3.7 D.3.3 and PS3.8 D.1; the bytes are put together by hand from the tables named beside them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.wire_values import mutilated, raw_item, user_informations
from tomowire.errors import PduError, UsageError
from tomowire.wire.items import Item, UnknownItem, split_items
from tomowire.wire.user_identity import UserIdentity, UserIdentityAC
from tomowire.wire.user_information import (
    AsynchronousOperationsWindow,
    CommonExtendedNegotiation,
    ExtendedNegotiation,
    RoleSelection,
    UserInformation,
    decode_user_information,
    encode_user_information,
)

CT = b"1.2.840.10008.5.1.4.1.1.2"
MAXIMUM_LENGTH_0 = raw_item(0x51, bytes(4))


def as_item(*sub_items: bytes) -> Item:
    (item,) = split_items(memoryview(raw_item(0x50, b"".join(sub_items))), 74)
    return item


def field(data: bytes) -> bytes:
    return len(data).to_bytes(2, "big") + data


SUB_ITEMS = [
    pytest.param({"maximum_length": 16384}, raw_item(0x51, b"\x00\x00\x40\x00"), id="PS3.8 Table D.1-1"),
    pytest.param({"maximum_length": 0}, MAXIMUM_LENGTH_0, id="PS3.8 D.1: 0 is no limit"),
    pytest.param({"maximum_length": 0xFFFFFFFF}, raw_item(0x51, b"\xff" * 4), id="PS3.8 Table D.1-1, largest"),
    pytest.param({"implementation_class_uid": "1.2.3"}, raw_item(0x52, b"1.2.3"), id="Table D.3-1, odd length"),
    pytest.param({"implementation_version_name": "TOMOWIRE"}, raw_item(0x55, b"TOMOWIRE"), id="Table D.3-3"),
    pytest.param(
        {"asynchronous_operations_window": AsynchronousOperationsWindow(5, 0)},
        raw_item(0x53, b"\x00\x05\x00\x00"),
        id="Table D.3-7",
    ),
    pytest.param(
        {"role_selections": (RoleSelection(CT.decode(), False, True), RoleSelection("1.2", True, False))},
        raw_item(0x54, field(CT) + b"\x00\x01") + raw_item(0x54, field(b"1.2") + b"\x01\x00"),
        id="Table D.3-9",
    ),
    pytest.param(
        {"extended_negotiations": (ExtendedNegotiation(CT.decode(), b"\x01\x00\x01"), ExtendedNegotiation("1.2", b""))},
        raw_item(0x56, field(CT) + b"\x01\x00\x01") + raw_item(0x56, field(b"1.2")),
        id="Table D.3-11",
    ),
    pytest.param(
        {"common_extended_negotiations": (CommonExtendedNegotiation("1.2.3", "1.4", ("1.5.6", "1.7")),)},
        raw_item(0x57, field(b"1.2.3") + field(b"1.4") + field(field(b"1.5.6") + field(b"1.7"))),
        id="Table D.3-12",
    ),
    pytest.param(
        {"common_extended_negotiations": (CommonExtendedNegotiation("1.2.3", "1.4", ()),)},
        raw_item(0x57, field(b"1.2.3") + field(b"1.4") + field(b"")),
        id="Table D.3-12, no related class",
    ),
    pytest.param(
        {"user_identity": UserIdentity(2, b"name", b"secret", positive_response_requested=True)},
        raw_item(0x58, b"\x02\x01" + field(b"name") + field(b"secret")),
        id="Table D.3-14, passcode",
    ),
    pytest.param(
        {"user_identity": UserIdentity(5, b"token")},
        raw_item(0x58, b"\x05\x00" + field(b"token") + field(b"")),
        id="Table D.3-14, token",
    ),
    pytest.param(
        {"user_identity_response": UserIdentityAC(b"ticket")}, raw_item(0x59, field(b"ticket")), id="Table D.3-15"
    ),
    pytest.param({"unknown_items": (UnknownItem(0x5A, b"new"),)}, raw_item(0x5A, b"new"), id="not known yet"),
]


@pytest.mark.parametrize(("values", "encoded"), SUB_ITEMS)
def test_each_sub_item_in_bytes(values: dict[str, object], encoded: bytes) -> None:
    information = UserInformation(**values)  # type: ignore[arg-type]
    whole = encoded if "maximum_length" in values else MAXIMUM_LENGTH_0 + encoded  # 51H is always sent (PS3.8 D.1)
    assert encode_user_information(information) == raw_item(0x50, whole)
    assert decode_user_information(as_item(encoded)) == information


@pytest.mark.parametrize(("values", "encoded"), [each for each in SUB_ITEMS if each.id != "not known yet"])
def test_a_sub_item_that_is_cut_short_is_refused(values: dict[str, object], encoded: bytes) -> None:
    """Cut anywhere within its fields, the lengths before them being right."""
    body = encoded[4 : 4 + int.from_bytes(encoded[2:4], "big")]
    for end in range(len(body)):
        shortened = raw_item(encoded[0], body[:end])
        if encoded[0] in {0x52, 0x55} or (encoded[0] == 0x56 and end >= 2 + len(CT)):
            decode_user_information(as_item(shortened))  # text and application information end where the sub-item ends
        else:
            with pytest.raises(PduError) as caught:
                decode_user_information(as_item(shortened))
            assert caught.value.reason == 6
            assert caught.value.offset is not None
            assert 82 <= caught.value.offset <= 82 + end


@given(user_informations)
def test_round_trip(information: UserInformation) -> None:
    (item,) = split_items(memoryview(encode_user_information(information)), 0)
    assert decode_user_information(item) == information


@given(
    st.one_of(st.binary(max_size=60), mutilated(user_informations.map(lambda each: encode_user_information(each)[4:])))
)
def test_any_bytes_give_a_value_or_the_declared_error(body: bytes) -> None:
    try:
        information = decode_user_information(Item(0x50, memoryview(body), 78))
    except PduError as error:
        assert error.offset is not None
        assert 78 <= error.offset <= 78 + len(body)
    else:
        (item,) = split_items(memoryview(encode_user_information(information)), 0)
        assert decode_user_information(item) == information


@given(user_informations)
def test_sub_items_ascend_by_type(information: UserInformation) -> None:
    """Older applications might expect it (PS3.8 9.3.2.3)."""
    (item,) = split_items(memoryview(encode_user_information(replace(information, unknown_items=()))), 0)
    types = [sub_item.item_type for sub_item in split_items(item.body, 0)]
    assert types == sorted(types)
    assert types[0] == 0x51


def test_nothing_at_all_is_tolerated() -> None:
    """The implementation class UID is required (PS3.7 D.3.3.2), but its absence harms nobody."""
    information = decode_user_information(as_item())
    assert information == UserInformation()
    assert information.maximum_length == 0
    assert information.implementation_class_uid is None
    assert information.asynchronous_operations_window is None


@pytest.mark.parametrize(
    ("first", "second", "name", "expected"),
    [
        (raw_item(0x51, b"\0\0\x40\0"), raw_item(0x51, b"\0\0\x80\0"), "maximum_length", 0x8000),
        (raw_item(0x52, b"1.2"), raw_item(0x52, b"1.3"), "implementation_class_uid", "1.3"),
        (raw_item(0x55, b"ONE"), raw_item(0x55, b"TWO"), "implementation_version_name", "TWO"),
        (
            raw_item(0x53, b"\0\1\0\1"),
            raw_item(0x53, b"\0\2\0\3"),
            "asynchronous_operations_window",
            AsynchronousOperationsWindow(2, 3),
        ),
        (
            raw_item(0x58, b"\1\0" + field(b"a") + field(b"")),
            raw_item(0x58, b"\1\0" + field(b"b") + field(b"")),
            "user_identity",
            UserIdentity(1, b"b"),
        ),
        (raw_item(0x59, field(b"a")), raw_item(0x59, field(b"b")), "user_identity_response", UserIdentityAC(b"b")),
    ],
)
def test_of_a_sub_item_that_should_stand_once_the_last_one_counts(
    first: bytes, second: bytes, name: str, expected: object
) -> None:
    assert getattr(decode_user_information(as_item(first, second)), name) == expected


def test_unknown_sub_items_are_skipped_by_length_and_kept() -> None:
    information = decode_user_information(
        as_item(raw_item(0x99, b"\x51\x00\xff\xff"), raw_item(0x51, b"\0\0\x40\0"), raw_item(0x00, b""))
    )
    assert information.maximum_length == 0x4000
    assert information.unknown_items == (UnknownItem(0x99, b"\x51\x00\xff\xff"), UnknownItem(0x00, b""))


def test_reserved_bytes_are_not_tested() -> None:
    assert decode_user_information(as_item(raw_item(0x51, b"\0\0\0\1", reserved=0xFF))).maximum_length == 1


def test_fields_added_by_a_later_edition_are_left_alone() -> None:
    longer = raw_item(0x54, field(b"1.2") + b"\1\0" + b"later"), raw_item(0x51, b"\0\0\0\1" + b"later")
    information = decode_user_information(as_item(*longer))
    assert information.role_selections == (RoleSelection("1.2", True, False),)
    assert information.maximum_length == 1
    # The bytes after the related classes are reserved already (PS3.7 Table D.3-12).
    common = raw_item(0x57, field(b"1.2") + field(b"1.4") + field(field(b"1.5")) + b"later")
    assert decode_user_information(as_item(common)).common_extended_negotiations == (
        CommonExtendedNegotiation("1.2", "1.4", ("1.5",)),
    )


def test_extended_negotiation_keeps_every_byte() -> None:
    """How many of them mean something is for the service class to say (PS3.7 D.3.3.5)."""
    information = decode_user_information(as_item(raw_item(0x56, field(CT) + bytes(range(40)))))
    assert information.extended_negotiations == (ExtendedNegotiation(CT.decode(), bytes(range(40))),)


@pytest.mark.parametrize(
    ("sub_item", "offset"),
    [
        (raw_item(0x54, field(b"1.2") + b"\x02\x00"), 82 + 5),
        (raw_item(0x54, field(b"1.2") + b"\x01\xff"), 82 + 6),
        (raw_item(0x58, b"\x01\x02" + field(b"name") + field(b"")), 82 + 1),
    ],
)
def test_a_flag_is_0_or_1(sub_item: bytes, offset: int) -> None:
    with pytest.raises(PduError) as caught:
        decode_user_information(as_item(sub_item))
    assert (caught.value.reason, caught.value.offset) == (6, offset)


def test_a_related_class_past_its_list_is_refused() -> None:
    lying = raw_item(0x57, field(b"1.2") + field(b"1.4") + field(b"\x00\x09" + b"1.5") + b"123456789")
    with pytest.raises(PduError) as caught:
        decode_user_information(as_item(lying))
    assert caught.value.offset == 82 + 5 + 5 + 2 + 2


@pytest.mark.parametrize(
    "information",
    [
        UserInformation(maximum_length=-1),
        UserInformation(maximum_length=1 << 32),
        UserInformation(asynchronous_operations_window=AsynchronousOperationsWindow(1 << 16, 1)),
        UserInformation(user_identity=UserIdentity(256, b"")),
        UserInformation(user_identity=UserIdentity(4, bytes(1 << 16))),
        UserInformation(user_identity_response=UserIdentityAC(bytes(0xFFFE))),
        UserInformation(implementation_version_name="\N{EURO SIGN}"),
    ],
)
def test_what_does_not_fit_is_the_callers_fault(information: UserInformation) -> None:
    with pytest.raises(UsageError):
        encode_user_information(information)


def test_secrets_do_not_show_in_logs() -> None:
    identity = UserIdentity(2, b"name", b"secret")
    assert "secret" not in repr(UserInformation(user_identity=identity))
    assert "name" not in repr(identity)
