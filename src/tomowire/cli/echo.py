"""`tomowire echo`: is there a DICOM application, and does it know us?"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import click

from tomowire.aio.connect import associate
from tomowire.cli.options import json_option, peer_address, peer_argument, requestor_options, verbose_option
from tomowire.cli.running import ExitCode, complain, run, set_up_logging
from tomowire.errors import TomowireError
from tomowire.services.verification import CEchoScu, verification

if TYPE_CHECKING:
    from tomowire.aio.address import PeerAddress
    from tomowire.aio.association import Association


@click.command
@peer_argument
@requestor_options
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=10.0,
    show_default=True,
    help="Seconds for the answer.",
)
@click.option("-n", "--count", type=click.IntRange(min=1), default=1, show_default=True, help="How many times to ask.")
@json_option
@verbose_option
def command(
    peer: str, called_aet: str | None, timeout: float, count: int, as_json: bool, verbose: int, **options: Any
) -> None:
    """Ask PEER for a C-ECHO, and print how long each answer took.

    PEER is AET@host:port, or pacs://host:port.
    """
    set_up_logging(verbose)
    run(_echo(peer_address(peer, called_aet), timeout, count, as_json, options))


async def _echo(address: PeerAddress, timeout: float, count: int, as_json: bool, options: dict[str, Any]) -> int:
    echoes: list[dict[str, Any]] = []
    error = None
    try:
        async with associate(address, [verification()], **options) as association:
            await _ask(association, address, timeout, count, as_json, echoes)
    except TomowireError as failure:
        error = str(failure)
        raise
    finally:
        failed = error is not None or any(each["status"] for each in echoes)
        if as_json:
            click.echo(json.dumps({"peer": str(address), "ok": not failed, "error": error, "echoes": echoes}))
    return ExitCode.FAILED if failed else ExitCode.OK


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
