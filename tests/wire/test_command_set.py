"""PS3.7 6.3.1, with pydicom as the second reader and writer, and messages recorded from others."""

from __future__ import annotations

import struct
import tracemalloc
from dataclasses import fields, replace
from io import BytesIO
from typing import Any

import pytest
from hypothesis import given, reject
from hypothesis import strategies as st
from pydicom.datadict import dictionary_VR
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_dataset
from pydicom.filewriter import write_dataset
from pydicom.multival import MultiValue
from pynetdicom.tests import encoded_dimse_msg, encoded_dimse_n_msg

from support.wire_values import messages, mutilated
from tomowire.errors import CommandSetError, UnknownCommand, UsageError
from tomowire.wire.command_set import decode_command, encode_command, is_response
from tomowire.wire.elements import MESSAGES, Message
from tomowire.wire.messages import (
    CEchoRQ,
    CEchoRSP,
    CFindRSP,
    CMoveRQ,
    CStoreRQ,
    CStoreRSP,
    NCreateRQ,
    NGetRQ,
)

VERIFICATION = "1.2.840.10008.1.1"
any_message = st.sampled_from(sorted(MESSAGES)).flatmap(lambda command_field: messages(MESSAGES[command_field]))


def raw(number: int, content: bytes, *, group: int = 0, length: int | None = None) -> bytes:
    """An element put together by hand: tag, length, value (PS3.7 6.3.1)."""
    return struct.pack("<HHI", group, number, len(content) if length is None else length) + content


def us(number: int, content: int) -> bytes:
    return raw(number, struct.pack("<H", content))


ECHO_RQ = (raw(0x0002, b"1.2.840.10008.1.1\0"), us(0x0100, 0x0030), us(0x0110, 7), us(0x0800, 0x0101))
STORE_RQ = (raw(0x0002, b"1.2\0"), us(0x0100, 1), us(0x0110, 7), us(0x0700, 0), us(0x0800, 1), raw(0x1000, b"1.3\0"))


def command(*elements: bytes, group_length: int | None = None) -> bytes:
    body = b"".join(elements)
    return raw(0x0000, struct.pack("<I", len(body) if group_length is None else group_length)) + body


def refusal(data: bytes) -> CommandSetError:
    with pytest.raises(CommandSetError) as caught:
        decode_command(data)
    return caught.value


# --- bytes


def test_an_echo_request_in_bytes() -> None:
    expected = bytes.fromhex(
        "0000 0000 04000000 38000000"
        "0000 0200 12000000 312e322e3834302e31303030382e312e3100"  # padded with NUL to an even length
        "0000 0001 02000000 3000"
        "0000 1001 02000000 0700"
        "0000 0008 02000000 0101"
    )
    request = CEchoRQ(message_id=7, affected_sop_class_uid=VERIFICATION)
    assert encode_command(request) == expected
    assert decode_command(expected) == request
    assert decode_command(memoryview(expected)) == request


def test_padding_of_texts_is_a_space() -> None:
    request = CMoveRQ(message_id=1, affected_sop_class_uid="1.2", move_destination="ODD")
    assert raw(0x0600, b"ODD ") in encode_command(request)
    response = CEchoRSP(message_id_being_responded_to=1, status=0xC000, error_comment="odd")
    assert raw(0x0902, b"odd ") in encode_command(response)


def test_tags_are_pairs_of_16_bits() -> None:
    request = NGetRQ(
        message_id=1,
        requested_sop_class_uid="1.2",
        requested_sop_instance_uid="1.3",
        attribute_identifier_list=(0x00100020, 0x7FE00010),
    )
    assert raw(0x1005, bytes.fromhex("1000 2000 e07f 1000")) in encode_command(request)


@given(any_message)
def test_elements_ascend_and_the_group_length_is_right(message: Message) -> None:
    data = encode_command(message)
    numbers, position = [], 0
    while position < len(data):
        group, number, length = struct.unpack_from("<HHI", data, position)
        assert (group, length % 2) == (0, 0)
        numbers.append(number)
        position += 8 + length
    assert numbers == sorted(set(numbers))
    assert numbers[0] == 0
    assert data[:12] == raw(0x0000, struct.pack("<I", len(data) - 12))


@given(any_message)
def test_round_trip(message: Message) -> None:
    assert decode_command(encode_command(message)) == message


# --- pydicom as oracle


