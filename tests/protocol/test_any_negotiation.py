"""Any request meets any acceptor, and any answer any request."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from support.upper_layers import CT, EXPLICIT, IMPLICIT, JPEG, MR, VERIFICATION, Supports
from tomowire.protocol.acceptance import AcceptorPolicy, answer
from tomowire.protocol.negotiation import Agreement
from tomowire.uids import TRANSFER_SYNTAXES
from tomowire.wire.items import PresentationContextAC, PresentationContextRQ
from tomowire.wire.pdu import AAssociateAC, AAssociateRQ, decode_pdu, encode_pdu
from tomowire.wire.user_identity import UserIdentity
from tomowire.wire.user_information import (
    AsynchronousOperationsWindow,
    ExtendedNegotiation,
    RoleSelection,
    UserInformation,
)

Window = AsynchronousOperationsWindow


# Few UIDs, so that what is proposed, supported and answered often meets.
some_abstract = st.sampled_from((CT, MR, VERIFICATION))
some_transfer = st.sampled_from((IMPLICIT, EXPLICIT, JPEG))
flags = st.booleans()
limits = st.integers(0, 3)
context_ids = st.sampled_from((1, 3, 5, 255))


def information(**more: Any) -> st.SearchStrategy[UserInformation]:
    return st.builds(
        UserInformation,
        asynchronous_operations_window=st.none() | st.builds(Window, limits, limits),
        role_selections=st.lists(st.builds(RoleSelection, some_abstract, flags, flags), max_size=3).map(tuple),
        extended_negotiations=st.lists(
            st.builds(ExtendedNegotiation, some_abstract, st.binary(max_size=3)), max_size=3
        ).map(tuple),
        **more,
    )


def by_id(contexts: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(contexts, max_size=4, unique_by=lambda context: context.context_id).map(tuple)


requests = st.builds(
    AAssociateRQ,
    st.just("CALLED"),
    st.just("CALLING"),
    by_id(st.builds(PresentationContextRQ, context_ids, some_abstract, st.lists(some_transfer, max_size=3).map(tuple))),
    information(user_identity=st.none() | st.builds(UserIdentity, st.just(1), st.just(b"user"), st.just(b""), flags)),
)
responses = st.builds(
    AAssociateAC,
    st.just("CALLED"),
    st.just("CALLING"),
    by_id(st.builds(PresentationContextAC, context_ids, st.sampled_from((0, 0, 0, 1, 2, 3, 4, 9)), some_transfer)),
    information(),
)
policies = st.builds(
    AcceptorPolicy,
    st.builds(
        Supports,
        st.dictionaries(some_abstract, st.sets(some_transfer)),
        st.sets(some_abstract),
        st.dictionaries(some_abstract, st.binary(max_size=3)),
    ),
    maximum_performed=limits,
    maximum_invoked=limits,
)


@given(requests, policies)
def test_each_context_has_the_answer_it_deserves(request: AAssociateRQ, policy: AcceptorPolicy) -> None:
    response = answer(request, policy)
    assert isinstance(response, AAssociateAC)
    as_scp = {role.sop_class_uid for role in request.user_information.role_selections if role.scp}
    for proposed, context in zip(request.presentation_contexts, response.presentation_contexts, strict=True):
        assert context.context_id == proposed.context_id
        usable = policy.supported.transfer_syntaxes(proposed.abstract_syntax)
        if (
            usable is None
            and proposed.abstract_syntax in as_scp
            and policy.supported.may_be_scp(proposed.abstract_syntax)
        ):
            usable = TRANSFER_SYNTAXES
        fitting = [uid for uid in proposed.transfer_syntaxes if usable is not None and uid in usable]
        assert context.result == (3 if usable is None else 0 if fitting else 4)
        if fitting:
            assert context.transfer_syntax == fitting[0]


@given(requests, policies)
def test_an_answer_contains_only_what_was_proposed(request: AAssociateRQ, policy: AcceptorPolicy) -> None:
    response = answer(request, policy)
    asked, given_ = request.user_information, response.user_information
    wanted = {role.sop_class_uid: role for role in asked.role_selections}
    for role in given_.role_selections:
        assert role.scu <= wanted[role.sop_class_uid].scu
        assert role.scp <= wanted[role.sop_class_uid].scp
    for answered, proposed in (
        (given_.role_selections, asked.role_selections),
        (given_.extended_negotiations, asked.extended_negotiations),
    ):
        answered_for = [item.sop_class_uid for item in answered]
        assert len(set(answered_for)) == len(answered_for)
        assert set(answered_for) <= {item.sop_class_uid for item in proposed}
    window, offer = given_.asynchronous_operations_window, asked.asynchronous_operations_window
    assert (window is None) is (offer is None)
    if window is not None and offer is not None:
        unlimited = 1 << 16
        assert (window.maximum_invoked or unlimited) <= (offer.maximum_invoked or unlimited)
        assert (window.maximum_performed or unlimited) <= (offer.maximum_performed or unlimited)
    assert given_.user_identity_response is None


@given(requests, policies)
def test_both_ends_agree_on_the_same(request: AAssociateRQ, policy: AcceptorPolicy) -> None:
    """What the acceptor reads from its own answer is what the requestor reads from the bytes of it."""
    response = answer(request, policy)
    assert isinstance(response, AAssociateAC)
    received = decode_pdu(2, encode_pdu(response)[6:])
    assert isinstance(received, AAssociateAC)
    here, there = Agreement.of(request, response), Agreement.of(request, received)
    assert (here.contexts, here.refused) == (there.contexts, there.refused)
    assert (here.maximum_invoked, here.maximum_performed) == (there.maximum_invoked, there.maximum_performed)


@given(requests, responses)
def test_an_agreement_holds_nothing_that_was_not_proposed(request: AAssociateRQ, response: AAssociateAC) -> None:
    agreement = Agreement.of(request, response)
    proposed = {context.context_id: context for context in request.presentation_contexts}
    refused = [context.context_id for context in agreement.refused]
    assert sorted([*agreement.contexts, *refused]) == sorted(proposed)
    for context_id, context in agreement.contexts.items():
        assert context.abstract_syntax == proposed[context_id].abstract_syntax
        assert context.transfer_syntax in proposed[context_id].transfer_syntaxes
    assert all(context.result != 0 for context in agreement.refused)
