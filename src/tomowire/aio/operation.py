"""A request of ours that is under way, and the responses that come for it."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tomowire.aio.streams import DataStream
    from tomowire.wire.messages import Response


class Operation:
    """One request of ours. `next_response` gives the responses as they come; `Association.finish` ends it."""

    __slots__ = ("_responses", "_waiter", "error", "message_id", "name", "timeout", "touched")

    def __init__(self, name: str, message_id: int, timeout: float | None, now: float) -> None:
        self.name = name
        self.message_id = message_id
        self.timeout = timeout
        """The seconds in which something must move; None for ever."""
        self.touched = now
        """When something last moved for this operation, in the loop's time."""
        self.error: Exception | None = None
        """Why no further response will come."""
        self._responses: deque[tuple[Response, DataStream | None]] = deque()
        self._waiter: asyncio.Future[None] | None = None

    async def next_response(self) -> tuple[Response, DataStream | None]:
        """The next response, with its data set if it has one. Raises what ended the association, or `OperationTimeout`."""
        while not self._responses:
            if self.error is not None:
                raise self.error.with_traceback(None)
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        return self._responses.popleft()

    def deliver(self, response: Response, data: DataStream | None, now: float) -> None:
        """A response has come at `now`."""
        self.touched = now
        self._responses.append((response, data))
        self._wake()

    def fail(self, error: Exception) -> None:
        """No further response will come. Those that have come can still be taken; the first reason counts."""
        if self.error is None:
            self.error = error
            self._wake()

    def close(self) -> None:
        """Give back the memory of responses that nobody took."""
        while self._responses:
            _, data = self._responses.popleft()
            if data is not None:
                data.close()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