def as_values(message: Message) -> dict[int, Any]:
    """What another implementation has to find: element number -> value, without what is not sent."""
    values = {each.metadata["element"].number: getattr(message, each.name) for each in fields(message)}
    return {number: content for number, content in values.items() if content not in (None, ())} | {
        0x0100: message.command_field
    }


def found_by_pydicom(data: bytes) -> dict[int, Any]:
    dataset = read_dataset(BytesIO(data), is_implicit_VR=True, is_little_endian=True)
    found = {each.tag.element: each.value for each in dataset if each.tag.element and not each.is_empty}
    for number in {0x0901, 0x1005} & found.keys():
        found[number] = tuple(found[number]) if isinstance(found[number], MultiValue) else (found[number],)
    return found


@given(any_message)
def test_pydicom_reads_ours(message: Message) -> None:
    assert found_by_pydicom(encode_command(message)) == as_values(message)


@given(any_message)
def test_we_read_pydicoms(message: Message) -> None:
    dataset = Dataset()
    for number, content in as_values(message).items():
        dataset.add_new(number, dictionary_VR(number), list(content) if isinstance(content, tuple) else content)
    file = DicomBytesIO()
    file.is_implicit_VR = True
    file.is_little_endian = True
    write_dataset(file, dataset)
    assert decode_command(file.getvalue()) == message


RECORDED = {
    name: data[1:]  # the first byte is the message control header
    for module in (encoded_dimse_msg, encoded_dimse_n_msg)
    for name, data in vars(module).items()
    if "_cmd" in name
}


@pytest.mark.parametrize("name", RECORDED)
def test_recorded_messages_read_as_pydicom_reads_them(name: str) -> None:
    message = decode_command(RECORDED[name])
    service = name.partition("_cmd")[0].replace("_er_", "_event_report_").replace("_", "")
    assert type(message).__name__.lower() == service
    theirs = {
        number: content[0] if isinstance(content, list) else content  # 16 bits that are written as 32
        for number, content in found_by_pydicom(RECORDED[name]).items()
    }
    assert {number: content for number, content in as_values(message).items() if content != ""} == theirs


# --- bytes of any kind


@given(st.one_of(st.binary(max_size=100), mutilated(any_message.map(encode_command))))
def test_any_bytes_give_a_message_or_the_declared_error(data: bytes) -> None:
    try:
        message = decode_command(data)
    except CommandSetError as error:
        assert error.offset is None or 0 <= error.offset < len(data)
    else:
        try:
            again = encode_command(message)
        except UsageError:
            reject()  # an AE title of more than 16 characters is read but not written
        assert encode_command(decode_command(again)) == again  # not the same as `data`: what was tolerated is put right


