"""The options for who the user is (PS3.7 D.3.3.7), of commands that call. Secrets come from files or the environment.

Every user of a machine sees the command lines of the others.
"""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from tomowire.cli.running import complain
from tomowire.errors import UsageError
from tomowire.wire.user_identity import IdentityType, UserIdentity

if TYPE_CHECKING:
    from collections.abc import Callable

    from tomowire.aio.tls import TlsClient

T = TypeVar("T")

PASSCODE: Final = "TOMOWIRE_PASSCODE"
"""The environment variable."""

_MOST: Final = 65_000
"""Bytes: an item of an association request has room for 65,535, and there is more in it."""

_FILE: Final = click.Path(exists=True, dir_okay=False, path_type=Path)
_WAYS: Final = "--user, --kerberos, --saml and --jwt are four ways to say who the user is: one is enough"

_OPTIONS: Final = (
    click.option("--user", help=f"Name of the user. A passcode comes from --passcode-file or from {PASSCODE}."),
    click.option("--passcode-file", type=_FILE, help="File with the passcode of --user."),
    click.option("--kerberos", type=_FILE, help="File with a Kerberos service ticket of the user's."),
    click.option("--saml", type=_FILE, help="File with a SAML assertion of who the user is."),
    click.option("--jwt", type=_FILE, help="File with a JSON web token of who the user is."),
    click.option(
        "--identity-required",
        is_flag=True,
        help="Go on only if the peer says that it knows the user: many do not look.",
    ),
)


def identity_options(command: Callable[..., T]) -> Callable[..., T]:
    """The command gets `identity`, as keyword arguments for `associate`."""

    @functools.wraps(command)
    def gathered(
        *,
        user: str | None,
        passcode_file: Path | None,
        kerberos: Path | None,
        saml: Path | None,
        jwt: Path | None,
        identity_required: bool,
        **others: Any,
    ) -> T:
        if sum(each is not None for each in (user, kerberos, saml, jwt)) > 1:
            raise click.UsageError(_WAYS)
        if passcode_file is not None and user is None:
            raise click.UsageError("--passcode-file needs --user")
        try:
            identity = _identity(user, passcode_file, kerberos, saml, jwt)
        except UsageError as error:
            raise click.UsageError(str(error)) from None
        if identity_required and identity is None:
            raise click.UsageError(
                "--identity-required needs to know who the user is: --user, --kerberos, --saml or --jwt"
            )
        given = {"identity": identity, "identity_required": identity_required} if identity is not None else {}
        return command(identity=given, **others)

    decorated: Callable[..., T] = gathered
    for option in reversed(_OPTIONS):  # decorators work from the bottom up
        decorated = option(decorated)
    return decorated


def warn_of_secrets(identity: UserIdentity | None, tls: TlsClient | None) -> None:
    """Say it where something secret goes over the network as it is."""
    if identity is not None and tls is None and identity.identity_type != IdentityType.USER_NAME:
        complain("warning: without TLS what proves who the user is goes over the network as it is")


def _identity(
    user: str | None, passcode_file: Path | None, kerberos: Path | None, saml: Path | None, jwt: Path | None
) -> UserIdentity | None:
    """Raises `UsageError`."""
    if user is not None:
        passcode = _line(passcode_file) if passcode_file is not None else os.fsencode(os.environ.get(PASSCODE, ""))
        return UserIdentity.name(user) if not passcode else UserIdentity.name_and_passcode(user, passcode)
    if kerberos is not None:
        return UserIdentity.kerberos(_content(kerberos))
    if saml is not None:
        return UserIdentity.saml(_content(saml))
    return UserIdentity.jwt(_content(jwt).strip()) if jwt is not None else None


def _line(path: Path) -> bytes:
    """The content without the end of the line that an editor puts behind it."""
    content = _content(path).removesuffix(b"\n").removesuffix(b"\r")
    if not content:
        raise UsageError(f"{path}: the file is empty")
    return content


def _content(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(_MOST + 1)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from error
    if not content.strip():
        raise UsageError(f"{path}: the file is empty")
    if len(content) > _MOST:
        raise UsageError(f"{path}: an association request has no room for more than {_MOST} bytes of who the user is")
    return content
