"""Conformance cases 13 to 31: negotiation (PS3.8 9.3.2, 9.3.3; PS3.7 D.3).

They are what implementations commonly get wrong. What comes from the peer is put together by hand, byte by byte, and the
expectations are those of the standard's text.
"""

from __future__ import annotations

import pytest

from support.conformance import (
    ABORT_2_6,
    APPLICATION_CONTEXT,
    ECHO,
    STA6,
    STA13,
    STORE,
    USER_INFORMATION,
    aborted_with,
    answered,
    asked,
    awaiting_request,
    command_pdv,
    established,
    raw_context,
    raw_request,
)
from support.upper_layers import (
    ABORT,
    AC,
    CT,
    CT_CONTEXT,
    ECHO_CONTEXT,
    EXPLICIT,
    IMPLICIT,
    JPEG,
    MR,
    P_DATA,
    RELEASE_RQ,
    RJ,
    SUPPORTED,
    Joined,
    Received,
    Supports,
    accepted,
    in_state,
    proposal,
    raw_pdu,
    receive,
    sent,
    split_pdus,
)
from support.wire_values import raw_item
from tomowire.protocol.acceptance import REJECT_LOCAL_LIMIT, AcceptorPolicy, answer
from tomowire.protocol.events import AssociateAccepted, AssociationEnded, MessageReceived, ReleaseRequested
from tomowire.protocol.negotiation import Agreement, ProposedContext
from tomowire.protocol.states import State
from tomowire.wire.items import PresentationContextAC
from tomowire.wire.pdu import AAssociateAC, AAssociateRJ, encode_pdu
from tomowire.wire.user_information import UserInformation


@pytest.mark.parametrize("version", [0x0001, 0x0003, 0xFFFF])
def test_case_13_only_bit_0_of_the_protocol_version_is_tested(version: int) -> None:
    assert asked(version=version).protocol_version == version


@pytest.mark.parametrize("version", [0x0000, 0x0002, 0x0100, 0xFFFE])
def test_case_13_a_protocol_version_that_is_not_supported(version: int) -> None:
    upper = awaiting_request()
    assert receive(upper, raw_request(version=version)) == []
    assert (sent(upper), upper.state) == (raw_pdu(RJ, bytes((0, 1, 2, 2))), STA13)


def test_case_14_wrong_application_context() -> None:
    for items in ((raw_item(0x10, b"1.2.3"), raw_context(1)), (raw_context(1),)):
        assert answer(asked(*items), AcceptorPolicy(SUPPORTED)) == AAssociateRJ(1, 1, 2)


def test_case_15_unknown_ae_titles() -> None:
    us, them = frozenset({"ACCEPTOR"}), frozenset({"REQUESTOR"})
    policy = AcceptorPolicy(SUPPORTED, called_ae_titles=us, calling_ae_titles=them)
    assert answer(asked(called=b"OTHER"), policy) == AAssociateRJ(1, 1, 7)
    assert answer(asked(calling=b"OTHER"), policy) == AAssociateRJ(1, 1, 3)
    assert isinstance(answer(asked(), policy), AAssociateAC)


def test_case_16_the_limit_of_associations_is_told_in_a_pdu() -> None:
    upper = awaiting_request()
    receive(upper, raw_request())
    upper.reject(REJECT_LOCAL_LIMIT, 0.0)
    assert (sent(upper), upper.state, upper.close_requested) == (raw_pdu(RJ, bytes((0, 2, 3, 2))), STA13, False)


@pytest.mark.parametrize("title", [b"ACCEPTOR", b"ACCEPTOR        ", b"  ACCEPTOR", b"        ACCEPTOR"])
def test_case_17_outer_spaces_of_ae_titles_do_not_matter(title: bytes) -> None:
    response = answer(asked(called=title), AcceptorPolicy(SUPPORTED, called_ae_titles=frozenset({"ACCEPTOR"})))
    assert isinstance(response, AAssociateAC)
    assert (response.called_ae_title, response.calling_ae_title) == ("ACCEPTOR", "REQUESTOR")


@pytest.mark.parametrize("field", ["called", "calling"])
def test_case_17_a_title_of_spaces_is_invalid(field: str) -> None:
    assert aborted_with(awaiting_request(), raw_request(**{field: b" " * 16})) == ABORT_2_6  # type: ignore[arg-type]


