"""Who may use the archive over HTTP: users with passwords, and tokens for programs.

Of a password its argon2id hash is kept, of a token its SHA-256: a token has 256 random bits, which nobody guesses.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import re
import secrets
import time
import unicodedata
from collections import OrderedDict
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import TYPE_CHECKING, Final, Self, TypeVar

from tomowire.errors import IndexUnavailable, UnknownUser, UsageError
from tomowire.server.accounts import NewToken, Principal, Role, Token, User, changed_in_words
from tomowire.server.audit.events import Change, ConfigurationChanged
from tomowire.server.audit.teller import person
from tomowire.server.passwords import Passwords

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import ModuleType

    from sqlalchemy import Connection

    from tomowire.server.audit.noting import Notes
    from tomowire.server.records import Records

__all__ = ["NewToken", "Principal", "Role", "Token", "User", "Users"]

T = TypeVar("T")

logger: Final = logging.getLogger("tomowire.users")

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}")
_LEAST_PASSWORD: Final = 8
_MOST_PASSWORD: Final = 1024
_MOST_DESCRIPTION: Final = 200
_TOKEN: Final = re.compile(r"tw_[0-9a-f]{12}_[A-Za-z0-9_-]{43}")
_TOKEN_PREFIX: Final = "tw_"
_MOST_REMEMBERED: Final = 256


class Users:
    """`async with Users(records) as users`. `clock` gives seconds since 1970.

    Methods raise `IndexUnavailable` when the database cannot be used now, and `UsageError` for a name, a password or a description
    that cannot be. Programs with the same database see each other's changes at once.

    With `notes` each change is in the audit trail too, in the same transaction, as one of who runs this process.
    """

    def __init__(
        self,
        records: Records,
        *,
        passwords: Passwords | None = None,
        clock: Callable[[], float] = time.time,
        notes: Notes | None = None,
    ) -> None:
        self._records = records
        self._notes = notes
        self._passwords = passwords or Passwords()
        self._clock = clock
        self._key = secrets.token_bytes(32)
        self._right: OrderedDict[bytes, None] = OrderedDict()

    async def by_password(self, name: str, password: str) -> Principal | None:
        """Who has this name and password; None if nobody has, after the same time for a name that nobody has.

        A password that was right is right again without argon2, as long as what the database holds stays the same. Raises
        `TooManyLogins` if too many wait for argon2.
        """
        known = await self._records.read(lambda connection: _rows().find(connection, name)) if _is_name(name) else None
        hashed = known.password_hash if known is not None else ""
        given = _normal(password)
        fingerprint = self._fingerprint(name, hashed, given)
        if hashed and fingerprint in self._right:
            self._right.move_to_end(fingerprint)
        else:
            found = await self._passwords.verify(hashed, given)
            if not found.is_right:
                return None
            if found.renewed is not None:
                await self._renew(name, hashed, found.renewed)
            self._remember(fingerprint)
        return Principal(name, Role(known.role)) if known is not None else None

    async def by_token(self, token: str) -> Principal | None:
        """Who has this token; None if nobody has, or it has expired."""
        if not _TOKEN.fullmatch(token):
            return None
        digest, now = _digest(token), self._now()
        found = await self._records.read(lambda connection: _rows().by_token(connection, digest, now))
        return Principal(found.user_name, Role(found.role)) if found is not None else None

    async def any(self) -> bool:
        """Whether there is a user."""
        return await self._records.read(lambda connection: _rows().any_user(connection))

    async def list(self) -> Sequence[User]:
        """All users, by name."""
        found = await self._records.read(lambda connection: _rows().users_by_name(connection))
        return [_user(row) for row in found]

    async def get(self, name: str) -> User:
        """Raises `UnknownUser`."""
        found = await self._records.read(lambda connection: _rows().find(connection, name)) if _is_name(name) else None
        if found is None:
            raise UnknownUser(f"there is no user {name!r}")
        return _user(found)

    async def add(self, name: str, role: Role, password: str | None = None) -> User:
        """A new user. Raises `UserExists`."""
        if not _is_name(name):
            raise UsageError(
                f"{name!r} is no name for a user: it has 1 to 64 letters and digits of ASCII, and . _ @ + - after the first"
            )
        hashed = await self._passwords.hash(_new_password(password)) if password is not None else ""
        now = self._now()
        await self._change(
            lambda connection: _rows().add(connection, name, hashed, role, now), f"user {name} added as {role}"
        )
        return User(name, role, _time(now), bool(hashed))

    async def change(self, name: str, *, role: Role | None = None, password: str | None = None) -> User:
        """Another role, another password. Raises `UnknownUser`, `LastAdministrator`."""
        hashed = await self._passwords.hash(_new_password(password)) if password is not None else None
        await self._change(
            lambda connection: _rows().change(connection, name, role, hashed),
            changed_in_words(name, role, has_new_password=hashed is not None),
        )
        return await self.get(name)

    async def remove(self, name: str) -> None:
        """The user is no more, and its tokens are of no use. Raises `UnknownUser`, `LastAdministrator`."""
        await self._change(lambda connection: _rows().remove(connection, name), f"user {name} removed")

    async def make_token(self, name: str, *, description: str = "", expires_at: datetime | None = None) -> NewToken:
        """A token for a user. Raises `UnknownUser`, and `UsageError` for a time that is over already, has no time zone, or has left
        the calendar."""
        _check_description(description)
        now = self._now()
        until = _microseconds(expires_at) if expires_at is not None else None
        if until is not None and until <= now:
            raise UsageError("a token cannot have expired before it is made")
        try:
            expires = _time(until) if until is not None else None
        except OverflowError:
            raise UsageError(f"the time {expires_at} is in the year 10000 in UTC") from None
        secret = self.new_secret()
        token_id, digest = _id_of(secret), _digest(secret)
        await self._change(
            lambda connection: _rows().add_token(connection, token_id, digest, name, description, now, until),
            f"token {token_id} of {name} made",
        )
        return NewToken(Token(token_id, name, description, _time(now), expires), secret)

    async def tokens(self, name: str | None = None) -> Sequence[Token]:
        """The tokens of a user, or of all, those that have expired included. Raises `UnknownUser`."""
        found = await self._records.read(lambda connection: _rows().tokens_of(connection, name))
        return [_token(row) for row in found]

    async def revoke(self, token_id: str) -> Token:
        """The token is of no use any more. Gives what was known of it; raises `UnknownUser`."""
        return _token(
            await self._change(lambda connection: _rows().revoke(connection, token_id), f"token {token_id} revoked")
        )

    @staticmethod
    def new_secret() -> str:
        """A token, for `make_first`: nobody has it yet."""
        return f"{_TOKEN_PREFIX}{secrets.token_hex(6)}_{secrets.token_urlsafe(32)}"

    async def make_first(self, name: str, secret: str) -> bool:
        """If there is no user, make an administrator who has this token and no password. Raises `UserExists`."""
        now = self._now()
        return await self._records.write(
            lambda connection: _rows().first_administrator(connection, name, _id_of(secret), _digest(secret), now)
        )

    async def close(self) -> None:
        """End the threads."""
        await self._passwords.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _change(self, work: Callable[[Connection], T], what: str) -> T:
        await asyncio.to_thread(_rows)  # what is imported in a transaction keeps all waiting who store
        if self._notes is None:
            return await self._records.write(work)
        return await self._notes.write(work, ConfigurationChanged(by=person(), change=Change.USER, what=what))

    async def _renew(self, name: str, old: str, new: str) -> None:
        """Who has the right password is let in whether or not a better hash of it can be kept now."""
        try:
            await self._records.write(lambda connection: _rows().renew(connection, name, old, new))
        except IndexUnavailable as error:
            logger.warning("the password hash of %s was not made anew: %s", name, error)

    def _remember(self, fingerprint: bytes) -> None:
        self._right[fingerprint] = None
        while len(self._right) > _MOST_REMEMBERED:
            self._right.popitem(last=False)

    def _fingerprint(self, name: str, hashed: str, password: bytes) -> bytes:
        """Of a password, for what the database holds of its user: after any change it is another one. The key is this process's."""
        parts = (name.encode("utf-8", "surrogatepass"), hashed.encode("ascii", "replace"), password)
        return hmac.digest(self._key, b"".join(len(part).to_bytes(4, "big") + part for part in parts), "sha256")

    def _now(self) -> int:
        return int(self._clock() * 1_000_000)


