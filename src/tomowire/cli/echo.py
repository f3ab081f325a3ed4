"""`tomowire echo`: is there a DICOM application, and does it know us?"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from typing import TYPE_CHECKING, Any

import click

from tomowire.aio.connect import associate
from tomowire.cli.options import json_option, peer_argument, requestor_options
from tomowire.cli.running import ExitCode, complain, exit_code_of, explain, run
from tomowire.errors import TomowireError
from tomowire.services.planning import log_agreement
from tomowire.services.verification import CEchoScu, verification

if TYPE_CHECKING:
    from tomowire.aio.address import PeerAddress
    from tomowire.aio.association import Association

logger = logging.getLogger("tomowire.echo")


@click.command
@peer_argument
@click.option("-n", "--count", type=click.IntRange(min=1), default=1, show_default=True, help="How many times to ask.")
@click.option(
    "--explain", "explained", is_flag=True, help="Say what was agreed on, what PEER supports, and what is wrong."
)
@json_option
@requestor_options(timeout=10.0, timeout_help="Seconds for the answer.")
def command(
    peer: PeerAddress,
    timeout: float,
    count: int,
    explained: bool,
    as_json: bool,
    verbose: int,
    options: dict[str, Any],
) -> None:
    """Ask PEER for a C-ECHO, and print how long each answer took.

    PEER is AET@host:port, or pacs://host:port.

    With --explain it is asked for everything that the standard has, over several associations, on which nothing else is done.
    """
    if explained:
        from tomowire.cli.explaining import explain_peer

        run(explain_peer(peer, timeout, as_json, verbose, options))
    run(_echo(peer, timeout, count, as_json, options))


async def _echo(address: PeerAddress, timeout: float, count: int, as_json: bool, options: dict[str, Any]) -> int:
    echoes: list[dict[str, Any]] = []
    error = None
    code = ExitCode.OK
    interrupted = False
    try:
        async with associate(address, [verification()], **options) as association:
            log_agreement(logger, association)
            await _ask(association, address, timeout, count, as_json, echoes)
    except TomowireError as failure:
        error = explain(failure)
        complain(error)
        code = exit_code_of(failure)
    except asyncio.CancelledError:  # Ctrl-C
        interrupted = True
        raise
    finally:
        code = code or (ExitCode.FAILED if any(each["status"] for each in echoes) else ExitCode.OK)
        if as_json:
            ok = not code and len(echoes) == count
            summary = {"peer": str(address), "ok": ok, "interrupted": interrupted, "error": error, "echoes": echoes}
            click.echo(json.dumps(summary))
    return code


async def _ask(
    association: Association,
    address: PeerAddress,
    timeout: float,
    count: int,
    as_json: bool,
    echoes: list[dict[str, Any]],
) -> None:
    scu = CEchoScu(association)
    for _ in range(count):
        began = time.perf_counter()
        status = await scu.echo(timeout=timeout)
        milliseconds = (time.perf_counter() - began) * 1000
        echoes.append({"status": int(status), "milliseconds": round(milliseconds, 3)})
        if not status.is_success:
            complain(f"{address} answered {status}")
        elif not as_json:
            click.echo(f"{address} answered in {milliseconds:.1f} ms")
