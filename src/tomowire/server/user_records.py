"""Users and tokens in the database: the work that `Users` gives to `Records`. This module imports SQLAlchemy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import Row, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from tomowire.errors import LastAdministrator, UnknownUser, UserExists
from tomowire.server.accounts import Role
from tomowire.server.index.administration import tokens, users

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection


def find(connection: Connection, name: str) -> Row[Any] | None:
    return connection.execute(select(users).where(users.c.user_name == name)).one_or_none()


def any_user(connection: Connection) -> bool:
    return connection.execute(select(users.c.user_name).limit(1)).first() is not None


def users_by_name(connection: Connection) -> Sequence[Row[Any]]:
    return connection.execute(select(users).order_by(users.c.user_name)).all()


def add(connection: Connection, name: str, password_hash: str, role: Role, now: int) -> None:
    row = {"user_name": name, "password_hash": password_hash, "role": role.value, "created_at": now}
    try:
        connection.execute(insert(users), row)
    except IntegrityError as error:
        raise UserExists(f"there is a user {name!r} already") from error


def renew(connection: Connection, name: str, old: str, new: str) -> None:
    """Keep `new` for the same password, unless it has been changed meanwhile."""
    connection.execute(
        update(users).where(users.c.user_name == name, users.c.password_hash == old).values(password_hash=new)
    )


def change(connection: Connection, name: str, role: Role | None, password_hash: str | None) -> None:
    if role is not None and role is not Role.ADMINISTRATOR:
        _leave_an_administrator(connection, name)
    values = {"role": role.value if role is not None else None, "password_hash": password_hash}
    given = {key: each for key, each in values.items() if each is not None}
    if not given:
        return
    changed = connection.execute(update(users).where(users.c.user_name == name).values(given))
    if not changed.rowcount:
        raise _unknown(name)


def remove(connection: Connection, name: str) -> None:
    _leave_an_administrator(connection, name)
    connection.execute(delete(tokens).where(tokens.c.user_name == name))
    if not connection.execute(delete(users).where(users.c.user_name == name)).rowcount:
        raise _unknown(name)


def by_token(connection: Connection, digest: bytes, now: int) -> Any:
    """The user of a token that has not expired, None for no such token."""
    statement = (
        select(users.c.user_name, users.c.role)
        .join(tokens, tokens.c.user_name == users.c.user_name)
        .where(tokens.c.token_hash == digest, tokens.c.expires_at.is_(None) | (tokens.c.expires_at > now))
    )
    return connection.execute(statement).one_or_none()


def add_token(
    connection: Connection,
    token_id: str,
    digest: bytes,
    name: str,
    description: str,
    now: int,
    expires_at: int | None,
) -> None:
    _known(connection, name)
    row = {
        "token_id": token_id,
        "token_hash": digest,
        "user_name": name,
        "description": description,
        "created_at": now,
        "expires_at": expires_at,
    }
    try:
        connection.execute(insert(tokens), row)
    except IntegrityError as error:  # somebody has removed the user at this moment
        raise _unknown(name) from error


def tokens_of(connection: Connection, name: str | None) -> Sequence[Row[Any]]:
    statement = select(tokens).order_by(tokens.c.user_name, tokens.c.created_at, tokens.c.token_id)
    if name is not None:
        _known(connection, name)
        statement = statement.where(tokens.c.user_name == name)
    return connection.execute(statement).all()


def revoke(connection: Connection, token_id: str) -> Row[Any]:
    is_meant = tokens.c.token_id == token_id
    found = connection.execute(select(tokens).where(is_meant)).one_or_none()
    if found is None:
        raise UnknownUser(f"there is no token {token_id!r}")
    connection.execute(delete(tokens).where(is_meant))
    return found


def first_administrator(connection: Connection, name: str, token_id: str, digest: bytes, now: int) -> bool:
    """Add an administrator who has this token and no password, if there is no user at all."""
    if connection.execute(select(func.count()).select_from(users)).scalar_one():
        return False
    add(connection, name, "", Role.ADMINISTRATOR, now)
    add_token(connection, token_id, digest, name, "made at the first start", now, None)
    return True


def _leave_an_administrator(connection: Connection, name: str) -> None:
    """Raises `LastAdministrator` if `name` is the only one.

    All of them are locked until the end of the transaction: of two programs that remove one each, the second sees what the first
    did.
    """
    statement = select(users.c.user_name).where(users.c.role == Role.ADMINISTRATOR.value)
    there = connection.execute(statement.order_by(users.c.user_name).with_for_update()).scalars().all()
    if there == [name]:
        raise LastAdministrator(f"{name!r} is the last administrator: make another one first")


def _known(connection: Connection, name: str) -> Row[Any]:
    found = find(connection, name)
    if found is None:
        raise _unknown(name)
    return found


def _unknown(name: str) -> UnknownUser:
    return UnknownUser(f"there is no user {name!r}")
