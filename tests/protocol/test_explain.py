"""Why something cannot be sent: whose fault it is."""

from __future__ import annotations

import pytest

from support.upper_layers import CT, EXPLICIT, IMPLICIT, JPEG, MR
from tomowire.errors import NoAcceptedContext
from tomowire.protocol.explain import (
    describe_agreement,
    describe_proposal,
    explain_beginning,
    explain_refusal,
    foreign_protocol,
    is_not_permitted,
    result_of,
)
from tomowire.protocol.negotiation import Agreement
from tomowire.wire.items import PresentationContextAC, PresentationContextRQ
from tomowire.wire.pdu import AAssociateAC, AAssociateRQ
from tomowire.wire.user_identity import UserIdentity, UserIdentityAC
from tomowire.wire.user_information import (
    AsynchronousOperationsWindow,
    ExtendedNegotiation,
    RoleSelection,
    UserInformation,
)


def agreement(*contexts: tuple[str, tuple[str, ...], int, str]) -> Agreement:
    """Abstract syntax, transfer syntaxes, result and answered transfer syntax of each context."""
    proposed, answered = [], []
    for index, (abstract, transfer, result, chosen) in enumerate(contexts):
        proposed.append(PresentationContextRQ(2 * index + 1, abstract, transfer))
        answered.append(PresentationContextAC(2 * index + 1, result, chosen))
    return Agreement.of(AAssociateRQ("A", "B", tuple(proposed)), AAssociateAC("A", "B", tuple(answered)))


@pytest.mark.parametrize(
    ("result", "words"),
    [
        (1, "the peer's application refused it"),
        (2, "without a reason"),
        (3, "does not support this SOP class"),
        (4, "none of the transfer syntaxes proposed"),
        (77, "unknown result 77"),
    ],
)
def test_the_result_of_the_peer_in_words(result: int, words: str) -> None:
    text = explain_refusal(agreement((CT, (JPEG,), result, "")), CT, JPEG)
    assert words in text
    assert "CT Image Storage" in text
    assert "JPEG" in text


def refused(abstract: str, transfer: str | None, given: Agreement | None) -> NoAcceptedContext:
    return NoAcceptedContext("refused", abstract_syntax=abstract, transfer_syntax=transfer, agreement=given)


@pytest.mark.parametrize("transfer", [JPEG, None])
@pytest.mark.parametrize("result", [1, 2, 3, 4, 77])
def test_only_a_user_rejection_is_a_right_that_is_missing(result: int, transfer: str | None) -> None:
    """PS3.8 Table 9-18: result 1 is the user's own, all others are about what was proposed."""
    error = refused(CT, transfer, agreement((MR, (JPEG,), 3, ""), (CT, (JPEG,), result, "")))
    assert result_of(error) == result
    assert is_not_permitted(error) == (result == 1)


@pytest.mark.parametrize(
    "error",
    [
        refused(CT, JPEG, None),
        refused(CT, IMPLICIT, agreement((CT, (JPEG,), 1, ""))),
        refused(MR, JPEG, agreement((CT, (JPEG,), 1, ""))),
    ],
    ids=["nobody knows what was agreed", "another transfer syntax", "another SOP class"],
)
def test_what_the_peer_did_not_refuse_has_no_result(error: NoAcceptedContext) -> None:
    assert result_of(error) is None
    assert not is_not_permitted(error)


def test_an_error_of_another_kind_is_no_missing_right() -> None:
    assert not is_not_permitted(ValueError("1"))


def test_what_was_not_proposed_is_our_own_fault() -> None:
    given = agreement((CT, (IMPLICIT,), 0, IMPLICIT))
    assert "SOP class was not proposed" in explain_refusal(given, MR, IMPLICIT)
    assert "SOP class was not proposed" in explain_refusal(given, "1.2.3.4", None)
    not_proposed = explain_refusal(given, CT, JPEG)
    assert "transfer syntax was not proposed" in not_proposed
    assert not_proposed.endswith("but Implicit VR Little Endian"), "what was, is said"