def test_case_17_the_requestor_does_not_test_the_titles_in_the_answer() -> None:
    upper = in_state(State.STA5_AWAITING_ASSOCIATE_AC_OR_RJ, is_requestor=True)
    acceptance = bytearray(encode_pdu(accepted(proposal())))
    acceptance[10:42] = bytes(32)
    (event,) = receive(upper, bytes(acceptance))
    assert isinstance(event, AssociateAccepted)


def test_case_18_reserved_bytes_are_not_tested() -> None:
    assert asked(reserved=0xFF).called_ae_title == "ACCEPTOR"
    upper = established()
    message = raw_pdu(P_DATA, command_pdv(ECHO, ECHO_CONTEXT), reserved=0xFF)
    assert receive(upper, message) == [MessageReceived(ECHO_CONTEXT, ECHO)]
    assert receive(upper, raw_pdu(RELEASE_RQ, b"\xff" * 4, reserved=0xFF)) == [ReleaseRequested(collision=False)]
    (event,) = receive(upper, raw_pdu(ABORT, b"\xff\xff\0\0", reserved=0xFF))
    assert isinstance(event, AssociationEnded)


def test_case_18_reserved_bytes_of_items_are_not_tested() -> None:
    context = (
        bytes((1, 0xFF, 0xFF, 0xFF)) + raw_item(0x30, CT.encode(), reserved=0xFF) + raw_item(0x40, IMPLICIT.encode())
    )
    (proposed,) = asked(APPLICATION_CONTEXT, raw_item(0x20, context, reserved=0xFF)).presentation_contexts
    assert (proposed.context_id, proposed.abstract_syntax) == (1, CT)


def test_case_19_unknown_items_are_passed_over() -> None:
    unknown = raw_item(0x99, b"whatever this may be")
    context = raw_item(
        0x20, bytes((1, 0, 0, 0)) + unknown + raw_item(0x30, CT.encode()) + raw_item(0x40, IMPLICIT.encode())
    )
    information = raw_item(0x50, unknown + raw_item(0x51, bytes((0, 0, 0x40, 0))) + unknown)
    request = asked(unknown, APPLICATION_CONTEXT, unknown, context, unknown, information)
    assert request.presentation_contexts[0].transfer_syntaxes == (IMPLICIT,)
    assert request.user_information.maximum_length == 0x4000


@pytest.mark.parametrize(
    "items",
    [
        pytest.param(b"\x10\0\xff\xff1.2", id="item past the PDU"),
        pytest.param(raw_item(0x20, b"\1\0\0\0\x30\0\xff\xff1.2"), id="sub-item past its item"),
        pytest.param(raw_item(0x50, b"\x51\0\0\5\0\0\0\0"), id="user information sub-item past its item"),
        pytest.param(b"\x10\0", id="header cut short"),
    ],
)
def test_case_19_lengths_past_their_parent(items: bytes) -> None:
    assert aborted_with(awaiting_request(), raw_request(items)) == ABORT_2_6


@pytest.mark.parametrize("padding", [b"", b"\0", b" "])
def test_case_20_padded_uids_are_tolerated(padding: bytes) -> None:
    response = answered(raw_context(1, CT.encode() + padding, IMPLICIT.encode() + padding))
    assert [(each.result, each.transfer_syntax) for each in response.presentation_contexts] == [(0, IMPLICIT)]


def test_case_20_our_own_uids_are_not_padded() -> None:
    """PS3.8 annex F: UIDs in PDUs have no padding, whatever their length."""
    odd = "1.2.840.10008.1.2"
    assert raw_item(0x40, odd.encode()) in encode_pdu(proposal())


def test_case_21_no_maximum_is_no_limit() -> None:
    joined = Joined(requestor_maximum=0, acceptor_maximum=0)
    data = bytes(3 << 20)
    joined.requestor.send_message(CT_CONTEXT, STORE, memoryview(data))
    joined.run()
    assert joined.messages(joined.acceptor) == [Received(CT_CONTEXT, STORE, data)]
    # Our own cap: the peer may have said "unlimited" without meaning to hold 4 GiB.
    assert max(len(payload) for _, payload in split_pdus(bytes(joined.traffic[joined.requestor]))) <= 1 << 20


