"""The archive: the only place where its parts are put together."""

from __future__ import annotations

import asyncio
import logging
import shlex
from contextlib import AsyncExitStack
from functools import cached_property, partial
from typing import TYPE_CHECKING, Final, Self

from tomowire.aio.listen import Server, listen
from tomowire.aio.ports import require_free
from tomowire.aio.threads import finished
from tomowire.errors import StoreFailed
from tomowire.protocol.status import SUCCESS, Status
from tomowire.server.access import Access, Guarded, Right
from tomowire.server.archive import ArchiveStorage
from tomowire.server.audit.audit import Audit
from tomowire.server.audit.events import Party
from tomowire.server.audit.teller import teller_of
from tomowire.server.audit.upgraded import UpgradeNoted
from tomowire.server.changes import Reconfigured
from tomowire.server.files import is_archive
from tomowire.server.find import ArchiveFind, load_queries
from tomowire.server.first_administrator import first_administrator, needs_login
from tomowire.server.incoming import DuplicatePolicy, Incoming
from tomowire.server.index.text import load_character_sets
from tomowire.server.later import Later
from tomowire.server.logs import LogTail
from tomowire.server.lull import LONGEST, Lull
from tomowire.server.metrics import Measured, Metrics
from tomowire.server.nodes import find_node
from tomowire.server.protection import Protection
from tomowire.server.quiet import fewer_failures
from tomowire.server.quotas import Quotas
from tomowire.server.reconfiguring import load_certificates, reconfigure
from tomowire.server.settings import Settings
from tomowire.server.tally import Tally
from tomowire.server.witness import Witness
from tomowire.services.find_scp import Find
from tomowire.services.models import Model
from tomowire.services.storage_scp import Storage, StoreRequest
from tomowire.services.verification import Verification

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from pathlib import Path
    from types import TracebackType

    from tomowire.aio.serving import ServiceProvider
    from tomowire.server.deletion import Deletion
    from tomowire.server.jobs.jobs import Jobs
    from tomowire.server.jobs.model import Job
    from tomowire.server.nodes import Node
    from tomowire.server.retrieve import ArchiveRetrieve
    from tomowire.server.users import Users

__all__ = ["Archive", "Reconfigured", "Settings"]

logger: Final = logging.getLogger(__name__)


