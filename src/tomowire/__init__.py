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
    from tomowire.aio.association_request import AssociationRequest, Identified
    from tomowire.aio.connect import associate
    from tomowire.aio.ending import AssociationEnd, Ending
    from tomowire.aio.listen import listen
    from tomowire.aio.server import Server
    from tomowire.aio.streams import Chunk, DataStream
    from tomowire.aio.tls import TlsClient, TlsServer
    from tomowire.aio.tls_certificate import PeerCertificate
    from tomowire.aio.tls_profiles import TlsProfile
    from tomowire.aio.tls_titles import titles_by_certificate
    from tomowire.errors import (
        AssociationAborted,
        AssociationError,
        AssociationLost,
        AssociationRejected,
        AssociationReleased,
        ConnectFailed,
        DataSetError,
        IdentityNotConfirmed,
        InvalidUid,
        MemoryShort,
        NoAcceptedContext,
        NotConfirmed,
        OperationFailed,
        OperationTimeout,
        PeerMisbehaved,
        QueryFailed,
        RetrieveFailed,
        StoreFailed,
        SubOperationFailed,
        TlsFailed,
        TomowireError,
        TranscodingFailed,
        UsageError,
        WireError,
    )
    from tomowire.protocol.negotiation import AcceptedContext, ProposedContext
    from tomowire.protocol.status import Status
    from tomowire.services.buffered import BufferedStorage
    from tomowire.services.diagnosis import Diagnosis, diagnose
    from tomowire.services.extended import QueryOptions, RetrieveOptions, StorageOptions, relational
    from tomowire.services.find import CFindScu
    from tomowire.services.find_scp import Find, FindAnswers, FindRequest
    from tomowire.services.folder import Folder
    from tomowire.services.get import CGetScu, Receiver, getting
    from tomowire.services.get_scp import Get
    from tomowire.services.invoking import NormalizedResponse
    from tomowire.services.models import Level, Model, querying
    from tomowire.services.move import CMoveScu, moving
    from tomowire.services.move_scp import Destination, Move
    from tomowire.services.normalized import EventReporter, NormalizedScu
    from tomowire.services.normalized_handling import NormalizedAnswer, NormalizedRequest
    from tomowire.services.normalized_scp import Normalized
    from tomowire.services.peer import Peer
    from tomowire.services.pixel_source import WithPixels
    from tomowire.services.query import Query
    from tomowire.services.related import Related, related
    from tomowire.services.retrieval import Retrieved
    from tomowire.services.retrieving import Progress
    from tomowire.services.sending import send_files
    from tomowire.services.sent import Sent
    from tomowire.services.sources import Source, as_source
    from tomowire.services.storage import CStoreScu, MoveOriginator, StoreResponse, storage
    from tomowire.services.storage_scp import Storage
    from tomowire.services.store_request import BufferedStoreRequest, StoreRequest
    from tomowire.services.stream_source import BareDataSet
    from tomowire.services.suboperations import Retrieval, RetrieveRequest
    from tomowire.services.timeouts import Timeouts
    from tomowire.services.transfer_progress import TransferProgress
    from tomowire.services.verification import CEchoScu, Verification, verification
    from tomowire.wire.user_identity import IdentityType, UserIdentity
    from tomowire.wire.user_information import CommonExtendedNegotiation, ExtendedNegotiation

# A library does not decide where its log goes. Without this, Python prints warnings to stderr.
getLogger("tomowire").addHandler(NullHandler())

__all__ = [
    "AcceptedContext",
    "Association",
    "AssociationAborted",
    "AssociationEnd",
    "AssociationError",
    "AssociationLost",
    "AssociationRejected",
    "AssociationReleased",
    "AssociationRequest",
    "BareDataSet",
    "BufferedStorage",
    "BufferedStoreRequest",
    "CEchoScu",
    "CFindScu",
    "CGetScu",
    "CMoveScu",
    "CStoreScu",
    "Chunk",
    "CommonExtendedNegotiation",
    "ConnectFailed",
    "DataSetError",
    "DataStream",
    "Destination",
    "Diagnosis",
    "Ending",
    "EventReporter",
    "ExtendedNegotiation",
    "Find",
    "FindAnswers",
    "FindRequest",
    "Folder",
    "Get",
    "Identified",
    "IdentityNotConfirmed",
    "IdentityType",
    "InvalidUid",
    "Level",
    "MemoryShort",
    "Model",
    "Move",
    "MoveOriginator",
    "NoAcceptedContext",
    "Normalized",
    "NormalizedAnswer",
    "NormalizedRequest",
    "NormalizedResponse",
    "NormalizedScu",
    "NotConfirmed",
    "OperationFailed",
    "OperationTimeout",
    "Peer",
    "PeerAddress",
    "PeerCertificate",
    "PeerMisbehaved",
    "Progress",
    "ProposedContext",
    "Query",
    "QueryFailed",
    "QueryOptions",
    "Receiver",
    "Related",
    "Retrieval",
    "RetrieveFailed",
    "RetrieveOptions",
    "RetrieveRequest",
    "Retrieved",
    "Sent",
    "Server",
    "Source",
    "Status",
    "Storage",
    "StorageOptions",
    "StoreFailed",
    "StoreRequest",
    "StoreResponse",
    "SubOperationFailed",
    "Timeouts",
    "TlsClient",
    "TlsFailed",
    "TlsProfile",
    "TlsServer",
    "TomowireError",
    "TranscodingFailed",
    "TransferProgress",
    "UsageError",
    "UserIdentity",
    "Verification",
    "WireError",
    "WithPixels",
    "__version__",
    "as_source",
    "associate",
    "diagnose",
    "getting",
    "listen",
    "moving",
    "querying",
    "related",
    "relational",
    "send_files",
    "storage",
    "titles_by_certificate",
    "verification",
]

