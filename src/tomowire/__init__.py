"""DICOM networking for asyncio.

Three levels, as deep as one needs: `Peer` for what one asks of a peer; `associate` and `listen` for associations in one's own
hands, with one object per service (`CEchoScu`, `CStoreScu`, `CFindScu`, `CGetScu`, `CMoveScu`; `Verification`, `Storage`,
`Find`, `Get`, `Move`); and the handler that one writes.
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
        NotConfirmed,
        OperationTimeout,
        PeerMisbehaved,
        QueryFailed,
        RetrieveFailed,
        StoreFailed,
        SubOperationFailed,
        TomowireError,
        UsageError,
        WireError,
    )
    from tomowire.protocol.negotiation import AcceptedContext, ProposedContext
    from tomowire.protocol.status import Status
    from tomowire.services.find import CFindScu
    from tomowire.services.find_scp import Find, FindAnswers, FindRequest
    from tomowire.services.folder import Folder
    from tomowire.services.get import CGetScu, Receiver, getting
    from tomowire.services.get_scp import Get
    from tomowire.services.models import Level, Model, querying
    from tomowire.services.move import CMoveScu, moving
    from tomowire.services.move_scp import Destination, Move
    from tomowire.services.peer import Peer
    from tomowire.services.query import Query
    from tomowire.services.retrieval import Retrieved
    from tomowire.services.retrieving import Progress
    from tomowire.services.sending import Sent, send_files
    from tomowire.services.storage import CStoreScu, StoreResponse, storage
    from tomowire.services.storage_scp import Storage, StoreRequest
    from tomowire.services.suboperations import Retrieval, RetrieveRequest
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
    "CGetScu",
    "CMoveScu",
    "CStoreScu",
    "Chunk",
    "ConnectFailed",
    "DataStream",
    "Destination",
    "Find",
    "FindAnswers",
    "FindRequest",
    "Folder",
    "Get",
    "InvalidUid",
    "Level",
    "Model",
    "Move",
    "NoAcceptedContext",
    "NotConfirmed",
    "OperationTimeout",
    "Peer",
    "PeerAddress",
    "PeerMisbehaved",
    "Progress",
    "ProposedContext",
    "Query",
    "QueryFailed",
    "Receiver",
    "Retrieval",
    "RetrieveFailed",
    "RetrieveRequest",
    "Retrieved",
    "Sent",
    "Server",
    "Status",
    "Storage",
    "StoreFailed",
    "StoreRequest",
    "StoreResponse",
    "SubOperationFailed",
    "TomowireError",
    "UsageError",
    "Verification",
    "WireError",
    "__version__",
    "associate",
    "getting",
    "listen",
    "moving",
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
    "CGetScu": "tomowire.services.get",
    "CMoveScu": "tomowire.services.move",
    "CStoreScu": "tomowire.services.storage",
    "Chunk": "tomowire.aio.streams",
    "ConnectFailed": "tomowire.errors",
    "DataStream": "tomowire.aio.streams",
    "Destination": "tomowire.services.move_scp",
    "Find": "tomowire.services.find_scp",
    "FindAnswers": "tomowire.services.find_scp",
    "FindRequest": "tomowire.services.find_scp",
    "Folder": "tomowire.services.folder",
    "Get": "tomowire.services.get_scp",
    "InvalidUid": "tomowire.errors",
    "Level": "tomowire.services.models",
    "Model": "tomowire.services.models",
    "Move": "tomowire.services.move_scp",
    "NoAcceptedContext": "tomowire.errors",
    "NotConfirmed": "tomowire.errors",
    "OperationTimeout": "tomowire.errors",
    "Peer": "tomowire.services.peer",
    "PeerAddress": "tomowire.aio.address",
    "PeerMisbehaved": "tomowire.errors",
    "Progress": "tomowire.services.retrieving",
    "ProposedContext": "tomowire.protocol.negotiation",
    "Query": "tomowire.services.query",
    "QueryFailed": "tomowire.errors",
    "Receiver": "tomowire.services.get",
    "Retrieval": "tomowire.services.suboperations",
    "RetrieveFailed": "tomowire.errors",
    "RetrieveRequest": "tomowire.services.suboperations",
    "Retrieved": "tomowire.services.retrieval",
    "Sent": "tomowire.services.sending",
    "Server": "tomowire.aio.listen",
    "Status": "tomowire.protocol.status",
    "Storage": "tomowire.services.storage_scp",
    "StoreFailed": "tomowire.errors",
    "StoreRequest": "tomowire.services.storage_scp",
    "StoreResponse": "tomowire.services.storage",
    "SubOperationFailed": "tomowire.errors",
    "TomowireError": "tomowire.errors",
    "UsageError": "tomowire.errors",
    "Verification": "tomowire.services.verification",
    "WireError": "tomowire.errors",
    "associate": "tomowire.aio.connect",
    "getting": "tomowire.services.get",
    "listen": "tomowire.aio.listen",
    "moving": "tomowire.services.move",
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
