"""What the commands for users share: passwords, which never stand in a command line, lifetimes, and the way to the users."""

from __future__ import annotations

import functools
import re
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from tomowire.cli.running import ExitCode, complain, run
from tomowire.errors import LastAdministrator, UnknownUser, UsageError, UserExists

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from tomowire.server.settings import Settings
    from tomowire.server.users import Users

T = TypeVar("T")

_UNITS: Final = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1), "y": timedelta(days=365)}
_LIFETIME: Final = re.compile(r"([1-9][0-9]{0,5}) ?([hdwy])")
_MOST_READ: Final = 8192


class RoleType(click.Choice[str]):
    """A role by its name."""

    def __init__(self) -> None:
        super().__init__(["reader", "operator", "administrator"])

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        from tomowire.server.accounts import Role

        return Role(super().convert(value, param, ctx))


class Lifetime(click.ParamType["datetime"]):
    """How long something lasts, or the day on which it ends; gives the moment when it does."""

    name = "lifetime"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        if isinstance(value, datetime):
            return value
        match = _LIFETIME.fullmatch(value)
        try:
            if match is not None:
                return datetime.now(UTC) + int(match[1]) * _UNITS[match[2]]
            end = datetime.fromisoformat(value)
        except (ValueError, OverflowError):
            self.fail(f"{value!r} is no time: write 90d (h, d, w, y), or a day such as 2030-12-31.", param, ctx)
        return end if end.tzinfo is not None else end.astimezone()


def password_options(*, may_be_none: bool) -> Callable[[Callable[..., T]], Callable[..., T]]:
    """A command gets `password`; None if it `may_be_none` and a person wants none."""

    def with_options(command: Callable[..., T]) -> Callable[..., T]:
        @functools.wraps(command)
        def gathered(*, password_file: str | None, no_password: bool = False, **others: Any) -> T:
            if no_password and password_file is not None:
                raise click.UsageError("--no-password and --password-file: only one of the two")
            return command(password=None if no_password else _password(password_file), **others)

        decorated: Callable[..., T] = gathered
        if may_be_none:
            none = click.option("--no-password", is_flag=True, help="No password: only tokens of the user can log in.")
            decorated = none(decorated)
        return click.option(
            "--password-file",
            type=click.Path(exists=True, dir_okay=False, allow_dash=True),
            metavar="FILE",
            help="The password is the first line of FILE; - is standard input. Without this it is asked for.",
        )(decorated)

    return with_options


def _password(file: str | None) -> str:
    if file is None:
        if not sys.stdin.isatty():
            raise click.UsageError("there is no terminal to ask for the password: use --password-file, - for stdin")
        asked: str = click.prompt("Password", hide_input=True, confirmation_prompt="The same again", err=True)
        return asked
    if file == "-":
        content = sys.stdin.buffer.read(_MOST_READ)
    else:
        with Path(file).open("rb") as opened:
            content = opened.read(_MOST_READ)
    try:
        return content.decode("utf-8-sig").partition("\n")[0].removesuffix("\r")
    except UnicodeDecodeError:
        raise click.UsageError("the password is not text in UTF-8") from None


def with_users(settings: Settings, work: Callable[[Users], Awaitable[None]]) -> None:
    """Do `work` with the users of an archive, which may be running, and end the process."""
    run(_with_users(settings, work))


async def _with_users(settings: Settings, work: Callable[[Users], Awaitable[None]]) -> int:
    import asyncio

    from tomowire.server.audit.noting import Notes
    from tomowire.server.index.backend import backend_for
    from tomowire.server.records import Records
    from tomowire.server.users import Users

    backend = backend_for(settings.index_url, settings.data_dir)
    await asyncio.to_thread(_check, backend)
    async with Records(backend.engine) as records, Users(records, notes=Notes(records, settings)) as users:
        try:
            await work(users)
        except (UnknownUser, UserExists, LastAdministrator) as error:
            complain(str(error))
            return ExitCode.FAILED
    return ExitCode.OK


def _check(backend: Any) -> None:
    """Raises `UsageError` for what is no index, or not a current one."""
    if backend.is_empty():
        raise UsageError(f"there is no archive yet at {backend.name}: 'tomowire serve' makes one")
    backend.open_reader().close()


def columns(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterable[str]:
    """Lines of a table; nothing at all, without a row."""
    table = [titles, *rows]
    if len(table) == 1:
        return
    widths = [max(len(row[place]) for row in table) for place in range(len(titles))]
    for row in table:
        yield "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
