"""Proposing, answering and agreeing (PS3.8 9.3.2, 9.3.3; PS3.7 D.3)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from support.upper_layers import CT, EXPLICIT, IMPLICIT, JPEG, MR, SUPPORTED, VERIFICATION, Supports, proposal
from tomowire.errors import UsageError
from tomowire.protocol.acceptance import (
    REJECT_APPLICATION_CONTEXT,
    REJECT_CALLED_AE_TITLE,
    REJECT_CALLING_AE_TITLE,
    REJECT_LOCAL_LIMIT,
    AcceptorPolicy,
    answer,
    confirm_identity,
)
from tomowire.protocol.negotiation import MAXIMUM_CONTEXTS, Agreement, ProposedContext, propose
from tomowire.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from tomowire.wire.items import PresentationContextAC, PresentationContextRQ
from tomowire.wire.pdu import AAssociateAC, AAssociateRJ, AAssociateRQ, decode_pdu, encode_pdu
from tomowire.wire.user_identity import UserIdentity, UserIdentityAC
from tomowire.wire.user_information import (
    AsynchronousOperationsWindow,
    CommonExtendedNegotiation,
    ExtendedNegotiation,
    RoleSelection,
    UserInformation,
)

Window = AsynchronousOperationsWindow


def acceptance(request: AAssociateRQ, supported: Supports = SUPPORTED, **policy: Any) -> AAssociateAC:
    response = answer(request, AcceptorPolicy(supported, **policy))
    assert isinstance(response, AAssociateAC)
    return response


def asking(*contexts: PresentationContextRQ, **information: Any) -> AAssociateRQ:
    return AAssociateRQ("CALLED", "CALLING", contexts, UserInformation(**information))


# Proposing


def test_a_proposal_numbers_its_contexts_with_odd_ids() -> None:
    request = proposal(ProposedContext(VERIFICATION, (IMPLICIT,)), ProposedContext(CT, (JPEG, EXPLICIT)))
    assert request.presentation_contexts == (
        PresentationContextRQ(1, VERIFICATION, (IMPLICIT,)),
        PresentationContextRQ(3, CT, (JPEG, EXPLICIT)),
    )


def test_a_proposal_says_who_and_what_we_are() -> None:
    request = proposal(called="THEM", calling="US", maximum_length=4096)
    assert (request.called_ae_title, request.calling_ae_title) == ("THEM", "US")
    # Required by PS3.8 D.1 and PS3.7 D.3.3.2; what was not asked for is absent.
    assert request.user_information == UserInformation(
        maximum_length=4096,
        implementation_class_uid=IMPLEMENTATION_CLASS_UID,
        implementation_version_name=IMPLEMENTATION_VERSION_NAME,
    )


def test_a_proposal_passes_on_window_and_extended_negotiation() -> None:
    extended = ExtendedNegotiation(CT, b"\2")
    information = proposal(window=Window(5, 1), extended=[extended]).user_information
    assert information.asynchronous_operations_window == Window(5, 1)
    assert information.extended_negotiations == (extended,)


def test_a_proposal_says_who_the_user_is() -> None:
    identity = UserIdentity.name("alice", positive_response=True)
    assert proposal(identity=identity).user_information.user_identity == identity


def test_extended_negotiation_is_proposed_for_the_sop_classes_that_are() -> None:
    """PS3.7 D.3.3.5, D.3.3.6: "for each SOP Class UID [...] present in the A-ASSOCIATE request"."""
    extended = [ExtendedNegotiation(CT, b"\2"), ExtendedNegotiation(MR, b"\2")]
    common = [CommonExtendedNegotiation(CT, "1.2.840.10008.4.2", (MR,)), CommonExtendedNegotiation(MR, "1.2", ())]
    information = proposal(ProposedContext(CT, (IMPLICIT,)), extended=[*extended, *common]).user_information
    assert information.extended_negotiations == (extended[0],)
    assert information.common_extended_negotiations == (common[0],)


def test_two_items_of_a_kind_for_one_sop_class_cannot_be_proposed() -> None:
    with pytest.raises(UsageError, match="one SOP class"):
        proposal(ProposedContext(CT, (IMPLICIT,)), extended=[ExtendedNegotiation(CT, b"\1")] * 2)


@pytest.mark.parametrize("count", [0, MAXIMUM_CONTEXTS + 1])
def test_only_1_to_128_contexts_can_be_proposed(count: int) -> None:
    with pytest.raises(UsageError, match=f"not {count}"):
        proposal_of(count)


def proposal_of(count: int) -> AAssociateRQ:
    contexts = [ProposedContext(f"1.2.{number}", (IMPLICIT,)) for number in range(count)]
    return propose(called_ae_title="A", calling_ae_title="B", contexts=contexts, maximum_length=0)


def test_128_contexts_have_the_ids_1_to_255() -> None:
    request = decode_pdu(1, encode_pdu(proposal_of(128))[6:])
    assert isinstance(request, AAssociateRQ)
    assert [context.context_id for context in request.presentation_contexts] == list(range(1, 256, 2))


def test_a_context_needs_a_transfer_syntax() -> None:
    with pytest.raises(UsageError, match=CT):
        proposal(ProposedContext(CT, ()))


@pytest.mark.parametrize(
    ("wanted", "items"),
    [
        pytest.param([(True, False)], [], id="SCU alone is the default"),
        pytest.param([(False, True)], [(False, True)], id="SCP alone"),
        pytest.param([(True, True)], [(True, True)], id="both"),
        pytest.param([(True, False), (False, True)], [(True, True)], id="one context for each"),
        pytest.param([(False, True), (True, False)], [(True, True)], id="one context for each, the other way round"),
    ],
)
def test_there_is_one_role_selection_for_each_sop_class(
    wanted: list[tuple[bool, bool]], items: list[tuple[bool, bool]]
) -> None:
    contexts = [ProposedContext(CT, (IMPLICIT,), scu=scu, scp=scp) for scu, scp in wanted]
    roles = proposal(*contexts, ProposedContext(MR, (IMPLICIT,))).user_information.role_selections
    assert [(role.sop_class_uid, role.scu, role.scp) for role in roles] == [(CT, *item) for item in items]


# Answering: the association as a whole


@pytest.mark.parametrize(
    ("changes", "policy", "rejection"),
    [
        ({"application_context_name": "1.2.3"}, {}, REJECT_APPLICATION_CONTEXT),
        ({"application_context_name": ""}, {}, REJECT_APPLICATION_CONTEXT),
        ({}, {"called_ae_titles": frozenset({"OTHER"})}, REJECT_CALLED_AE_TITLE),
        ({}, {"calling_ae_titles": frozenset({"OTHER"})}, REJECT_CALLING_AE_TITLE),
        ({}, {"calling_ae_titles": frozenset()}, REJECT_CALLING_AE_TITLE),
    ],
)
def test_what_is_rejected(changes: dict[str, Any], policy: dict[str, Any], rejection: AAssociateRJ) -> None:
    assert answer(replace(proposal(), **changes), AcceptorPolicy(SUPPORTED, **policy)) == rejection


@pytest.mark.parametrize(
    ("rejection", "numbers"),
    [
        (REJECT_APPLICATION_CONTEXT, (1, 1, 2)),
        (REJECT_CALLING_AE_TITLE, (1, 1, 3)),
        (REJECT_CALLED_AE_TITLE, (1, 1, 7)),
        (REJECT_LOCAL_LIMIT, (2, 3, 2)),
    ],
)
def test_rejections_have_the_numbers_of_table_9_21(rejection: AAssociateRJ, numbers: tuple[int, int, int]) -> None:
    assert (rejection.result, rejection.source, rejection.reason) == numbers


def test_known_titles_are_accepted_and_sent_back() -> None:
    policy = {"called_ae_titles": frozenset({"THEM", "X"}), "calling_ae_titles": frozenset({"US"})}
    response = acceptance(proposal(called="THEM", calling="US"), **policy)
    assert (response.called_ae_title, response.calling_ae_title) == ("THEM", "US")


@pytest.mark.parametrize(
    "as_sent",
    [
        b"   THEM".ljust(16) + b"US".rjust(16) + bytes(32),
        b"THEM".ljust(16, b"\0") + b"US".ljust(16, b"\0") + bytes(32),
        b"THEM".ljust(16) + b"US".ljust(16) + bytes(range(1, 33)),
        b"THEM".ljust(16) + b"US".ljust(16) + bytes(32),
    ],
)
def test_bytes_11_to_74_of_a_request_are_sent_back_identical(as_sent: bytes) -> None:
    """PS3.8 Table 9-17: "shall be sent with a value identical to the value received"."""
    sent = encode_pdu(proposal(called="THEM", calling="US"))
    request = decode_pdu(1, sent[6:10] + as_sent + sent[74:])
    assert isinstance(request, AAssociateRQ)
    assert encode_pdu(acceptance(request, called_ae_titles=frozenset({"THEM"})))[10:74] == as_sent


def test_an_acceptance_says_who_we_are_and_what_we_take() -> None:
    assert acceptance(proposal(), maximum_length=4096).user_information == UserInformation(
        maximum_length=4096,
        implementation_class_uid=IMPLEMENTATION_CLASS_UID,
        implementation_version_name=IMPLEMENTATION_VERSION_NAME,
    )


def test_unless_told_an_acceptor_sets_no_limit_and_takes_one_operation_at_a_time() -> None:
    information = acceptance(proposal(window=Window(8, 8))).user_information
    assert information.maximum_length == 0
    assert information.asynchronous_operations_window == Window(1, 1)


# Answering: contexts


@pytest.mark.parametrize(
    ("abstract_syntax", "transfer_syntaxes", "result", "transfer_syntax"),
    [
        pytest.param(CT, (EXPLICIT, IMPLICIT), 0, EXPLICIT, id="the first of the requestor's that fits"),
        pytest.param(CT, (IMPLICIT, EXPLICIT), 0, IMPLICIT, id="the requestor's order decides"),
        pytest.param(CT, (JPEG, IMPLICIT), 0, IMPLICIT, id="what is not supported is passed over"),
        pytest.param(CT, (IMPLICIT, IMPLICIT), 0, IMPLICIT, id="named twice"),
        pytest.param(CT, (JPEG,), 4, JPEG, id="no transfer syntax fits"),
        pytest.param(CT, (), 4, "", id="no transfer syntax at all"),
        pytest.param(MR, (IMPLICIT,), 3, IMPLICIT, id="abstract syntax not supported"),
        pytest.param("not a UID", (IMPLICIT,), 3, IMPLICIT, id="no UID"),
    ],
)
def test_the_answer_to_one_context(
    abstract_syntax: str, transfer_syntaxes: tuple[str, ...], result: int, transfer_syntax: str
) -> None:
    response = acceptance(asking(PresentationContextRQ(5, abstract_syntax, transfer_syntaxes)))
    assert response.presentation_contexts == (PresentationContextAC(5, result, transfer_syntax),)


def test_each_context_of_the_same_abstract_syntax_is_answered_for_itself() -> None:
    contexts = (
        PresentationContextRQ(1, CT, (EXPLICIT,)),
        PresentationContextRQ(3, CT, (JPEG,)),
        PresentationContextRQ(5, CT, (IMPLICIT,)),
    )
    answers = acceptance(asking(*contexts)).presentation_contexts
    assert [(each.context_id, each.result) for each in answers] == [(1, 0), (3, 4), (5, 0)]


def test_without_any_acceptable_context_the_association_is_accepted_all_the_same() -> None:
    """PS3.8 7.1.1.14, 7.1.1.7: the contexts have results of their own."""
    response = acceptance(proposal(ProposedContext(MR, (IMPLICIT,))))
    assert [each.result for each in response.presentation_contexts] == [3]


# Answering: roles (PS3.7 D.3.3.4)


@pytest.mark.parametrize(
    ("proposed", "scp_allowed", "answered"),
    [
        ((True, True), True, (True, True)),
        ((True, True), False, (True, False)),
        ((False, True), True, (False, True)),
        ((False, True), False, (False, False)),
        ((True, False), True, (True, False)),
        ((False, False), True, (False, False)),
    ],
)
def test_the_answer_to_a_role_selection(
    proposed: tuple[bool, bool], scp_allowed: bool, answered: tuple[bool, bool]
) -> None:
    """ "shall not return the value (1) if the Association-requestor has not proposed the role"."""
    supported = replace(SUPPORTED, scp={CT} if scp_allowed else set())
    request = asking(PresentationContextRQ(1, CT, (IMPLICIT,)), role_selections=(RoleSelection(CT, *proposed),))
    assert acceptance(request, supported).user_information.role_selections == (RoleSelection(CT, *answered),)


def test_roles_are_answered_for_accepted_contexts_only() -> None:
    request = asking(
        PresentationContextRQ(1, CT, (JPEG,)),
        role_selections=(RoleSelection(CT, True, True), RoleSelection(MR, True, True)),
    )
    assert acceptance(request, replace(SUPPORTED, scp={CT, MR})).user_information.role_selections == ()


# Answering: the rest of the user information


@pytest.mark.parametrize(
    ("proposed", "allowed", "answered"),
    [
        (None, 8, None),
        (Window(16, 16), 8, Window(8, 1)),
        (Window(4, 1), 8, Window(4, 1)),
        (Window(0, 0), 8, Window(8, 1)),
        (Window(16, 1), 0, Window(16, 1)),
        (Window(0, 1), 0, Window(0, 1)),
    ],
)
def test_the_window_is_answered_only_if_proposed_and_never_with_more(
    proposed: Window | None, allowed: int, answered: Window | None
) -> None:
    """PS3.7 D.3.3.3; 0 is unlimited. Of requests to the requestor one is outstanding, unless the policy wants more."""
    request = asking(PresentationContextRQ(1, CT, (IMPLICIT,)), asynchronous_operations_window=proposed)
    response = acceptance(request, maximum_performed=allowed)
    assert response.user_information.asynchronous_operations_window == answered


@pytest.mark.parametrize(
    ("proposed", "wanted", "answered"), [(16, 8, 8), (4, 8, 4), (0, 8, 8), (4, 0, 4), (0, 0, 0), (1, 8, 1)]
)
def test_as_many_requests_to_the_requestor_as_both_sides_will(proposed: int, wanted: int, answered: int) -> None:
    request = asking(PresentationContextRQ(1, CT, (IMPLICIT,)), asynchronous_operations_window=Window(1, proposed))
    response = acceptance(request, maximum_invoked=wanted)
    assert response.user_information.asynchronous_operations_window == Window(1, answered)
    assert Agreement.of(request, response).maximum_performed == answered


@pytest.mark.parametrize(("scp", "accepted"), [(True, True), (False, False)])
def test_what_is_only_sent_is_accepted_from_who_wants_to_be_scp(scp: bool, accepted: bool) -> None:
    """PS3.7 D.3.3.4: the role of SCU is refused then, since nobody would perform it."""
    contexts = (PresentationContextRQ(1, CT, (IMPLICIT,)), PresentationContextRQ(3, MR, (IMPLICIT,)))
    request = asking(*contexts, role_selections=(RoleSelection(CT, True, scp),))
    response = acceptance(request, Supports({MR: {IMPLICIT}}, scp={CT}))
    assert [each.result == 0 for each in response.presentation_contexts] == [accepted, True]
    assert response.user_information.role_selections == ((RoleSelection(CT, False, True),) if accepted else ())


def test_extended_negotiation_is_answered_only_if_proposed_and_understood() -> None:
    supported = Supports({CT: {IMPLICIT}, MR: {IMPLICIT}}, extended={CT: b"\1", VERIFICATION: b"\1"})
    contexts = (PresentationContextRQ(1, CT, (IMPLICIT,)), PresentationContextRQ(3, MR, (IMPLICIT,)))
    items = tuple(ExtendedNegotiation(uid, b"\2\0\0extra") for uid in (CT, MR, VERIFICATION))
    response = acceptance(asking(*contexts, extended_negotiations=items), supported)
    assert response.user_information.extended_negotiations == (ExtendedNegotiation(CT, b"\1"),)
    assert acceptance(asking(*contexts), supported).user_information.extended_negotiations == ()


@pytest.mark.parametrize("positive_response_requested", [False, True])
def test_user_identity_gets_no_answer_from_who_does_not_check_it(positive_response_requested: bool) -> None:
    """PS3.7 D.3.3.7: no response is the answer of an acceptor that does not support it."""
    identity = UserIdentity(1, b"user", positive_response_requested=positive_response_requested)
    request = asking(PresentationContextRQ(1, CT, (IMPLICIT,)), user_identity=identity)
    assert acceptance(request).user_information.user_identity_response is None


@pytest.mark.parametrize(
    ("identity", "expected"),
    [
        (None, None),
        (UserIdentity.kerberos(b"ticket"), None),
        (UserIdentity.kerberos(b"ticket", positive_response=True), UserIdentityAC(b"said")),
        (UserIdentity.name("alice", positive_response=True), UserIdentityAC(b"")),
        (UserIdentity.name_and_passcode("alice", "x", positive_response=True), UserIdentityAC(b"")),
    ],
)
def test_an_identity_is_confirmed_exactly_when_that_was_asked_for(
    identity: UserIdentity | None, expected: UserIdentityAC | None
) -> None:
    """PS3.7 D.3.3.7; Table D.3-15: "shall be zero length" for types 1 and 2."""
    request = asking(PresentationContextRQ(1, CT, (IMPLICIT,)), user_identity=identity)
    response = acceptance(request)
    confirmed = confirm_identity(request, response, b"said")
    assert confirmed == replace(
        response, user_information=replace(response.user_information, user_identity_response=expected)
    )


def test_common_extended_negotiation_has_no_answer() -> None:
    """PS3.7 D.3.3.6: "no response is necessary"."""
    item = CommonExtendedNegotiation(CT, "1.2.840.10008.4.2", ())
    request = asking(PresentationContextRQ(1, CT, (IMPLICIT,)), common_extended_negotiations=(item,))
    assert acceptance(request).user_information.common_extended_negotiations == ()
