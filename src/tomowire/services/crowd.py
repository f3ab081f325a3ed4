"""How many requests of a kind are served at once. Each takes memory for as long as its peer likes."""

from __future__ import annotations

import logging
from collections import Counter
from typing import TYPE_CHECKING, TypeVar

from tomowire.protocol.status import UNABLE_TO_PERFORM_SUBOPERATIONS
from tomowire.wire.messages import CMoveRQ

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tomowire.aio.association import Association
    from tomowire.aio.serving import IncomingRequest

T = TypeVar("T")

logger = logging.getLogger("tomowire.retrieve")


class Crowd:
    """Lets in `most_of_one` retrievals of each association at a time, `most_to_one` to each destination of C-MOVE, and `most` of
    all together, where these are given.
    """

    def __init__(self, most_of_one: int, most: int | None = None, *, most_to_one: int | None = None) -> None:
        self._most = most
        self._most_of_one = most_of_one
        self._most_to_one = most_to_one
        self._inside: Counter[Association] = Counter()
        self._going: Counter[str] = Counter()

    async def serve(self, request: IncomingRequest, handle: Callable[[IncomingRequest], Awaitable[None]]) -> None:
        """Let `handle` serve a C-GET or C-MOVE; refuse it at once where there are too many already.

        Who waited might hold up what those inside are waiting for.
        """
        association, message = request.association, request.message
        destination = message.move_destination.strip() if isinstance(message, CMoveRQ) else ""
        refusal = self._refusal(association, destination)
        if refusal is not None:
            logger.warning("%s: a retrieval was refused: %s", association.title, refusal)
            await request.refuse(UNABLE_TO_PERFORM_SUBOPERATIONS, refusal)
            return
        self._inside[association] += 1
        self._going[destination] += 1
        try:
            await handle(request)
        finally:
            _decrease(self._inside, association)
            _decrease(self._going, destination)

    def _refusal(self, association: Association, destination: str) -> str | None:
        if self._inside[association] >= self._most_of_one:
            return "too many retrievals at once"
        if self._most is not None and self._inside.total() >= self._most:
            return "too many retrievals at once"
        if self._most_to_one is not None and self._going[destination] >= self._most_to_one:
            return f"too many moves to {destination} at once"
        return None


def _decrease(counter: Counter[T], key: T) -> None:
    counter[key] -= 1
    if not counter[key]:
        del counter[key]