@pytest.mark.parametrize("maximum", [8, 10, 64, 128])
def test_case_22_tiny_peer_maximum(maximum: int) -> None:
    """The PDU-length never exceeds it, and the PDV's header counts (PS3.8 D.1)."""
    joined = Joined(acceptor_maximum=maximum)
    joined.requestor.send_message(CT_CONTEXT, STORE, memoryview(bytes(1000)))
    joined.run()
    assert joined.messages(joined.acceptor) == [Received(CT_CONTEXT, STORE, bytes(1000))]
    lengths = [len(payload) for kind, payload in split_pdus(bytes(joined.traffic[joined.requestor])) if kind == P_DATA]
    assert max(lengths) == maximum


@pytest.mark.parametrize("contexts", [(0,), (2,), (254,), (1, 1), (1, 3, 1)])
def test_case_23_context_ids_that_are_not_allowed(contexts: tuple[int, ...]) -> None:
    items = [raw_context(context_id) for context_id in contexts]
    assert aborted_with(awaiting_request(), raw_request(APPLICATION_CONTEXT, *items)) == ABORT_2_6


def test_case_23_128_contexts() -> None:
    response = answered(*(raw_context(context_id) for context_id in range(1, 256, 2)))
    assert [each.context_id for each in response.presentation_contexts] == list(range(1, 256, 2))
    assert {each.result for each in response.presentation_contexts} == {0}


def test_case_24_the_same_abstract_syntax_in_several_contexts() -> None:
    response = answered(
        raw_context(1, CT.encode(), EXPLICIT.encode(), IMPLICIT.encode()),
        raw_context(3, CT.encode(), IMPLICIT.encode()),
    )
    assert [(each.context_id, each.result, each.transfer_syntax) for each in response.presentation_contexts] == [
        (1, 0, EXPLICIT),
        (3, 0, IMPLICIT),
    ]
    # On the wire each accepted context has exactly one transfer syntax sub-item.
    encoded = encode_pdu(response)
    assert encoded.count(raw_item(0x40, EXPLICIT.encode())) == encoded.count(raw_item(0x40, IMPLICIT.encode())) == 1


def test_case_25_why_a_context_is_refused() -> None:
    response = answered(raw_context(1, MR.encode()), raw_context(3, CT.encode(), JPEG.encode()))
    assert [each.result for each in response.presentation_contexts] == [3, 4]


@pytest.mark.parametrize("transfer_syntax", [raw_item(0x40, b"\xff not a UID"), raw_item(0x40, b""), b""])
def test_case_25_the_transfer_syntax_of_a_refused_context_is_not_tested(transfer_syntax: bytes) -> None:
    upper = in_state(State.STA5_AWAITING_ASSOCIATE_AC_OR_RJ, is_requestor=True)
    fixed = encode_pdu(accepted(proposal()))[6:74]
    contexts = (raw_item(0x21, bytes((context_id, 0, 4, 0)) + transfer_syntax) for context_id in (1, 3))
    receive(upper, raw_pdu(AC, fixed + APPLICATION_CONTEXT + b"".join(contexts)))
    assert upper.state is STA6
    assert upper.agreement is not None
    assert [refused.result for refused in upper.agreement.refused] == [4, 4]


def test_case_26_no_context_is_acceptable() -> None:
    response = answered(raw_context(1, MR.encode()))
    assert [each.result for each in response.presentation_contexts] == [3]
    joined = Joined(supported=Supports({}))
    assert (joined.requestor.state, joined.acceptor.state) == (STA6, STA6)


def role_item(scu: int, scp: int) -> bytes:
    return raw_item(0x54, len(CT).to_bytes(2, "big") + CT.encode() + bytes((scu, scp)))


