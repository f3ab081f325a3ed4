"""Why something cannot be sent: whose fault it is."""

from __future__ import annotations

import pytest

from support.upper_layers import CT, EXPLICIT, IMPLICIT, JPEG, MR
from tomowire.protocol.explain import explain_beginning, explain_refusal
from tomowire.protocol.negotiation import Agreement
from tomowire.wire.items import PresentationContextAC, PresentationContextRQ
from tomowire.wire.pdu import AAssociateAC, AAssociateRQ


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


def test_what_was_not_proposed_is_our_own_fault() -> None:
    given = agreement((CT, (IMPLICIT,), 0, IMPLICIT))
    assert "SOP class was not proposed" in explain_refusal(given, MR, IMPLICIT)
    assert "SOP class was not proposed" in explain_refusal(given, "1.2.3.4", None)
    assert "transfer syntax was not proposed" in explain_refusal(given, CT, JPEG)


def test_the_peer_may_have_chosen_another_transfer_syntax() -> None:
    given = agreement((CT, (JPEG, IMPLICIT), 0, IMPLICIT), (CT, (JPEG, EXPLICIT), 0, EXPLICIT))
    text = explain_refusal(given, CT, JPEG)
    assert "the peer chose Implicit VR Little Endian" in text
    assert "Explicit VR Little Endian" in text


def test_only_contexts_that_would_have_fitted_count() -> None:
    given = agreement((CT, (JPEG,), 4, ""), (CT, (EXPLICIT,), 3, ""), (CT, (IMPLICIT,), 0, IMPLICIT))
    assert "does not support this SOP class" in explain_refusal(given, CT, EXPLICIT)
    assert "none of the transfer syntaxes" in explain_refusal(given, CT, JPEG)


def test_any_transfer_syntax_will_do() -> None:
    text = explain_refusal(agreement((CT, (JPEG,), 4, "")), CT, None)
    assert text.startswith("no presentation context for CT Image Storage: ")
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