# Each name is imported when it is first asked for: whoever listens need not wait until all that sends is there.
_HOME: Final = {
    "AcceptedContext": "tomowire.protocol.negotiation",
    "Association": "tomowire.aio.association",
    "AssociationAborted": "tomowire.errors",
    "AssociationEnd": "tomowire.aio.ending",
    "AssociationError": "tomowire.errors",
    "AssociationLost": "tomowire.errors",
    "AssociationRejected": "tomowire.errors",
    "AssociationReleased": "tomowire.errors",
    "AssociationRequest": "tomowire.aio.association_request",
    "BareDataSet": "tomowire.services.stream_source",
    "BufferedStorage": "tomowire.services.buffered",
    "BufferedStoreRequest": "tomowire.services.store_request",
    "CEchoScu": "tomowire.services.verification",
    "CFindScu": "tomowire.services.find",
    "CGetScu": "tomowire.services.get",
    "CMoveScu": "tomowire.services.move",
    "CStoreScu": "tomowire.services.storage",
    "Chunk": "tomowire.aio.streams",
    "CommonExtendedNegotiation": "tomowire.wire.user_information",
    "ConnectFailed": "tomowire.errors",
    "DataSetError": "tomowire.errors",
    "DataStream": "tomowire.aio.streams",
    "Destination": "tomowire.services.move_scp",
    "Diagnosis": "tomowire.services.diagnosis",
    "Ending": "tomowire.aio.ending",
    "EventReporter": "tomowire.services.normalized",
    "ExtendedNegotiation": "tomowire.wire.user_information",
    "Find": "tomowire.services.find_scp",
    "FindAnswers": "tomowire.services.find_scp",
    "FindRequest": "tomowire.services.find_scp",
    "Folder": "tomowire.services.folder",
    "Get": "tomowire.services.get_scp",
    "Identified": "tomowire.aio.association_request",
    "IdentityNotConfirmed": "tomowire.errors",
    "IdentityType": "tomowire.wire.user_identity",
    "InvalidUid": "tomowire.errors",
    "Level": "tomowire.services.models",
    "MemoryShort": "tomowire.errors",
    "Model": "tomowire.services.models",
    "Move": "tomowire.services.move_scp",
    "MoveOriginator": "tomowire.services.storage",
    "NoAcceptedContext": "tomowire.errors",
    "Normalized": "tomowire.services.normalized_scp",
    "NormalizedAnswer": "tomowire.services.normalized_handling",
    "NormalizedRequest": "tomowire.services.normalized_handling",
    "NormalizedResponse": "tomowire.services.invoking",
    "NormalizedScu": "tomowire.services.normalized",
    "NotConfirmed": "tomowire.errors",
    "OperationFailed": "tomowire.errors",
    "OperationTimeout": "tomowire.errors",
    "Peer": "tomowire.services.peer",
    "PeerAddress": "tomowire.aio.address",
    "PeerCertificate": "tomowire.aio.tls_certificate",
    "PeerMisbehaved": "tomowire.errors",
    "Progress": "tomowire.services.retrieving",
    "ProposedContext": "tomowire.protocol.negotiation",
    "Query": "tomowire.services.query",
    "QueryFailed": "tomowire.errors",
    "QueryOptions": "tomowire.services.extended",
    "Receiver": "tomowire.services.get",
    "Related": "tomowire.services.related",
    "Retrieval": "tomowire.services.suboperations",
    "RetrieveFailed": "tomowire.errors",
    "RetrieveOptions": "tomowire.services.extended",
    "RetrieveRequest": "tomowire.services.suboperations",
    "Retrieved": "tomowire.services.retrieval",
    "Sent": "tomowire.services.sent",
    "Server": "tomowire.aio.server",
    "Source": "tomowire.services.sources",
    "Status": "tomowire.protocol.status",
    "Storage": "tomowire.services.storage_scp",
    "StorageOptions": "tomowire.services.extended",
    "StoreFailed": "tomowire.errors",
    "StoreRequest": "tomowire.services.store_request",
    "StoreResponse": "tomowire.services.storage",
    "SubOperationFailed": "tomowire.errors",
    "Timeouts": "tomowire.services.timeouts",
    "TlsClient": "tomowire.aio.tls",
    "TlsFailed": "tomowire.errors",
    "TlsProfile": "tomowire.aio.tls_profiles",
    "TlsServer": "tomowire.aio.tls",
    "TomowireError": "tomowire.errors",
    "TranscodingFailed": "tomowire.errors",
    "TransferProgress": "tomowire.services.transfer_progress",
    "UsageError": "tomowire.errors",
    "UserIdentity": "tomowire.wire.user_identity",
    "Verification": "tomowire.services.verification",
    "WireError": "tomowire.errors",
    "WithPixels": "tomowire.services.pixel_source",
    "as_source": "tomowire.services.sources",
    "associate": "tomowire.aio.connect",
    "diagnose": "tomowire.services.diagnosis",
    "getting": "tomowire.services.get",
    "listen": "tomowire.aio.listen",
    "moving": "tomowire.services.move",
    "querying": "tomowire.services.models",
    "related": "tomowire.services.related",
    "relational": "tomowire.services.extended",
    "send_files": "tomowire.services.sending",
    "storage": "tomowire.services.storage",
    "titles_by_certificate": "tomowire.aio.tls_titles",
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
