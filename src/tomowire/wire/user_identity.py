"""Who the user of an association is (PS3.7 D.3.3.7): what a requestor says of its user, and what an acceptor answers.

Secrets must not get into logs by way of a traceback or a debug line: neither of the two shows what proves an identity.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from tomowire.errors import UsageError
from tomowire.wire.value import value

_MOST_SHOWN: Final = 64


class IdentityType(IntEnum):
    """What a user is identified by (PS3.7 Table D.3-14)."""

    USER_NAME = 1
    USER_NAME_AND_PASSCODE = 2
    KERBEROS = 3
    SAML = 4
    JWT = 5


_NAMED: Final = (IdentityType.USER_NAME, IdentityType.USER_NAME_AND_PASSCODE)
_WORDS: Final[dict[int, str]] = {
    IdentityType.KERBEROS: "a user with a Kerberos ticket",
    IdentityType.SAML: "a user with a SAML assertion",
    IdentityType.JWT: "a user with a JSON web token",
}


@value()
class UserIdentity:
    """Who the user is, as the requestor says (PS3.7 D.3.3.7.1): made by `name`, `name_and_passcode`, `kerberos`, `saml` or `jwt`.

    With `positive_response` the acceptor is asked to say that it knows the user. One that does not look at identities says nothing,
    and accepts all the same. What is empty, or neither text nor bytes, is a `UsageError`.
    """

    identity_type: int
    """An `IdentityType`; a peer may send other numbers."""
    primary_field: bytes
    secondary_field: bytes = b""
    positive_response_requested: bool = False

    @classmethod
    def name(cls, user_name: str, *, positive_response: bool = False) -> UserIdentity:
        """A user name, which nothing proves."""
        return cls(IdentityType.USER_NAME, _name(user_name), b"", positive_response)

    @classmethod
    def name_and_passcode(
        cls, user_name: str, passcode: str | bytes, *, positive_response: bool = False
    ) -> UserIdentity:
        """A user name and its passcode. Both are sent as they are: use TLS."""
        secret = _bytes(passcode, "a passcode")
        return cls(IdentityType.USER_NAME_AND_PASSCODE, _name(user_name), secret, positive_response)

    @classmethod
    def kerberos(cls, ticket: bytes, *, positive_response: bool = False) -> UserIdentity:
        """A Kerberos service ticket (RFC 4120); the positive response to it is the server's ticket."""
        return cls(IdentityType.KERBEROS, _bytes(ticket, "a Kerberos ticket"), b"", positive_response)

    @classmethod
    def saml(cls, assertion: str | bytes, *, positive_response: bool = False) -> UserIdentity:
        """A SAML assertion; the positive response to it is a SAML response."""
        return cls(IdentityType.SAML, _bytes(assertion, "a SAML assertion"), b"", positive_response)

    @classmethod
    def jwt(cls, token: str | bytes, *, positive_response: bool = False) -> UserIdentity:
        """A JSON web token (RFC 7519) in its compact form, as it would stand behind `Authorization: Bearer`."""
        return cls(IdentityType.JWT, _bytes(token, "a JSON web token"), b"", positive_response)

    @property
    def user_name(self) -> str | None:
        """The user name; None where a ticket, an assertion or a token stands for it. Bytes that are not UTF-8 are escaped."""
        return self.primary_field.decode("utf-8", "surrogateescape") if self.identity_type in _NAMED else None

    @property
    def credential(self) -> bytes:
        """What proves it: the passcode, the ticket, the assertion or the token; empty for a user name alone."""
        return self.secondary_field if self.identity_type in _NAMED else self.primary_field

    def __str__(self) -> str:
        """For the log: the user name, or what kind of proof there is; never the proof."""
        user_name = self.user_name
        if user_name is not None:
            return f"user {user_name[:_MOST_SHOWN]!r}"
        return _WORDS.get(self.identity_type, f"a user identity of the unknown type {self.identity_type}")

    def __repr__(self) -> str:
        return f"UserIdentity(identity_type={int(self.identity_type)}, ...)"


@value()
class UserIdentityAC:
    """The acceptor's answer, sent only when a positive response was requested (PS3.7 D.3.3.7.2)."""

    server_response: bytes

    def __repr__(self) -> str:
        return f"UserIdentityAC({len(self.server_response)} bytes)"


def _name(user_name: object) -> bytes:
    """Escaped bytes, as Python reads them from a command line and `user_name` from a peer, are sent as they were."""
    if not isinstance(user_name, str) or not user_name:
        raise UsageError(f"a user name is text, and not {'empty' if user_name == '' else type(user_name).__name__}")
    return user_name.encode("utf-8", "surrogateescape")


def _bytes(given: object, what: str) -> bytes:
    """Raises `UsageError`, which does not quote it."""
    if not isinstance(given, str | bytes) or not given:
        raise UsageError(f"{what} is text or bytes, and not {'empty' if given in ('', b'') else type(given).__name__}")
    return given.encode() if isinstance(given, str) else given
