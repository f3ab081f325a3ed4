"""`tomowire serve`: the archive."""

from __future__ import annotations

import os
import shutil
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

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
from tomowire.cli.running import ExitCode, complain, run
from tomowire.cli.tls import reloading

if TYPE_CHECKING:
    from tomowire.aio.tls import TlsClient
    from tomowire.cli.receiving import Acceptor
    from tomowire.server.app import Settings
    from tomowire.server.nodes import Node

DEFAULT_DATA_DIR = Path("tomowire-data")
DEFAULT_AET = "TOMOWIRE"


data_dir_option = click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    default=DEFAULT_DATA_DIR,
    show_default=True,
    help="Where objects and index live.",
)


@click.command
@data_dir_option
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
@acceptor_options
@node_options
def command(
    data_dir: Path,
    aet: str,
    duplicates: str,
    any_sop_class: bool,
    allow: tuple[str, ...],
    allow_unknown_callers: bool,
    nodes: tuple[Node, ...],
    node_tls: TlsClient | None,
    acceptor: Acceptor,
) -> None:
    """Run the archive until interrupted: what gets Success is durable and indexed.

    It listens on this machine only unless --bind says otherwise, and then lets in only the peers named with --node,
    each from its host, and the AE titles named with --allow.
    """
    from tomowire.server.app import Settings

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
    )
    run(_serve(settings))


async def _serve(settings: Settings) -> int:
    from tomowire.server.app import Archive

    archive = Archive(settings)
    allow_many_files()
    stop = stop_signal()
    async with AsyncExitStack() as stack:
        with explained(settings.bind, settings.port):
            await stack.enter_async_context(archive)
        if settings.tls is not None:
            stack.enter_context(reloading(archive.reload_tls))
        print(archive.greeting(_program()), file=sys.stderr, flush=True)
        await stop.wait()
        complain(closing_words(archive.associations))
    return ExitCode.OK


def _program() -> str:
    """How to call this program from where the person is: its name, if the shell finds it."""
    if shutil.which("tomowire"):
        return "tomowire"
    if sys.argv[0].endswith("__main__.py"):
        return f"{_shorter(sys.executable)} -m tomowire"
    return _shorter(sys.argv[0])


def _shorter(path: str) -> str:
    return min(os.path.relpath(path), os.path.abspath(path), key=len)
