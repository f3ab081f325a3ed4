"""What the SCPs of C-GET and C-MOVE have in common: what they agree to in a negotiation, and which requests they take."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tomowire.protocol.status import UNRECOGNIZED_OPERATION
from tomowire.services.answering import IDENTIFIER_SYNTAXES, RETRIEVE_NEGOTIATION_BYTES, agree_relational
from tomowire.services.calling import checked_handler

if TYPE_CHECKING:
    from collections.abc import Container, Iterable

    from tomowire.aio.serving import IncomingRequest
    from tomowire.services.suboperations import Objects, RetrieveRQ


class RetrievalScp:
    """Serves the requests of one `kind` in `sop_classes`; how, is for `_answer` to say."""

    def __init__(
        self, kind: type[RetrieveRQ], sop_classes: Iterable[str], objects: Objects, timeout: float, *, relational: bool
    ) -> None:
        self._kind = kind
        self._sop_classes = frozenset(sop_classes)
        self._objects = checked_handler(objects, "a handler of retrievals")
        self._timeout = timeout
        self._relational = relational

    def transfer_syntaxes(self, abstract_syntax: str) -> Container[str] | None:
        """Those of an identifier; None for what is not served."""
        return IDENTIFIER_SYNTAXES if abstract_syntax in self._sop_classes else None

    def may_be_scp(self, abstract_syntax: str) -> bool:
        """Nothing is sent back on the association."""
        return False

    def extended_negotiation(self, abstract_syntax: str, proposed: bytes) -> bytes | None:
        """PS3.4 C.5.2.1.2, C.5.3.1.2."""
        return agree_relational(proposed, RETRIEVE_NEGOTIATION_BYTES, relational=self._relational)

    async def handle(self, request: IncomingRequest) -> None:
        """Answer a request; one of another kind is refused (0211H)."""
        if isinstance(request.message, self._kind):
            await self._answer(request)
        else:
            await request.refuse(UNRECOGNIZED_OPERATION)

    async def _answer(self, request: IncomingRequest) -> None:
        raise NotImplementedError
