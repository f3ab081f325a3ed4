"""Work that outlives a process: made, looked at, cancelled and retried by anybody, worked on by an archive that runs."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Final, Self

from tomowire.aio.address import check_ae_title
from tomowire.errors import UsageError
from tomowire.server.jobs.bell import heard
from tomowire.server.jobs.making import make, make_of_objects, require_all
from tomowire.server.jobs.model import ItemState, Job, JobItem, JobKind, JobState, QueueFigures
from tomowire.server.jobs.request import NewJob
from tomowire.server.jobs.runner import Runner
from tomowire.server.lazily import Lazily
from tomowire.server.nodes import find_node
from tomowire.server.settings import JobSettings
from tomowire.services.models import Level
from tomowire.uids import is_tolerable_uid

if TYPE_CHECKING:
    from tomowire.server.jobs import claims, table
    from tomowire.server.jobs.parts import Parts
    from tomowire.server.jobs.work import Kind
    from tomowire.server.nodes import Node
    from tomowire.server.records import Records
else:
    claims = Lazily("tomowire.server.jobs.claims")
    table = Lazily("tomowire.server.jobs.table")

__all__ = ["ItemState", "Job", "JobItem", "JobKind", "JobState", "Jobs", "Level", "QueueFigures"]

_FIRST_LOOK: Final = 2.0
"""Seconds: who starts an archive waits for its port, and not for what jobs import."""
_ID: Final = re.compile(r"[0-9a-f-]{36}")
METHODS: Final = ("get", "move")
_SHOWN: Final = 5
"""Nodes that are named to who has named none of them."""


class Jobs:
    """The jobs in an index database. Within `async with Jobs(records, settings, parts)` this process works on them too.

    A job is made whole or not at all, and is done at least once: after a crash it goes on where it was. What was acknowledged is
    written down at once and not done again; what was acknowledged in the last milliseconds before a crash may be.

    `nodes` gives the nodes that are known, and None if nobody here knows: then a job for any node is made.

    `by` is who wants a job, and `address` from where that was asked for; "" : from here.

    All methods raise `IndexUnavailable`. `on_end` is called with each job that this process has ended.
    """

    def __init__(
        self,
        records: Records,
        settings: JobSettings | None = None,
        parts: Parts | None = None,
        *,
        kinds: Mapping[JobKind, Kind] | None = None,
        nodes: Callable[[], Collection[Node]] | None = None,
        owner: str | None = None,
        first_look: float = _FIRST_LOOK,
        on_end: Callable[[Job], None] = lambda job: None,
    ) -> None:
        self._records = records
        self._settings = settings or JobSettings()
        self._parts = parts
        self._kinds = kinds
        self._nodes = nodes
        self._owner = owner
        self._first_look = first_look
        self.on_end = on_end
        self._runner: Runner | None = None
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        runner = Runner(
            self._records,
            self._kinds if self._kinds is not None else self._own_kinds(),
            self._settings,
            owner=self._owner or self._own_name(),
            first_look=self._first_look,
            on_end=self._ended,
        )
        async with AsyncExitStack() as stack:
            if self._parts is not None:
                stack.enter_context(heard(self._parts.storage.root, runner.wake))
            await stack.enter_async_context(runner)
            self._stack = stack.pop_all()
        self._runner = runner
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop working: objects that are being sent are finished, within seconds; what is left waits for the next start."""
        self._runner = None
        await self._stack.aclose()

    async def send(self, level: Level | str, uids: Iterable[str], node: str, *, by: str, address: str = "") -> Job:
        """Send all that the archive has now of these patients, studies, series or instances to `node` (its AE title, or its name).

        Raises `UsageError` for what the archive does not have, and for a node that it does not know.
        """
        level = Level(level)
        named = _distinct(level, uids)
        node = self._known_node(node)
        await require_all(self._records, level, named)
        new = _new(JobKind.SEND, node, by, address, level=level.value, uids=_few(named))
        return self._made(await make_of_objects(self._records, new, level, named))

    async def retrieve(
        self,
        level: Level | str,
        uids: Iterable[str],
        node: str,
        *,
        by: str,
        address: str = "",
        method: str = "get",
        study_uid: str | None = None,
        series_uid: str | None = None,
    ) -> Job:
        """Get these patients, studies, series or instances from `node` into this archive: with C-GET, or by a C-MOVE to ourselves.

        Series need `study_uid`, instances `series_uid` as well, since most peers refuse without. Raises `UsageError`.
        """
        if method not in METHODS:
            raise UsageError(f"the method of a retrieval is {' or '.join(METHODS)}, and not {method!r}")
        level = Level(level)
        named = _distinct(level, uids)
        above = {"study_uid": study_uid, "series_uid": series_uid}
        new = _new(
            JobKind.RETRIEVE,
            self._known_node(node),
            by,
            address,
            level=level.value,
            method=method,
            uids=_few(named),
            **above,
        )
        return self._made(await make(self._records, new, named))

    async def query(
        self, level: Level | str, keys: Mapping[str, Any], node: str, *, by: str, address: str = "", most: int = 1000
    ) -> Job:
        """Ask `node`; `keys` are DICOM keywords and what they must match. Up to `most` answers are kept as the job's result."""
        new = _new(
            JobKind.QUERY, self._known_node(node), by, address, level=Level(level).value, keys=dict(keys), most=most
        )
        return self._made(await make(self._records, new, [""]))

    async def delete(self, level: Level | str, uids: Iterable[str], *, by: str, address: str = "") -> Job:
        """Delete these studies, series or instances. Raises `UsageError` for what the archive does not have."""
        level = Level(level)
        named = _distinct(level, uids)
        if level is Level.PATIENT:
            raise UsageError("a patient is deleted study by study: name the studies")
        await require_all(self._records, level, named)
        new = _new(JobKind.DELETE, "", by, address, level=level.value, uids=_few(named))
        return self._made(await make(self._records, new, named))

    async def reindex(self, study_uids: Iterable[str], *, by: str, address: str = "") -> Job:
        """Read the files of these studies again, and mend what the index says of them. Raises `UsageError`."""
        named = _distinct(Level.STUDY, study_uids)
        await require_all(self._records, Level.STUDY, named)
        new = _new(JobKind.REINDEX, "", by, address, level=Level.STUDY.value, uids=_few(named))
        return self._made(await make(self._records, new, named))

    async def list(
        self,
        *,
        state: JobState | str | Sequence[JobState | str] | None = None,
        kind: JobKind | str | Sequence[JobKind | str] | None = None,
        after: str | None = None,
        limit: int = 100,
    ) -> Sequence[Job]:
        """Jobs, those made last first, without results; the next page comes `after` the id of the last one."""
        states = [JobState(each).value for each in _several(state)]
        kinds = [JobKind(each).value for each in _several(kind)]
        if after is not None and not _is_id(after):
            return ()
        return await self._records.read(lambda connection: table.page(connection, states, kinds, after, limit))

    async def get(self, job_id: str) -> Job | None:
        """One job, with its result; None if there is none."""
        if not _is_id(job_id):
            return None
        return await self._records.read(lambda connection: table.get(connection, job_id))

    async def items(
        self,
        job_id: str,
        *,
        state: ItemState | str | Sequence[ItemState | str] | None = None,
        after: int = -1,
        limit: int = 100,
    ) -> Sequence[JobItem]:
        """What the job is about, in order; the next page comes `after` the position of the last one."""
        states = [ItemState(each).value for each in _several(state)]
        if not _is_id(job_id):
            return ()
        return await self._records.read(lambda connection: table.items(connection, job_id, states, after, limit))

    async def cancel(self, job_id: str) -> Job | None:
        """Cancel a job; one that runs is stopped, at once if this process works on it. One that is over stays as it is.

        Gives the job as it is now; None if there is none.
        """
        if not _is_id(job_id):
            return None
        job = await self._records.write(lambda connection: claims.cancel(connection, job_id))
        if self._runner is not None:
            self._runner.cancel(job_id)
        return job

    async def retry(self, job_id: str) -> Job | None:
        """Try again what has failed or was cancelled, as far as it was not acknowledged; what waits is tried now.

        What runs or is done stays as it is. Gives the job as it is now; None if there is none.
        """
        if not _is_id(job_id):
            return None
        job = await self._records.write(lambda connection: claims.retry(connection, job_id))
        self.wake()
        return job

    async def figures(self) -> QueueFigures:
        """How long the queue is, and how old."""
        return await self._records.read(lambda connection: table.figures(connection))  # noqa: PLW0108 - imports it

    async def node_changed(self, node: str) -> None:
        """The node of this AE title is configured anew, or is known to be up: what waits for it is tried now."""
        await self._records.write(lambda connection: claims.hurry(connection, node))
        self.wake()

    def _ended(self, job: Job) -> None:
        self.on_end(job)

    def wake(self) -> None:
        """Something has changed in the database."""
        if self._runner is not None:
            self._runner.wake()

    def _made(self, job: Job) -> Job:
        self.wake()
        return job

    def _known_node(self, called: str) -> str:
        """The AE title of the node that is called so."""
        if self._nodes is None:
            return check_ae_title(called)
        known = self._nodes()
        if (node := find_node(known, called.strip(" "))) is None:
            names = {name for node in known for name in (node.name, node.ae_title) if name}
            raise UsageError(f"the archive knows no node {called}{_instead(called, names)}")
        return node.ae_title

    def _own_name(self) -> str:
        """Of this process, and of who was here before: one process at a time has the data directory of an archive."""
        where = self._parts.storage.root if self._parts is not None else os.getpid()
        return f"{socket.gethostname()}:{where}"

    def _own_kinds(self) -> Mapping[JobKind, Kind]:
        from tomowire.server.jobs.kinds import kinds_of

        assert self._parts is not None, "who works on jobs needs the parts of an archive"
        return kinds_of(self._parts)


