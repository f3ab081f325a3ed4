"""DICOM networking for asyncio.

Three levels, as deep as one needs: `Peer` for what one asks of a peer; `associate` and `listen` for associations in one's own
hands, with one object per service (`CEchoScu`, `CStoreScu`, `CFindScu`; `Verification`, `Storage`, `Find`); and the handler that
one writes.
"""

from __future__ import annotations

from importlib import import_module
from logging import NullHandler, getLogger
from typing import TYPE_CHECKING, Any, Final

from tomowire._version import __version__

if TYPE_CHECKING:
    from tomowire.aio.address import PeerAddress
    from tomowire.aio.association import Association
    from tomowire.aio.connect import associate
    from tomowire.aio.listen import Server, listen
    from tomowire.aio.streams import Chunk, DataStream
    from tomowire.errors import (
        AssociationAborted,
        AssociationError,
        AssociationLost,
        AssociationRejected,
        AssociationReleased,
        ConnectFailed,
        InvalidUid,
        NoAcceptedContext,
        OperationTimeout,
        PeerMisbehaved,
        QueryFailed,
        StoreFailed,
        TomowireError,
        UsageError,
        WireError,
    )
    from tomowire.protocol.negotiation import AcceptedContext, ProposedContext
    from tomowire.protocol.status import Status
    from tomowire.services.find import CFindScu
    from tomowire.services.find_scp import Find, FindAnswers, FindRequest
    from tomowire.services.folder import Folder
    from tomowire.services.models import Level, Model, querying
    from tomowire.services.peer import Peer
    from tomowire.services.query import Query
    from tomowire.services.sending import Sent, send_files
    from tomowire.services.storage import CStoreScu, Storage, StoreRequest, StoreResponse, storage
    from tomowire.services.verification import CEchoScu, Verification, verification

# A library does not decide where its log goes. Without this, Python prints warnings to stderr.
getLogger("tomowire").addHandler(NullHandler())

__all__ = [
    "AcceptedContext",
    "Association",
    "AssociationAborted",
    "AssociationError",
    "AssociationLost",
    "AssociationRejected",
    "AssociationReleased",
    "CEchoScu",
    "CFindScu",
    "CStoreScu",
    "Chunk",
    "ConnectFailed",
    "DataStream",
    "Find",
    "FindAnswers",
    "FindRequest",
    "Folder",
    "InvalidUid",
    "Level",
    "Model",
    "NoAcceptedContext",
    "OperationTimeout",
    "Peer",
    "PeerAddress",
    "PeerMisbehaved",
    "ProposedContext",
    "Query",
    "QueryFailed",
    "Sent",
    "Server",
    "Status",
    "Storage",
    "StoreFailed",
    "StoreRequest",
    "StoreResponse",
    "TomowireError",
    "UsageError",
    "Verification",
    "WireError",
    "__version__",
    "associate",
    "listen",
    "querying",
    "send_files",
    "storage",
    "verification",
]

# Each name is imported when it is first asked for: whoever listens need not wait until all that sends is there.
_HOME: Final = {
    "AcceptedContext": "tomowire.protocol.negotiation",
    "Association": "tomowire.aio.association",
    "AssociationAborted": "tomowire.errors",
    "AssociationError": "tomowire.errors",
    "AssociationLost": "tomowire.errors",
    "AssociationRejected": "tomowire.errors",
    "AssociationReleased": "tomowire.errors",
    "CEchoScu": "tomowire.services.verification",
    "CFindScu": "tomowire.services.find",
    "CStoreScu": "tomowire.services.storage",
    "Chunk": "tomowire.aio.streams",
    "ConnectFailed": "tomowire.errors",
    "DataStream": "tomowire.aio.streams",
    "Find": "tomowire.services.find_scp",
    "FindAnswers": "tomowire.services.find_scp",
    "FindRequest": "tomowire.services.find_scp",
    "Folder": "tomowire.services.folder",
    "InvalidUid": "tomowire.errors",
    "Level": "tomowire.services.models",
    "Model": "tomowire.services.models",
    "NoAcceptedContext": "tomowire.errors",
    "OperationTimeout": "tomowire.errors",
    "Peer": "tomowire.services.peer",
    "PeerAddress": "tomowire.aio.address",
    "PeerMisbehaved": "tomowire.errors",
    "ProposedContext": "tomowire.protocol.negotiation",
    "Query": "tomowire.services.query",
    "QueryFailed": "tomowire.errors",
    "Sent": "tomowire.services.sending",
    "Server": "tomowire.aio.listen",
    "Status": "tomowire.protocol.status",
    "Storage": "tomowire.services.storage",
    "StoreFailed": "tomowire.errors",
    "StoreRequest": "tomowire.services.storage",
    "StoreResponse": "tomowire.services.storage",
    "TomowireError": "tomowire.errors",
    "UsageError": "tomowire.errors",
    "Verification": "tomowire.services.verification",
    "WireError": "tomowire.errors",
    "associate": "tomowire.aio.connect",
    "listen": "tomowire.aio.listen",
    "querying": "tomowire.services.models",
    "send_files": "tomowire.services.sending",
    "storage": "tomowire.services.storage",
    "verification": "tomowire.services.verification",
}
_PARTS: Final = ("aio", "cli", "errors", "protocol", "server", "services", "uids", "wire")


def __getattr__(name: str) -> Any:
    if name in _PARTS:
        return import_module(f"{__name__}.{name}")
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(home), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
