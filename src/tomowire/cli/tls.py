"""The options for TLS: of commands that call, and of those that listen."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from tomowire.aio.tls_profiles import DEFAULT_PROFILE, TlsProfile
from tomowire.cli.running import complain
from tomowire.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from tomowire.aio.tls import TlsClient


T = TypeVar("T")

PEM: Final = click.Path(exists=True, dir_okay=False, path_type=Path)

_PROFILE: Final = click.option(
    "--tls-profile",
    type=click.Choice([each.value for each in TlsProfile]),
    default=DEFAULT_PROFILE.value,
    show_default=True,
    help="Secure transport connection profile (PS3.15 Annex B).",
)
_CERTIFICATE: Final = "One's own certificate, PEM, followed by those between it and its authority."
_KEY: Final = "Its private key, if it is in another file."

_CLIENT_AUTH: Final = click.option(
    "--tls-client-auth",
    type=click.Choice(["none", "optional", "require"]),
    help="Whether callers must show a certificate. Default: require with --tls-ca, otherwise none.",
)

_CLIENT: Final = (
    click.option("--tls", is_flag=True, help="Use TLS. The other TLS options imply it."),
    click.option("--tls-ca", type=PEM, help="Authorities to trust, PEM. Default: the system's."),
    click.option("--tls-cert", type=PEM, help=_CERTIFICATE),
    click.option("--tls-key", type=PEM, help=_KEY),
    _PROFILE,
    click.option("--tls-server-name", help="The name that the peer's certificate must be for. Default: the host."),
    click.option("--tls-insecure", is_flag=True, help="Take any certificate: then nobody knows who the peer is."),
)
_SERVER: Final = (
    click.option("--tls-cert", type=PEM, help=f"Use TLS. {_CERTIFICATE}"),
    click.option("--tls-key", type=PEM, help=_KEY),
    click.option("--tls-ca", type=PEM, help="Authorities that may have signed callers' certificates, PEM."),
    _CLIENT_AUTH,
    _PROFILE,
)


def tls_client_options(command: Callable[..., T]) -> Callable[..., T]:
    """The options of a command that calls; it gets `tls`, for `associate`."""

    @functools.wraps(command)
    def gathered(
        *,
        tls: bool,
        tls_ca: Path | None,
        tls_cert: Path | None,
        tls_key: Path | None,
        tls_profile: str,
        tls_server_name: str | None,
        tls_insecure: bool,
        **others: Any,
    ) -> T:
        _check(tls_insecure and tls_ca is not None, "--tls-insecure takes any certificate: --tls-ca has no use with it")
        _check(tls_key is not None and tls_cert is None, "--tls-key needs --tls-cert")
        client = None
        if _is_given():
            from tomowire.aio.tls import TlsClient  # here and below: a program without TLS does not need it

            client = TlsClient(
                authorities=tls_ca,
                certificate=tls_cert,
                key=tls_key,
                server_hostname=tls_server_name,
                verify=not tls_insecure,
                profile=tls_profile,
            )
        if tls_insecure:
            complain("warning: --tls-insecure: the peer's certificate is not verified, it may be anybody's")
        return command(tls=client, **others)

    return _decorated(gathered, _CLIENT)


def tls_server_options(command: Callable[..., T]) -> Callable[..., T]:
    """The options of a command that listens; it gets `tls`, for `listen`."""

    @functools.wraps(command)
    def gathered(
        *,
        tls_cert: Path | None,
        tls_key: Path | None,
        tls_ca: Path | None,
        tls_client_auth: Any,
        tls_profile: str,
        **others: Any,
    ) -> T:
        _check(tls_cert is None and _is_given(), "TLS needs a certificate: --tls-cert")
        _check_client_auth(tls_client_auth, tls_ca)
        server = None
        if tls_cert is not None:
            from tomowire.aio.tls import TlsServer

            server = TlsServer(tls_cert, tls_key, authorities=tls_ca, verify=tls_client_auth, profile=tls_profile)
        return command(tls=server, **others)

    return _decorated(gathered, _SERVER)


def tls_receiving_options(command: Callable[..., T]) -> Callable[..., T]:
    """The options of a command that calls, and is called back; below `requestor_options`. It gets `receiving`, for `listen`."""

    @functools.wraps(command)
    def gathered(*, receive_tls: bool, tls_client_auth: Any, options: dict[str, Any], **others: Any) -> T:
        tls: TlsClient | None = options.get("ssl")
        _check(tls_client_auth is not None and not receive_tls, "--tls-client-auth is for --receive-tls")
        receiving = None
        if receive_tls:
            if tls is None or tls.certificate is None:
                raise click.UsageError("--receive-tls needs a certificate: --tls-cert")
            _check_client_auth(tls_client_auth, tls.authorities)
            from tomowire.aio.tls import TlsServer

            receiving = TlsServer(
                tls.certificate, tls.key, authorities=tls.authorities, verify=tls_client_auth, profile=tls.profile
            )
        return command(receiving=receiving, options=options, **others)

    receive = click.option(
        "--receive-tls",
        is_flag=True,
        help="With --method move: the objects come over TLS too, with --tls-cert as the certificate here.",
    )
    return _decorated(gathered, (receive, _CLIENT_AUTH))


def _check_client_auth(client_auth: str | None, authorities: object) -> None:
    wants = client_auth in ("optional", "require")
    _check(wants and authorities is None, f"--tls-client-auth {client_auth} needs --tls-ca")


@contextlib.contextmanager
def reloading(reload_tls: Callable[[], Awaitable[None]]) -> Iterator[None]:
    """In the block SIGHUP has the certificates read again. What cannot be used is said, and changes nothing."""
    number = getattr(signal, "SIGHUP", None)
    if number is None:  # Windows
        yield
        return
    loop = asyncio.get_running_loop()
    tasks: set[asyncio.Task[None]] = set()

    def on_signal() -> None:
        task = loop.create_task(_reload(reload_tls))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    loop.add_signal_handler(number, on_signal)
    try:
        yield
    finally:
        loop.remove_signal_handler(number)
        signal.signal(number, signal.SIG_IGN)  # one that comes late must not end what is being finished
        for task in tasks:
            task.cancel()


async def _reload(reload_tls: Callable[[], Awaitable[None]]) -> None:
    try:
        await reload_tls()
    except UsageError as error:
        complain(f"the TLS certificates of before remain in use: {error}", "error")
    else:
        complain("the TLS certificates have been read again")


def _check(is_wrong: bool, text: str) -> None:
    if is_wrong:
        raise click.UsageError(text)


def _is_given() -> bool:
    """Whether a person has given one of the options above."""
    context = click.get_current_context()
    given = (context.get_parameter_source(name) for name in context.params if name.startswith("tls"))
    return any(source is not click.core.ParameterSource.DEFAULT for source in given)


def _decorated(command: Callable[..., T], options: tuple[Callable[..., Any], ...]) -> Callable[..., T]:
    for option in reversed(options):  # decorators work from the bottom up
        command = option(command)
    return command