def _instead(title: str, known: Collection[str]) -> str:
    """What the node may be that was meant."""
    from tomowire.server.config.problems import nearest

    alone = title.rpartition("@")[0] or title  # without its address, if that is what was given
    if (meant := nearest(alone, known)) is not None:
        return f": did you mean {meant}?"
    there = ", ".join(sorted(known)[:_SHOWN]) + (", ..." if len(known) > _SHOWN else "")
    return f": add it to its configuration (it has {there or 'no nodes at all'})"


def _new(kind: JobKind, node: str, by: str, address: str, **parameters: Any) -> NewJob:
    given = {**parameters, "address": address or None}
    return NewJob(kind, node, {name: value for name, value in given.items() if value is not None}, by)


def _is_id(text: str) -> bool:
    return _ID.fullmatch(text) is not None


def _distinct(level: Level, uids: Iterable[str]) -> Sequence[str]:
    """Raises `UsageError` for what can be no UID, or Patient ID."""
    if isinstance(uids, str):
        raise UsageError(f"UIDs are given as a list: [{uids!r}]")
    named = list(dict.fromkeys(uids))
    if not named:
        raise UsageError("nothing is named: which UIDs?")
    for each in named:
        if not (_is_patient_id(each) if level is Level.PATIENT else is_tolerable_uid(each)):
            raise UsageError(f"{each[:80]!r} is not a {'Patient ID' if level is Level.PATIENT else 'UID'}")
    return named


def _is_patient_id(text: str) -> bool:
    """PS3.5 6.2, LO: no control characters; and what is no text is none either."""
    return bool(text) and text.isprintable()


def _few(uids: Sequence[str]) -> Sequence[str]:
    """What is shown of what was asked for."""
    return uids[:20]


def _several(given: Any) -> Sequence[Any]:
    if given is None:
        return ()
    return (given,) if isinstance(given, str) else given
