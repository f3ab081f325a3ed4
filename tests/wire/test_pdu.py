"""PS3.8 9.3, with PDUs recorded from other implementations (they come with pynetdicom) as foreign vectors."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from pynetdicom import pdu as foreign
from pynetdicom.tests import encoded_pdu_items as vectors

from support.wire_values import acceptances, mutilated, pdus, raw_item, requests
from tomowire.errors import PduError, UsageError
from tomowire.uids import APPLICATION_CONTEXT
from tomowire.wire.items import PresentationContextRQ, UnknownItem
from tomowire.wire.pdu import (
    PDU_HEADER,
    AAbort,
    AAssociateAC,
    AAssociateRJ,
    AAssociateRQ,
    AReleaseRP,
    AReleaseRQ,
    PDataTF,
    Pdu,
    PduType,
    decode_pdu,
    encode_pdu,
)
from tomowire.wire.pdv import Pdv
from tomowire.wire.user_information import UserInformation

CT = "1.2.840.10008.5.1.4.1.1.2"
IMPLICIT = "1.2.840.10008.1.2"
REQUEST = AAssociateRQ("CALLED", "CALLING", (PresentationContextRQ(1, CT, (IMPLICIT,)),))

FIXED_FIELDS = 6 + 2 + 2 + 16 + 16 + 32  # PS3.8 Table 9-11: the variable items start at byte 75
APPLICATION_CONTEXT_ITEM = raw_item(0x10, APPLICATION_CONTEXT.encode())
PROPOSAL_ITEM = raw_item(0x20, b"\1\0\0\0" + raw_item(0x30, CT.encode()) + raw_item(0x40, IMPLICIT.encode()))


def decode(data: bytes) -> Pdu:
    """Decode a whole PDU, header included."""
    pdu_type, length = PDU_HEADER.unpack_from(data)
    assert length == len(data) - 6
    return decode_pdu(pdu_type, data[6:])


def associate_rq(
    *items: bytes, called: bytes = b"CALLED", calling: bytes = b"CALLING", version: bytes = b"\0\1"
) -> bytes:
    fixed = version + bytes(2) + called.ljust(16) + calling.ljust(16) + bytes(32)
    return fixed + b"".join(items)


def refusal(pdu_type: int, payload: bytes) -> PduError:
    with pytest.raises(PduError) as caught:
        decode_pdu(pdu_type, payload)
    return caught.value


# --- bytes, from the tables of the standard


def test_association_request_in_bytes() -> None:
    user_information = raw_item(0x50, raw_item(0x51, bytes.fromhex("00004000")) + raw_item(0x52, b"1.2.3"))
    payload = associate_rq(APPLICATION_CONTEXT_ITEM, PROPOSAL_ITEM, user_information)
    expected = bytes((1, 0)) + len(payload).to_bytes(4, "big") + payload
    request = replace(REQUEST, user_information=UserInformation(16384, "1.2.3"))
    assert encode_pdu(request) == expected
    assert decode(expected) == request


@pytest.mark.parametrize(
    ("pdu", "encoded"),
    [
        (AAssociateRJ(1, 2, 3), "03 00 00000004 00 01 02 03"),
        (AReleaseRQ(), "05 00 00000004 00 00 00 00"),
        (AReleaseRP(), "06 00 00000004 00 00 00 00"),
        (AAbort(2, 6), "07 00 00000004 00 00 02 06"),
        (PDataTF((Pdv(1, is_command=True, is_last=True, data=b"ab"),)), "04 00 00000008 00000004 01 03 61 62"),
    ],
)
def test_short_pdus_in_bytes(pdu: Pdu, encoded: str) -> None:
    assert encode_pdu(pdu) == bytes.fromhex(encoded)
    assert decode(bytes.fromhex(encoded)) == pdu


@pytest.mark.parametrize("pdu_type", [3, 5, 6, 7])
def test_reserved_bytes_of_short_pdus_are_not_tested(pdu_type: int) -> None:
    assert type(decode_pdu(pdu_type, b"\xff\xff\1\2")) is type(decode_pdu(pdu_type, b"\0\0\1\2"))


def test_reserved_bytes_of_a_request_are_not_tested() -> None:
    payload = bytearray(associate_rq(APPLICATION_CONTEXT_ITEM, PROPOSAL_ITEM, raw_item(0x50, b"", reserved=7)))
    payload[2:4] = b"\xff\xff"
    payload[36:68] = b"\xff" * 32
    assert decode_pdu(1, bytes(payload)) == replace(REQUEST, titles_as_sent=bytes(payload[4:68]))


# --- round trips, and bytes of any kind


@given(pdus)
def test_round_trip(pdu: Pdu) -> None:
    assert decode(encode_pdu(pdu)) == pdu


@given(pdus)
def test_payload_may_be_a_view(pdu: Pdu) -> None:
    data = encode_pdu(pdu)
    assert decode_pdu(data[0], memoryview(data)[6:]) == pdu


def check_any_bytes(pdu_type: int, payload: bytes) -> None:
    try:
        pdu = decode_pdu(pdu_type, payload)
    except PduError as error:
        assert error.reason in {1, 5, 6}
        assert error.offset is not None
        assert 0 <= error.offset <= 6 + len(payload)
    else:
        assert decode(encode_pdu(pdu)) == pdu  # what was understood can be said again


@given(st.integers(0, 255), st.binary(max_size=120))
@example(1, bytes(68))
@example(4, b"\xff\xff\xff\xff")
def test_any_bytes_give_a_pdu_or_the_declared_error(pdu_type: int, payload: bytes) -> None:
    check_any_bytes(pdu_type, payload)


@given(st.integers(1, 7), mutilated(pdus.map(lambda pdu: encode_pdu(pdu)[6:])))
def test_mutilated_pdus_give_a_pdu_or_the_declared_error(pdu_type: int, payload: bytes) -> None:
    check_any_bytes(pdu_type, payload)


@given(mutilated(pdus.map(encode_pdu)).filter(len))
def test_mutilated_pdus_of_their_own_type_give_a_pdu_or_the_declared_error(data: bytes) -> None:
    check_any_bytes(data[0], data[6:])


@pytest.mark.parametrize("payload_type", [1, 2, 4])
def test_a_lying_length_allocates_nothing(payload_type: int) -> None:
    payload = associate_rq(b"\x50\x00\xff\xff") if payload_type != 4 else b"\xff\xff\xff\xff\1\2"
    tracemalloc.start()
    try:
        refusal(payload_type, payload)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 32 * 1024


# --- conformance


@pytest.mark.parametrize("pdu_type", [0, 8, 0x16, 0x47, 255])
def test_unknown_pdu_type_means_abort_reason_1(pdu_type: int) -> None:
    error = refusal(pdu_type, bytes(4))
    assert (error.reason, error.offset) == (1, 0)


def test_pdata_without_pdv_means_abort_reason_6() -> None:
    error = refusal(PduType.P_DATA_TF, b"")
    assert (error.reason, error.offset) == (6, 6)


@pytest.mark.parametrize("pdu_type", [3, 5, 6, 7])
@pytest.mark.parametrize("length", [0, 3, 5, 1000])
def test_short_pdus_are_four_bytes_long(pdu_type: int, length: int) -> None:
    error = refusal(pdu_type, bytes(length))
    assert (error.reason, error.offset) == (6, 2)


def test_a_request_without_its_fixed_fields_is_refused() -> None:
    assert refusal(1, associate_rq()[:67]).reason == 6
    assert refusal(2, b"").reason == 6


@pytest.mark.parametrize("version", [0, 1, 2, 3, 0xFFFF])
def test_the_protocol_version_is_reported_as_it_is(version: int) -> None:
    """Testing bit 0, and the rejection 1/2/2, is negotiation (PS3.8 9.3.2)."""
    payload = associate_rq(APPLICATION_CONTEXT_ITEM, PROPOSAL_ITEM, version=version.to_bytes(2, "big"))
    assert decode_pdu(1, payload) == replace(REQUEST, protocol_version=version)


@pytest.mark.parametrize(
    ("item", "name"),
    [
        (raw_item(0x10, b"1.2.3"), "1.2.3"),
        (raw_item(0x10, b""), ""),
        (b"", ""),
        (APPLICATION_CONTEXT_ITEM, APPLICATION_CONTEXT),
    ],
)
def test_the_application_context_is_reported_as_it_is(item: bytes, name: str) -> None:
    """Also when it is not there: the answer is the rejection 1/1/2, and not an abort."""
    request = decode_pdu(1, associate_rq(item, PROPOSAL_ITEM))
    assert request == replace(REQUEST, application_context_name=name)


@pytest.mark.parametrize("title", [b"  STORE SCP", b"STORE SCP", b"STORE SCP\0\0\0", b"STORE SCP".rjust(16)])
def test_outer_spaces_of_ae_titles_are_insignificant(title: bytes) -> None:
    request = decode_pdu(1, associate_rq(called=title, calling=title))
    assert isinstance(request, AAssociateRQ)
    assert (request.called_ae_title, request.calling_ae_title) == ("STORE SCP", "STORE SCP")


def test_ae_titles_are_written_with_16_bytes() -> None:
    data = encode_pdu(replace(REQUEST, called_ae_title="A", calling_ae_title="SIXTEEN LETTERS."))
    assert data[10:26] == b"A               "
    assert data[26:42] == b"SIXTEEN LETTERS."


@pytest.mark.parametrize("title", [b"", bytes(16), b"EVIL\nLOG LINE", b"A\0B", b"A\x7fB", b"A\x85B"])
def test_ae_titles_that_are_empty_or_hold_control_characters_are_refused_in_a_request(title: bytes) -> None:
    called, calling = refusal(1, associate_rq(called=title)), refusal(1, associate_rq(calling=title))
    assert (called.reason, called.offset) == (6, 10)
    assert (calling.reason, calling.offset) == (6, 26)


def test_ae_titles_of_an_acceptance_are_not_tested() -> None:
    answer = decode_pdu(2, associate_rq(called=b"", calling=b"\1\2\3"))
    assert isinstance(answer, AAssociateAC)
    assert (answer.called_ae_title, answer.calling_ae_title) == ("", "\1\2\3")


def test_unknown_items_are_skipped_by_length_and_kept() -> None:
    unknown = raw_item(0x7F, b"\x20\x00\xff\xff")
    wrong_kind = raw_item(0x21, b"")  # an item of the acceptance has no meaning in the request
    request = decode_pdu(1, associate_rq(unknown, APPLICATION_CONTEXT_ITEM, PROPOSAL_ITEM, wrong_kind))
    assert request == replace(REQUEST, unknown_items=(UnknownItem(0x7F, b"\x20\x00\xff\xff"), UnknownItem(0x21, b"")))


def test_items_may_come_in_any_order() -> None:
    user_information = raw_item(0x50, raw_item(0x51, b"\0\0\0\1"))
    request = decode_pdu(1, associate_rq(user_information, PROPOSAL_ITEM, APPLICATION_CONTEXT_ITEM))
    assert request == replace(REQUEST, user_information=UserInformation(1))


@pytest.mark.parametrize(
    ("items", "offset"),
    [
        (b"\x50", 74),
        (b"\x50\x00\x00\x01", 76),
        (raw_item(0x50, b"\x51\x00\x00\x05\x00\x00\x00\x00"), 80),  # past the user information item
        (raw_item(0x20, b"\1\0\0\0" + b"\x30\x00\x00\x04" + b"1.2"), 84),  # past the presentation context item
        (raw_item(0x20, b"\1\0\0"), 78),
    ],
)
def test_lengths_past_their_parent_mean_abort_reason_6(items: bytes, offset: int) -> None:
    error = refusal(1, associate_rq(items))
    assert (error.reason, error.offset) == (6, offset)


def test_duplicate_context_ids_mean_abort_reason_6() -> None:
    error = refusal(1, associate_rq(PROPOSAL_ITEM, PROPOSAL_ITEM))
    assert (error.reason, error.offset) == (6, FIXED_FIELDS + len(PROPOSAL_ITEM) + 4)
    answer = raw_item(0x21, b"\1\0\3\0")
    assert refusal(2, associate_rq(answer, answer)).reason == 6


def test_128_contexts_with_the_same_abstract_syntax() -> None:
    contexts = tuple(PresentationContextRQ(number, CT, (IMPLICIT,)) for number in range(1, 256, 2))
    request = replace(REQUEST, presentation_contexts=contexts)
    assert len(contexts) == 128
    assert decode(encode_pdu(request)) == request


def test_no_contexts_at_all_can_be_read() -> None:
    """One or more are required (PS3.8 9.3.2), but an acceptance in which nothing is accepted is a proper answer."""
    request = decode_pdu(1, associate_rq(APPLICATION_CONTEXT_ITEM))
    assert request == replace(REQUEST, presentation_contexts=())


@pytest.mark.parametrize(
    "pdu",
    [
        replace(REQUEST, called_ae_title="SEVENTEEN LETTERS"),
        replace(REQUEST, calling_ae_title="\N{EURO SIGN}"),
        replace(REQUEST, protocol_version=1 << 16),
        replace(REQUEST, titles_as_sent=bytes(63)),
        replace(REQUEST, application_context_name="1" * 0x10000),
        AAbort(256, 0),
        AAssociateRJ(-1, 0, 0),
    ],
)
def test_what_does_not_fit_is_the_callers_fault(pdu: Pdu) -> None:
    with pytest.raises(UsageError):
        encode_pdu(pdu)


# --- PDUs that others have recorded, and what pynetdicom reads in them


REQUESTS = [
    "a_associate_rq",
    "a_associate_rq_user_async",
    "a_associate_rq_role",
    "a_associate_rq_user_id_user_pass",
    "a_associate_rq_user_id_ext_neg",
]
ACCEPTANCES = ["a_associate_rq_com_ext_neg", "a_associate_ac", "a_associate_ac_user"]
REJECTED_CONTEXTS = ["a_associate_ac_zero_ts", "a_associate_ac_no_ts"]


def vector(name: str) -> bytes:
    data = getattr(vectors, name)
    assert isinstance(data, bytes)
    return data


def compare_user_information(ours: UserInformation, theirs: Any) -> None:
    window, identity = ours.asynchronous_operations_window, ours.user_identity
    assert ours.maximum_length == theirs.maximum_length
    assert ours.implementation_class_uid == theirs.implementation_class_uid
    assert ours.implementation_version_name == theirs.implementation_version_name
    assert (window is None) == (theirs.async_ops_window is None)
    if window is not None:
        assert window.maximum_invoked == theirs.async_ops_window.max_operations_invoked
        assert window.maximum_performed == theirs.async_ops_window.max_operations_performed
    assert {role.sop_class_uid: (role.scu, role.scp) for role in ours.role_selections} == {
        uid: (bool(role.scu), bool(role.scp)) for uid, role in theirs.role_selection.items()
    }
    assert [(each.sop_class_uid, each.application_information) for each in ours.extended_negotiations] == [
        (each.uid, each.app_info) for each in theirs.ext_neg
    ]
    assert [
        (each.sop_class_uid, each.service_class_uid, list(each.related_general_sop_class_uids))
        for each in ours.common_extended_negotiations
    ] == [
        (each.sop_class_uid, each.service_class_uid, each.related_general_sop_class_identification)
        for each in theirs.common_ext_neg
    ]
    if identity is not None:
        assert identity.identity_type == theirs.user_identity.id_type
        assert identity.positive_response_requested == theirs.user_identity.response_requested
        assert identity.primary_field == theirs.user_identity.primary
        assert identity.secondary_field == theirs.user_identity.secondary
    elif ours.user_identity_response is not None:
        assert ours.user_identity_response.server_response == theirs.user_identity.response
    else:
        assert theirs.user_identity is None


@pytest.mark.parametrize("name", REQUESTS)
def test_recorded_requests_read_as_pynetdicom_reads_them(name: str) -> None:
    ours, theirs = decode(vector(name)), foreign.A_ASSOCIATE_RQ()
    theirs.decode(vector(name))
    assert isinstance(ours, AAssociateRQ)
    assert ours.called_ae_title == theirs.called_ae_title.strip()
    assert ours.calling_ae_title == theirs.calling_ae_title.strip()
    assert ours.application_context_name == theirs.application_context_name
    assert ours.protocol_version == theirs.protocol_version
    assert [
        (each.context_id, each.abstract_syntax, list(each.transfer_syntaxes)) for each in ours.presentation_contexts
    ] == [(each.context_id, each.abstract_syntax, each.transfer_syntax) for each in theirs.presentation_context]
    compare_user_information(ours.user_information, theirs.user_information)


@pytest.mark.parametrize("name", ACCEPTANCES)
def test_recorded_acceptances_read_as_pynetdicom_reads_them(name: str) -> None:
    # One of them is put together from two recordings, and its PDU length is that of the first.
    ours, theirs = decode_pdu(2, vector(name)[6:]), foreign.A_ASSOCIATE_AC()
    theirs.decode(vector(name))
    assert isinstance(ours, AAssociateAC)
    assert ours.called_ae_title == theirs.called_ae_title.strip()
    assert ours.calling_ae_title == theirs.calling_ae_title.strip()
    assert ours.application_context_name == theirs.application_context_name
    assert [(each.context_id, each.result, each.transfer_syntax) for each in ours.presentation_contexts] == [
        (each.context_id, each.result, each.transfer_syntax) for each in theirs.presentation_context
    ]
    compare_user_information(ours.user_information, theirs.user_information)


@pytest.mark.parametrize("name", REJECTED_CONTEXTS)
def test_recorded_acceptances_with_odd_rejected_contexts_can_be_read(name: str) -> None:
    answer = decode(vector(name))
    assert isinstance(answer, AAssociateAC)
    rejected = [context for context in answer.presentation_contexts if context.result]
    assert rejected
    assert {context.transfer_syntax for context in rejected} == {""}


def test_recorded_requests_with_an_ae_title_of_spaces_are_refused() -> None:
    assert refusal(1, vector("a_associate_rq_called")[6:]).offset == 10
    assert refusal(1, vector("a_associate_rq_calling")[6:]).offset == 26


@pytest.mark.parametrize("name", ["a_associate_rj", "a_release_rq", "a_release_rp", "a_abort", "a_p_abort"])
def test_recorded_short_pdus_come_out_as_they_went_in(name: str) -> None:
    assert encode_pdu(decode(vector(name))) == vector(name)


def test_recorded_short_pdus_hold_what_their_comments_say() -> None:
    assert decode(vector("a_associate_rj")) == AAssociateRJ(1, 1, 1)
    assert decode(vector("a_abort")) == AAbort(0, 0)
    assert decode(vector("a_p_abort")) == AAbort(2, 4)


@pytest.mark.parametrize("name", ["p_data_tf", "p_data_tf_rq"])
def test_recorded_data_pdus_read_as_pynetdicom_reads_them(name: str) -> None:
    ours, theirs = decode(vector(name)), foreign.P_DATA_TF()
    theirs.decode(vector(name))
    assert isinstance(ours, PDataTF)
    assert [(pdv.context_id, bytes((pdv.is_command | pdv.is_last << 1,)) + pdv.data) for pdv in ours.pdvs] == [
        (item.context_id, item.presentation_data_value) for item in theirs.presentation_data_value_items
    ]
    assert encode_pdu(ours) == vector(name)


# --- and what pynetdicom reads in ours


@settings(max_examples=30)
@given(requests | acceptances)
def test_pynetdicom_reads_ours(ours: AAssociateRQ | AAssociateAC) -> None:
    # It stops at unknown items, and knows the user identity of the one PDU and the response of the other.
    without = {"user_identity_response": None} if isinstance(ours, AAssociateRQ) else {"user_identity": None}
    identity = ours.user_information.user_identity
    assume(identity is None or identity.primary_field)  # it takes the next bytes for an empty one
    information = replace(ours.user_information, unknown_items=(), **without)
    contexts: Any = tuple(replace(context, unknown_items=()) for context in ours.presentation_contexts)
    plain = replace(ours, presentation_contexts=contexts, unknown_items=(), user_information=information)
    theirs = foreign.A_ASSOCIATE_RQ() if isinstance(ours, AAssociateRQ) else foreign.A_ASSOCIATE_AC()
    theirs.decode(encode_pdu(plain))
    assert theirs.called_ae_title.strip() == plain.called_ae_title
    assert theirs.calling_ae_title.strip() == plain.calling_ae_title
    assert theirs.application_context_name == plain.application_context_name
    assert [each.context_id for each in theirs.presentation_context] == [each.context_id for each in contexts]
    compare_user_information(plain.user_information, theirs.user_information)
