"""Users and their tokens."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Annotated, Final

from fastapi import Path
from pydantic import Field, SecretStr, StringConstraints

from tomowire.errors import LastAdministrator, UnknownUser, UsageError, UserExists
from tomowire.server.accounts import changed_in_words
from tomowire.server.audit.events import Change, ConfigurationChanged
from tomowire.server.users import Role, Token
from tomowire.web.api.models import Model, Moment
from tomowire.web.api.operation import Asked, Here, operation, topic
from tomowire.web.forms import TOKEN_ID, USER_NAME, Text
from tomowire.web.problems import Problem

logger: Final = logging.getLogger("tomowire.http")

router = topic("users")

UserName = Annotated[str, StringConstraints(pattern=USER_NAME), Field(examples=["jane"])]
UserNamePath = Annotated[str, Path(pattern=USER_NAME, description="The name of a user.", examples=["jane"])]
TokenIdPath = Annotated[str, Path(pattern=TOKEN_ID, description="`id` of a token.", examples=["0123456789ab"])]
Password = Annotated[SecretStr, Field(min_length=8, max_length=1024)]

_LOCKED_OUT: Final = (
    "the first user is to be an administrator, with a password: from then on everybody has to log in, and nobody else could"
    " add others"
)


_PATIENCE: Final = 10.0
"""Seconds to wait for a database that has been written to a moment ago."""


class KnownUser(Model):
    """A user."""

    name: str
    role: Role
    created_at: datetime
    has_password: bool = Field(description="Without one only tokens can log in.")


class Users(Model):
    """All users, by name."""

    users: list[KnownUser]


class NewUser(Model):
    """A user to be added."""

    name: UserName
    role: Role = Role.READER
    password: Password | None = None


class UserChange(Model):
    """What is to be different; null stays as it is."""

    role: Role | None = None
    password: Password | None = None


class KnownToken(Model):
    """A token, but for its secret."""

    id: str
    user: str
    description: str
    created_at: datetime
    expires_at: datetime | None = Field(description="Null is never.")


class Tokens(Model):
    """Tokens, the oldest first."""

    tokens: list[KnownToken]


class TokenRequest(Model):
    """A token to be made."""

    description: Annotated[Text, StringConstraints(max_length=200)] = Field("", examples=["the router in building 3"])
    expires_at: Moment | None = Field(None, description="Null is never.")


class NewToken(KnownToken):
    """A token that has just been made."""

    token: str = Field(description="What its holder shows. It is not kept, and cannot be had again.")


class Me(Model):
    """Who asks."""

    name: str
    role: Role


@router.get("/me", **operation("getMe", Role.READER))
async def get_me(here: Here) -> Me:
    """Who asks, as the archive sees it."""
    return Me(name=here.principal.name, role=here.principal.role)


@router.get("/users", **operation("listUsers", Role.ADMINISTRATOR))
async def list_users(here: Here) -> Users:
    """All users, by name."""
    return Users(users=[KnownUser.model_validate(each) for each in await here.archive.users.list()])


@router.post("/users", status_code=201, **operation("addUser", Role.ADMINISTRATOR, 409, body=True))
async def add_user(here: Here, request: NewUser) -> KnownUser:
    """Add a user. With the first one, everybody has to log in from then on: it is an administrator with a password."""
    can_add_others = request.role is Role.ADMINISTRATOR and request.password is not None
    if not can_add_others and not await here.archive.users.any():
        raise Problem(409, _LOCKED_OUT)
    async with _changing(here, f"user {request.name} added as {request.role}"):
        made = await here.archive.users.add(request.name, request.role, _revealed(request.password))
    return KnownUser.model_validate(made)


@router.get("/users/{name}", **operation("getUser", Role.ADMINISTRATOR, 404))
async def get_user(here: Here, name: UserNamePath) -> KnownUser:
    """One user."""
    async with _explained():
        return KnownUser.model_validate(await here.archive.users.get(name))


@router.patch("/users/{name}", **operation("changeUser", Role.ADMINISTRATOR, 404, 409, body=True))
async def change_user(here: Here, name: UserNamePath, request: UserChange) -> KnownUser:
    """Another role, another password."""
    what = changed_in_words(name, request.role, has_new_password=request.password is not None)
    async with _changing(here, what):
        changed = await here.archive.users.change(name, role=request.role, password=_revealed(request.password))
    return KnownUser.model_validate(changed)


@router.delete("/users/{name}", status_code=204, **operation("removeUser", Role.ADMINISTRATOR, 404, 409))
async def remove_user(here: Here, name: UserNamePath) -> None:
    """Remove a user: its password and its tokens are of no use any more. The last administrator stays."""
    async with _changing(here, f"user {name} removed"):
        await here.archive.users.remove(name)


@router.get("/users/{name}/tokens", **operation("listUserTokens", Role.ADMINISTRATOR, 404))
async def list_user_tokens(here: Here, name: UserNamePath) -> Tokens:
    """The tokens of a user."""
    async with _explained():
        return Tokens(tokens=[_shown(each) for each in await here.archive.users.tokens(name)])


@router.post("/users/{name}/tokens", status_code=201, **operation("makeToken", Role.ADMINISTRATOR, 404, 409, body=True))
async def make_token(here: Here, name: UserNamePath, request: TokenRequest) -> NewToken:
    """A token for a user, with the user's role. It is shown now and never again."""
    async with _changing(here, f"token of {name} made"):
        made = await here.archive.users.make_token(name, description=request.description, expires_at=request.expires_at)
    return NewToken(**_shown(made.token).model_dump(), token=made.secret)


@router.delete("/tokens/{token_id}", status_code=204, **operation("revokeToken", Role.ADMINISTRATOR, 404))
async def revoke_token(here: Here, token_id: TokenIdPath) -> None:
    """Revoke a token: it is of no use any more."""
    async with _changing(here, f"token {token_id} revoked"):
        await here.archive.users.revoke(token_id)


@asynccontextmanager
async def _explained() -> AsyncIterator[None]:
    try:
        yield
    except UnknownUser as error:
        raise Problem(404, str(error)) from None
    except (UserExists, LastAdministrator) as error:
        raise Problem(409, str(error)) from None
    except UsageError as error:  # what a schema cannot say, such as which characters can be seen
        raise Problem(400, str(error)) from None


@asynccontextmanager
async def _changing(here: Asked, what: str) -> AsyncIterator[None]:
    """A change of who may log in: what came of it is written down, and then answered. Nothing else tells of it afterwards."""
    async with _explained():
        yield
    logger.warning("%s, by %s", what, here.principal.name)
    here.archive.audit.record(ConfigurationChanged(by=here.party, change=Change.USER, what=what))
    await here.archive.audit.flush(_PATIENCE)


def _revealed(password: SecretStr | None) -> str | None:
    return password.get_secret_value() if password is not None else None


def _shown(token: Token) -> KnownToken:
    return KnownToken(
        id=token.token_id,
        user=token.user_name,
        description=token.description,
        created_at=token.created_at,
        expires_at=token.expires_at,
    )
