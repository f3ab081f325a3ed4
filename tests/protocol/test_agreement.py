"""What an A-ASSOCIATE-RQ and the answer to it agree on (PS3.8 9.3.3.2; PS3.7 D.3): contexts, roles, windows."""

from __future__ import annotations

from typing import Any

import pytest

from support.upper_layers import CT, EXPLICIT, IMPLICIT, JPEG
from tomowire.protocol.negotiation import AcceptedContext, Agreement
from tomowire.wire.items import PresentationContextAC, PresentationContextRQ
from tomowire.wire.pdu import AAssociateAC, AAssociateRQ
from tomowire.wire.user_information import (
    AsynchronousOperationsWindow,
    ExtendedNegotiation,
    RoleSelection,
    UserInformation,
)

Window = AsynchronousOperationsWindow


def asking(*contexts: PresentationContextRQ, **information: Any) -> AAssociateRQ:
    return AAssociateRQ("CALLED", "CALLING", contexts, UserInformation(**information))


def granting(*contexts: PresentationContextAC, **information: Any) -> AAssociateAC:
    return AAssociateAC("CALLED", "CALLING", contexts, UserInformation(**information))


def test_what_is_accepted_can_be_used() -> None:
    agreement = Agreement.of(
        asking(PresentationContextRQ(1, CT, (EXPLICIT, IMPLICIT))), granting(PresentationContextAC(1, 0, IMPLICIT))
    )
    assert agreement.contexts == {1: AcceptedContext(1, CT, IMPLICIT)}
    # PS3.7 D.3.3.4: "the default role of the Association-requestor shall be SCU".
    assert (agreement.contexts[1].requestor_is_scu, agreement.contexts[1].requestor_is_scp) == (True, False)
    assert agreement.refused == ()


@pytest.mark.parametrize(
    ("answers", "result"),
    [
        pytest.param([PresentationContextAC(1, 1, "")], 1, id="user rejection"),
        pytest.param([PresentationContextAC(1, 3, EXPLICIT)], 3, id="abstract syntax"),
        pytest.param([PresentationContextAC(1, 4, "nonsense")], 4, id="transfer syntax"),
        pytest.param([PresentationContextAC(1, 99, EXPLICIT)], 99, id="unknown result"),
        pytest.param([], 2, id="no answer"),
        pytest.param([PresentationContextAC(3, 0, EXPLICIT)], 2, id="answer to something else"),
        pytest.param([PresentationContextAC(1, 0, JPEG)], 4, id="transfer syntax that was not proposed"),
    ],
)
def test_what_is_not_accepted_cannot_be_used(answers: list[PresentationContextAC], result: int) -> None:
    agreement = Agreement.of(asking(PresentationContextRQ(1, CT, (EXPLICIT,))), granting(*answers))
    assert agreement.contexts == {}
    (refused,) = agreement.refused
    assert (refused.context_id, refused.abstract_syntax, refused.transfer_syntaxes) == (1, CT, (EXPLICIT,))
    assert refused.result == result


@pytest.mark.parametrize(
    ("proposed", "answered", "roles"),
    [
        (None, None, (True, False)),
        (None, (True, True), (True, False)),  # "shall ignore the response if it has not proposed the role"
        ((True, True), None, (True, False)),  # not returned: the defaults
        ((True, True), (True, True), (True, True)),
        ((True, True), (True, False), (True, False)),
        ((False, True), (True, True), (False, True)),
        ((False, True), (False, False), (False, False)),
    ],
)
def test_the_roles_that_both_want(
    proposed: tuple[bool, bool] | None, answered: tuple[bool, bool] | None, roles: tuple[bool, bool]
) -> None:
    """PS3.7 D.3.3.4."""
    agreement = Agreement.of(
        asking(
            PresentationContextRQ(1, CT, (IMPLICIT,)),
            role_selections=(RoleSelection(CT, *proposed),) if proposed else (),
        ),
        granting(
            PresentationContextAC(1, 0, IMPLICIT), role_selections=(RoleSelection(CT, *answered),) if answered else ()
        ),
    )
    context = agreement.contexts[1]
    assert (context.requestor_is_scu, context.requestor_is_scp) == roles


@pytest.mark.parametrize(
    ("proposed", "answered", "invoked_and_performed"),
    [
        (None, None, (1, 1)),
        (Window(8, 8), None, (1, 1)),
        (None, Window(8, 8), (1, 1)),
        (None, Window(0, 0), (1, 1)),
        (Window(8, 4), Window(3, 4), (3, 4)),
        (Window(8, 4), Window(9, 9), (8, 4)),
        (Window(0, 0), Window(5, 0), (5, 0)),
        (Window(5, 0), Window(0, 7), (5, 7)),
    ],
)
def test_the_window_that_both_want(
    proposed: Window | None, answered: Window | None, invoked_and_performed: tuple[int, int]
) -> None:
    """PS3.7 D.3.3.3: absent is 1, 0 is unlimited."""
    agreement = Agreement.of(
        asking(PresentationContextRQ(1, CT, (IMPLICIT,)), asynchronous_operations_window=proposed),
        granting(asynchronous_operations_window=answered),
    )
    assert (agreement.maximum_invoked, agreement.maximum_performed) == invoked_and_performed


@pytest.mark.parametrize(
    ("asked", "given", "expected"),
    [
        ([b"\1"], [b"\1\0"], b"\1\0"),
        ([b"\1"], [], None),
        ([], [b"\1"], None),  # what was not asked for does not count
        ([b"\1"], [b""], b""),
    ],
)
def test_extended_negotiation_is_what_was_answered_to_what_was_asked(
    asked: list[bytes], given: list[bytes], expected: bytes | None
) -> None:
    def items(sop_class: str, values: list[bytes]) -> tuple[ExtendedNegotiation, ...]:
        return tuple(ExtendedNegotiation(sop_class, value) for value in values)

    agreement = Agreement.of(
        asking(PresentationContextRQ(1, CT, (EXPLICIT,)), extended_negotiations=items(CT, asked)),
        granting(PresentationContextAC(1, 0, EXPLICIT), extended_negotiations=items(CT, given)),
    )
    assert agreement.extended(CT) == expected
    assert agreement.extended("1.2.3") is None
