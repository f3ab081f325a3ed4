"""The reference of the names in `tomowire.__all__`, by the level that they belong to.

Which level that is stands in `LEVELS`. An exception belongs to the errors. A name that stands nowhere comes under `values`:
none can be left out by forgetting.
"""

from __future__ import annotations

from dataclasses import is_dataclass
from enum import Enum
from typing import Final

import tomowire

LEVELS: Final = {
    "peer": (
        "Peer",
        "Query",
        "Level",
        "Model",
        "Sent",
        "Retrieved",
        "Progress",
        "Folder",
        "send_files",
        "PeerAddress",
        "Timeouts",
        "diagnose",
        "Diagnosis",
    ),
    "association": (
        "associate",
        "Association",
        "ProposedContext",
        "AcceptedContext",
        "verification",
        "storage",
        "querying",
        "getting",
        "moving",
        "CEchoScu",
        "CStoreScu",
        "StoreResponse",
        "TransferProgress",
        "MoveOriginator",
        "Source",
        "as_source",
        "WithPixels",
        "BareDataSet",
        "CFindScu",
        "CGetScu",
        "Receiver",
        "CMoveScu",
        "NormalizedScu",
        "NormalizedResponse",
        "UserIdentity",
        "IdentityType",
        "TlsClient",
        "TlsProfile",
        "PeerCertificate",
        "relational",
        "related",
        "Related",
        "QueryOptions",
        "RetrieveOptions",
        "StorageOptions",
        "ExtendedNegotiation",
        "CommonExtendedNegotiation",
    ),
    "handler": (
        "listen",
        "Server",
        "Verification",
        "Storage",
        "StoreRequest",
        "BufferedStorage",
        "BufferedStoreRequest",
        "DataStream",
        "Chunk",
        "Find",
        "FindRequest",
        "FindAnswers",
        "Get",
        "Move",
        "Destination",
        "RetrieveRequest",
        "Retrieval",
        "Normalized",
        "NormalizedRequest",
        "NormalizedAnswer",
        "EventReporter",
        "AssociationRequest",
        "Identified",
        "AssociationEnd",
        "Ending",
        "TlsServer",
        "titles_by_certificate",
    ),
}
_PLACED: Final = frozenset(name for names in LEVELS.values() for name in names)


def names_of(level: str) -> list[str]:
    """The public names to be described under `level`: one of `LEVELS`, `errors` or `values`."""
    public = [name for name in tomowire.__all__ if not name.startswith("__")]
    if level in LEVELS:
        return [name for name in LEVELS[level] if name in public]
    rest = sorted(set(public) - _PLACED)
    return [name for name in rest if _is_exception(name) == (level == "errors")]


def entries(level: str) -> str:
    """A description of each name of the level, from its signature and docstring."""
    return "\n".join(["```{eval-rst}", *map(_entry, names_of(level)), "```"])


def _is_exception(name: str) -> bool:
    value = getattr(tomowire, name)
    return isinstance(value, type) and issubclass(value, BaseException)


def _entry(name: str) -> str:
    value = getattr(tomowire, name)
    if not isinstance(value, type):
        return f".. auto{'function' if callable(value) else 'data'}:: tomowire.{name}\n"
    # Of a value every field is told, though its name may say all that there is to say.
    is_value = is_dataclass(value) or issubclass(value, Enum)
    return f".. autoclass:: tomowire.{name}\n" + ("   :undoc-members:\n" if is_value else "")
