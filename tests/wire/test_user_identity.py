"""User identities: how they are made and read, and what they never show (PS3.7 D.3.3.7)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tomowire.errors import UsageError
from tomowire.wire.user_identity import IdentityType, UserIdentity, UserIdentityAC


@pytest.mark.parametrize(
    ("identity", "kind", "primary", "secondary"),
    [
        (UserIdentity.name("Müller"), 1, b"M\xc3\xbcller", b""),
        (UserIdentity.name("M\udcfcller"), 1, b"M\xfcller", b""),
        (UserIdentity.name_and_passcode("\udcff", "x"), 2, b"\xff", b"x"),
        (UserIdentity.name_and_passcode("bob", "pä"), 2, b"bob", b"p\xc3\xa4"),
        (UserIdentity.name_and_passcode("bob", b"\xff"), 2, b"bob", b"\xff"),
        (UserIdentity.kerberos(b"\x60"), 3, b"\x60", b""),
        (UserIdentity.saml("<ü/>"), 4, b"<\xc3\xbc/>", b""),
        (UserIdentity.saml(b"<a/>"), 4, b"<a/>", b""),
        (UserIdentity.jwt("e30.e30."), 5, b"e30.e30.", b""),
        (UserIdentity.jwt(b"e30.e30."), 5, b"e30.e30.", b""),
    ],
)
def test_each_kind_in_its_fields(identity: UserIdentity, kind: int, primary: bytes, secondary: bytes) -> None:
    """Table D.3-14."""
    assert identity == UserIdentity(kind, primary, secondary)
    assert IdentityType(kind) == identity.identity_type
    assert not identity.positive_response_requested


def test_a_positive_response_can_be_asked_for_with_every_kind() -> None:
    assert UserIdentity.name("bob", positive_response=True).positive_response_requested
    assert UserIdentity.name_and_passcode("bob", "x", positive_response=True).positive_response_requested
    assert UserIdentity.kerberos(b"x", positive_response=True).positive_response_requested
    assert UserIdentity.saml("x", positive_response=True).positive_response_requested
    assert UserIdentity.jwt("x", positive_response=True).positive_response_requested


@pytest.mark.parametrize(
    ("identity", "text"),
    [
        (UserIdentity.name("alice"), "user 'alice'"),
        (UserIdentity.name_and_passcode("alice", "secret"), "user 'alice'"),
        (UserIdentity.kerberos(b"alice"), "a user with a Kerberos ticket"),
        (UserIdentity.saml("alice"), "a user with a SAML assertion"),
        (UserIdentity.jwt("alice"), "a user with a JSON web token"),
        (UserIdentity(9, b"alice"), "a user identity of the unknown type 9"),
        (UserIdentity.name("x" * 100), f"user '{'x' * 64}'"),
        (UserIdentity(1, b"a\nb\xff"), r"user 'a\nb\udcff'"),
    ],
)
def test_what_proves_an_identity_is_never_shown(identity: UserIdentity, text: str) -> None:
    assert str(identity) == text
    assert "alice" not in repr(identity)
    assert "secret" not in repr(UserIdentityAC(b"secret"))


def test_what_can_be_read_of_an_identity() -> None:
    alice = UserIdentity.name_and_passcode("alice", "secret")
    assert (alice.user_name, alice.credential) == ("alice", b"secret")
    assert (UserIdentity.name("bob").user_name, UserIdentity.name("bob").credential) == ("bob", b"")
    assert (UserIdentity.saml("<a/>").user_name, UserIdentity.saml("<a/>").credential) == (None, b"<a/>")
    assert UserIdentity(1, b"\xff").user_name == "\udcff"


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: UserIdentity.name(""), "a user name is text, and not empty"),
        (lambda: UserIdentity.name(b"alice"), "a user name is text, and not bytes"),  # type: ignore[arg-type]
        (lambda: UserIdentity.name_and_passcode("alice", ""), "a passcode is text or bytes, and not empty"),
        (lambda: UserIdentity.name_and_passcode("alice", None), "a passcode is text or bytes, and not NoneType"),  # type: ignore[arg-type]
        (lambda: UserIdentity.kerberos(b""), "a Kerberos ticket is text or bytes, and not empty"),
        (lambda: UserIdentity.saml(7), "a SAML assertion is text or bytes, and not int"),  # type: ignore[arg-type]
        (lambda: UserIdentity.jwt([]), "a JSON web token is text or bytes, and not list"),  # type: ignore[arg-type]
    ],
)
def test_what_identifies_nobody(make: Callable[[], UserIdentity], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        make()
