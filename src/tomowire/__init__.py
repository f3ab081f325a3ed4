"""DICOM networking for asyncio.

Three levels, as deep as one needs: `Peer` for what one asks of a peer; `associate` and `listen` for associations in one's own
hands, with one object per service (`CEchoScu`, `CStoreScu`; `Verification`, `Storage`); and the handler that one writes.
"""

from __future__ import annotations

from logging import NullHandler, getLogger

from tomowire._version import __version__
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
    StoreFailed,
    TomowireError,
    UsageError,
    WireError,
)
from tomowire.protocol.negotiation import AcceptedContext, ProposedContext
from tomowire.protocol.status import Status
from tomowire.services.folder import Folder
from tomowire.services.peer import Peer
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
    "CStoreScu",
    "Chunk",
    "ConnectFailed",
    "DataStream",
    "Folder",
    "InvalidUid",
    "NoAcceptedContext",
    "OperationTimeout",
    "Peer",
    "PeerAddress",
    "PeerMisbehaved",
    "ProposedContext",
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
    "send_files",
    "storage",
    "verification",
]
