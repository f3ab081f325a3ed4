"""`tomowire serve`: the archive."""

from __future__ import annotations

import functools
import os
import shutil
import sys
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from tomowire.cli.configured import (
    Source,
    config_option,
    data_dir_option,
    index_url_option,
    is_configured,
    is_given,
    loaded,
    warn_of,
)
from tomowire.cli.http_port import HttpPort, warn_of_plain_http
from tomowire.cli.nodes import node_options
from tomowire.cli.options import AeTitle
from tomowire.cli.receiving import (
    SHUTDOWN_GRACE,
    acceptor_options,
    allow_many_files,
    closing_words,
    explained,
    stop_signal,
)
from tomowire.cli.reloading import Reload, Reloads, ignore_sighup
from tomowire.cli.running import ExitCode, complain, run, say, say_through, set_up_logging

if TYPE_CHECKING:
    from collections.abc import Callable

    from tomowire.aio.tls import TlsClient
    from tomowire.cli.receiving import Acceptor
    from tomowire.server.nodes import Node
    from tomowire.server.settings import HttpSettings, Settings

T = TypeVar("T")

DEFAULT_AET: Final = "TOMOWIRE"
HOW_TO_END: Final = "end with Ctrl-C"
"""The last line of what an archive says when it begins."""


def _http_options(command: Callable[..., T]) -> Callable[..., T]:
    """The options for the HTTP port; it gets `http`."""

    @functools.wraps(command)
    def gathered(*, http_bind: str, http_port: int, no_http: bool, **others: Any) -> T:
        from tomowire.server.settings import HttpSettings

        return command(http=None if no_http else HttpSettings(bind=http_bind, port=http_port), **others)

    decorated: Callable[..., T] = gathered
    for option in (
        click.option("--no-http", is_flag=True, help="No HTTP port."),
        click.option(
            "--http-port",
            type=click.IntRange(0, 65535),
            default=8080,
            show_default=True,
            help="TCP port for HTTP; 0 picks a free one.",
        ),
        click.option("--http-bind", default="127.0.0.1", show_default=True, help="Address to listen on for HTTP."),
    ):
        decorated = option(decorated)
    return decorated


def _or_configured(command: Callable[..., None]) -> Callable[..., None]:
    """`command` is for options alone. Where there is a configuration they are put over it, and what they leave open is its."""

    @functools.wraps(command)
    def gathered(*, config: Path | None, **options: Any) -> None:
        ignore_sighup()
        if not is_configured(config):
            command(**options)
            return
        from tomowire.cli.serve_configured import as_tree
        from tomowire.server.logs import set_level

        source = Source(config, as_tree(options, is_given))
        set_up_logging(options["verbose"])
        found, warnings = loaded(source.load_for_serving)
        set_level(found.settings.logs.level)
        _log_as(found.settings.logs.format)
        warn_of(warnings)  # not before it is known how they are to be written
        run(_serve(found.settings, source, wants_http=found.is_said("http")))

    decorated: Callable[..., None] = config_option(gathered)
    return decorated


