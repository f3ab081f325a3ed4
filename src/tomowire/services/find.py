"""C-FIND of the Query/Retrieve service class (PS3.4 C.4.1), both sides."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tomowire.wire.value import value

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tomowire.aio.association import Association
    from tomowire.services.models import Model
    from tomowire.wire.messages import CFindRQ


@value()
class FindRequest:
    """One incoming C-FIND, as its handler sees it; who asks stands in `association`."""

    model: Model
    identifier: bytes
    """The data set with the keys, as it came: see `tomowire.services.identifiers.decode`."""
    transfer_syntax_uid: str
    """That of `identifier`, and of the identifiers in the answers."""
    association: Association
    message: CFindRQ
    relational: bool = False
    """Whether relational queries were negotiated: keys of every level, above that of the query too (PS3.4 C.4.1.2.2.1)."""


@value()
class FindAnswers:
    """Some matches, of which each becomes a pending response: FF00H, or FF01H when optional keys are not supported."""

    identifiers: Sequence[bytes]
    optional_keys_supported: bool = True
