"""`tomowire move`: a peer is told to send objects to another one, with C-MOVE."""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import click

from tomowire.aio.connect import associate
from tomowire.cli.keys import key_options, other_model, unconfirmed_option
from tomowire.cli.options import AeTitle, json_option, peer_argument, requestor_options
from tomowire.cli.progress import open_counter
from tomowire.cli.retrieval import RetrievalReport, counts_of
from tomowire.cli.running import run
from tomowire.cli.selection import Selection
from tomowire.errors import TomowireError
from tomowire.services.find import CFindScu
from tomowire.services.models import querying
from tomowire.services.move import CMoveScu, moving
from tomowire.services.planning import log_agreement
from tomowire.services.requests import Requests
from tomowire.services.retrieve_plan import Planner
from tomowire.services.retrieving import DEFAULT_RETRIEVE_TIMEOUT

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Sequence

    from tomowire.aio.address import PeerAddress
    from tomowire.cli.keys import Keys
    from tomowire.services.query import Query
    from tomowire.services.retrieve_plan import Part
    from tomowire.services.retrieving import Progress

logger = logging.getLogger("tomowire.move")


@click.command
@peer_argument
@click.option(
    "--dest",
    "destination",
    type=AeTitle(),
    required=True,
    help="AE title of where the objects shall go; PEER must know it by that.",
)
@key_options
@unconfirmed_option
@json_option
@requestor_options(timeout=DEFAULT_RETRIEVE_TIMEOUT, timeout_help="Seconds to the next word of the peer.")
def command(
    peer: PeerAddress,
    destination: str,
    keys: Keys,
    as_json: bool,
    timeout: float,
    verbose: int,
    options: dict[str, Any],
) -> None:
    """Let PEER send patients, studies, series or images to another peer, with C-MOVE.

    PEER is AET@host:port, or pacs://host:port. The keys are those of `query`; at least one is needed. Exit code 0 means that every
    object has arrived.
    """
    run(_move(keys, RetrievalReport(peer, "move", destination, as_json, verbose > 0), timeout, options))


async def _move(keys: Keys, report: RetrievalReport, timeout: float, options: dict[str, Any]) -> int:
    selection = Selection.of(keys)
    report.advice = other_model(selection.query.level, selection.model)
    try:
        with open_counter(f"to {report.destination}") as show:

            def told(progress: Progress) -> None:
                report.counted(progress)
                if show is not None:
                    show(*counts_of(progress))

            await move_all(selection, None, str(report.destination), timeout, report, told, options)
    except (asyncio.CancelledError, KeyboardInterrupt):  # the latter where asyncio was not asked first, as with SIGTERM
        report.finish(interrupted=True)
        raise
    return report.finish()


async def move_all(
    selection: Selection,
    parts: Sequence[Part] | None,
    destination: str,
    timeout: float,
    report: RetrievalReport,
    told: Callable[[Progress], None],
    options: dict[str, Any],
    new_message_id: Callable[[], int] | None = None,
) -> Progress | None:
    """Have the peer send all that is selected to the AE title `destination`, with one request after the other; `parts` if that has
    been found out already. One that fails does not stop the others. What goes wrong is told to the report.

    `told` is told how far it is, and the last of that is given back. `new_message_id` gives each request its Message ID, where who
    asks has to know it.
    """
    model = selection.model
    last = None
    requests, failures = Requests(()), list[Exception]()
    try:
        async with associate(report.peer, [moving(model), querying(model)], **options) as association:
            log_agreement(logger, association)
            if parts is None:
                planner = Planner(CFindScu(association), model, confirm=selection.confirm, timeout=timeout)
                with report.finding():
                    parts = selection.outright or await planner.entities(selection.query)
                failures = planner.failures
            requests = Requests(parts, failures)
            scu = CMoveScu(association)

            async def move(query: Query) -> AsyncGenerator[Progress, None]:
                message_id = None if new_message_id is None else new_message_id()
                moved = scu.move(query, destination, model=model, timeout=timeout, message_id=message_id)
                try:
                    async with aclosing(moved) as progress:
                        async for each in progress:
                            yield each
                except ExceptionGroup as failures:
                    report.remark(failures.message)  # it has the peer's comment
                    raise

            async with aclosing(requests.run(move)) as progress:
                async for last in progress:
                    done = (last.completed, last.failed, last.warning)
                    logger.info("%s remain; completed %d, failed %d, with a warning %d", last.remaining, *done)
                    told(last)
    except (TomowireError, ExceptionGroup) as error:
        requests.lost(error, ())
    for failure in requests.failures:
        report.failed(failure)
    report.uncounted = requests.uncounted
    return last