@click.command
@_or_configured
@data_dir_option
@index_url_option
@click.option(
    "--aet", type=AeTitle(), default=DEFAULT_AET, show_default=True, help="The archive's AE title; others are rejected."
)
@click.option(
    "--duplicates",
    type=click.Choice(["keep", "replace", "reject"]),
    default="keep",
    show_default=True,
    help="An object that is stored already, with other content: keep the first, replace it, or reject the second.",
)
@click.option("--any-sop-class", is_flag=True, help="Store private and unknown SOP classes too.")
@click.option("--allow", type=AeTitle(), multiple=True, help="Calling AE title to let in; may be repeated.")
@click.option(
    "--allow-unknown-callers", is_flag=True, help="With --bind to more than this machine: let in any calling AE title."
)
@_http_options
@acceptor_options
@node_options
def command(
    data_dir: Path,
    index_url: str | None,
    aet: str,
    duplicates: str,
    any_sop_class: bool,
    allow: tuple[str, ...],
    allow_unknown_callers: bool,
    http: HttpSettings | None,
    nodes: tuple[Node, ...],
    node_tls: TlsClient | None,
    acceptor: Acceptor,
) -> None:
    """Run the archive until interrupted: what gets Success is durable and indexed.

    It listens on this machine only unless --bind says otherwise, and then lets in only the peers named with --node,
    each from its host, and the AE titles named with --allow.

    What --config and the environment say (TOMOWIRE_DICOM__PORT) is overridden by options; --node and --allow add to it.
    SIGHUP has nodes, callers and certificates read again.
    """
    from tomowire.server.settings import LogSettings, Settings

    _log_as(LogSettings().format)
    settings = Settings(
        data_dir=data_dir,
        ae_title=aet,
        bind=acceptor.bind,
        port=acceptor.port,
        duplicates=duplicates,
        any_sop_class=any_sop_class,
        allowed_callers=allow,
        allow_unknown_callers=allow_unknown_callers,
        nodes=nodes,
        maximum_associations=acceptor.maximum_associations,
        memory=acceptor.memory,
        shutdown_grace=SHUTDOWN_GRACE,
        tls=acceptor.tls,
        node_tls=node_tls,
        index_url=index_url,
        http=http,
    )
    if http is not None:
        warn_of_plain_http(http)
    run(_serve(settings, None, wants_http=is_given("http_port") or is_given("http_bind")))


async def _serve(settings: Settings, source: Source | None, *, wants_http: bool) -> int:
    from tomowire.server.app import Archive

    with Reloads() as reloads:  # SIGHUP ends nothing, from here on
        archive = Archive(settings)
        allow_many_files()
        stop = stop_signal()
        http = None
        async with AsyncExitStack() as stack:
            if wants_http and settings.http is not None:
                await _require_http_port(settings)
            with explained(settings.bind, settings.port):
                await stack.enter_async_context(archive)
            reload = Reload(archive, source)
            await stack.enter_async_context(reloads.served(reload))
            say(archive.greeting())
            what_to_do = "\n".join(filter(None, (archive.to_try(_program()), HOW_TO_END)))
            if settings.http is not None:
                http = HttpPort(
                    archive,
                    settings.http,
                    is_wanted=wants_http,
                    stop=stop.set,
                    reload=reload if source is not None else None,
                    what_to_do=what_to_do,
                )
                await stack.enter_async_context(http)
            else:
                say(what_to_do)
            await stop.wait()
            complain(closing_words(archive.associations, settings.shutdown_grace))
    if http is not None and http.failure is not None:
        raise http.failure
    return ExitCode.OK


async def _require_http_port(settings: Settings) -> None:
    """Raises `ConnectFailed` for a port that cannot be had, before there is a new archive that cannot begin."""
    from tomowire.aio.ports import require_free
    from tomowire.server.files import is_archive

    assert settings.http is not None
    if not is_archive(settings.data_dir):
        await require_free(
            settings.http.bind,
            settings.http.port,
            purpose=" for HTTP",
            advice="; take another with --http-port, or end what listens there",
        )


def _log_as(form: str) -> None:
    """`form` is one of those of `LogSettings`. What is said to a person is written like the log: the stream is of one kind."""
    from tomowire.server.logs import write_json

    if form == "json" or (form == "auto" and not sys.stderr.isatty()):
        write_json()
        say_through(_say_as_json)


def _say_as_json(text: str, level: str) -> None:
    """What is said to a person, for a program that reads lines of JSON."""
    from tomowire.server.logs import line_of

    now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    line = line_of({"time": now, "level": level, "logger": "tomowire.serve", "message": text})
    print(line, file=sys.stderr, flush=True)


def _program() -> str:
    """How to call this program from where the person is: its name, if the shell finds it."""
    if shutil.which("tomowire"):
        return "tomowire"
    if sys.argv[0].endswith("__main__.py"):
        return f"{_shorter(sys.executable)} -m tomowire"
    return _shorter(sys.argv[0])


def _shorter(path: str) -> str:
    return min(os.path.relpath(path), os.path.abspath(path), key=len)
