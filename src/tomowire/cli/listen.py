"""`tomowire listen`: a storage SCP that only writes files."""

from __future__ import annotations

import logging
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tomowire.aio.listen import listen
from tomowire.aio.serving import IncomingRequest
from tomowire.cli.naming import DEFAULT_TEMPLATE, FIELDS, is_unique, name_from_template
from tomowire.cli.options import AeTitle, output_option
from tomowire.cli.receiving import (
    SHUTDOWN_GRACE,
    acceptor_options,
    allow_many_files,
    closing_words,
    explained,
    stop_signal,
)
from tomowire.cli.running import ExitCode, complain, readable, run
from tomowire.cli.tls import reloading
from tomowire.errors import UsageError
from tomowire.protocol.status import SUCCESS
from tomowire.server.counting import counted
from tomowire.services.folder import Folder
from tomowire.services.storage_scp import Storage
from tomowire.services.verification import Verification
from tomowire.wire.messages import CStoreRQ

if TYPE_CHECKING:
    from collections.abc import Callable

    from tomowire.cli.receiving import Acceptor
    from tomowire.protocol.status import Status
    from tomowire.services.folder import Kept
    from tomowire.services.storage_scp import StoreRequest
    from tomowire.wire.messages import Response

logger = logging.getLogger("tomowire.listen")


@click.command
@output_option
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
@click.option("--json", "as_json", is_flag=True, help="Print a line of JSON on stdout for each object.")
@acceptor_options
def command(**options: object) -> None:
    """Receive objects and write them to files, until interrupted.

    Each file is written whole or not at all; one of the same name is replaced. Until then it lies in a hidden folder
    `.incoming-*` in the output folder, which is removed at the end, or by the next start.
    """
    run(_listen(**options))  # type: ignore[arg-type]


async def _listen(
    output: Path,
    aet: tuple[str, ...],
    allow: tuple[str, ...],
    template: str,
    any_sop_class: bool,
    as_json: bool,
    acceptor: Acceptor,
) -> int:
    folder = _folder(output, template)
    storage = CountedStorage(folder, any_sop_class=any_sop_class, as_json=as_json)
    server = listen(
        acceptor.bind,
        acceptor.port,
        services=[Verification(), storage],
        aet=aet or None,
        calling_aets=allow or None,
        maximum_associations=acceptor.maximum_associations,
        memory=acceptor.memory,
        shutdown_grace=SHUTDOWN_GRACE,
        ssl=acceptor.tls,
    )
    allow_many_files()
    stop = stop_signal()
    try:
        async with AsyncExitStack() as stack:
            with explained(acceptor.bind, acceptor.port):
                await stack.enter_async_context(server)
            if acceptor.tls is not None:
                stack.enter_context(reloading(server.reload_tls))
            host, bound = server.addresses[0]
            complain(f"listening on {host}:{bound}, writing to {output}; end with Ctrl-C")
            stack.callback(lambda: complain(storage.summary()))
            await stop.wait()
            complain(closing_words(len(server.associations)))
    finally:
        folder.close()
    return ExitCode.OK


def _folder(output: Path, template: str) -> Folder:
    """Where objects are kept, each with a name that is made by `template`."""
    try:
        name = name_from_template(template)
    except UsageError as error:
        raise click.BadParameter(str(error), param_hint="--name") from None
    if not is_unique(template):
        complain(
            "without {sop_instance_uid} in --name two objects may get the same name: the later replaces the earlier"
        )
    return Folder(output, name=name)


class CountedStorage(Storage):
    """Keeps objects in a folder and accounts for each once, whoever refused it: folder, service, or a handler that failed."""

    def __init__(self, folder: Folder, *, any_sop_class: bool, as_json: bool) -> None:
        super().__init__(self._store_in_folder, any_sop_class=any_sop_class)
        self._folder = folder
        self._as_json = as_json
        self._kept: dict[int, Kept] = {}  # by the identity of the request, until it is answered
        self._stored = self._replaced = self._failed = 0

    def summary(self) -> str:
        replaced = f" ({self._replaced} of them replaced a file that was there)" if self._replaced else ""
        return f"{counted(self._stored, 'object')} stored{replaced}, {self._failed} refused"

    async def handle(self, request: IncomingRequest) -> None:
        try:
            await super().handle(_Observed(request, self._on_response))
        finally:
            self._kept.pop(id(request.message), None)

    async def _store_in_folder(self, request: StoreRequest) -> Status:
        self._kept[id(request.message)] = await self._folder.store(request)
        return SUCCESS

    def _on_response(self, request: IncomingRequest, response: Response) -> None:
        kept = self._kept.get(id(request.message)) if response.status == SUCCESS else None
        self._account(request, response.status, getattr(response, "error_comment", None), kept)

    def _account(self, request: IncomingRequest, status: int, comment: str | None, kept: Kept | None) -> None:
        message, association = request.message, request.association
        if not isinstance(message, CStoreRQ):
            return
        if kept is None:
            self._failed += 1
        else:
            self._stored += 1
            self._replaced += kept.replaced
            logger.info("%s: stored %s", association.title, message.affected_sop_instance_uid)
        self._print(
            {
                "path": readable(kept.path) if kept is not None else None,
                "replaced": kept is not None and kept.replaced,
                "sop_instance_uid": message.affected_sop_instance_uid,
                "sop_class_uid": message.affected_sop_class_uid,
                "transfer_syntax_uid": request.context.transfer_syntax,
                "calling_aet": association.calling_ae_title,
                "status": int(status),
                "comment": comment,
            }
        )

    def _print(self, row: dict[str, object]) -> None:
        if self._as_json:
            import json  # here: it takes 1.5 ms of a start

            try:
                click.echo(json.dumps(row))
            except BrokenPipeError:  # whoever read the lines is gone; the object is stored all the same
                self._as_json = False
            except OSError as error:  # such as a full disk; the object is stored all the same
                complain(f"cannot write to standard output: {error.strerror or error}")


class _Observed(IncomingRequest):
    """A request whose response is shown to `on_response` before it is sent."""

    __slots__ = ("_on_response", "_original")

    def __init__(self, original: IncomingRequest, on_response: Callable[[IncomingRequest, Response], None]) -> None:
        super().__init__(original.association, original.context, original.message, original.data)
        self._original = original
        self._on_response = on_response

    async def respond(self, response: Response, data: bytes | None = None) -> None:
        self._on_response(self, response)
        await self._original.respond(response, data)
        self.responded = self._original.responded