def _rows() -> ModuleType:
    """Imported by the thread that works on the database: SQLAlchemy takes its time."""
    from tomowire.server import user_records

    return user_records


def _id_of(secret: str) -> str:
    return secret.removeprefix(_TOKEN_PREFIX).partition("_")[0]


def _digest(secret: str) -> bytes:
    return sha256(secret.encode("ascii")).digest()


def _is_name(name: object) -> bool:
    return isinstance(name, str) and _NAME.fullmatch(name) is not None


def _normal(password: str) -> bytes:
    """The same for what looks the same: keyboards differ in how they write an umlaut (RFC 8265 4.2.2). What is no text, or too long
    to be looked at, becomes what is nobody's password."""
    if len(password) > _MOST_PASSWORD:
        return b""
    return unicodedata.normalize("NFC", password).encode("utf-8", "surrogatepass")


def _new_password(password: str) -> bytes:
    if not _LEAST_PASSWORD <= len(password) <= _MOST_PASSWORD:
        raise UsageError(f"a password has {_LEAST_PASSWORD} to {_MOST_PASSWORD} characters")
    try:
        password.encode("utf-8")
    except UnicodeEncodeError:
        raise UsageError("the password is not text in UTF-8") from None
    if not password.isprintable():
        raise UsageError("a password has no control characters")
    return _normal(password)


def _check_description(description: str) -> None:
    if len(description) > _MOST_DESCRIPTION or not description.isprintable():
        raise UsageError(f"a description has up to {_MOST_DESCRIPTION} characters, and no control characters")


_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def _time(microseconds: int) -> datetime:
    return _EPOCH + timedelta(microseconds=microseconds)


def _microseconds(when: datetime) -> int:
    if when.tzinfo is None:
        raise UsageError(f"the time {when} has no time zone")
    return (when - _EPOCH) // timedelta(microseconds=1)


def _user(row: object) -> User:
    return User(row.user_name, Role(row.role), _time(row.created_at), bool(row.password_hash))  # type: ignore[attr-defined]


def _token(row: object) -> Token:
    expires = row.expires_at  # type: ignore[attr-defined]
    return Token(
        row.token_id,  # type: ignore[attr-defined]
        row.user_name,  # type: ignore[attr-defined]
        row.description,  # type: ignore[attr-defined]
        _time(row.created_at),  # type: ignore[attr-defined]
        _time(expires) if expires is not None else None,
    )