def test_the_peer_may_have_chosen_another_transfer_syntax() -> None:
    given = agreement((CT, (JPEG, IMPLICIT), 0, IMPLICIT), (CT, (JPEG, EXPLICIT), 0, EXPLICIT))
    text = explain_refusal(given, CT, JPEG)
    assert "the peer chose Implicit VR Little Endian" in text
    assert "Explicit VR Little Endian" in text


@pytest.mark.parametrize(("chosen", "name"), [(IMPLICIT, "Implicit VR Little Endian"), ("", "none")])
def test_a_transfer_syntax_that_was_not_proposed_is_the_peers_fault(chosen: str, name: str) -> None:
    """PS3.8 9.3.3.2: an accepted context has one of those proposed."""
    given = agreement((CT, (JPEG,), 0, chosen), (MR, (JPEG,), 3, ""))
    words = f"the peer accepted it in a transfer syntax that was not proposed, {name}: that breaks the standard"
    assert explain_refusal(given, CT, JPEG).endswith(words)
    assert explain_refusal(given, CT, None).endswith(words)
    assert "does not support this SOP class" in explain_refusal(given, MR, None)
    refused = [said for what, said in describe_agreement(given) if what == "refused"]
    assert [words in said for said in refused] == [True, False]


def test_only_contexts_that_would_have_fitted_count() -> None:
    given = agreement((CT, (JPEG,), 4, ""), (CT, (EXPLICIT,), 3, ""), (CT, (IMPLICIT,), 0, IMPLICIT))
    assert "does not support this SOP class" in explain_refusal(given, CT, EXPLICIT)
    assert "none of the transfer syntaxes" in explain_refusal(given, CT, JPEG)


def test_any_transfer_syntax_will_do() -> None:
    text = explain_refusal(agreement((CT, (JPEG,), 4, "")), CT, None)
    assert text.startswith("no presentation context for CT Image Storage: ")
    assert text.endswith(" (proposed: JPEG Baseline (Process 1))"), "and that is said"
    assert "none of the transfer syntaxes" in text


@pytest.mark.parametrize(
    ("first", "words"),
    [
        (b"HTTP/1", "that is no DICOM peer, it speaks HTTP"),
        (b"GET / ", "that is no DICOM peer, it speaks HTTP"),
        (b"SSH-2.", "that is no DICOM peer, it speaks SSH"),
        (b"\x15\x03\x03\x00\x02\x02", "the other side speaks TLS, and this connection is without"),
        (b"220 ma", "that is no DICOM peer, what it says begins with '220 ma'"),
        (b"\x42\0\0\0\0\0", "that is no DICOM peer"),
        (b"\xff" * 6, "that is no DICOM peer"),
    ],
)
def test_who_else_may_be_there(first: bytes, words: str) -> None:
    assert explain_beginning(first) == words
    assert foreign_protocol(first) == next((name for name in ("HTTP", "SSH", "TLS") if f"speaks {name}" in words), None)


@pytest.mark.parametrize(
    ("result", "advice"),
    [
        (1, "its operator decides who may use it"),
        (2, "its log may say more"),
        (3, "it has to be enabled there"),
        (4, "it needs another"),
    ],
)
def test_a_refusal_says_what_to_change(result: int, advice: str) -> None:
    assert advice in explain_refusal(agreement((CT, (JPEG,), result, "")), CT, None)


# What --explain prints

