"""`tomowire listen`: a storage SCP that only writes files."""

from __future__ import annotations

import json
import logging
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tomowire.aio.listen import DEFAULT_MAXIMUM_ASSOCIATIONS, listen
from tomowire.cli.naming import DEFAULT_TEMPLATE, FIELDS, name_from_template
from tomowire.cli.options import AeTitle, verbose_option
from tomowire.cli.receiving import SHUTDOWN_GRACE, explained, stop_signal
from tomowire.cli.running import ExitCode, complain, run, set_up_logging
from tomowire.errors import StoreFailed, UsageError
from tomowire.services.folder import Folder
from tomowire.services.storage import Storage
from tomowire.services.verification import Verification

if TYPE_CHECKING:
    from tomowire.protocol.status import Status
    from tomowire.services.storage import StoreRequest

logger = logging.getLogger("tomowire.listen")


@click.command
@click.option(
    "-o",
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    help="Folder for the files; made if it does not exist.",
)
@click.option("--bind", default="127.0.0.1", show_default=True, help="Address to listen on; 0.0.0.0 or :: for all.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=11112, show_default=True, help="TCP port; 0 picks a free one."
)
@click.option(
    "--aet", type=AeTitle(), multiple=True, help="AE title that callers must call; may be repeated. Default: any."
)
@click.option(
    "--allow", type=AeTitle(), multiple=True, help="Calling AE title to let in; may be repeated. Default: any."
)
@click.option(
    "--name",
    "template",
    default=DEFAULT_TEMPLATE,
    show_default=True,
    help=f"Name of each file below the folder, with {{fields}}: {', '.join(FIELDS)}.",
)
@click.option("--any-sop-class", is_flag=True, help="Take private and unknown SOP classes too.")
@click.option(
    "--max-associations",
    type=click.IntRange(min=1),
    default=DEFAULT_MAXIMUM_ASSOCIATIONS,
    show_default=True,
    help="Callers beyond this many are rejected.",
)
@click.option("--json", "as_json", is_flag=True, help="Print a line of JSON on stdout for each object.")
@verbose_option
def command(**options: object) -> None:
    """Receive objects and write them to files, until interrupted.

    Each file is written whole or not at all; one of the same name is replaced.
    """
    set_up_logging(int(str(options.pop("verbose"))))
    run(_listen(**options))  # type: ignore[arg-type]


async def _listen(
    output: Path,
    bind: str,
    port: int,
    aet: tuple[str, ...],
    allow: tuple[str, ...],
    template: str,
    any_sop_class: bool,
    max_associations: int,
    as_json: bool,
) -> int:
    try:
        folder = Folder(output, name=name_from_template(template))
    except UsageError as error:
        raise click.BadParameter(str(error), param_hint="--name") from None
    counter = _Counter(folder, as_json=as_json)
    server = listen(
        bind,
        port,
        services=[Verification(), Storage(counter.keep, any_sop_class=any_sop_class)],
        aet=aet or None,
        calling_aets=allow or None,
        maximum_associations=max_associations,
        shutdown_grace=SHUTDOWN_GRACE,
    )
    stop = stop_signal()
    try:
        async with AsyncExitStack() as stack:
            with explained(bind, port):
                await stack.enter_async_context(server)
            host, bound = server.addresses[0]
            complain(f"listening on {host}:{bound}, writing to {output}; end with Ctrl-C")
            stack.callback(lambda: complain(f"{counter.stored} objects stored, {counter.failed} refused"))
            await stop.wait()
    finally:
        folder.close()
    return ExitCode.OK


class _Counter:
    """Keeps objects in a folder and accounts for them."""

    def __init__(self, folder: Folder, *, as_json: bool) -> None:
        self._folder = folder
        self._as_json = as_json
        self.stored = 0
        self.failed = 0

    async def keep(self, request: StoreRequest) -> Status:
        try:
            status = await self._folder.keep(request)
        except StoreFailed as failure:
            self.failed += 1
            self._report(request, failure.status, failure.comment)
            raise
        self.stored += 1
        self._report(request, status, None)
        return status

    def _report(self, request: StoreRequest, status: int, comment: str | None) -> None:
        if self._as_json:
            row = {
                "sop_instance_uid": request.sop_instance_uid,
                "sop_class_uid": request.sop_class_uid,
                "transfer_syntax_uid": request.transfer_syntax_uid,
                "calling_aet": request.association.calling_ae_title,
                "status": int(status),
                "comment": comment,
            }
            try:
                click.echo(json.dumps(row))
            except BrokenPipeError:  # whoever read the lines is gone; the object is stored all the same
                self._as_json = False
        logger.info("%s: stored %s", request.association.title, request.sop_instance_uid)
