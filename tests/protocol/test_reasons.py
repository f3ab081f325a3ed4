"""The codes of PS3.8 Tables 9-21 and 9-26 in words."""

from __future__ import annotations

import pytest

from tomowire.protocol.reasons import describe_abort, describe_rejection, why_rejected
from tomowire.wire.pdu import AAssociateRJ, AAssociateRQ
from tomowire.wire.user_identity import UserIdentity


@pytest.mark.parametrize(
    ("source", "reason", "words"),
    [
        (0, 0, "by its application"),
        (0, 2, "by its application"),  # the reason is not significant then
        (2, 0, "reason not specified"),
        (2, 1, "does not know the PDU"),
        (2, 2, "did not expect the PDU"),
        (2, 4, "does not know a parameter"),
        (2, 5, "did not expect a parameter"),
        (2, 6, "invalid value"),
        (2, 3, "reason unknown"),  # reserved
        (2, 255, "reason unknown"),
        (1, 0, "does not define"),  # reserved
        (255, 255, "does not define"),
    ],
)
def test_an_abort_is_told_in_words_and_codes(source: int, reason: int, words: str) -> None:
    text = describe_abort(source, reason)
    assert words in text
    assert f"(source {source}, reason {reason})" in text


@pytest.mark.parametrize(
    ("codes", "words"),
    [
        ((1, 1, 1), "no reason given"),
        ((1, 1, 2), "application context name not supported"),
        ((1, 1, 3), "calling AE title not recognized"),
        ((1, 1, 7), "called AE title not recognized"),
        ((1, 2, 1), "no reason given"),
        ((1, 2, 2), "protocol version not supported"),
        ((2, 3, 1), "temporary congestion"),
        ((2, 3, 2), "limit of associations"),
        ((1, 1, 4), "does not define"),  # reserved
        ((1, 3, 0), "does not define"),  # reserved
        ((1, 9, 9), "does not define"),
    ],
)
def test_a_rejection_is_told_in_words_and_codes_with_advice(codes: tuple[int, int, int], words: str) -> None:
    text = describe_rejection(*codes)
    assert words in text
    assert "(result {}, source {}, reason {})".format(*codes) in text
    assert text.rpartition("; ")[2]


@pytest.mark.parametrize(("result", "words"), [(1, "for good"), (2, "for now"), (0, "unknown result")])
def test_whether_it_pays_to_try_again(result: int, words: str) -> None:
    assert words in describe_rejection(result, 3, 2)


def test_the_called_and_the_calling_title_have_different_cures() -> None:
    assert "--aet" in describe_rejection(1, 1, 3)
    assert "--aet" not in describe_rejection(1, 1, 7)


def test_a_rejection_names_the_title_that_it_is_about() -> None:
    assert "may not know 'ME'" in describe_rejection(1, 1, 1, called="ARCHIVE", calling="ME")
    assert "does not know 'ME'" in describe_rejection(1, 1, 3, called="ARCHIVE", calling="ME")
    assert "does not answer to 'ARCHIVE'" in describe_rejection(1, 1, 7, called="ARCHIVE", calling="ME")
    assert "does not answer to the title used" in describe_rejection(1, 1, 7)
    assert describe_rejection(1, 1, 7, called="{calling}", calling="ME").endswith("to '{calling}'")


@pytest.mark.parametrize(
    ("result", "source", "reason", "words"),
    [  # PS3.8 Table 9-21, as the side that rejects would put it
        (1, 1, 2, "application context '1.2.3'"),
        (1, 1, 3, "'CALLER' is not one of the callers"),
        (1, 1, 7, "called 'OTHER'"),
        (1, 1, 1, "no reason given"),
    ],
)
def test_the_rejecting_side_says_what_was_wrong_with_the_request(
    result: int, source: int, reason: int, words: str
) -> None:
    request = AAssociateRQ("OTHER", "CALLER", (), application_context_name="1.2.3")
    assert words in why_rejected(request, AAssociateRJ(result, source, reason))


def test_a_rejection_without_a_reason_may_be_meant_for_the_user() -> None:
    """PS3.7 D.3.3.7.3: source 2; there is no reason code for it."""
    identity = UserIdentity.name_and_passcode("alice", "secret")
    text = describe_rejection(1, 2, 1, identity=identity)
    assert "user 'alice' is not accepted" in text
    assert "secret" not in text
    assert "want to know the user" in describe_rejection(1, 2, 1)
    assert "alice" not in describe_rejection(1, 2, 2, identity=identity)
