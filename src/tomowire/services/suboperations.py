"""What the SCPs of C-GET and C-MOVE share (PS3.4 C.4.2, C.4.3): what they ask of a handler, and the account of the sub-operations."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tomowire.wire.value import value

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from tomowire.aio.association import Association
    from tomowire.services.dicom_file import DicomFile
    from tomowire.services.models import Model
    from tomowire.wire.messages import CGetRQ, CMoveRQ


@value()
class RetrieveRequest:
    """One incoming C-GET or C-MOVE, as its handler sees it; who asks stands in `association`."""

    model: Model
    identifier: bytes
    """The data set with the unique keys, as it came: see `tomowire.services.identifiers.decode`."""
    transfer_syntax_uid: str
    """That of `identifier`."""
    association: Association
    message: CGetRQ | CMoveRQ
    relational: bool = False
    """Whether relational retrieval was negotiated: unique keys above the level may be left out then (PS3.4 C.4.2.2.2.1)."""


@value()
class Retrieval:
    """The objects that a request selects: how many, and where they lie, as many at once as the handler likes.

    An object that is known but has no file (any more) is given with the path where it should be: its sub-operation fails.
    """

    total: int
    files: AsyncIterator[Sequence[DicomFile]]
