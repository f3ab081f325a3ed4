"""`tomowire user`: who may use the archive over HTTP."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from tomowire.cli.accounts import Lifetime, RoleType, columns, password_options, with_users
from tomowire.cli.configured import settings_options
from tomowire.cli.options import json_option
from tomowire.cli.running import complain, printable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from tomowire.server.accounts import Role, Token, User
    from tomowire.server.settings import Settings
    from tomowire.server.users import Users


@click.group
def command() -> None:
    """Who may use the archive over HTTP: users and their tokens. The archive may be running.

    \b
    Roles, each of which may do all that those before it may:
      reader         look at what is stored, and at how the archive is
      operator       send, retrieve and delete, and look after jobs and the log
      administrator  users, nodes, configuration, audit trail, shutdown
    """


@command.command
@click.argument("name")
@click.option("--role", type=RoleType(), default="reader", show_default=True, help="What the user may do.")
@password_options(may_be_none=True)
@settings_options
def add(name: str, role: Role, password: str | None, settings: Settings) -> None:
    """Add a user."""

    async def work(users: Users) -> None:
        user = await users.add(name, role, password)
        complain(f"{user.name} is {_a(user.role)} now")
        if all(str(each.role) != "administrator" for each in await users.list()):
            complain(
                "warning: nobody is an administrator, and over HTTP nobody can change users, nodes or the configuration:"
                f" 'tomowire user role {user.name} administrator' makes {user.name} one",
                "warning",
            )

    with_users(settings, work)


@command.command("list")
@json_option
@settings_options
def list_users(as_json: bool, settings: Settings) -> None:
    """List the users."""

    async def work(users: Users) -> None:
        found = await users.list()
        if as_json:
            click.echo(json.dumps({"users": [_facts(user) for user in found]}))
            return
        rows = [
            (user.name, str(user.role), "yes" if user.has_password else "no", _day(user.created_at)) for user in found
        ]
        _show(("NAME", "ROLE", "PASSWORD", "SINCE"), rows)

    with_users(settings, work)


@command.command
@click.argument("name")
@settings_options
def remove(name: str, settings: Settings) -> None:
    """Remove a user, with all tokens of the user's."""

    async def work(users: Users) -> None:
        await users.remove(name)
        complain(f"{name} is no user any more")

    with_users(settings, work)


@command.command
@click.argument("name")
@password_options(may_be_none=False)
@settings_options
def password(name: str, password: str, settings: Settings) -> None:
    """Give a user another password. Tokens go on to be good."""

    async def work(users: Users) -> None:
        await users.change(name, password=password)
        complain(f"{name} has another password now")

    with_users(settings, work)


@command.command
@click.argument("name")
@click.argument("role", type=RoleType())
@settings_options
def role(name: str, role: Role, settings: Settings) -> None:
    """Give a user another role."""

    async def work(users: Users) -> None:
        user = await users.change(name, role=role)
        complain(f"{user.name} is {_a(user.role)} now")

    with_users(settings, work)


@command.group
def token() -> None:
    """Tokens, for programs: one is shown as 'Authorization: Bearer tw_...', and may do what its user may."""


@token.command("add")
@click.argument("name")
@click.option("--description", default="", metavar="TEXT", help="What it is for.")
@click.option("--expires", type=Lifetime(), metavar="WHEN", help="90d (h, d, w, y) from now, or a day. Default: never.")
@settings_options
def add_token(name: str, description: str, expires: datetime | None, settings: Settings) -> None:
    """Make a token for a user, and print it: it cannot be shown again."""

    async def work(users: Users) -> None:
        made = await users.make_token(name, description=description, expires_at=expires)
        click.echo(made.secret)
        ends = f"until {_day(expires)}" if expires is not None else "until it is revoked"
        complain(f"token {made.token.token_id} of {name}, good {ends}; it cannot be shown again")

    with_users(settings, work)


@token.command("list")
@click.argument("name", required=False)
@json_option
@settings_options
def list_tokens(name: str | None, as_json: bool, settings: Settings) -> None:
    """List the tokens of a user, or of all; not the tokens themselves."""

    async def work(users: Users) -> None:
        found = await users.tokens(name)
        if as_json:
            click.echo(json.dumps({"tokens": [_token_facts(each) for each in found]}))
            return
        rows = [
            (
                each.token_id,
                each.user_name,
                _day(each.created_at),
                _day(each.expires_at) if each.expires_at is not None else "never",
                each.description,
            )
            for each in found
        ]
        _show(("ID", "USER", "SINCE", "EXPIRES", "DESCRIPTION"), rows)

    with_users(settings, work)


@token.command
@click.argument("token_id", metavar="ID")
@settings_options
def revoke(token_id: str, settings: Settings) -> None:
    """Make a token useless, from this moment on. ID is what stands after 'tw_' in it."""

    async def work(users: Users) -> None:
        gone = await users.revoke(token_id)
        complain(f"token {gone.token_id} of {gone.user_name} is revoked")

    with_users(settings, work)


def _show(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    for line in columns(titles, rows):
        click.echo(printable(line))


def _facts(user: User) -> dict[str, Any]:
    return {
        "name": user.name,
        "role": str(user.role),
        "has_password": user.has_password,
        "created_at": user.created_at.isoformat(),
    }


def _token_facts(token: Token) -> dict[str, Any]:
    return {
        "id": token.token_id,
        "user": token.user_name,
        "description": token.description,
        "created_at": token.created_at.isoformat(),
        "expires_at": token.expires_at.isoformat() if token.expires_at is not None else None,
    }


def _a(role: Role) -> str:
    return f"{'an' if str(role)[0] in 'ao' else 'a'} {role}"


def _day(when: datetime) -> str:
    return f"{when.astimezone():%Y-%m-%d %H:%M}"
