"""`tomowire retrieve`: objects of a peer's to files here, with C-GET or C-MOVE."""

from __future__ import annotations

import asyncio
import logging
import socket
from contextlib import AsyncExitStack, aclosing, closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from tomowire.aio.listen import listen
from tomowire.cli.collecting import Collector, instances_in
from tomowire.cli.keys import key_options, unconfirmed_option
from tomowire.cli.move import move_all
from tomowire.cli.naming import DEFAULT_TEMPLATE, FIELDS, is_unique, name_from_template
from tomowire.cli.options import json_option, output_option, peer_argument, requestor_options
from tomowire.cli.originator import OfOurMove
from tomowire.cli.progress import open_transfer
from tomowire.cli.receiving import allow_many_files, explained
from tomowire.cli.retrieval import RetrievalReport, counts_of
from tomowire.cli.running import complain, run
from tomowire.cli.selection import Selection, missing
from tomowire.cli.tls import tls_receiving_options
from tomowire.errors import ConnectFailed, TomowireError, UsageError
from tomowire.services.find import CFindScu, associate_for_queries
from tomowire.services.folder import Folder
from tomowire.services.models import querying
from tomowire.services.planning import log_agreement
from tomowire.services.retrieval import get_parts
from tomowire.services.retrieve_plan import Planner
from tomowire.services.retrieving import DEFAULT_RETRIEVE_TIMEOUT, Progress
from tomowire.services.storage_scp import Storage
from tomowire.services.verification import Verification
from tomowire.wire.value import value

if TYPE_CHECKING:
    from collections.abc import Callable

    from tomowire.aio.address import PeerAddress
    from tomowire.aio.serving import ServiceProvider
    from tomowire.aio.tls import TlsServer
    from tomowire.cli.keys import Keys
    from tomowire.services.query import Query
    from tomowire.services.retrieve_plan import Part

_PORT: Final = 11112
_GRACE: Final = 1.0
"""Seconds for associations to us when the C-MOVE is over: the peer has nothing more to send."""

logger: Final = logging.getLogger("tomowire.retrieve")


@click.command
@peer_argument
@output_option
@key_options
@unconfirmed_option
@click.option(
    "--method",
    type=click.Choice(["get", "move"]),
    default="get",
    show_default=True,
    help="C-GET: objects come on the association on which they are asked for. C-MOVE: the peer opens one to --port here, and must "
    "know --aet.",
)
@click.option(
    "--name",
    "template",
    default=DEFAULT_TEMPLATE,
    show_default=True,
    help=f"Name of each file below the folder, with {{fields}}: {', '.join(FIELDS)}.",
)
@click.option("--resume", is_flag=True, help="Get only what is not in the folder yet.")
@click.option("--bind", help="With --method move: address to listen on. [default: that from which PEER is reached]")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    help=f"With --method move: TCP port to listen on.  [default: {_PORT}]",
)
@json_option
@requestor_options(timeout=DEFAULT_RETRIEVE_TIMEOUT, timeout_help="Seconds in which something must come.")
@tls_receiving_options
def command(
    peer: PeerAddress,
    output: Path,
    keys: Keys,
    method: str,
    template: str,
    resume: bool,
    bind: str | None,
    port: int | None,
    as_json: bool,
    timeout: float,
    verbose: int,
    receiving: TlsServer | None,
    options: dict[str, Any],
) -> None:
    """Get patients, studies, series or images from PEER, and write them to files.

    PEER is AET@host:port, or pacs://host:port. The keys are those of `query`; at least one is needed. Each file is written whole or
    not at all; one of the same name is replaced. Exit code 0 means that every object is there.
    """
    try:
        name = name_from_template(template)
    except UsageError as error:
        raise click.BadParameter(str(error), param_hint="--name") from None
    if method != "move" and (bind is not None or port is not None):
        raise click.UsageError("--bind and --port are for --method move: with C-GET nothing is listened on")
    if not is_unique(template):
        complain(
            "without {sop_instance_uid} in --name two objects may get the same name: the later replaces the earlier"
        )
    if receiving is not None and method != "move":
        raise click.UsageError(
            "--receive-tls is for --method move: with C-GET objects come on the association that asks"
        )
    if receiving is None and method == "move" and "ssl" in options:
        complain("the objects come without TLS, as long as there is no --receive-tls")
    advice = f"; another way may be open: --method {'get' if method == 'move' else 'move'}"
    report = RetrievalReport(peer, method, None, as_json, verbose > 0, advice)
    listening = _Listening(bind, _PORT if port is None else port, receiving) if method == "move" else None
    run(_retrieve(keys, partial(Folder, output, name=name), listening, resume, report, timeout, options))


