"""What jobs need of the archive."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from tomowire.aio.tls import TlsClient
    from tomowire.protocol.status import Status
    from tomowire.server.archive import ArchiveStorage
    from tomowire.server.audit.exports import Account
    from tomowire.server.nodes import Node
    from tomowire.server.retrieve import ArchiveRetrieve
    from tomowire.services.storage_scp import StoreRequest


class Deletes(Protocol):
    """What deletes: each is gone at once, or still there. Raises `UsageError` for what may not be deleted."""

    async def study(self, uid: str, *, by: str = "") -> object: ...

    async def series(self, uid: str, *, by: str = "") -> object: ...

    async def instance(self, uid: str, *, by: str = "") -> object: ...


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
    tls: Callable[[], TlsClient | None] = lambda: None
    """How nodes with TLS are called, as it is configured now."""
    deletion: Deletes | None = None
    account: Callable[[Node, str], Account] | None = None
    """Keeps account, for the audit, of what is sent to a node on whose behalf."""