class Archive:
    """`async with Archive(settings) as archive`: opens the storage, then the port; closes them in the other order.

    Raises `UsageError` for settings that do not fit together or a data directory that cannot be used, `ConnectFailed` when the
    port cannot be had.
    """

    deletion: Deletion
    protection: Protection
    quotas: Quotas
    jobs: Jobs
    audit: Audit
    """What happens is told to it; there from the start on."""
    witness: Witness
    """Puts together what belongs together before it tells the audit."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        """Those that are in force."""
        self.access: Final = Access.of(settings)
        """Who may do what; `access.apply` has other settings of it in force."""
        self.on_reload: Final[list[Callable[[], Awaitable[None]]]] = []
        """Called by `reconfigure`: reads other certificates again. Raises `UsageError`."""
        self._reconfiguring = asyncio.Lock()
        self.metrics: Final = Metrics()
        self.log_tail: Final = LogTail()
        """The last lines of the log, and those to come."""
        self._tally = Tally()
        self._stack = AsyncExitStack()
        self._storage: ArchiveStorage | None = None
        self._server: Server | None = None
        self.first_token: Path | None = None
        """The file with the token of the administrator that was made because nobody could have logged in."""

    async def __aenter__(self) -> Self:
        settings = self.settings
        if not is_archive(settings.data_dir):  # a port that cannot be had must not leave a new archive behind
            await require_free(settings.bind, settings.port)
        async with AsyncExitStack() as stack:
            storage = ArchiveStorage(
                settings.data_dir,
                policy=DuplicatePolicy(settings.duplicates),
                index_url=settings.index_url,
                on_upgrade=UpgradeNoted(settings, None),
            )
            self._storage = await stack.enter_async_context(storage)
            stack.enter_context(self.log_tail.installed())
            stack.enter_context(fewer_failures())
            lull = Lull()
            await self._open_audit(stack, storage, lull)
            await self._open_upkeep(stack, storage)
            await load_certificates(settings)
            stack.push_async_callback(self._close_users)
            await stack.enter_async_context(self.access)
            self._server = await stack.enter_async_context(self._listen(storage))
            # The port is open, and a call waits until this has returned.
            self.jobs = await stack.enter_async_context(self._jobs(storage))
            if needs_login(settings):
                self.first_token = await first_administrator(self.users, storage.root)
                await self.witness.made_first_administrator(self.first_token)
            self.witness.open()
            later = asyncio.get_running_loop().create_task(self._when_it_is_quiet(lull), name="when it is quiet")
            stack.push_async_callback(_ended, later)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._stack.__aexit__(kind, error, traceback)

    @cached_property
    def users(self) -> Users:
        """Who may use it over HTTP."""
        from tomowire.server.users import Users

        return Users(self.storage.records)

    @property
    def nodes(self) -> Mapping[str, Node]:
        """The nodes by their AE titles."""
        return self.access.nodes

    @property
    def port(self) -> int:
        """The DICOM port that is listened on."""
        return self.server.port

    @property
    def server(self) -> Server:
        """The DICOM port with its associations."""
        assert self._server is not None
        return self._server

    @property
    def storage(self) -> ArchiveStorage:
        """The objects, the index and the other records."""
        assert self._storage is not None
        return self._storage

    async def reconfigure(
        self, settings: Settings | Callable[[Settings], Settings], *, by: Party | None = None
    ) -> Reconfigured:
        """Take of `settings` what can be taken while associations go on, and say what needs a restart; `by` whom, for the audit.

        A function makes them of those in force, when it is its turn: nothing is undone that somebody else has changed meanwhile.
        Nodes and callers are those of `settings` from now on, and certificates are read again, for whoever connects. Raises
        `UsageError` when something cannot be used: then all is as it was.
        """
        async with self._reconfiguring:
            return await reconfigure(self, settings(self.settings) if callable(settings) else settings, by)

    def put_in_force(self, settings: Settings) -> None:
        """Go by these settings from now on; what they say has been applied to the parts (`reconfiguring`)."""
        self.settings = settings
        if "_retrieve" in self.__dict__ and settings.node_tls is not None:  # nobody may have retrieved yet
            self._retrieve.tls = settings.node_tls

    @property
    def associations(self) -> int:
        """How many associations there are now."""
        return len(self._server.associations) if self._server is not None else 0

    def greeting(self) -> str:
        """Where the archive is for DICOM."""
        shown, port = self._shown_address
        return "\n".join(
            (
                f"tomowire archive, data in {self.settings.data_dir.absolute()}",
                f"  DICOM  {self.settings.ae_title} on {shown}:{port}{', TLS' if self.settings.tls is not None else ''}",
                *self._about_the_first_token(),
            )
        )

    def to_try(self, program: str = "tomowire") -> str:
        """What to try next with `program`; empty where only nodes may call, which do so from where they are."""
        allowed = self.settings.allowed_callers
        if not (allowed or self.access.is_open):
            return ""
        shown, port = self._shown_address
        peer = f"{self.settings.ae_title}@{'127.0.0.1' if shown in ('0.0.0.0', '[::]') else shown}:{port}"
        caller = f" --aet {shlex.quote(allowed[0])}" if allowed and not self.access.is_open else ""
        caller += " --tls" if self.settings.tls is not None else ""
        return "\n".join(
            (
                "try, in another terminal:",
                f"  {program} echo {peer}{caller}",
                f"  {program} send {peer} FOLDER{caller}",
                f"  {program} query {peer}{caller}",
            )
        )

    @property
    def _shown_address(self) -> tuple[str, int]:
        assert self._server is not None
        host, port = self._server.addresses[0]
        return f"[{host}]" if ":" in host else host, port

    def _about_the_first_token(self) -> tuple[str, ...]:
        if self.first_token is None:
            return ()
        return (
            f"  the token of an administrator for HTTP is in {self.first_token}: keep it elsewhere, and remove the file",
        )

    async def _open_audit(self, stack: AsyncExitStack, storage: ArchiveStorage, lull: Lull) -> None:
        """What happens is told from here on: to the audit trail and the metrics."""
        trail = Audit(
            storage.records, storage.root, teller_of(self.settings), settings=self.settings.audit, first_write=LONGEST
        )
        self.audit = await stack.enter_async_context(trail)
        self.witness = Witness(self.audit, self.metrics, self._tally, lull, self._address_of)
        stack.callback(self.witness.close)
        self._measure(storage)

    async def _open_upkeep(self, stack: AsyncExitStack, storage: ArchiveStorage) -> None:
        """What deletes, and what must not be deleted."""
        self.deletion = storage.deletion
        self.deletion.listeners.append(self.witness.deleted)
        self.protection = Protection(storage.records)
        self.quotas = await stack.enter_async_context(Quotas(self.settings.quota, storage.records, self.deletion))
        self.metrics.watch(
            "tomowire_upkeep_failures",
            "How often in a row keeping the quota, or removing the files of deleted objects, has failed unforeseen.",
            lambda: self.deletion.setbacks.in_a_row + self.quotas.setbacks.in_a_row,
        )
        self.metrics.watch(
            "tomowire_quota_excess_bytes",
            "Bytes beyond the quota that cannot be had back now.",
            lambda: self.quotas.excess,
        )

    def _listen(self, storage: ArchiveStorage) -> Server:
        settings, witness = self.settings, self.witness
        return listen(
            settings.bind,
            settings.port,
            services=self._services(storage, witness),
            offers=self.access.offers,
            on_established=witness.on_established,
            on_ended=witness.on_ended,
            on_rejected=witness.on_rejected,
            on_tls_failed=witness.on_tls_failed,
            maximum_associations=settings.maximum_associations,
            memory=settings.memory,
            shutdown_grace=settings.shutdown_grace,
            ssl=settings.tls,
        )

    async def _close_users(self) -> None:
        if "users" in self.__dict__:
            await self.users.close()

    def _jobs(self, storage: ArchiveStorage) -> Jobs:
        from tomowire.server.jobs.jobs import Jobs
        from tomowire.server.jobs.parts import Parts

        parts = Parts(
            storage=storage,
            ae_title=self.settings.ae_title,
            node=self._node,
            retrieve=lambda: self._retrieve,
            keep=self._keep,
            account_of=lambda job, node: self.witness.sending(node, _maker_of(job)),
            asking=lambda job, node, *asked: self.witness.asking(node, _maker_of(job), *asked),
            reindexed=lambda job: self.witness.reindexing(job.job_id, _maker_of(job)),
            tls=lambda: self.settings.node_tls,
            deletion=storage.deletion,
        )
        return Jobs(storage.records, self.settings.jobs, parts, nodes=self.nodes.values, first_look=LONGEST)

    async def _when_it_is_quiet(self, lull: Lull) -> None:
        """Import what takes long, before somebody with an umlaut or a question has to wait for it, and begin with what needs it."""
        await lull.come()
        loop = asyncio.get_running_loop()
        for load in (load_character_sets, partial(load_queries, self.storage.index.dialect), _load_retrievals):
            await finished(loop.run_in_executor(None, load))
        self.jobs.wake()
        await self.audit.flush()

    def _services(self, storage: ArchiveStorage, witness: Witness) -> list[ServiceProvider]:
        served = self.metrics.on_served
        find = witness.find(ArchiveFind(storage.index, self.settings.ae_title).answer)
        get = Later([model.get for model in Model], self._get)
        move = Later([model.move for model in Model], self._move)
        guarded = partial(Guarded, on_refused=witness.on_unauthorized)
        return [
            guarded(Right.ECHO, Measured(Verification(), served)),
            guarded(Right.STORE, Measured(Storage(self._keep, any_sop_class=self.settings.any_sop_class), served)),
            guarded(Right.QUERY, Measured(Find(find, relational=True), served)),
            guarded(Right.RETRIEVE, Measured(get, witness.on_retrieved)),
            guarded(Right.RETRIEVE, Measured(move, witness.on_retrieved)),
        ]

    def _node(self, title: str) -> Node | None:
        """By its name too: of a job that was made where nobody knew the nodes."""
        return self.nodes.get(title) or find_node(self.nodes.values(), title)

    def _get(self) -> ServiceProvider:
        from tomowire.server.retrieve import ArchiveGet

        return ArchiveGet(self._retrieve)

    def _move(self) -> ServiceProvider:
        from tomowire.server.retrieve import ArchiveMove

        return ArchiveMove(self._retrieve)

    @cached_property
    def _retrieve(self) -> ArchiveRetrieve:
        from tomowire.server.retrieve import ArchiveRetrieve

        assert self._storage is not None
        retrieve = ArchiveRetrieve(
            self._storage.index, self._storage.root, self.nodes, self.settings.ae_title, self.settings.node_tls
        )
        retrieve.watch = self.witness.exports.watch
        return retrieve

    async def _keep(self, request: StoreRequest) -> Status:
        assert self._storage is not None
        association = request.association
        incoming = Incoming(
            request.sop_class_uid,
            request.sop_instance_uid,
            request.transfer_syntax_uid,
            association.calling_ae_title,
            association.called_ae_title,
            association.peer_address,
        )
        try:
            stored = await self._storage.ingest.receive(incoming, request.data)
        except StoreFailed:
            self.witness.refused(request)
            raise
        self.witness.stored(request, stored)
        self.quotas.received(stored, request.data.received)
        return SUCCESS

    def _measure(self, storage: ArchiveStorage) -> None:
        """Have the metrics of what is behind the services told."""
        metrics, audit = self.metrics, self.audit
        storage.commit.on_batch = metrics.on_batch
        storage.writer.on_commit = metrics.index_commits.observe
        metrics.watch_storage(storage)
        metrics.watch_audit(audit)
        metrics.watch_jobs(storage.records)

    def _address_of(self, ae_title: str) -> str:
        """Where the node with this title is; nothing if there is none."""
        node = self.nodes.get(ae_title)
        return f"{node.host}:{node.port}" if node is not None else ""


def _load_retrievals() -> None:
    """Import what C-GET and C-MOVE take."""
    import tomowire.server.retrieve  # noqa: F401 - for those who use it later


def _maker_of(job: Job) -> Party:
    return Party(job.created_by, job.address)


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])