async def _retrieve(
    keys: Keys,
    open_folder: Callable[[], Folder],
    listening: _Listening | None,
    resume: bool,
    report: RetrievalReport,
    timeout: float,
    options: dict[str, Any],
) -> int:
    selection = Selection.of(keys)
    with closing(open_folder()) as folder:
        work = _Retrieval(selection, report, folder, timeout, options)
        try:
            with open_transfer(f"from {report.peer}") as show:
                async with work.collector.shown(show):
                    await work.run(listening, resume=resume)
        except (asyncio.CancelledError, KeyboardInterrupt):  # the latter as with `send`
            report.finish(interrupted=True)
            raise
    return report.finish()


@value()
class _Listening:
    """Where a C-MOVE brings the objects; without an address on that from which the peer is reached."""

    bind: str | None
    port: int
    tls: TlsServer | None

    async def address(self, peer: PeerAddress) -> str:
        if self.bind is not None:
            return self.bind
        return await asyncio.to_thread(_address_towards, peer.host, peer.port)


def _address_towards(host: str, port: int) -> str:
    """One's own address on the way to `host`, for all that this machine knows. Blocking, and nothing is sent.

    Raises `ConnectFailed`.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect(address)
            return str(probe.getsockname()[0])
    except OSError as error:
        raise ConnectFailed(f"cannot find the way to {host}: {error.strerror or error}; see --bind") from error


async def _all(planner: Planner, query: Query) -> tuple[list[Part], list[str]]:
    return await planner.parts(query), []


class _Retrieval:
    """What a person has asked for, into a folder."""

    def __init__(
        self, selection: Selection, report: RetrievalReport, folder: Folder, timeout: float, options: dict[str, Any]
    ) -> None:
        self._selection = selection
        self._report = report
        self._folder = folder.path
        self._timeout = timeout
        self._options = options
        self.collector: Final = Collector(folder, report)

    async def run(self, listening: _Listening | None, *, resume: bool) -> None:
        """Do it; what goes wrong is told to the report."""
        try:
            parts = None
            if resume or listening is None:
                with self._report.finding(resume=resume):
                    parts = await self._parts(resume=resume)
            if parts is not None and not parts:
                return
            if listening is None:
                await self._get(parts or [])
            else:
                await self._move(parts, listening)
        except (TomowireError, ExceptionGroup) as error:
            self._report.failed(error)

    async def _parts(self, *, resume: bool) -> list[Part]:
        """What to ask for: the peer knows, down to the SOP classes. With `resume` less what is there."""
        there = await asyncio.to_thread(instances_in, self._folder) if resume else {}
        query, model = self._selection.query, self._selection.model
        async with associate_for_queries(self._report.peer, [querying(model)], **self._options) as association:
            log_agreement(logger, association)
            planner = Planner(CFindScu(association), model, confirm=self._selection.confirm, timeout=self._timeout)
            parts, present = await (missing(planner, query, model, there) if there else _all(planner, query))
        self._report.resumed({uid: there[uid] for uid in present})
        for failure in planner.failures:
            self._report.failed(failure)
        return parts

    async def _get(self, parts: list[Part]) -> None:
        peer, model, keep = self._report.peer, self._selection.model, self.collector.keep
        results = get_parts(peer, parts, keep, model, options=self._options, timeout=self._timeout)
        async with aclosing(results):
            async for each in results:
                if isinstance(each, Progress):
                    self._told(each)

    async def _move(self, parts: list[Part] | None, listening: _Listening) -> None:
        title = self._options["aet"]
        address = await listening.address(self._report.peer)
        ours = OfOurMove(title, self._report.peer, self.collector.keep, complain)
        at = (address, listening.port)
        services: list[ServiceProvider] = [Verification(), Storage(ours.keep)]
        server = listen(*at, services=services, aet=title, shutdown_grace=_GRACE, ssl=listening.tls)
        allow_many_files()
        async with AsyncExitStack() as stack:
            with explained(*at):
                await stack.enter_async_context(server)
            place = f"{address}:{server.port}"
            logger.info("listening as %s@%s", title, place)
            last = await move_all(
                *(self._selection, parts, title, self._timeout, self._report, self._told, self._options),
                ours.new_message_id,
            )
        if not ours.came and self._report.is_undelivered:
            how = ", and speak TLS" if listening.tls is not None else ""
            complain(f"listening here on {place} as {title}: the peer must have that address{how}")
        elsewhere = last.completed - self.collector.arrived if last is not None else 0
        if elsewhere > 0:
            self._report.failed(
                TomowireError(
                    f"{self._report.peer} says that it has sent {elsewhere} more than came here: it must know"
                    f" {title}@{place}, and no other {title}"
                )
            )

    def _told(self, progress: Progress) -> None:
        self._report.counted(progress)
        _, self.collector.total = counts_of(progress)