@pytest.mark.parametrize(
    ("proposed", "roles"),
    [
        ((1, 1), [(True, True)]),
        ((0, 1), [(False, True)]),
        ((1, 0), [(True, False)]),
        ((0, 0), [(False, False)]),
        (None, []),
    ],
)
def test_case_27_roles_are_answered_as_proposed_and_only_then(
    proposed: tuple[int, int] | None, roles: list[tuple[bool, bool]]
) -> None:
    """This acceptor would allow both roles."""
    supported = Supports(SUPPORTED.syntaxes, scp={CT})
    response = answered(raw_context(1), supported=supported, information=role_item(*proposed) if proposed else b"")
    assert [(role.scu, role.scp) for role in response.user_information.role_selections] == roles


@pytest.mark.parametrize(("scu", "scp"), [(True, True), (False, True)])
def test_case_27_absent_roles_are_the_default(scu: bool, scp: bool) -> None:
    """Of an acceptor that knows nothing of roles, and so of one to whom none was proposed."""
    asked_for = proposal(ProposedContext(CT, (IMPLICIT,), scu=scu, scp=scp), ProposedContext(MR, (IMPLICIT,)))
    assert [role.sop_class_uid for role in asked_for.user_information.role_selections] == [CT]
    information = UserInformation(maximum_length=0, implementation_class_uid="1.2.3")
    contexts = tuple(PresentationContextAC(context_id, 0, IMPLICIT) for context_id in (1, 3))
    agreement = Agreement.of(asked_for, AAssociateAC("ACCEPTOR", "REQUESTOR", contexts, information))
    roles = [(context.requestor_is_scu, context.requestor_is_scp) for context in agreement.contexts.values()]
    assert roles == [(True, False)] * 2


def test_case_28_a_missing_implementation_class_uid_is_tolerated() -> None:
    request = asked(APPLICATION_CONTEXT, raw_context(1), USER_INFORMATION)
    assert request.user_information.implementation_class_uid is None
    assert asked(APPLICATION_CONTEXT, raw_context(1)).user_information.maximum_length == 0
    # Ours is there (PS3.7 D.3.3.2: required).
    assert isinstance(response := answer(request, AcceptorPolicy(SUPPORTED)), AAssociateAC)
    assert response.user_information.implementation_class_uid


@pytest.mark.parametrize(
    ("proposed", "granted"), [(None, None), ((16, 16), (4, 1)), ((2, 1), (2, 1)), ((0, 0), (4, 1))]
)
def test_case_29_the_window_is_never_answered_with_more(
    proposed: tuple[int, int] | None, granted: tuple[int, int] | None
) -> None:
    numbers = b"".join(number.to_bytes(2, "big") for number in proposed or ())
    information = raw_item(0x50, raw_item(0x51, bytes(4)) + (raw_item(0x53, numbers) if proposed else b""))
    request = asked(APPLICATION_CONTEXT, raw_context(1), information)
    response = answer(request, AcceptorPolicy(SUPPORTED, maximum_performed=4))
    assert isinstance(response, AAssociateAC)
    window = response.user_information.asynchronous_operations_window
    assert (window and (window.maximum_invoked, window.maximum_performed)) == granted


def test_case_29_an_absent_window_is_one() -> None:
    agreement = Joined().requestor.agreement
    assert agreement is not None
    assert (agreement.maximum_invoked, agreement.maximum_performed) == (1, 1)


@pytest.mark.parametrize("identity_type", [1, 2, 3, 4, 5, 99])
def test_case_30_user_identity_without_a_request_for_a_response(identity_type: int) -> None:
    item = raw_item(0x58, bytes((identity_type, 0)) + b"\0\4user" + b"\0\4pass")
    response = answered(raw_context(1), information=item)
    assert response.user_information.user_identity_response is None
    assert b"\x59\0" not in encode_pdu(response)[74:]


def extended_item(uid: str, information: bytes) -> bytes:
    return raw_item(0x56, len(uid).to_bytes(2, "big") + uid.encode() + information)


def test_case_31_extended_negotiation_is_answered_only_if_proposed() -> None:
    supported = Supports(SUPPORTED.syntaxes, extended={CT: b"\1"})
    asked_for_it = answered(raw_context(1), supported=supported, information=extended_item(CT, b"\2\1\1\1 and more"))
    assert [item.application_information for item in asked_for_it.user_information.extended_negotiations] == [b"\1"]
    for information in (b"", extended_item(MR, b"\1")):
        others = answered(raw_context(1), supported=supported, information=information)
        assert others.user_information.extended_negotiations == ()
