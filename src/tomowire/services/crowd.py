"""How many requests of a kind are served at once. Each takes memory for as long as its peer likes."""

from __future__ import annotations

import logging
from collections import Counter
from typing import TYPE_CHECKING

from tomowire.protocol.status import UNABLE_TO_PERFORM_SUBOPERATIONS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tomowire.aio.association import Association
    from tomowire.aio.serving import IncomingRequest

logger = logging.getLogger("tomowire.retrieve")


class Crowd:
    """Lets in `most_of_one` retrievals of each association at a time, and `most` of all together, if that is given."""

    def __init__(self, most_of_one: int, most: int | None = None) -> None:
        self._most = most
        self._most_of_one = most_of_one
        self._inside: Counter[Association] = Counter()

    async def serve(self, request: IncomingRequest, handle: Callable[[IncomingRequest], Awaitable[None]]) -> None:
        """Let `handle` serve a C-GET or C-MOVE; refuse it at once where there are too many already.

        Who waited might hold up what those inside are waiting for.
        """
        inside, association = self._inside, request.association
        if inside[association] >= self._most_of_one or (self._most is not None and inside.total() >= self._most):
            logger.warning("%s: a retrieval was refused: there are too many at once", association.title)
            await request.refuse(UNABLE_TO_PERFORM_SUBOPERATIONS, "too many retrievals at once")
            return
        inside[association] += 1
        try:
            await handle(request)
        finally:
            inside[association] -= 1
            if not inside[association]:
                del inside[association]