@pytest.mark.parametrize("length", [1, 0x7FFFFFFF, 0xFFFFFFFE, 0xFFFFFFFF])
def test_a_lying_length_allocates_nothing(length: int) -> None:
    data = command(*ECHO_RQ, raw(0x0902, b"", length=length))
    tracemalloc.start()
    try:
        error = refusal(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 32 * 1024
    assert error.offset == len(data) - 8


# --- what peers get wrong without harm


@pytest.mark.parametrize("group_length", [0, 1, 12, 0xFFFFFFFF])
def test_a_wrong_group_length_is_tolerated(group_length: int) -> None:
    assert decode_command(command(*ECHO_RQ, group_length=group_length)) == decode_command(command(*ECHO_RQ))


def test_a_missing_group_length_is_tolerated() -> None:
    assert decode_command(b"".join(ECHO_RQ)) == CEchoRQ(message_id=7, affected_sop_class_uid=VERIFICATION)


def test_elements_in_any_order_are_tolerated() -> None:
    assert decode_command(command(*reversed(ECHO_RQ))) == decode_command(command(*ECHO_RQ))


def test_unknown_elements_are_skipped() -> None:
    retired = raw(0x0001, struct.pack("<I", 4)), raw(0x5010, b"ACR-NEMA"), raw(0x0010, b"")  # PS3.7 Table E.2-1
    of_another_message = us(0x0900, 0)
    data_element = raw(0x0100, b"\x01\x80", group=0x0008)  # no command element, though its number is known
    found = decode_command(command(*retired, *ECHO_RQ, of_another_message, data_element))
    assert found == decode_command(command(*ECHO_RQ))


def test_of_an_element_that_stands_twice_the_last_one_counts() -> None:
    assert decode_command(command(*ECHO_RQ, us(0x0110, 9))).message_id == 9  # type: ignore[attr-defined]


@pytest.mark.parametrize("content", [b"\x07\x00\x00\x00", b"\x07\x00\x00\x00\x00\x00\x00\x00", b"\x07"])
def test_a_number_in_another_length_is_tolerated_if_it_fits(content: bytes) -> None:
    data = command(ECHO_RQ[0], ECHO_RQ[1], raw(0x0110, content), ECHO_RQ[3])
    assert decode_command(data) == decode_command(command(*ECHO_RQ))


@pytest.mark.parametrize(
    "uid", [b"1.2.840.10008.1.1", b"1.2.840.10008.1.1\0", b"1.2.840.10008.1.1 ", b" 1.2.840.10008.1.1\0\0"]
)
def test_padding_of_any_kind_is_tolerated(uid: bytes) -> None:
    assert decode_command(command(raw(0x0002, uid), *ECHO_RQ[1:])) == decode_command(command(*ECHO_RQ))


def test_an_optional_element_without_a_value_says_nothing() -> None:
    empty = raw(0x0901, b""), raw(0x0902, b""), raw(0x0903, b""), raw(0x1000, b"")
    response = us(0x0100, 0x8001), us(0x0120, 5), us(0x0800, 0x0101), us(0x0900, 0)
    assert decode_command(command(*response, *empty)) == CStoreRSP(message_id_being_responded_to=5, status=0)


def test_a_missing_priority_is_medium() -> None:
    request = decode_command(command(*STORE_RQ[:3], *STORE_RQ[4:]))
    assert request == CStoreRQ(message_id=7, affected_sop_class_uid="1.2", affected_sop_instance_uid="1.3", priority=0)


@pytest.mark.parametrize("uid", [b"", b"../../etc/passwd", b"9" * 200, b"\xff\xfe"])
def test_a_uid_that_is_none_is_read_and_can_be_sent_back(uid: bytes) -> None:
    """It is for the service to answer 0117H, and the answer names the UID (PS3.7 C.5.12)."""
    request = decode_command(command(*STORE_RQ[:-1], raw(0x1000, uid)))
    assert isinstance(request, CStoreRQ)
    assert request.affected_sop_instance_uid.encode("latin-1") == uid
    response = CStoreRSP(
        message_id_being_responded_to=7, status=0x0117, affected_sop_instance_uid=request.affected_sop_instance_uid
    )
    assert raw(0x1000, uid) in encode_command(response)


@pytest.mark.parametrize("message_id", [0, 1, 65535])
def test_any_message_id_can_be_sent_back(message_id: int) -> None:
    request = decode_command(command(ECHO_RQ[0], ECHO_RQ[1], us(0x0110, message_id), ECHO_RQ[3]))
    assert isinstance(request, CEchoRQ)
    response = CEchoRSP(message_id_being_responded_to=request.message_id, status=0)
    assert us(0x0120, message_id) in encode_command(response)


# --- what cannot be read


@pytest.mark.parametrize("command_field", [0, 0x0002, 0x0022, 0x0FFE, 0x8FFF, 0xFFFF])
def test_an_unknown_command_field_says_what_is_needed_for_0211(command_field: int) -> None:
    error = refusal(command(us(0x0100, command_field), us(0x0110, 12), us(0x0800, 0x0102)))
    assert isinstance(error, UnknownCommand)
    assert (error.command_field, error.message_id, error.has_data_set) == (command_field, 12, True)


@pytest.mark.parametrize("data", [b"", command(), command(us(0x0110, 12)), command(raw(0x0100, b""), us(0x0110, 12))])
def test_without_a_command_field_there_is_no_message(data: bytes) -> None:
    error = refusal(data)
    assert not isinstance(error, UnknownCommand)
    assert error.command_field is None
    assert error.has_data_set is None


@pytest.mark.parametrize("missing", [0, 2, 4, 5])
def test_a_missing_element_is_reported_with_what_could_be_read(missing: int) -> None:
    error = refusal(command(*(each for number, each in enumerate(STORE_RQ) if number != missing)))
    assert error.command_field == 1
    assert error.message_id == (None if missing == 2 else 7)
    assert error.has_data_set == (None if missing == 4 else True)


def test_of_a_response_the_id_is_that_of_its_request() -> None:
    error = refusal(command(us(0x0100, 0x8001), us(0x0120, 31), us(0x0800, 0x0101)))  # no status
    assert (error.command_field, error.message_id, error.has_data_set) == (0x8001, 31, False)


@pytest.mark.parametrize(
    "wrong",
    [
        raw(0x0110, b""),  # required, and empty
        raw(0x0110, b"\x00\x00\x01\x00"),  # 65536
        raw(0x0110, b"\xff" * 9),
    ],
)
def test_a_number_that_does_not_fit_is_refused(wrong: bytes) -> None:
    error = refusal(command(ECHO_RQ[0], ECHO_RQ[1], wrong, ECHO_RQ[3]))
    assert (error.command_field, error.message_id, error.has_data_set) == (0x0030, None, False)


@pytest.mark.parametrize("content", [b"\0", b"\x10\x00", b"\x10\x00\x20\x00\x10\x00"])
def test_a_list_of_tags_that_is_none_is_refused(content: bytes) -> None:
    error = refusal(command(us(0x0100, 0x8030), us(0x0120, 1), us(0x0800, 0x0101), us(0x0900, 0), raw(0x0901, content)))
    assert error.message_id == 1


@pytest.mark.parametrize("cut", range(1, 8))
def test_a_cut_header_is_refused(cut: int) -> None:
    data = command(*ECHO_RQ)
    error = refusal(data + bytes(cut))
    assert error.offset == len(data)
    assert (error.command_field, error.message_id, error.has_data_set) == (0x0030, 7, False)


# --- what cannot be written


@pytest.mark.parametrize(
    "message",
    [
        CEchoRQ(message_id=65536, affected_sop_class_uid=VERIFICATION),
        CEchoRQ(message_id=-1, affected_sop_class_uid=VERIFICATION),
        CEchoRQ(message_id=1, affected_sop_class_uid="\N{EURO SIGN}"),
        CMoveRQ(message_id=1, affected_sop_class_uid="1.2", move_destination="SEVENTEEN LETTERS"),
        CFindRSP(message_id_being_responded_to=1, status=0, offending_element=(1 << 32,)),
    ],
)
def test_what_does_not_fit_is_the_callers_fault(message: Message) -> None:
    with pytest.raises(UsageError):
        encode_command(message)


@pytest.mark.parametrize(
    ("comment", "sent"),
    [
        ("disk full", "disk full"),
        ("x" * 100, "x" * 64),  # LO: 64 characters at most (PS3.5 6.2)
        ("Müller: gelöscht", "M?ller: gel?scht"),  # only the default repertoire (PS3.7 annex C)
        ("C:\\archive\nsecond line", "C:?archive?second line"),  # no backslash, no control characters (PS3.5 6.2)
    ],
)
def test_an_error_comment_never_stands_in_the_way_of_the_response(comment: str, sent: str) -> None:
    response = CStoreRSP(message_id_being_responded_to=1, status=0xA700, error_comment=comment)
    assert decode_command(encode_command(response)) == replace(response, error_comment=sent)


def test_what_is_none_or_empty_is_not_sent() -> None:
    assert encode_command(NCreateRQ(message_id=1, affected_sop_class_uid="1.2")) == command(
        raw(0x0002, b"1.2\0"), us(0x0100, 0x0140), us(0x0110, 1), us(0x0800, 0x0101)
    )


def test_what_a_response_answers_is_read_from_the_right_element() -> None:
    """A stray Message ID (0000,0110) in a response that cannot be read is not that of the request, unless there is no other."""
    stray = struct.pack("<HHIH", 0, 0x0110, 2, 99)
    command = struct.pack("<HHIH", 0, 0x0100, 2, 0x8030)
    with pytest.raises(CommandSetError) as caught:
        decode_command(command + stray + struct.pack("<HHIH", 0, 0x0120, 2, 7))
    assert caught.value.message_id == 7
    with pytest.raises(CommandSetError) as caught:
        decode_command(command + stray)
    assert caught.value.message_id == 99


def test_a_response_is_known_by_its_command_field() -> None:
    """PS3.7 E.1: the names end in RSP; what could not be read is none."""
    responses = {field for field, message in MESSAGES.items() if message.__name__.endswith("RSP")}
    assert {field for field in MESSAGES if is_response(field)} == responses
    assert not is_response(None)
