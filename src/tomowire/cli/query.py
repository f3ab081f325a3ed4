"""`tomowire query`: what a peer has, found with C-FIND."""

from __future__ import annotations

import logging
from collections import Counter
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import click

from tomowire.cli.answers import FORMATS, open_output
from tomowire.cli.keys import key_options, other_model
from tomowire.cli.options import peer_argument, requestor_options
from tomowire.cli.running import ExitCode, complain, exit_code_of, explain, run
from tomowire.errors import NoAcceptedContext, TomowireError
from tomowire.protocol.explain import is_not_permitted
from tomowire.server.counting import counted
from tomowire.services.confirming import Confirmation
from tomowire.services.extended import QueryOptions
from tomowire.services.find import DEFAULT_FIND_TIMEOUT, CFindScu, associate_for_queries
from tomowire.services.models import querying
from tomowire.services.planning import log_agreement

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from pydicom import Dataset

    from tomowire.aio.address import PeerAddress
    from tomowire.cli.keys import Keys

logger = logging.getLogger("tomowire.query")


@click.command
@peer_argument
@key_options
@click.option(
    "--format",
    "form",
    type=click.Choice(FORMATS),
    default=FORMATS[0],
    show_default=True,
    help="How answers are printed; json is an array in the DICOM JSON model, jsonl an object on each line.",
)
@click.option(
    "--relational",
    is_flag=True,
    help="Ask the peer to take a query without the unique keys above its level, such as the series of all studies.",
)
@click.option("--limit", type=click.IntRange(min=1), help="Cancel the query after this many answers.")
@requestor_options(timeout=DEFAULT_FIND_TIMEOUT, timeout_help="Seconds to the next answer.")
def command(
    peer: PeerAddress,
    keys: Keys,
    form: str,
    relational: bool,
    limit: int | None,
    timeout: float,
    verbose: int,
    options: dict[str, Any],
) -> None:
    """Ask PEER which patients, studies, series or images it has, and print them.

    PEER is AET@host:port, or pacs://host:port. To find nothing is no failure: exit code 0.
    """
    run(_query(peer, keys, form, relational, limit, timeout, options))


async def _query(
    address: PeerAddress,
    keys: Keys,
    form: str,
    relational: bool,
    limit: int | None,
    timeout: float,
    options: dict[str, Any],
) -> int:
    query = keys.query()
    model = keys.model or query.model
    identifier = query.dataset(model)
    asked = [int(element.tag) for element in identifier]
    confirmation = Confirmation(identifier, [each.unique_key for each in model.levels])
    doubts: Counter[str] = Counter()
    count = 0
    unreadable: ExceptionGroup | None = None
    extended = [QueryOptions(relational=True).on(model.find)] if relational else []

    def compare(answer: Dataset) -> None:
        nonlocal count
        count += 1
        doubts.update(confirmation.doubts(answer))

    try:
        async with associate_for_queries(address, [querying(model)], extended=extended, **options) as association:
            log_agreement(logger, association)
            if relational and not QueryOptions.agreed(association, model.find).relational:
                complain(f"{address.ae_title} does not agree to relational queries: it may refuse this one")
            answers = CFindScu(association).find(query, model=model, timeout=timeout)
            with open_output(form, asked) as show:
                await _show(answers, show, compare, limit)
    except ExceptionGroup as group:
        unreadable = group
    except TomowireError as failure:
        is_lacking = isinstance(failure, NoAcceptedContext) and not is_not_permitted(failure)
        hint = other_model(query.level, model) if is_lacking else ""
        complain(explain(failure) + hint)
        return exit_code_of(failure)
    for keyword, doubtful in doubts.items():
        complain(
            f"{doubtful} of {count} answers do not confirm {keyword}: {address.ae_title} may not match by it at {query.level} level"
        )
    if unreadable is not None:
        complain(f"{unreadable.message}, the first because {unreadable.exceptions[0]}")
        return ExitCode.FAILED
    if not count:
        complain(f"{address} has nothing that matches")
    elif count == limit:
        complain(f"stopped after {counted(count, 'answer')} (--limit); there may be more")
    return ExitCode.OK


async def _show(
    answers: AsyncGenerator[Dataset, None],
    show: Callable[[Dataset], None],
    compare: Callable[[Dataset], None],
    limit: int | None,
) -> None:
    """Show the answers as they come, compare them with what was asked, and leave the others be after so many."""
    count = 0
    async with aclosing(answers):
        async for answer in answers:
            show(answer)
            compare(answer)
            count += 1
            if count == limit:
                break
