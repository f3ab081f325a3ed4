"""What jobs need of the archive."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from tomowire.aio.tls import TlsClient
    from tomowire.protocol.status import Status
    from tomowire.server.archive import ArchiveStorage
    from tomowire.server.jobs.model import Job
    from tomowire.server.nodes import Node
    from tomowire.server.retrieve import ArchiveRetrieve
    from tomowire.services.storage_scp import StoreRequest


class Deletes(Protocol):
    """What deletes: each is gone at once, or still there. Raises `UsageError` for what may not be deleted."""

    async def study(self, uid: str, *, by: str = "", address: str = "") -> object: ...

    async def series(self, uid: str, *, by: str = "", address: str = "") -> object: ...

    async def instance(self, uid: str, *, by: str = "", address: str = "") -> object: ...


class Account(Protocol):
    """Told what leaves the archive in one attempt at a job: for the audit trail."""

    def expect(self, sop_instance_uid: str, study_uid: str, sop_class_uid: str) -> None:
        """An object's turn is about to come."""

    def settle(self, sop_instance_uid: str, is_there: bool) -> None:
        """The destination has acknowledged it, or never will."""

    def end(self, reason: str = "") -> None:
        """The attempt is over; what was expected and is not settled was not sent, by this reason."""


class Reindexed(Protocol):
    """Told what one attempt at a job puts right in the index: for the audit trail."""

    def looked_at(self, study_uid: str, sop_class_uid: str, rows: int | None) -> None:
        """So many rows were put right from an object's file; None: it cannot be read, or is not what was stored."""

    def end(self) -> None:
        """The attempt is over."""


@dataclass(frozen=True, kw_only=True)
class Parts:
    """Of one archive. What takes long to import is a function that is called when it is needed."""

    storage: ArchiveStorage
    ae_title: str
    node: Callable[[str], Node | None]
    """The node of this AE title as it is configured now."""
    retrieve: Callable[[], ArchiveRetrieve]
    """How objects of the archive are found and sent."""
    keep: Callable[[StoreRequest], Awaitable[Status]]
    """The way in."""
    account_of: Callable[[Job, Node], Account]
    """Keeps account of what a job sends to a node."""
    asking: Callable[[Job, Node, str, bytes], AbstractContextManager[None]]
    """Around what a job asks a node; gets the SOP class and the identifier in Implicit VR, for the audit trail."""
    reindexed: Callable[[Job], Reindexed]
    """Keeps account of what a job puts right in the index."""
    tls: Callable[[], TlsClient | None] = lambda: None
    """How nodes with TLS are called now."""
    deletion: Deletes | None = None