ASKED = UserInformation(
    maximum_length=0,
    asynchronous_operations_window=AsynchronousOperationsWindow(16, 1),
    role_selections=(RoleSelection(CT, scu=True, scp=True), RoleSelection(MR, scu=False, scp=True)),
    extended_negotiations=(ExtendedNegotiation(CT, b"\x02\x00"), ExtendedNegotiation(MR, b"\x01")),
    user_identity=UserIdentity(2, b"user", b"secret", positive_response_requested=True),
)
GIVEN = UserInformation(
    maximum_length=16384,
    implementation_class_uid="1.2.3",
    implementation_version_name="PEER_1",
    asynchronous_operations_window=AsynchronousOperationsWindow(4, 1),
    role_selections=(RoleSelection(CT, scu=True, scp=True), RoleSelection(MR, scu=False, scp=False)),
    extended_negotiations=(ExtendedNegotiation(CT, b"\x01\x00"),),
)


def negotiated(asked: UserInformation, given: UserInformation) -> Agreement:
    proposed = (
        PresentationContextRQ(1, CT, (EXPLICIT, IMPLICIT)),
        PresentationContextRQ(3, MR, (EXPLICIT,)),
        PresentationContextRQ(5, CT, (JPEG,)),
    )
    answered = (
        PresentationContextAC(1, 0, IMPLICIT),
        PresentationContextAC(3, 0, EXPLICIT),
        PresentationContextAC(5, 4, ""),
    )
    return Agreement.of(AAssociateRQ("ARCHIVE", "ME", proposed, asked), AAssociateAC("ARCHIVE", "ME", answered, given))


def test_a_proposal_in_words() -> None:
    assert list(describe_proposal(negotiated(ASKED, GIVEN).request)) == [
        ("called", "'ARCHIVE' by 'ME'"),
        ("proposed", "CT Image Storage in Explicit VR Little Endian, Implicit VR Little Endian"),
        ("proposed", "MR Image Storage in Explicit VR Little Endian"),
        ("proposed", "CT Image Storage in JPEG Baseline (Process 1)"),
    ]


def test_an_agreement_in_words() -> None:
    assert list(describe_agreement(negotiated(ASKED, GIVEN))) == [
        (
            "accepted",
            (
                "CT Image Storage in Implicit VR Little Endian (of Explicit VR Little Endian, Implicit VR Little Endian);"
                " this side is SCU and SCP"
            ),
        ),
        ("accepted", "MR Image Storage in Explicit VR Little Endian; this side is neither SCU nor SCP"),
        (
            "refused",
            (
                "CT Image Storage in JPEG Baseline (Process 1): the peer supports this SOP class, but none of the transfer"
                " syntaxes proposed: it needs another"
            ),
        ),
        ("maximum length", "16384 bytes to the peer, any number of bytes to this side"),
        ("window", "4 operations at once (16 operations proposed)"),
        ("extended", "CT Image Storage: 02 00 proposed, answered 01 00"),
        ("extended", "MR Image Storage: 01 proposed, not answered: not agreed to"),
        ("user identity", "user 'user', not answered: the peer may not look at it"),
        ("implementation", "1.2.3 'PEER_1'"),
    ]


def test_an_agreement_on_less_in_words() -> None:
    """The window of PS3.7 D.3.3.3 was not asked for; an implementation need not have a name."""
    said = dict(describe_agreement(negotiated(UserInformation(maximum_length=8), UserInformation())))
    assert said["window"] == "1 operation at once"
    assert said["maximum length"] == "any number of bytes to the peer, 8 bytes to this side"
    assert said["implementation"] == "not told"
    assert "user identity" not in said


def test_an_unlimited_window_and_an_identity_that_was_answered() -> None:
    unlimited = AsynchronousOperationsWindow(0, 0)
    asked = UserInformation(asynchronous_operations_window=unlimited, user_identity=UserIdentity(1, b"user"))
    given = UserInformation(asynchronous_operations_window=unlimited, user_identity_response=UserIdentityAC(b""))
    said = dict(describe_agreement(negotiated(asked, given)))
    assert said["window"] == "any number of operations at once (any number of operations proposed)"
    assert said["user identity"] == "user 'user', answered"
    said = dict(describe_agreement(negotiated(asked, UserInformation())))
    assert said["user identity"] == "user 'user', no answer was asked for"
