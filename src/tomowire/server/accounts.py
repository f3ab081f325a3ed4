"""Users of the archive over HTTP, as values: their roles, and their tokens."""

from __future__ import annotations

from enum import Enum
from functools import total_ordering
from typing import TYPE_CHECKING

from tomowire.errors import UsageError
from tomowire.wire.value import value

if TYPE_CHECKING:
    from datetime import datetime


@total_ordering
class Role(Enum):
    """What a user may do over HTTP; who is more may do all that those below may. The text is how it is written."""

    READER = "reader"
    """Look at all there is, objects included."""
    OPERATOR = "operator"
    """Send, retrieve and delete besides, and look after jobs, associations and the log."""
    ADMINISTRATOR = "administrator"
    """Look after users, tokens, nodes and the configuration besides, see the audit trail, and end the archive."""

    def __lt__(self, other: object) -> bool:
        if not isinstance(other, Role):
            return NotImplemented
        roles = list(Role)
        return roles.index(self) < roles.index(other)

    def __str__(self) -> str:
        return self.value

    @classmethod
    def read(cls, text: str) -> Role:
        """Raises `UsageError`."""
        try:
            return cls(text)
        except ValueError:
            raise UsageError(f"{text!r} is not a role; there are {', '.join(map(str, cls))}") from None


@value()
class Principal:
    """Who has logged in."""

    name: str
    role: Role


@value()
class User:
    """A user. Without a password only its tokens can log in."""

    name: str
    role: Role
    created_at: datetime
    has_password: bool = True


@value()
class Token:
    """What is known of a token: not the token itself. `expires_at` of None is never."""

    token_id: str
    user_name: str
    description: str
    created_at: datetime
    expires_at: datetime | None = None


@value()
class NewToken:
    """A token that has just been made. `secret` is what its holder shows; it is not kept, and cannot be had again."""

    token: Token
    secret: str

    def __repr__(self) -> str:
        return f"NewToken({self.token!r}, '...')"


def changed_in_words(name: str, role: Role | None, *, has_new_password: bool) -> str:
    """What is different about a user now, for the log and the audit trail."""
    parts = [f"is {role} now"] if role is not None else []
    parts += ["has another password"] if has_new_password else []
    return f"user {name} {' and '.join(parts) or 'stays as it is'}"
